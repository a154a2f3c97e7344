// clock::now(): the only reading of the real clock. The loop calls it once per wake-up and passes the Instant
// down.
#pragma once

#include <ctime>

#include "director/base/time.h"

namespace director::clock {

/// CLOCK_MONOTONIC, the clock that timerfd deadlines are set on too.
[[nodiscard]] inline Instant now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Instant{std::chrono::seconds{t.tv_sec} + Duration{t.tv_nsec}};
}

/// What to add to an Instant's count for the time of day, for time stamps people read.
[[nodiscard]] inline Duration wall_offset() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return std::chrono::seconds{t.tv_sec} + Duration{t.tv_nsec} - now().time_since_epoch();
}

}  // namespace director::clock
