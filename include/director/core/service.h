// Service: a virtual service, its real servers and its scheduler.
#pragma once

#include <memory>
#include <vector>

#include "director/core/change.h"
#include "director/core/counters.h"
#include "director/core/real_server.h"
#include "director/core/scheduler.h"

namespace director {

/// Owned by the balancer; its address stays while it exists.
struct Service {
  ServiceConfig config;
  Timeouts timeouts;                 ///< the global ones with the service's own in their place
  std::unique_ptr<Scheduler> scheduler;
  std::vector<RealServer*> servers;  ///< last added first; owned by the balancer
  std::vector<RealServer*> pool;     ///< those of them that haven't failed: whom the scheduler knows
  TrafficMeter traffic;
  RealServer* past = nullptr;        ///< for connections that go past all servers (cache_bypass), once there was one

  [[nodiscard]] const ServiceKey& key() const { return config.key; }
  [[nodiscard]] RealServer* find(const Endpoint& endpoint) const {
    for (RealServer* s : servers)
      if (s->config.endpoint == endpoint) return s;
    return nullptr;
  }
};

}  // namespace director
