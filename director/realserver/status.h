// What a running decapsulator says of itself, read from its reply.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace director::realserver {

struct DecapsulatorStatus {
  int pid = 0;
  std::string interface;  ///< where the packets come out
  std::string way;        ///< "TUN", "veth"
  std::string input;
  std::string user_space;  ///< why all packets are opened there; empty: the kernel opens the plain ones
  std::vector<std::string> vips;
  std::vector<std::string> tunnels;  ///< "ipip", "gre", "gue:6080"
  std::vector<std::pair<std::string, std::uint64_t>> counts;  ///< by fate, those that are not zero
};

/// None if no decapsulator runs in this network namespace.
[[nodiscard]] std::optional<DecapsulatorStatus> decapsulator_status();

}  // namespace director::realserver
