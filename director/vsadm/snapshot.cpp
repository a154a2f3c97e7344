// Reading listings, and rates between two of them.
#include "director/vsadm/snapshot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "director/fate.h"

namespace director::vsadm {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t Traffic::*kCounts[] = {&Traffic::connections, &Traffic::in_packets,
                                               &Traffic::out_packets, &Traffic::in_bytes,
                                               &Traffic::out_bytes};

Traffic traffic_of(const Json& json) {
  return {json.at("connections"), json.at("in_packets"), json.at("out_packets"), json.at("in_bytes"),
          json.at("out_bytes")};
}

std::string endpoint_of(const Json& json) {
  const std::string& address = json.at("address").get_ref<const std::string&>();
  const bool is_v6 = address.find(':') != std::string::npos;
  return fmt::format(fmt::runtime(is_v6 ? "[{}]:{}" : "{}:{}"), address, json.at("port").get<unsigned>());
}

Snapshot::Server server_of(const Json& json) {
  return {endpoint_of(json),          json.at("weight"),   json.at("usable"),
          json.at("active"),          json.at("inactive"), traffic_of(json.at("stats")),
          traffic_of(json.at("rate"))};
}

Snapshot::Service service_of(const Json& json) {
  Snapshot::Service service;
  if (json.contains("mark")) {
    service.option = "-f";
    service.name = fmt::format("{}", json.at("mark").get<std::uint32_t>());
    service.is_v6 = json.at("family") == 6;
  } else {
    const std::string& protocol = json.at("protocol").get_ref<const std::string&>();
    service.option = protocol == "tcp" ? "-t" : protocol == "udp" ? "-u" : "--sctp-service";
    service.name = endpoint_of(json);
    service.is_v6 = service.name.starts_with('[');
  }
  service.scheduler = json.at("scheduler");
  service.total = traffic_of(json.at("stats"));
  service.rate = traffic_of(json.at("rate"));
  for (const Json& server : json.at("servers")) service.servers.push_back(server_of(server));
  return service;
}

std::uint64_t per_second(std::uint64_t before, std::uint64_t now, Duration elapsed) {
  const std::uint64_t since = now >= before ? now - before : now;
  const double seconds = std::chrono::duration<double>(elapsed).count();
  return seconds <= 0 ? 0 : static_cast<std::uint64_t>(std::llround(static_cast<double>(since) / seconds));
}

Traffic per_second(const Traffic& before, const Traffic& now, Duration elapsed) {
  Traffic rate;
  for (const auto count : kCounts) rate.*count = per_second(before.*count, now.*count, elapsed);
  return rate;
}

/// The row of `rows` that is about the same; both lists are mostly in the same order, so it is looked for from `hint` on.
template <typename Row, typename Same>
const Row* find_row(const std::vector<Row>& rows, std::size_t hint, Same same) {
  if (hint < rows.size() && same(rows[hint])) return &rows[hint];
  const auto found = std::ranges::find_if(rows, same);
  return found == rows.end() ? nullptr : &*found;
}

}  // namespace

std::uint64_t Snapshot::Service::active() const {
  std::uint64_t sum = 0;
  for (const Server& server : servers) sum += server.active;
  return sum;
}

std::uint64_t Snapshot::Service::inactive() const {
  std::uint64_t sum = 0;
  for (const Server& server : servers) sum += server.inactive;
  return sum;
}

Result<Snapshot> read_snapshot(std::string_view services, std::string_view reasons) {
  try {
    Snapshot snapshot;
    const Json listed = Json::parse(services);
    for (const Json& service : listed.at("services")) snapshot.services.push_back(service_of(service));
    if (reasons.empty()) return snapshot;
    const Json counted = Json::parse(reasons);
    for (const Json& reason : counted.at("reasons")) {
      const bool is_refusal = reason.at("fate") == name_of(Fate::refused);
      if (is_refusal || reason.at("fate") == name_of(Fate::dropped))
        snapshot.drops.push_back({reason.at("name"), reason.at("text"), is_refusal, reason.at("count"), {}});
    }
    return snapshot;
  } catch (const Json::exception& error) {
    return fail(fmt::format("the director's listing can't be read: {}", error.what()));
  }
}

Snapshot measured(const Snapshot& before, Snapshot now, Duration elapsed) {
  for (std::size_t i = 0; i < now.services.size(); ++i) {
    Snapshot::Service& service = now.services[i];
    const auto* const old = find_row(before.services, i, [&](const Snapshot::Service& s) {
      return s.name == service.name && s.option == service.option && s.is_v6 == service.is_v6;
    });
    if (old == nullptr) continue;
    service.rate = per_second(old->total, service.total, elapsed);
    for (std::size_t k = 0; k < service.servers.size(); ++k) {
      Snapshot::Server& server = service.servers[k];
      const auto* const old_server =
          find_row(old->servers, k, [&](const Snapshot::Server& s) { return s.name == server.name; });
      if (old_server != nullptr) server.rate = per_second(old_server->total, server.total, elapsed);
    }
  }
  for (std::size_t i = 0; i < now.drops.size(); ++i) {
    Snapshot::Drop& drop = now.drops[i];
    const auto* const old =
        find_row(before.drops, i, [&](const Snapshot::Drop& d) { return d.name == drop.name; });
    if (old != nullptr) drop.rate = per_second(old->total, drop.total, elapsed);
  }
  return now;
}

}  // namespace director::vsadm
