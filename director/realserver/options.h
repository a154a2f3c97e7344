// The command line of realserver.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "director/net/address.h"
#include "director/realserver/ledger.h"

namespace director::realserver {

enum class Command : std::uint8_t { up, down, check, help, version };
enum class Notation : std::uint8_t { text, json };
enum class Running : std::uint8_t { foreground, daemon };

struct Options {
  Command command = Command::help;
  std::optional<Mode> mode;
  std::vector<IpAddress> vips;  ///< each once, in the order given
  std::vector<TunnelEnd> tunnels;  ///< each once; none named: bare ones
  std::optional<std::string> interface;
  std::optional<IpAddress> client;
  Running running = Running::foreground;
  Notation notation = Notation::text;
  std::filesystem::path state;
};

/// Throws Failure with exit code 2.
[[nodiscard]] Options parse_options(int argc, const char* const* argv);
[[nodiscard]] const char* help_text();

}  // namespace director::realserver
