// Changes in words; then the watch, in the order it looks.
#include "director/events.h"

#include <fmt/format.h>

#include <algorithm>

#include "director/http/metrics.h"
#include "director/rules.h"

namespace director {
namespace {

using log::Level;

/// Losses somebody should look into: something is missing or too small. Others come from what strangers send, and are counted only; those
/// of devices are told by the devices, with the error.
constexpr Reason kAlarming[] = {Reason::no_server,          Reason::table_full,  Reason::made_room,
                                Reason::drop_packet,        Reason::no_route,    Reason::neighbour_failed,
                                Reason::neighbour_overflow, Reason::device_down, Reason::transmit_full,
                                Reason::sync_malformed};

struct Defence {
  std::string_view name;
  std::int64_t Tunables::*mode;
};
constexpr Defence kDefences[] = {{"drop_entry", &Tunables::drop_entry},
                                 {"drop_packet", &Tunables::drop_packet},
                                 {"secure_tcp", &Tunables::secure_tcp}};

struct Namer {
  using Fields = std::vector<log::Field>;
  using Named = std::optional<Event>;

  static Named event(std::string message, Fields fields = {}) {
    return Event{Level::info, std::move(message), std::move(fields)};
  }
  static Named of_service(std::string message, const ServiceKey& key) {
    return event(std::move(message), {{"service", service_label(key)}});
  }
  static Named of_server(std::string message, const ServiceKey& key, const ServerConfig& server) {
    return event(std::move(message),
                 {{"service", service_label(key)}, {"server", server.endpoint}, {"weight", server.weight}});
  }

  Named operator()(const AddService& c) const { return of_service("service added", c.config.key); }
  Named operator()(const EditService& c) const { return of_service("service changed", c.config.key); }
  Named operator()(const DeleteService& c) const { return of_service("service removed", c.key); }
  Named operator()(const ClearServices&) const { return event("all services removed"); }
  Named operator()(const AddServer& c) const { return of_server("server added", c.service, c.config); }
  Named operator()(const EditServer& c) const { return of_server("server changed", c.service, c.config); }
  Named operator()(const DeleteServer& c) const {
    return event("server removed", {{"service", service_label(c.service)}, {"server", c.endpoint}});
  }
  Named operator()(const SetClasses&) const { return event("classes changed"); }
  Named operator()(const AddClassRule&) const { return event("classes changed"); }
  Named operator()(const DeleteClass&) const { return event("classes changed"); }
  Named operator()(const ZeroCounters&) const { return event("counters set to zero"); }
  Named operator()(const SetTimeouts&) const { return event("time-outs set"); }
  Named operator()(const SetTunable& c) const {
    return event("knob set", {{"knob", c.name}, {"value", c.value}});
  }
  Named operator()(const StartDaemon&) const { return event("sync daemon started"); }
  Named operator()(const StopDaemon&) const { return event("sync daemon stopped"); }
  Named operator()(const SetDevice&) const { return {}; }
  Named operator()(const SetAddresses&) const { return {}; }
  Named operator()(const SetRoutes&) const { return {}; }
  Named operator()(const SetNeighbour&) const { return {}; }
  Named operator()(const SetForwarding&) const { return {}; }
  Named operator()(const Carried&) const { return {}; }
};

}  // namespace

std::optional<Event> event_of(const Change& change) {
  auto event = std::visit(Namer{}, change);
  if (event) event->fields.emplace_back("change", command_text(change));
  return event;
}

// --- the watch ---------------------------------------------------------------------------------------------------------------

Watch::Watch(const Balancer& balancer) : balancer_(balancer) {}

Watch::Traces Watch::traces() const {
  Traces traces{balancer_.counters().by_reason,
                balancer_.generation(),
                balancer_.traffic().total.in_packets,
                balancer_.connection_count(),
                balancer_.network().neighbour_generation(),
                balancer_.health_turns()};
  for (const Defence& defence : kDefences) traces.defences = traces.defences * 4 + balancer_.tunables().*defence.mode;
  return traces;
}

std::vector<Event> Watch::due(Instant now) {
  if (!waiting_ && traces() == seen_) {
    next_ = kNever;
    return {};
  }
  if (now < not_before_) {
    next_ = not_before_;
    return {};
  }
  seen_ = traces();
  look(now);
  not_before_ = now + kEvery;
  next_ = waiting_ ? not_before_ : kNever;
  return std::exchange(events_, {});
}

void Watch::look(Instant now) {
  ++looks_;
  waiting_ = false;
  look_at_services(now);
  look_at_reasons(now);
  look_at_defences(now);
}

void Watch::look_at_services(Instant now) {
  for (const Service* service : balancer_.services()) {
    SeenService& seen = services_[service];
    if (seen.key != service->key()) seen = {service->key()};  // another one at the same place
    seen.look = looks_;
    seen.had_servers |= !service->servers.empty();
    const bool can_serve = std::ranges::any_of(service->servers, &RealServer::usable);
    if (turned(seen.condition, seen.had_servers && !can_serve, now))
      tell(can_serve ? Level::info : Level::warning,
           can_serve ? "service has a usable server again" : "service has no usable server",
           {{"service", service_label(service->key())}, {"servers", service->servers.size()}});
    for (const RealServer* server : service->servers) {
      look_at_server(*service, *server, now);
      look_at_health(*service, *server, now);
      look_at_neighbour(*server, now);
    }
  }
  std::erase_if(services_, [&](const auto& entry) { return entry.second.look != looks_; });
}

void Watch::look_at_server(const Service& service, const RealServer& server, Instant now) {
  if (!turned(full_, service, server, server.overloaded, now)) return;
  tell(server.overloaded ? Level::warning : Level::info,
       server.overloaded ? "server is full" : "server takes connections again",
       {{"service", service_label(service.key())},
        {"server", server.config.endpoint},
        {"connections", server.connections()},
        {"most", server.config.upper_threshold}});
}

/// In keepalived's words, which people alert on.
void Watch::look_at_health(const Service& service, const RealServer& server, Instant now) {
  if (!turned(failed_, service, server, server.failed(), now) || !server.health) return;
  const ServiceKey& key = service.key();
  const auto name = [&](const Endpoint& e) {
    const std::string_view protocol = key.protocol == Protocol::udp ? "udp" : key.protocol == Protocol::sctp ? "sctp" : "tcp";
    return fmt::format("[{}]:{}:{}", format_as(e.address), protocol, e.port.host());
  };
  const std::string real = name(server.config.endpoint);
  const std::string vs = key.mark != 0 ? fmt::format("FWM {}", key.mark) : name(key.endpoint);
  tell(server.failed() ? Level::warning : Level::info,
       server.failed() ? fmt::format("Removing service {} from VS {}", real, vs) : fmt::format("Adding service {} to VS {}", real, vs),
       {{"service", service_label(key)},
        {"server", server.config.endpoint},
        {"check", check_text(*server.config.check)},
        {"says", server.health->says}});
}

bool Watch::turned(SeenServers& servers, const Service& service, const RealServer& server, bool is_bad, Instant now) {
  if (!is_bad && !servers.contains(server.id.index)) return false;
  SeenServer& seen = servers[server.id.index];
  if (seen.service != service.key() || seen.endpoint != server.config.endpoint)
    seen = {service.key(), server.config.endpoint};  // another one's row before
  return turned(seen.condition, is_bad, now);
}

/// Of neighbours that nobody sends to nothing is known: neither lost nor found.
void Watch::look_at_neighbour(const RealServer& server, Instant now) {
  const Network& network = balancer_.network();
  if (!server.way || server.way_generation != network.generation() || !server.way->hop) return;
  const HopId id = server.way->hop;
  const Hop& hop = network.hop(id);
  if (hop.state != Hop::State::failed && hop.state != Hop::State::reachable) return;
  const bool is_lost = hop.state == Hop::State::failed;
  const auto known = neighbours_.find(id.index);
  if (known == neighbours_.end() && !is_lost) return;
  if (!turned(known != neighbours_.end() ? known->second : neighbours_[id.index], is_lost, now)) return;
  const Interface* const device = network.find(hop.egress);
  tell(is_lost ? Level::warning : Level::info, is_lost ? "neighbour lost" : "neighbour found",
       {{"neighbour", hop.via},
        {"device", device == nullptr ? "" : device->name},
        {"server", server.config.endpoint}});
}

void Watch::look_at_reasons(Instant now) {
  for (const Reason reason : kAlarming) {
    Loss& loss = losses_[static_cast<std::size_t>(reason)];
    const std::uint64_t frames = balancer_.counters()[reason];
    if (frames == loss.told_frames) continue;
    if (loss.told && now - *loss.told < kRest) {
      waiting_ = true;
      continue;
    }
    tell(Level::warning, "losses",
         {{"reason", name_of(reason)}, {"frames", frames - loss.told_frames}, {"text", text_of(reason)}});
    loss = {frames, now};
  }
}

void Watch::look_at_defences(Instant now) {
  for (std::size_t i = 0; i < defences_.size(); ++i) {
    const bool is_on = balancer_.tunables().*kDefences[i].mode == 2;  // "automatic", and needed
    if (turned(defences_[i], is_on, now))
      tell(is_on ? Level::warning : Level::info, is_on ? "defence is on" : "defence is off",
           {{"knob", kDefences[i].name}});
  }
}

bool Watch::turned(Condition& condition, bool is_bad, Instant now) {
  if (condition.is_bad == is_bad) return false;
  if (condition.told && now - *condition.told < kRest) {
    waiting_ = true;
    return false;
  }
  condition = {is_bad, now};
  return true;
}

void Watch::tell(Level level, std::string message, std::vector<log::Field> fields) {
  events_.push_back({level, std::move(message), std::move(fields)});
}

}  // namespace director
