// A copy of each service with a scheduler of its own, which is asked for its slots before and after.
#include "director/preview.h"

#include <algorithm>
#include <optional>

namespace director {

struct Preview::Copy {
  ServiceConfig config;
  std::vector<std::unique_ptr<RealServer>> servers;  // in the kernel's order

  explicit Copy(ServiceConfig c) : config(std::move(c)) {}

  auto place_of(const Endpoint& endpoint) {
    return std::find_if(servers.begin(), servers.end(), [&](const auto& s) { return s->config.endpoint == endpoint; });
  }
  void set(RealServer& server, const ServerConfig& c) {
    server.config = c;
    if (c.weight > 0) server.last_weight = c.weight;
  }
  void add(const ServerConfig& c) {
    servers.insert(servers.begin(), std::make_unique<RealServer>());
    set(*servers.front(), c);
  }
  /// Who has which slot now; empty: the scheduler has none.
  [[nodiscard]] std::vector<std::optional<Endpoint>> slots(const Tunables& tunables) const {
    const auto scheduler = make_scheduler(config.scheduler, config.flags);
    std::vector<RealServer*> list;
    for (const auto& s : servers) list.push_back(s.get());
    if (scheduler == nullptr) return {};
    scheduler->tuned(tunables, list);
    scheduler->servers_changed(list);
    std::vector<std::optional<Endpoint>> owners;
    for (const RealServer* s : scheduler->slots())
      owners.push_back(s != nullptr ? std::optional{s->config.endpoint} : std::nullopt);
    return owners;
  }
};

Preview::Preview(const Balancer& balancer) : balancer_(balancer) {
  for (const Service* service : balancer.services()) {
    services_.push_back(std::make_unique<Copy>(service->config));
    for (auto s = service->servers.rbegin(); s != service->servers.rend(); ++s) {
      services_.back()->add((*s)->config);
      services_.back()->servers.front()->last_weight = (*s)->last_weight;
    }
  }
}

Preview::~Preview() = default;

Preview::Copy* Preview::find(const ServiceKey& key) {
  const auto found = std::ranges::find_if(services_, [&](const auto& s) { return s->config.key == key; });
  return found == services_.end() ? nullptr : found->get();
}

Movement Preview::apply(const Change& change) {
  Movement movement;
  const auto live = [&](const ServiceKey& key, const Endpoint* only) {
    const Service* service = balancer_.find_service(key);
    if (service == nullptr) return;
    for (const RealServer* s : service->servers)
      if (only == nullptr || s->config.endpoint == *only) movement.connections += s->connections();
  };
  if (const auto* c = std::get_if<AddService>(&change)) {
    services_.push_back(std::make_unique<Copy>(c->config));
    return movement;
  }
  if (const auto* c = std::get_if<DeleteService>(&change)) {
    live(c->key, nullptr);
    std::erase_if(services_, [&](const auto& s) { return s->config.key == c->key; });
    return movement;
  }
  Copy* copy = nullptr;
  if (const auto* c = std::get_if<EditService>(&change)) copy = find(c->config.key);
  if (const auto* c = std::get_if<AddServer>(&change)) copy = find(c->service);
  if (const auto* c = std::get_if<EditServer>(&change)) copy = find(c->service);
  if (const auto* c = std::get_if<DeleteServer>(&change)) copy = find(c->service);
  if (copy == nullptr) return movement;  // nothing of the table's

  const auto before = copy->slots(balancer_.tunables());
  if (const auto* edit = std::get_if<EditService>(&change)) copy->config = edit->config;
  if (const auto* add = std::get_if<AddServer>(&change)) copy->add(add->config);
  if (const auto* edit = std::get_if<EditServer>(&change))
    if (const auto at = copy->place_of(edit->config.endpoint); at != copy->servers.end()) copy->set(**at, edit->config);
  if (const auto* gone = std::get_if<DeleteServer>(&change)) {
    live(gone->service, &gone->endpoint);
    if (const auto at = copy->place_of(gone->endpoint); at != copy->servers.end()) copy->servers.erase(at);
  }
  const auto after = copy->slots(balancer_.tunables());
  movement.of_slots = after.size();
  if (before.size() != after.size()) {  // another scheduler: every client is looked up anew
    movement.slots = before.empty() && std::ranges::none_of(after, [](const auto& s) { return s.has_value(); }) ? 0 : after.size();
    return movement;
  }
  for (std::size_t i = 0; i < after.size(); ++i)
    if (before[i] && before[i] != after[i]) ++movement.slots;
  return movement;
}

}  // namespace director
