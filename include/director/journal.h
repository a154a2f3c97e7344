// Journal: what a recording (`director --pcap`) says beside its frames, a line of JSON each: how the core was made, and every call of
// its other two doors, apply() and expire(). With the frames that is all the core ever got, so a replay needs nothing else.
//
// Pure; lossless: what is read is what was written. Written by the daemon, read by recording.h.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "director/core/balancer.h"

namespace director {

/// The first line.
struct Beginning {
  std::string version;               ///< of the director that recorded
  std::vector<std::string> devices;  ///< their names, in the order of DeviceId
  Duration wall_offset{};            ///< what stands in time stamps of frames beyond the core's Instant
  Balancer::Options options;
};

/// Every other line.
struct Call {
  Instant at;
  std::optional<Change> change;  ///< of apply(); nothing: expire()
};

[[nodiscard]] std::string journal_line(const Beginning& beginning);
[[nodiscard]] std::string journal_line(const Change* change, Instant at);

/// The error says what is missing or not possible.
[[nodiscard]] Result<Beginning> parse_beginning(std::string_view line);
[[nodiscard]] Result<Call> parse_call(std::string_view line);

}  // namespace director
