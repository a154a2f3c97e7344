// Changes: the second door. What ipvsadm, netlink and the rules file can tell the balancer, one function each.
// Sources: ip_vs_ctl.c (ip_vs_add_service, ip_vs_add_dest, the trash), libipvs.c for what each refusal means.
#include <algorithm>
#include <utility>

#include "director/core/balancer.h"
#include "director/core/check.h"

namespace director {
namespace {

constexpr Failure<Refusal> refused(Refusal r) { return {r}; }

}  // namespace

/// ip_vs_ctl.c, __ip_vs_dest checks: thresholds that make sense, an address packets can be sent to.
Result<void, Refusal> check(const ServiceKey& key, const ServerConfig& config) {
  const IpAddress& a = config.endpoint.address;
  if (config.lower_threshold > config.upper_threshold || config.weight > INT32_MAX)
    return refused(Refusal::out_of_range);
  const bool needs_scope = !a.is_v4() && a.is_link_local();
  if (a.is_unspecified() || a.is_multicast() || a.is_broadcast() || needs_scope) return refused(Refusal::invalid);
  if (a.family() != key.family() && config.method != Method::tunnel) return refused(Refusal::invalid);
  return {};
}

Result<void, Refusal> check(const ServiceConfig& config) {
  if (!scheduler_exists(config.scheduler)) return refused(Refusal::no_such_scheduler);
  if (!config.persistence_engine.empty() && config.persistence_engine != "sip")
    return refused(Refusal::no_such_scheduler);  // one refusal for both, as in the kernel
  return {};
}

std::size_t Balancer::ServiceHash::operator()(const ServiceKey& k) const {
  std::size_t h = AddressHash{}(k.endpoint.address);
  h = (h ^ k.endpoint.port.host()) * 0x100000001b3ULL;
  h = (h ^ static_cast<std::size_t>(k.protocol)) * 0x100000001b3ULL;
  return (h ^ k.mark) * 0x100000001b3ULL;
}

Result<void, Refusal> add_class_rule(std::vector<ClassRule>& rules, const ClassRule& rule) {
  if (std::ranges::find(rules, rule) != rules.end()) return refused(Refusal::class_exists);
  rules.push_back(rule);
  return {};
}

Result<void, Refusal> delete_class(std::vector<ClassRule>& rules, std::uint32_t mark) {
  const auto gone = std::erase_if(rules, [&](const ClassRule& r) { return r.mark == mark; });
  if (gone == 0) return refused(Refusal::no_such_class);
  return {};
}

Result<void, Refusal> Balancer::apply(const Change& what, Instant now) {
  if (listener_) listener_(&what, now);
  auto done = std::visit([&](const auto& c) { return change(c, now); }, what);
  end_stale_shortcuts();
  return done;
}

// --- services -------------------------------------------------------------------------------------------------------

Result<void, Refusal> Balancer::change(const AddService& c, Instant now) {
  const ServiceConfig& config = c.config;
  if (exact_service(config.key) != nullptr) return refused(Refusal::service_exists);
  if (const auto r = check(config); !r) return r;
  auto service = std::make_unique<Service>();
  service->config = config;
  engines_ += config.persistence_engine.empty() ? 0 : 1;
  settle_timeouts(*service);
  service->scheduler = make_scheduler(config.scheduler, config.flags);
  service->scheduler->tuned(tunables_, {});
  service_index_[config.key] = service.get();
  services_.push_back(std::move(service));
  if (config.key.mark == 0) take_address(config.key.endpoint.address, now);
  for (const IpAddress& address : classes_.addresses_of(config.key.mark, config.key.family())) take_address(address, now);
  ++generation_;
  return {};
}

Result<void, Refusal> Balancer::change(const EditService& c, Instant) {
  Service* service = exact_service(c.config.key);
  if (service == nullptr) return refused(Refusal::no_such_service);
  if (const auto r = check(c.config); !r) return r;
  const bool same_scheduler =
      service->config.scheduler == c.config.scheduler && service->config.flags == c.config.flags;
  engines_ -= service->config.persistence_engine.empty() ? 0 : 1;
  engines_ += c.config.persistence_engine.empty() ? 0 : 1;
  service->config = c.config;
  settle_timeouts(*service);
  if (!same_scheduler) {
    service->scheduler = make_scheduler(c.config.scheduler, c.config.flags);
    service->scheduler->tuned(tunables_, service->pool);
    service->scheduler->servers_changed(service->pool);
  }
  ++generation_;
  return {};
}

Result<void, Refusal> Balancer::change(const DeleteService& c, Instant now) {
  for (std::size_t i = 0; i < services_.size(); ++i) {
    if (services_[i]->key() != c.key) continue;
    remove_service(i, now);
    if (tunables_.expire_nodest_conn != 0) end_connections_of_removed(now);
    return {};
  }
  return refused(Refusal::no_such_service);
}

Result<void, Refusal> Balancer::change(const ClearServices&, Instant now) {
  while (!services_.empty()) remove_service(services_.size() - 1, now);
  if (tunables_.expire_nodest_conn != 0) end_connections_of_removed(now);
  return {};
}

void Balancer::remove_service(std::size_t position, Instant now) {
  Service& service = *services_[position];
  engines_ -= service.config.persistence_engine.empty() ? 0 : 1;
  while (!service.servers.empty()) remove_server(service, service.servers.size() - 1, now);
  if (service.past != nullptr) {
    service.past->service = nullptr;
    removed_.insert(service.past->id.index);
    forget_soon(*service.past, now);
  }
  const ServiceKey& key = service.key();
  if (key.mark == 0) leave_address(key.endpoint.address);
  for (const IpAddress& address : classes_.addresses_of(key.mark, key.family())) leave_address(address);
  service_index_.erase(service.key());
  services_.erase(services_.begin() + static_cast<long>(position));
  ++generation_;
}

Service* Balancer::exact_service(const ServiceKey& key) const {
  const auto found = service_index_.find(key);
  return found == service_index_.end() ? nullptr : found->second;
}

const Service* Balancer::find_service(const ServiceKey& key) const { return exact_service(key); }

void Balancer::take_address(const IpAddress& address, Instant now) {
  if (++virtual_[address] == 1) announce_soon(now);
}

void Balancer::leave_address(const IpAddress& address) {
  const auto vip = virtual_.find(address);
  if (--vip->second == 0) virtual_.erase(vip);
}

/// ip_vs_ctl.c, ip_vs_service_find: the class, if the packet has one and there is a service of it; the exact port; for TCP the FTP service, whose data connections may use any unprivileged port;
/// the port 0 service.
Service* Balancer::service_for(const FlowKey& flow, std::uint32_t mark) const {
  if (mark == 0 && !classes_.empty()) mark = classes_.classify(flow);
  if (mark != 0)
    if (Service* s = exact_service(class_key(mark, flow.target.address.family()))) return s;
  if (!is_virtual(flow.target.address)) return nullptr;
  ServiceKey key{flow.protocol, flow.target, 0};
  if (Service* s = exact_service(key)) return s;
  const std::uint16_t port = flow.target.port.host();
  if (flow.protocol == Protocol::tcp && (port == 20 || port >= 1024)) {
    // In the kernel an FTP service without persistence hides the port 0 service from them, and serves them not.
    key.endpoint.port = Port::of(21);
    if (Service* s = exact_service(key))
      if (options_.policy == Policy::kernel || s->config.persistence != Duration{}) return s;
  }
  key.endpoint.port = Port{};
  return exact_service(key);
}

std::vector<const Service*> Balancer::services() const {
  std::vector<const Service*> all;
  for (const auto& s : services_) all.push_back(s.get());
  return all;
}

std::vector<IpAddress> Balancer::virtual_addresses() const {
  std::vector<IpAddress> all;
  for (const auto& [address, services] : virtual_) all.push_back(address);
  std::sort(all.begin(), all.end());
  return all;
}

bool Balancer::has_usable_server(const IpAddress& vip) const {
  return std::any_of(services_.begin(), services_.end(), [&](const auto& s) {
    const ServiceKey& key = s->key();
    if (key.mark == 0 ? key.endpoint.address != vip
                      : std::ranges::count(classes_.addresses_of(key.mark, key.family()), vip) == 0)
      return false;
    return std::any_of(s->servers.begin(), s->servers.end(), [](const RealServer* r) { return r->usable(); });
  });
}

// --- real servers ---------------------------------------------------------------------------------------------------

Result<void, Refusal> Balancer::change(const AddServer& c, Instant now) {
  Service* service = exact_service(c.service);
  if (service == nullptr) return refused(Refusal::service_not_defined);
  if (const auto r = check(c.service, c.config); !r) return r;
  const bool mixed = c.service.family() != c.config.endpoint.address.family();
  if (mixed && (sync_.daemon(SyncRole::master) || sync_.daemon(SyncRole::backup)))
    return refused(Refusal::invalid);  // sync messages have one family for all addresses of a connection
  if (service->find(c.config.endpoint) != nullptr) return refused(Refusal::server_exists);
  RealServer& server = room_for(c.service, c.config.endpoint);
  server.config = c.config;
  server.service = service;
  server.overloaded = false;
  server.way_generation = 0;
  if (c.config.weight > 0) server.last_weight = c.config.weight;
  service->servers.insert(service->servers.begin(), &server);  // list_add_rcu: the last added comes first
  service->pool.insert(service->pool.begin(), &server);
  service->scheduler->server_added(service->pool, server);
  service->scheduler->servers_changed(service->pool);
  follow_check(server, {}, now);
  ++generation_;
  return {};
}

Result<void, Refusal> Balancer::change(const EditServer& c, Instant now) {
  Service* service = exact_service(c.service);
  if (service == nullptr) return refused(Refusal::service_not_defined);
  if (const auto r = check(c.service, c.config); !r) return r;
  RealServer* server = service->find(c.config.endpoint);
  if (server == nullptr) return refused(Refusal::no_such_server);
  if (c.config.upper_threshold == 0 || c.config.upper_threshold > server->config.upper_threshold)
    server->overloaded = false;  // ip_vs_ctl.c, __ip_vs_update_dest
  const auto checked = std::exchange(server->config, c.config).check;
  server->way_generation = 0;
  if (c.config.weight > 0) server->last_weight = c.config.weight;
  service->scheduler->servers_changed(service->pool);
  follow_check(*server, checked, now);
  ++generation_;
  return {};
}

Result<void, Refusal> Balancer::change(const DeleteServer& c, Instant now) {
  Service* service = exact_service(c.service);
  if (service == nullptr) return refused(Refusal::service_not_defined);
  for (std::size_t i = 0; i < service->servers.size(); ++i) {
    if (service->servers[i]->config.endpoint != c.endpoint) continue;
    remove_server(*service, i, now);
    if (tunables_.expire_nodest_conn != 0) end_connections_of_removed(now);
    return {};
  }
  return refused(Refusal::no_such_server);
}

void Balancer::remove_server(Service& service, std::size_t position, Instant now) {
  RealServer* server = service.servers[position];
  service.servers.erase(service.servers.begin() + static_cast<long>(position));
  if (!server->failed()) leave_pool(*server);
  give_up_check(*server);
  server->health.reset();
  server->service = nullptr;
  removed_.insert(server->id.index);
  if (options_.policy == Policy::improved) end_templates_of(*server, now);
  forget_soon(*server, now);
  ++generation_;
}

/// A row for the server: its own of before, if connections still remember it, with its counters.
RealServer& Balancer::room_for(const ServiceKey& service, const Endpoint& endpoint) {
  for (const std::uint32_t i : removed_) {
    if (reals_[i]->service_key != service || reals_[i]->config.endpoint != endpoint) continue;
    removed_.erase(i);
    return *reals_[i];
  }
  std::uint32_t row = static_cast<std::uint32_t>(reals_.size());
  if (free_reals_.empty()) {
    reals_.emplace_back();
  } else {
    row = free_reals_.back();
    free_reals_.pop_back();
  }
  reals_[row] = std::make_unique<RealServer>();
  reals_[row]->id = RealId{row};
  reals_[row]->service_key = service;
  return *reals_[row];
}

/// A removed server without connections is kept for a while: added again, it goes on with its counters (ip_vs_ctl.c, the trash).
void Balancer::forget_soon(RealServer& server, Instant now) {
  constexpr Duration kTrashPeriod = 120s;  // IP_VS_DEST_TRASH_PERIOD
  if (!server.removed() || server.connections() != 0 || server.persistent != 0) return;
  server.forgotten_at = now + kTrashPeriod;
  forgotten_.push_back({server.id, server.forgotten_at});
}

void Balancer::forget_removed(Instant now) {
  while (!forgotten_.empty() && forgotten_.front().at <= now) {
    const std::uint32_t row = forgotten_.front().server.index;
    const RealServer* server = reals_[row].get();
    forgotten_.pop_front();
    if (server == nullptr || !server->removed() || server->connections() != 0 || server->persistent != 0 ||
        server->forgotten_at > now)
      continue;
    removed_.erase(row);
    free_reals_.push_back(row);
    reals_[row].reset();
  }
}

void Balancer::end_connections_of_removed(Instant now) {
  std::vector<Connection*> ending;
  std::vector<Connection*> templates;
  connections_.for_each([&](Connection& c) {
    if (server_of(c).removed()) (c.is_template ? templates : ending).push_back(&c);
  });
  for (Connection* c : ending) close(*c, now);
  for (Connection* c : templates)
    if (templates_[c->affinity].made == 0) close(*c, now);
}

/// A masquerading server that this packet may come from.
const RealServer* Balancer::nat_server_at(const FlowKey& from_server) const {
  for (const auto& s : services_) {
    if (s->key().mark == 0 && s->key().protocol != from_server.protocol) continue;
    for (const RealServer* r : s->servers)
      if (r->config.method == Method::masq && r->config.endpoint.address == from_server.source.address &&
          (r->config.endpoint.port == from_server.source.port || from_server.source.port == Port{} ||
           r->config.endpoint.port == Port{}))
        return r;
  }
  return nullptr;
}

// --- classes --------------------------------------------------------------------------------------------------------

/// The addresses of the classes that have a service follow the rules.
void Balancer::set_classes(std::vector<ClassRule> rules, Instant now) {
  const auto for_each_address = [&](auto act) {
    for (const auto& s : services_)
      for (const IpAddress& a : classes_.addresses_of(s->key().mark, s->key().family())) act(a);
  };
  std::vector<IpAddress> before;
  for_each_address([&](const IpAddress& a) { before.push_back(a); });
  classes_.set(std::move(rules));
  for_each_address([&](const IpAddress& a) { take_address(a, now); });
  for (const IpAddress& a : before) leave_address(a);  // afterwards: what stays was never away
  ++generation_;
}

Result<void, Refusal> Balancer::change(const SetClasses& c, Instant now) {
  set_classes(c.rules, now);
  return {};
}

Result<void, Refusal> Balancer::change(const AddClassRule& c, Instant now) {
  std::vector<ClassRule> rules = classes_.rules();
  if (const auto r = add_class_rule(rules, c.rule); !r) return r;
  set_classes(std::move(rules), now);
  return {};
}

Result<void, Refusal> Balancer::change(const DeleteClass& c, Instant now) {
  std::vector<ClassRule> rules = classes_.rules();
  if (const auto r = delete_class(rules, c.mark); !r) return r;
  set_classes(std::move(rules), now);
  return {};
}

// --- counters, time-outs, knobs -------------------------------------------------------------------------------------

Result<void, Refusal> Balancer::change(const ZeroCounters& c, Instant) {
  if (c.service) {
    Service* service = exact_service(*c.service);
    if (service == nullptr) return refused(Refusal::no_such_service);
    service->traffic.zero();
    for (RealServer* r : service->servers) r->traffic.zero();
    return {};
  }
  for (const auto& s : services_) {
    s->traffic.zero();
    for (RealServer* r : s->servers) r->traffic.zero();
  }
  traffic_.zero();
  return {};
}

Result<void, Refusal> Balancer::change(const SetTimeouts& c, Instant) {
  if (c.tcp > Duration{0}) timeouts_[State::established] = c.tcp;
  if (c.tcp_fin > Duration{0}) timeouts_[State::fin_wait] = c.tcp_fin;
  if (c.udp > Duration{0}) timeouts_[State::udp] = c.udp;
  for (const auto& service : services_) settle_timeouts(*service);
  return {};
}

void Balancer::settle_timeouts(Service& service) const {
  service.timeouts = timeouts_;
  for (const StateTimeout& t : service.config.policy.timeouts) service.timeouts[t.state] = t.after;
}

Result<void, Refusal> Balancer::change(const SetTunable& c, Instant now) {
  const TunableInfo* info = find_tunable(c.name);
  if (info == nullptr) return refused(Refusal::no_such_tunable);
  if (c.value < info->least || c.value > info->most) return refused(Refusal::out_of_range);
  const bool stood_by = stands_by();
  tunables_.*(info->value) = c.value;
  if (stood_by && !stands_by()) announce_soon(now);  // the virtual addresses are here now
  connections_.set_most(tunables_.conn_max != 0 ? std::min(options_.max_connections, static_cast<std::size_t>(tunables_.conn_max))
                                                : options_.max_connections);
  for (const auto& service : services_) service->scheduler->tuned(tunables_, service->pool);
  for (const auto& server : reals_)
    if (server) server->way_generation = 0;  // pmtu_disc is in the outer headers
  defend(now);
  return {};
}

// --- the network ----------------------------------------------------------------------------------------------------

Result<void, Refusal> Balancer::change(const SetDevice& c, Instant now) {
  const Interface* before = network_.find(c.device);
  const bool came_up = c.up && (before == nullptr || !before->up || before->mac != c.mac);
  network_.apply(c);
  if (came_up) announce_soon(now);
  return {};
}

Result<void, Refusal> Balancer::change(const SetAddresses& c, Instant now) {
  network_.apply(c);
  announce_soon(now);
  return {};
}

Result<void, Refusal> Balancer::change(const SetRoutes& c, Instant) {
  network_.apply(c);
  return {};
}

Result<void, Refusal> Balancer::change(const SetNeighbour& c, Instant now) {
  network_.apply(c, now, outbox_);
  return {};
}

Result<void, Refusal> Balancer::change(const SetForwarding& c, Instant) {
  forwarding_ = c.on;
  return {};
}

void Balancer::announce_soon(Instant now) {
  if (!options_.announce || virtual_.empty() || stands_by()) return;
  announcements_left_ = 3;
  next_announcement_ = now;
}

// --- for those who watch --------------------------------------------------------------------------------------------

Balancer::ConnectionRow Balancer::row_of(const Connection& c, Instant now) const {
  const Recipe& recipe = connections_.recipe(c);
  ConnectionRow row{recipe.protocol, c.client, recipe.virtual_, recipe.real, c.state, connections_.deadline(c) - now};
  row.from_sync = c.from_sync;
  if (!c.is_template) return row;
  const TemplateTable::Row& own = templates_[c.affinity];
  row.is_template = true;
  row.assured = own.assured;
  if (!own.call_id.empty()) {
    row.engine = "sip";
    row.engine_data = own.call_id;
  }
  return row;
}

void Balancer::for_each_connection(Instant now, const std::function<void(const ConnectionRow&)>& visit) const {
  connections_.for_each([&](const Connection& c) {
    // What is past its deadline has ended, the clock only hasn't come by; what waits for one answer is no connection.
    if (!connections_.is_due(c, now) && c.has_request_path) visit(row_of(c, now));
  });
}

std::size_t Balancer::for_some_connections(std::size_t first, std::size_t count, Instant now,
                                           const std::function<void(const ConnectionRow&)>& visit) const {
  return connections_.for_some(first, count, [&](const Connection& c) {
    if (!connections_.is_due(c, now) && c.has_request_path) visit(row_of(c, now));
  });
}

std::optional<Balancer::ConnectionRow> Balancer::find_connection(const FlowKey& flow, Instant now) {
  const Connection* c = connections_.find(flow).connection;
  if (c == nullptr || connections_.is_due(*c, now)) return {};
  return row_of(*c, now);
}

}  // namespace director
