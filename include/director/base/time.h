// Instant and Duration: time as the core knows it, an argument.
//
// The clock tag has no now(): code that includes only this header cannot ask what time it is. The one reading of the
// real clock is director/io/clock.h, once per wake-up; a replay takes the capture's time stamps.
#pragma once

#include <chrono>

namespace director {

using Duration = std::chrono::nanoseconds;
using namespace std::chrono_literals;

struct Monotonic {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<Monotonic, duration>;
  static constexpr bool is_steady = true;
};

using Instant = Monotonic::time_point;

/// "Never": later than every deadline.
inline constexpr Instant kNever = Instant::max();

}  // namespace director
