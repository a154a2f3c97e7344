// RealServer: one real server of one service, as ipvsadm -a adds it.
//
// Its config may be edited at any time; connections reach it by RealId. A removed server that still has connections stays
// in the table, removed(), so that they can be told apart, and comes back with them when it is added again (ip_vs_ctl.c, the trash).
#pragma once

#include <cstdint>
#include <optional>

#include "director/core/change.h"
#include "director/core/counters.h"
#include "director/core/hop.h"
#include "director/forward/tunnel.h"

namespace director {

struct Service;

struct RealServer {
  RealId id;
  ServiceKey service_key;
  Service* service = nullptr;  ///< nullptr: removed
  ServerConfig config;
  bool is_none = false;        ///< stands for no server: its connections go where the client sent them (cache_bypass)
  bool overloaded = false;     ///< at its upper threshold and not yet below the lower
  std::uint32_t active = 0;    ///< connections in an active state (TCP: ESTABLISHED, SYN_*; SYNACK)
  std::uint32_t inactive = 0;  ///< all others, UDP among them
  std::uint32_t persistent = 0;   ///< templates
  std::uint32_t last_weight = 0;  ///< the last weight that was not 0 (mh)
  TrafficMeter traffic;
  std::optional<RouteTo> way;        ///< the route to it, true while way_generation is the network's
  OuterHeaders outer;                ///< for packets that are tunnelled there; as true as the way
  std::uint32_t way_generation = 0;
  Instant forgotten_at{};            ///< removed and without connections: when the row is freed
  std::optional<Health> health;      ///< with config.check

  [[nodiscard]] bool removed() const { return service == nullptr; }
  /// Its health check has failed: the scheduler doesn't see it.
  [[nodiscard]] bool failed() const { return health && health->failed; }
  /// May it get new connections?
  [[nodiscard]] bool usable() const { return config.weight > 0 && !overloaded && !removed() && !failed(); }
  [[nodiscard]] std::uint32_t connections() const { return active + inactive; }
  /// What it has to do, as the schedulers see it: an active connection weighs 256 inactive ones (6.x; 7.x: 257).
  [[nodiscard]] std::uint64_t overhead() const { return (std::uint64_t{active} << 8U) + inactive; }
};

}  // namespace director
