// Counters: what was counted, per reason and per service or real server.
#pragma once

#include <array>
#include <cstdint>

#include "director/core/verdict.h"

namespace director {

/// Traffic of a service, a real server or everything. Bytes are those of IP packets, without Ethernet; a super-frame counts
/// as the packets it stands for. Out is 0 where replies don't pass the director (tunnel, direct).
struct Traffic {
  std::uint64_t connections = 0;
  std::uint64_t in_packets = 0;
  std::uint64_t out_packets = 0;
  std::uint64_t in_bytes = 0;
  std::uint64_t out_bytes = 0;
};

/// Traffic and its rates per second, smoothed as the kernel's estimator does (ip_vs_est.c): every 2 s,
/// average += (rate - average) / 4.
struct TrafficMeter {
  Traffic total;
  Traffic rate;  ///< per second, rounded as the kernel rounds

  void tick();   ///< once every kInterval; REQUIRES: exactly then
  [[nodiscard]] bool quiet() const;  ///< nothing came since the last tick, and the averages have gone to 0
  void zero() { *this = {}; }
  static constexpr std::uint64_t kIntervalSeconds = 2;

 private:
  Traffic last_;
  std::array<std::uint64_t, 5> average_{};  // scaled: 2^10 connections and packets, 2^5 bytes per second
};

/// One counter per Reason.
struct Counters {
  std::array<std::uint64_t, kReasonCount> by_reason{};
  void count(Reason r, std::uint64_t n = 1) { by_reason[static_cast<std::size_t>(r)] += n; }
  [[nodiscard]] std::uint64_t operator[](Reason r) const { return by_reason[static_cast<std::size_t>(r)]; }
};

}  // namespace director
