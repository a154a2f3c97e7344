// From services to what the host's stack must not see.
#include "director/control/guard_plan.h"

#include <algorithm>

namespace director {
namespace {

template <typename T>
void sort_unique(std::vector<T>& values) {
  std::ranges::sort(values);
  values.erase(std::ranges::unique(values).begin(), values.end());
}

}  // namespace

GuardPlan plan_guard(std::span<const Service* const> services, std::span<const IpAddress> host) {
  GuardPlan plan;
  plan.host.assign(host.begin(), host.end());
  sort_unique(plan.host);
  for (const Service* service : services) {
    const ServiceKey& key = service->key();
    if (key.mark == 0) {
      if (std::ranges::binary_search(plan.host, key.endpoint.address))
        plan.served.push_back({key.endpoint.address, key.protocol, key.endpoint.port});
      else
        plan.virtual_addresses.push_back(key.endpoint.address);
    }
    for (const RealServer* server : service->servers) {
      const ServerConfig& config = server->config;
      if (config.method == Method::masq && key.mark == 0)
        plan.answering.push_back({config.endpoint.address, key.protocol, config.endpoint.port});
    }
  }
  sort_unique(plan.virtual_addresses);
  sort_unique(plan.served);
  sort_unique(plan.answering);
  return plan;
}

}  // namespace director
