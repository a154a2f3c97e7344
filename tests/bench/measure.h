// How the benches measure: batches of 64 packets, prepared untimed, worked on timed; and experiments in a process of their own.
//
// A bench on a shared machine is interrupted. A round in which the kernel took the CPU away is repeated, so what is left is the
// program's time and not the neighbours'. Reading the clock costs about 30 ns twice a batch, half a nanosecond a packet: left in.
//
// Under callgrind only the timed part is counted (tests/bench/run --instructions).
#pragma once

#include <benchmark/benchmark.h>
#include <valgrind/callgrind.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace director::bench {

inline constexpr std::size_t kBatch = 64;   ///< packets: what a device hands over at most (FrameBatch)
inline constexpr std::size_t kBatches = 16;  ///< a round

/// What the command line says (core_bench --help).
struct Options {
  std::size_t most_flows = 1'000'000;  ///< larger tables are left out
  std::int64_t rounds = 0;             ///< of each packet bench; 0: as many as the time wants
};

/// How often the kernel has taken the CPU from this thread, or it gave it away.
[[nodiscard]] std::int64_t times_switched();
/// CPU time of this thread.
[[nodiscard]] std::chrono::nanoseconds cpu_time();
/// Physical memory this process holds, in bytes; the most it ever held.
[[nodiscard]] std::size_t resident();
[[nodiscard]] std::size_t most_resident();

/// Runs the experiment in a child process, which has memory of its own, as fresh as a new program's, and writes its results into
/// `results`, memory of both. Throws when the child didn't get to its end.
void in_child(const std::function<void()>& experiment);
/// `count` numbers that a child can write and its parent read; they stay until the process ends.
[[nodiscard]] std::span<float> shared_numbers(std::size_t count);

/// A number that doesn't repeat itself soon; the same in every run.
class Random {
 public:
  /// REQUIRES: limit < 2^32.
  [[nodiscard]] std::uint64_t below(std::uint64_t limit) {
    state_ ^= state_ << 13U;  // Marsaglia, xorshift64
    state_ ^= state_ >> 7U;
    state_ ^= state_ << 17U;
    return (state_ >> 32U) * limit >> 32U;
  }

 private:
  std::uint64_t state_ = 88172645463325252U;
};

/// Nanoseconds a packet, as counter "ns". `prepare` makes a batch ready, `work` does it.
template <typename Prepare, typename Work>
void measure_packets(benchmark::State& state, Prepare prepare, Work work) {
  using Clock = std::chrono::steady_clock;
  const int most_attempts = RUNNING_ON_VALGRIND != 0 ? 1 : 50;
  double total = 0;
  std::uint64_t rounds = 0;
  std::uint64_t repeated = 0;
  CALLGRIND_START_INSTRUMENTATION;
  for (auto _ : state) {
    Clock::duration spent{};
    for (int attempt = 1;; ++attempt) {
      spent = {};
      const std::int64_t before = times_switched();
      for (std::size_t i = 0; i < kBatches; ++i) {
        prepare();
        const auto begin = Clock::now();
        CALLGRIND_TOGGLE_COLLECT;
        work();
        CALLGRIND_TOGGLE_COLLECT;
        spent += Clock::now() - begin;
      }
      if (times_switched() == before || attempt == most_attempts) break;
      ++repeated;
    }
    const double seconds = std::chrono::duration<double>(spent).count();
    state.SetIterationTime(seconds);
    total += seconds;
    ++rounds;
  }
  CALLGRIND_STOP_INSTRUMENTATION;
  const double packets = static_cast<double>(rounds * kBatches * kBatch);
  state.counters["ns"] = total * 1e9 / packets;
  state.counters["packets"] = packets;
  state.counters["repeated"] = static_cast<double>(repeated) / static_cast<double>(rounds);
}

}  // namespace director::bench
