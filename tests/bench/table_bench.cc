// The connection table as a whole: what a connection's end costs, the longest stall while it grows, and its memory.
#include <algorithm>
#include <array>
#include <stdexcept>

#include <fmt/format.h>

#include "suites.h"
#include "world.h"

namespace director::bench {
namespace {

using Micro = std::chrono::duration<double, std::micro>;
using Nano = std::chrono::duration<double, std::nano>;

/// What expire() costs until nothing is due, and its longest call.
struct Expired {
  std::size_t ended = 0;
  std::chrono::nanoseconds spent{};
  std::chrono::nanoseconds longest{};

  void add(World& world) {
    while (world.balancer.next_deadline() <= world.now) {
      const auto begin = cpu_time();
      ended += world.balancer.expire(world.now);
      const auto took = cpu_time() - begin;
      spent += took;
      longest = std::max(longest, took);
    }
  }
};

/// Connections that have lived: the last packet of each came at some moment of the last minute, in no order. First the wheel finds
/// all of them in an old slot and moves them on ("moved"), then they end, slot by slot ("ended").
void expiry(benchmark::State& state, const Shape& shape) {
  forget_world();
  for (auto _ : state) {
    World world(shape);
    constexpr Duration kEstablished = 15min;
    if (!world.balancer.apply(SetTimeouts{kEstablished, {}, {}}, world.now)) throw std::runtime_error("a time-out was refused");
    Batch batch;
    const Instant opened = world.now;
    const auto flows = static_cast<std::int64_t>(shape.flows);
    for (std::uint64_t i = 0; i < shape.flows; ++i) {
      world.now = opened + Duration{60s} * static_cast<std::int64_t>(i) / flows;
      world.write_request(batch[0], i * 7919 % shape.flows, TcpHeader::kAck);  // a prime: every one once
      World::require(world.balancer.process(batch[0], world.now), Action::transmit);
    }
    Expired moved;
    for (; world.now < opened + kEstablished - 1s; world.now += 1s) moved.add(world);
    if (moved.ended != 0) throw std::runtime_error("connections ended too early");
    Expired ended;
    for (; world.balancer.connection_count() > 0; world.now += 125ms) ended.add(world);
    state.SetIterationTime(std::chrono::duration<double>(ended.spent).count());
    state.counters["ns"] = Nano(ended.spent).count() / static_cast<double>(shape.flows);
    state.counters["moved_ns"] = Nano(moved.spent).count() / static_cast<double>(shape.flows);
    state.counters["longest_us"] = Micro(std::max(ended.longest, moved.longest)).count();
  }
}

/// Opens connections from an empty table, each timed by the thread's CPU clock. Interrupts and the hypervisor are in that; but the same
/// packet makes the table do the same work in every run, and they come where they will: so what the table itself does is, of each
/// packet, the least of all runs. "stall_us" is the largest of those.
void growth(benchmark::State& state, const Shape& shape) {
  constexpr int kRuns = 5;
  forget_world();
  for (auto _ : state) {
    const auto least = shared_numbers(shape.flows);
    std::ranges::fill(least, 1e9F);
    const auto longest = shared_numbers(kRuns);
    const auto seconds = shared_numbers(kRuns);
    for (std::size_t run = 0; run < kRuns; ++run) {
      in_child([&] {
        World world({shape.method, shape.family, 0});
        Batch batch;
        std::array<std::chrono::nanoseconds, kBatch + 1> at{};
        std::chrono::nanoseconds spent{};
        for (std::uint64_t n = 0; n < shape.flows; n += kBatch) {
          const std::size_t count = std::min<std::size_t>(kBatch, shape.flows - n);
          for (std::size_t i = 0; i < count; ++i) world.write_request(batch[i], n + i, TcpHeader::kSyn);
          world.now += 10us;
          at[0] = cpu_time();
          for (std::size_t i = 0; i < count; ++i) {
            const Verdict verdict = world.balancer.process(batch[i], world.now);
            at[i + 1] = cpu_time();
            if (verdict.action != Action::transmit) World::require(verdict, Action::transmit);
          }
          spent += at[count] - at[0];
          for (std::size_t i = 0; i < count; ++i) {
            const auto us = static_cast<float>(Micro(at[i + 1] - at[i]).count());
            least[n + i] = std::min(least[n + i], us);
            longest[run] = std::max(longest[run], us);
          }
        }
        if (world.balancer.connection_count() != shape.flows) throw std::runtime_error("connections are missing");
        seconds[run] = std::chrono::duration<float>(spent).count();
      });
    }
    std::ranges::sort(longest);
    std::ranges::sort(seconds);
    state.SetIterationTime(seconds[kRuns / 2]);
    state.counters["stall_us"] = *std::ranges::max_element(least);
    state.counters["stalls_over_100us"] = static_cast<double>(std::ranges::count_if(least, [](float us) { return us > 100; }));
    state.counters["stalls_over_1ms"] = static_cast<double>(std::ranges::count_if(least, [](float us) { return us > 1000; }));
    state.counters["run_least_us"] = longest.front();
    state.counters["run_median_us"] = longest[kRuns / 2];
    state.counters["run_most_us"] = longest.back();
  }
}

/// Bytes of physical memory a connection costs, all told: what the process holds afterwards, less what it held with an empty table.
/// "most": at its worst moment, when something grows by being copied.
void memory(benchmark::State& state, const Shape& shape) {
  forget_world();
  for (auto _ : state) {
    const auto bytes = shared_numbers(2);
    in_child([&] {
      World world({shape.method, shape.family, 0});
      const std::size_t before = resident();
      world.open(shape.flows);
      const std::size_t after = resident();
      bytes[0] = static_cast<float>(after - before) / static_cast<float>(shape.flows);
      bytes[1] = static_cast<float>(std::max(most_resident(), after) - before) / static_cast<float>(shape.flows);
    });
    state.SetIterationTime(1e-9);  // a size, not a time
    state.counters["bytes"] = bytes[0];
    state.counters["most"] = bytes[1];
    state.counters["total_mb"] = static_cast<double>(bytes[0]) * static_cast<double>(shape.flows) / 1e6;
  }
}

}  // namespace

void add_table_benches(const Options& options) {
  const auto add = [](const std::string& what, auto function, const Shape& shape) {
    const std::string name = fmt::format("{}/{}/{}/flows:{}", what, name_of(shape.method), name_of(shape.family), shape.flows);
    return benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { function(state, shape); })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMillisecond);
  };
  for (const std::size_t flows : {10'000U, 1'000'000U, 10'000'000U}) {
    if (flows > options.most_flows) continue;
    const bool large = flows > 1'000'000;
    for (const Family family : {Family::ipv4, Family::ipv6}) {
      for (const Method method : {Method::masq, Method::tunnel, Method::direct}) {
        const Shape shape{method, family, flows};
        if (!large && family == Family::ipv4 && method != Method::tunnel) add("expiry", expiry, shape);
        if (flows >= 1'000'000 && family == Family::ipv4 && method != Method::tunnel) add("growth", growth, shape)->Repetitions(1);
        if (flows >= 1'000'000 && (!large || family == Family::ipv4)) {
          auto* const bench = add("memory", memory, shape);
          if (large) bench->Repetitions(1);
        }
      }
    }
  }
}

}  // namespace director::bench
