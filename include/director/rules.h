// Rules as text: a file of lines as `ipvsadm -Sn` prints them, and such lines from values.
//
// Pure. Used by the daemon for its rules file, by vsadm's apply, by replay, by tests, and for every listing
// that prints rules. The grammar of one line is command_line.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "director/base/result.h"
#include "director/command_line.h"
#include "director/core/change.h"
#include "director/lookups.h"

namespace director {

// --- Reading
// -----------------------------------------------------------------------------------------------------------

/// A Change and where it stands in its file, for those who have to complain about it.
struct Rule {
  Change change;
  std::size_t line = 0;    ///< from 1
  std::size_t column = 0;  ///< from 1, of its first word
};

/// Where a rules file is wrong, and how.
struct RulesError {
  std::size_t line = 0;    ///< from 1
  std::size_t column = 0;  ///< from 1
  std::string message;     ///< what is wrong and what was expected

  /// "web.rules:3:24: illegal weight specified, expected ..."
  [[nodiscard]] std::string in(std::string_view file) const;
};

/// A whole rules file: lines as `ipvsadm -Sn` prints them. Comments from a '#' that begins a word, blank
/// lines and a leading word `ipvsadm` or `vsadm` are allowed. -A, -a, --class and --set only: a rules file says what
/// there is; the other commands are for vsadm.
Result<std::vector<Rule>, RulesError> parse_rules(std::string_view text);
Result<std::vector<Rule>, RulesError> parse_rules(std::string_view text, Lookups& lookups);

/// A line's words and the columns (from 1) they begin at; comment and leading program name are gone. Empty:
/// nothing on it.
struct Words {
  std::vector<std::string> words;
  std::vector<std::size_t> columns;
  std::size_t end_column = 1;  ///< just behind the last word
};
Words split_rule(std::string_view line);

/// A knob and its value as text, as --tune and vsadm tune take them. The kernel's sync_threshold is two numbers, "3 50", and means two
/// knobs here; all others are one. The error says what was expected.
Result<std::vector<SetTunable>> read_tunable(std::string_view name, std::string_view value);

/// ipvsadm's words for what the balancer refused.
std::string_view text_of(Refusal refusal);

// --- Writing it
// ------------------------------------------------------------------------------------------------------

/// The command line that says this change, without the program's name: "-A -t 10.9.0.100:80 -s wlc", "-d ...". parse_command()
/// reads it back. Changes of the network have none: "(network)".
std::string command_text(const Change& change);
/// "-t 10.9.0.100:80", "-f 7 -6": a service as options name it.
std::string option_text(const ServiceKey& key);
/// "-A -t 10.9.0.100:80 -s wlc -p 360", without line feed; parse_command() reads it back. --no-server, --timeout-... and what else
/// ipvsadm doesn't have only with Extras::included.
std::string rule_text(const ServiceConfig& service, Extras extras = Extras::included);
/// "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g -w 1"; thresholds unless Extras::left_out.
std::string rule_text(const ServiceKey& service, const ServerConfig& server, Extras extras);
/// The same with the addresses already rendered (names instead of numbers).
std::string rule_text(const ServiceConfig& service, std::string_view service_option, Extras extras);
std::string rule_text(const ServerConfig& server, std::string_view service_option, std::string_view endpoint,
                      Extras extras);
/// -b's value: "sh-fallback,sh-port"; empty: no flag is set.
std::string flags_text(const ServiceConfig& service);

}  // namespace director
