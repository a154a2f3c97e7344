// Names of members are ipvsadm's words where it has one.
#include "director/json_listing.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "director/class_text.h"
#include "director/fate.h"
#include "director/rules.h"

namespace director {
namespace {

using Json = nlohmann::ordered_json;

std::int64_t seconds(Duration d) {
  return std::chrono::duration_cast<std::chrono::seconds>(d).count();
}

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

Json json_of(const Endpoint& e) {
  return {{"address", format_as(e.address)}, {"port", e.port.host()}};
}

Json json_of(const Traffic& t) {
  return {{"connections", t.connections},
          {"in_packets", t.in_packets},
          {"out_packets", t.out_packets},
          {"in_bytes", t.in_bytes},
          {"out_bytes", t.out_bytes}};
}

Json json_of(const RealServer& server) {
  static constexpr const char* kMethods[] = {"masq", "tunnel", "route"};
  static constexpr const char* kTunnels[] = {"ipip", "gue", "gre"};
  static constexpr const char* kChecksums[] = {"nocsum", "csum", "remcsum"};
  const ServerConfig& config = server.config;
  Json json = json_of(config.endpoint);
  json["method"] = kMethods[static_cast<std::size_t>(config.method)];
  if (config.method == Method::tunnel) {
    json["tunnel"] = {{"type", kTunnels[static_cast<std::size_t>(config.tunnel_type)]},
                      {"port", config.tunnel_port.host()},
                      {"checksum", kChecksums[static_cast<std::size_t>(config.tunnel_checksum)]}};
  }
  json["weight"] = config.weight;
  json["upper_threshold"] = config.upper_threshold;
  json["lower_threshold"] = config.lower_threshold;
  json["usable"] = server.usable();
  if (server.health) {
    const Health& health = *server.health;
    json["check"] = {{"asks", check_text(*config.check)}, {"state", health.failed ? "failed" : "well"}, {"says", health.says},
                     {"passes", health.passes}, {"failures", health.failures}};
  }
  json["active"] = server.active;
  json["inactive"] = server.inactive;
  json["persistent"] = server.persistent;
  json["stats"] = json_of(server.traffic.total);
  json["rate"] = json_of(server.traffic.rate);
  return json;
}

Json json_of(const Service& service, Order order) {
  const ServiceConfig& config = service.config;
  Json json;
  if (config.key.mark != 0) {
    json["mark"] = config.key.mark;
    json["family"] = config.key.family() == Family::ipv4 ? 4 : 6;
  } else {
    json["protocol"] = lower(format_as(config.key.protocol));
    json.update(json_of(config.key.endpoint));
  }
  json["scheduler"] = config.scheduler;
  if (const std::string flags = flags_text(config); !flags.empty()) json["flags"] = flags;
  if (config.persistence != Duration{}) {
    json["persistence"] = seconds(config.persistence);
    if (config.key.family() == Family::ipv4) {
      json["netmask"] = format_as(IpAddress::v4(config.netmask));
    } else {
      json["netmask"] = config.netmask_length == 0 ? 128 : config.netmask_length;
    }
  }
  if (!config.persistence_engine.empty()) json["pe"] = config.persistence_engine;
  json["ops"] = config.one_packet;
  json["stats"] = json_of(service.traffic.total);
  json["rate"] = json_of(service.traffic.rate);
  json["servers"] = Json::array();
  for (const RealServer* server : in_order(service, order)) json["servers"].push_back(json_of(*server));
  return json;
}

Json json_of(const Balancer::ConnectionRow& row) {
  Json json = {
      {"protocol", lower(format_as(row.protocol))},
      {"state", row.is_template ? row.assured ? "ASSURED" : "NONE" : std::string{name_of(row.state)}},
      {"expires", static_cast<double>(row.remaining / std::chrono::milliseconds{1}) / 1000},
      {"client", json_of(row.client)},
      {"virtual", json_of(row.virtual_)},
      {"real", json_of(row.real)}};
  if (row.is_template) json["template"] = true;
  if (!row.engine.empty()) json["call_id"] = row.engine_data;
  return json;
}

std::string printed(const Json& json) {
  return json.dump(2) + "\n";
}

}  // namespace

std::string json_services(ServiceList services, std::size_t table_size, Order order) {
  Json json = {{"version", "1.2.1"}, {"size", table_size}, {"services", Json::array()}};
  for (const Service* service : in_order(services, order))
    json["services"].push_back(json_of(*service, order));
  return printed(json);
}

/// A row a line, written as it is made: there may be millions.
std::string json_connections(const Balancer& balancer, Instant now) {
  std::string text = "{\"connections\": [";
  const char* separator = "\n  ";
  balancer.for_each_connection(now, [&](const Balancer::ConnectionRow& row) {
    text += separator;
    text += json_of(row).dump();
    separator = ",\n  ";
  });
  return text + "\n]}\n";
}

std::string json_some_connections(const Balancer& balancer, Instant now, std::size_t most, std::size_t rows) {
  Json list = Json::array();
  balancer.for_some_connections(0, rows, now, [&](const Balancer::ConnectionRow& row) {
    if (list.size() < most) list.push_back(json_of(row));
  });
  return printed({{"entries", balancer.connection_count()}, {"connections", list}});
}

std::string json_classes(const Classifier& classes) {
  Json list = Json::array();
  for (const ClassRule& rule : classes.rules())
    list.push_back({{"class", rule.mark}, {"family", rule.family == Family::ipv4 ? 4 : 6}, {"rule", format_as(rule)}});
  return printed({{"classes", list}});
}

std::string json_daemons(const Balancer& balancer) {
  Json list = Json::array();
  for (const auto& [role, name] : {std::pair{SyncRole::master, "master"}, {SyncRole::backup, "backup"}}) {
    const auto& daemon = balancer.sync_daemon(role);
    if (!daemon) continue;
    const StartDaemon& s = daemon->settings;
    list.push_back({{"role", name},
                    {"interface", s.interface},
                    {"syncid", s.sync_id},
                    {"maxlen", s.maximum_length},
                    {"group", format_as(*s.group)},
                    {"port", s.port.host()},
                    {"ttl", s.ttl}});
  }
  return printed({{"daemons", list}});
}

std::string json_timeouts(const Timeouts& timeouts) {
  return printed({{"timeouts",
                   {{"tcp", seconds(timeouts[State::established])},
                    {"tcpfin", seconds(timeouts[State::fin_wait])},
                    {"udp", seconds(timeouts[State::udp])}}}});
}

std::string json_reasons(const Counters& counters) {
  Json list = Json::array();
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    list.push_back({{"name", name_of(reason)},
                    {"text", text_of(reason)},
                    {"fate", name_of(fate_of(reason))},
                    {"count", counters[reason]}});
  }
  return printed({{"reasons", list}});
}

std::string json_tunables(const Tunables& tunables, std::span<const std::string> names) {
  Json list = Json::array();
  for (const TunableInfo& knob : kTunables)
    if (names.empty() || std::ranges::find(names, knob.name) != names.end())
      list.push_back({{"name", knob.name},
                      {"value", tunables.*(knob.value)},
                      {"default", knob.initial},
                      {"least", knob.least},
                      {"most", knob.most},
                      {knob.has_effect ? "effect" : "without_effect", knob.effect}});
  return printed({{"tunables", list}});
}

std::string json_changes(std::span<const std::pair<std::string, Movement>> changes) {
  Json list = Json::array();
  for (const auto& [change, movement] : changes)
    list.push_back({{"change", change},
                    {"connections", movement.connections},
                    {"slots", movement.slots},
                    {"of_slots", movement.of_slots}});
  return printed({{"changes", list}});
}

std::string json_drain(std::string_view server, std::uint32_t active, std::uint32_t inactive, std::string_view state) {
  return Json{{"server", server}, {"active", active}, {"inactive", inactive}, {"state", state}}.dump() + "\n";
}

}  // namespace director
