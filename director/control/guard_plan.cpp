// From services to what the host's stack must not see.
#include "director/control/guard_plan.h"

#include <algorithm>
#include <utility>

namespace director {
namespace {

template <typename T>
void sort_unique(std::vector<T>& values) {
  std::ranges::sort(values);
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

/// Every port of the ranges, for each protocol of the rule; port 0, all ports, when there are none or too many to name.
std::vector<std::pair<Protocol, Port>> ports_of(const ClassRule& rule) {
  constexpr std::size_t kMost = 1024;
  std::vector<Port> ports;
  for (const PortRange& range : rule.target_ports)
    for (std::uint32_t port = range.first; port <= range.last && ports.size() <= kMost; ++port)
      ports.push_back(Port::of(static_cast<std::uint16_t>(port)));
  if (ports.empty() || ports.size() > kMost) ports = {Port{}};
  std::vector<std::pair<Protocol, Port>> all;
  for (const Protocol protocol : {Protocol::tcp, Protocol::udp, Protocol::sctp})
    if (rule.protocol.value_or(protocol) == protocol)
      for (const Port port : ports) all.emplace_back(protocol, port);
  return all;
}

void add_class(GuardPlan& plan, const Service& service, const ClassRule& rule) {
  for (const AddressRange& range : rule.targets) {
    if (!range.is_host()) continue;
    if (!std::ranges::binary_search(plan.host, range.first)) {
      plan.virtual_addresses.push_back(range.first);
    } else {
      for (const auto& [protocol, port] : ports_of(rule)) plan.served.push_back({range.first, protocol, port});
    }
  }
  for (const RealServer* server : service.servers) {
    const auto& [address, own_port] = server->config.endpoint;
    if (server->config.method != Method::masq) continue;
    for (const auto& [protocol, port] : ports_of(rule))
      plan.answering.push_back({address, protocol, own_port == Port{} ? port : own_port});
  }
}

}  // namespace

GuardPlan plan_guard(std::span<const Service* const> services, const Classifier& classes,
                     std::span<const IpAddress> host) {
  GuardPlan plan;
  plan.host.assign(host.begin(), host.end());
  sort_unique(plan.host);
  for (const Service* service : services) {
    const ServiceKey& key = service->key();
    for (const ClassRule& rule : classes.rules())
      if (key.mark == rule.mark && key.family() == rule.family) add_class(plan, *service, rule);
    if (key.mark == 0) {
      if (std::ranges::binary_search(plan.host, key.endpoint.address))
        plan.served.push_back({key.endpoint.address, key.protocol, key.endpoint.port});
      else
        plan.virtual_addresses.push_back(key.endpoint.address);
    }
    for (const RealServer* server : service->servers) {
      const ServerConfig& config = server->config;
      if (config.check) {
        const Endpoint asked = asked_by_check(key, config);
        plan.checked.push_back({asked.address, Protocol::tcp, asked.port});
      }
      if (config.method == Method::masq && key.mark == 0)
        plan.answering.push_back({config.endpoint.address, key.protocol, config.endpoint.port});
    }
  }
  sort_unique(plan.virtual_addresses);
  sort_unique(plan.served);
  sort_unique(plan.answering);
  sort_unique(plan.checked);
  return plan;
}

}  // namespace director
