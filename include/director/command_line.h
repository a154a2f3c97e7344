// A command line in ipvsadm's grammar, as a value.
//
// Words in, Command out; pure. It decides nothing about the table of services (plan.h and Balancer::apply()
// do), prints nothing (listing.h does), looks nothing up (lookups.h). Used for every line of a rules file
// (rules.h) and for what vsadm sends (control/command.h). Texts and exit codes of refusals are those of
// ipvsadm 1.31 as Debian builds it, to the byte.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "director/base/result.h"
#include "director/core/change.h"
#include "director/lookups.h"

namespace director {

// --- What a command line may say
// -------------------------------------------------------------------------------------

/// Columns of a listing of services; ipvsadm's precedence is the order stats, rate, ... plain.
enum class View : std::uint8_t { stats, rate, thresholds, persistent_connections, tunnels, plain };
enum class Addresses : std::uint8_t { named, numeric };   ///< -n: numeric
enum class Numbers : std::uint8_t { short_, exact };      ///< --exact
enum class Order : std::uint8_t { sorted, as_kept };      ///< --nosort: as kept
enum class Notation : std::uint8_t { text, json };        ///< --json (ours)
/// What -S writes beyond ipvsadm's: nothing; what a real ipvsadm can restore too (thresholds, changed time-outs); everything (--extended).
enum class Extras : std::uint8_t { left_out, restorable, included };

struct ListStyle {
  View view = View::plain;
  Addresses addresses = Addresses::named;
  Numbers numbers = Numbers::short_;
  Order order = Order::sorted;
};

/// -L
struct List {
  enum class Table : std::uint8_t { services, connections, timeouts, daemons, classes };
  Table table = Table::services;
  std::optional<ServiceKey> service;  ///< with Table::services: only this one
  ListStyle style;
  Notation notation = Notation::text;
};
/// -S
struct Save {
  Addresses addresses = Addresses::named;
  Extras extras = Extras::restorable;
};
/// -R: rules from standard input
struct Restore {};
struct Help {};
struct Version {};

using Command = std::variant<Change, List, Save, Restore, Help, Version>;

// --- Reading it
// --------------------------------------------------------------------------------------------------------

/// Why a command line says nothing, as ipvsadm tells it.
struct BadCommand {
  std::string message;  ///< ipvsadm's words, without the final line feed
  int exit_code = 2;    ///< ipvsadm's: 2 for what its grammar refuses, 255 for the rest
  std::size_t word =
      0;  ///< which word of the line is to blame; == the number of words: something is missing at the end
  std::string expected;  ///< what would have been right; empty: the message says it all
};

/// The most an ipvsadm weight may be (Debian's build; upstream's man page says 65535) and the longest
/// time-out, 31 days.
inline constexpr std::int64_t kMaxWeight = 2147483647;
inline constexpr std::int64_t kMaxTimeoutSeconds = 86400L * 31;

/// The option for a state's time-out, without "--": "timeout-syn-recv", of SCTP "timeout-sctp-closed".
std::string_view timeout_option(State state);

/// What is said when the first option is no command, and about -R within -R.
BadCommand try_help(std::string_view program);

/// How far a command line has come that somebody is typing: for those who help (vsadm/completion.h).
struct Unfinished {
  struct Next {
    char letter;            ///< 0: long only
    std::string_view name;  ///< without "--"
    bool is_required;       ///< the command says nothing without it
  };
  std::string_view command;   ///< its option's long name; empty: none yet
  std::string_view value_of;  ///< the long name of the option whose value is due; empty: none is
  std::vector<std::pair<std::string_view, std::string>> given;  ///< options by their long names, and their values
  std::vector<Next> next;                                       ///< options that may come: commands first, then what fits the command
};
/// Words that make no sense are passed over.
[[nodiscard]] Unfinished read_unfinished(std::span<const std::string> words);

/// The words after the program's name. `program` is that name, for messages. Names of hosts and ports go
/// through `lookups`; when one is missing there, the result is a BadCommand about it.
Result<Command, BadCommand> parse_command(std::string_view program, std::span<const std::string> words,
                                          Lookups& lookups);

}  // namespace director
