// See the header.
#include "director/realserver/status.h"

#include <sstream>

#include "director/realserver/control_socket.h"

namespace director::realserver {

std::optional<DecapsulatorStatus> decapsulator_status() {
  const auto reply = ask_decapsulator("status");
  if (!reply) return {};
  DecapsulatorStatus status;
  std::istringstream lines(*reply);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t space = line.find(' ');
    if (space == std::string::npos) continue;
    const std::string key = line.substr(0, space);
    const std::string value = line.substr(space + 1);
    if (key == "pid") status.pid = std::atoi(value.c_str());
    if (key == "interface") status.interface = value;
    if (key == "way") status.way = value;
    if (key == "input") status.input = value;
    if (key == "user_space") status.user_space = value;
    if (key == "vip") status.vips.push_back(value);
    if (key == "tunnel") status.tunnels.push_back(value);
    if (key == "count") {
      std::istringstream words(value);
      std::string name;
      std::uint64_t count = 0;
      if (words >> name >> count) status.counts.emplace_back(name, count);
    }
  }
  return status;
}

}  // namespace director::realserver
