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
  std::unique_ptr<Scheduler> scheduler;
  std::vector<RealServer*> servers;  ///< last added first; owned by the balancer
  TrafficMeter traffic;

  [[nodiscard]] const ServiceKey& key() const { return config.key; }
  [[nodiscard]] RealServer* find(const Endpoint& endpoint) const {
    for (RealServer* s : servers)
      if (s->config.endpoint == endpoint) return s;
    return nullptr;
  }
};

}  // namespace director
