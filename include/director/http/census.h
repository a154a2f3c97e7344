// ConnectionCensus: how many connections are in which state, counted bit by bit.
//
// The core keeps no such counts: they would cost something with every packet. They are taken when somebody asks, and of a big table
// in portions, so that frames never wait for them; who asks gets the last count that was finished. A table of up to kPortion rows
// is counted on the spot. Pure.
#pragma once

#include <array>
#include <cstdint>

#include "director/core/balancer.h"

namespace director {

/// By protocol (TCP, UDP, SCTP) and state.
struct ConnectionCounts {
  enum Row : std::uint8_t { tcp, udp, sctp, kRows };
  std::array<std::array<std::uint64_t, kStateCount>, kRows> by_state{};
  std::uint64_t templates = 0;  ///< of persistence
};

class ConnectionCensus {
 public:
  explicit ConnectionCensus(const Balancer& balancer) : balancer_(balancer) {}

  /// The last finished count. Begins another unless one is under way.
  const ConnectionCounts& ask(Instant now);
  /// When due() wants to be called; kNever: it doesn't.
  [[nodiscard]] Instant next_deadline() const { return next_; }
  /// Counts another portion.
  void due(Instant now);

  static constexpr std::size_t kPortion = 16384;                          ///< rows: about a millisecond
  static constexpr Duration kBetween = std::chrono::milliseconds(10);  ///< portions

 private:
  void count_portion(Instant now);

  const Balancer& balancer_;
  ConnectionCounts finished_;
  ConnectionCounts counting_;
  std::size_t row_ = 0;  // to go on with
  Instant next_ = kNever;
};

}  // namespace director
