// LoopStatistics: what the event loop counts of itself: frames in a batch, by device, and how long its turns take.
//
// Numbers only; who shows them decides how (http/metrics.h). A batch costs an increment, a turn one reading of the clock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace director {

/// How many values fell between bounds: values up to and including bounds[i] are in buckets[i], those above all bounds in the last.
template <std::size_t N>
struct Histogram {
  std::array<std::uint64_t, N> bounds;
  std::array<std::uint64_t, N + 1> buckets{};
  std::uint64_t sum = 0;

  void observe(std::uint64_t value) {
    std::size_t i = 0;
    while (i < N && value > bounds[i]) ++i;
    ++buckets[i];
    sum += value;
  }
};

struct LoopStatistics {
  struct Batches {
    Histogram<7> received{{1, 2, 4, 8, 16, 32, 64}};  ///< frames of one receive() that had any
    Histogram<7> sent{{1, 2, 4, 8, 16, 32, 64}};      ///< frames of one transmit()
  };
  std::vector<Batches> devices;  ///< by DeviceId
  /// Nanoseconds from waking up to going to sleep again.
  Histogram<11> turns{{10'000, 20'000, 50'000, 100'000, 200'000, 500'000, 1'000'000, 2'000'000, 5'000'000, 10'000'000, 100'000'000}};
};

}  // namespace director
