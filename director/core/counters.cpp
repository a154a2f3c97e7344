// The kernel's rate estimator (ip_vs_est.c, estimation_timer): every two seconds, average += (rate - average) / 4.
#include "director/core/counters.h"

namespace director {
namespace {

/// The five numbers of a Traffic, in one order, with the fixed-point scale of each rate.
struct Field {
  std::uint64_t Traffic::*value;
  unsigned shift;  // of the average: 2^10 for counts, 2^5 for bytes
};
constexpr Field kFields[] = {{&Traffic::connections, 10},
                             {&Traffic::in_packets, 10},
                             {&Traffic::out_packets, 10},
                             {&Traffic::in_bytes, 5},
                             {&Traffic::out_bytes, 5}};

}  // namespace

void TrafficMeter::tick() {
  for (std::size_t i = 0; i < std::size(kFields); ++i) {
    const auto [field, shift] = kFields[i];
    const std::uint64_t came = total.*field - last_.*field;
    last_.*field = total.*field;
    // came is of two seconds: scaled by 2^shift that is a shift of one less. Signed, as averages fall too.
    const auto present = static_cast<std::int64_t>(came << (shift - 1));
    const auto average = static_cast<std::int64_t>(average_[i]);
    average_[i] = static_cast<std::uint64_t>(average + ((present - average) >> 2));
    const std::uint64_t half = (std::uint64_t{1} << (shift - 1)) - 1;
    rate.*field = (average_[i] + half) >> shift;  // ip_vs_read_estimator
  }
}

bool TrafficMeter::quiet() const {
  for (std::size_t i = 0; i < std::size(kFields); ++i)
    if (total.*kFields[i].value != last_.*kFields[i].value || average_[i] != 0) return false;
  return true;
}

}  // namespace director
