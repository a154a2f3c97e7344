// The paths, then the answers that nobody else makes.
#include "director/http/site.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "director/http/process_facts.h"
#include "director/http/status_page.h"
#include "director/io/clock.h"
#include "director/json_listing.h"

namespace director {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kJson = "application/json; charset=utf-8";
constexpr int kRest = 19;  // times as long as making a text took, it is kept
constexpr std::size_t kPortion = std::size_t{16} << 10U;

constexpr std::string_view kPaths =
    "/                 the status page\n"
    "/metrics          for Prometheus\n"
    "/healthz          \"ok\" while the director runs\n"
    "/api/services     services and real servers, as vsadm -L --json\n"
    "/api/connections  some connections; ?limit=1000 for more\n"
    "/api/reasons      what became of frames, as vsadm reasons --json\n"
    "/api/status       the whole in numbers\n";

double seconds(Duration d) {
  return static_cast<double>(d / std::chrono::milliseconds{1}) / 1000;
}

double started_at(Instant started) {
  return seconds(started.time_since_epoch() + clock::wall_offset());
}

HttpAnswer words(unsigned status, std::string text) {
  HttpAnswer answer;
  answer.status = status;
  answer.body = std::move(text);
  return answer;
}

HttpAnswer json(std::string text) {
  HttpAnswer answer;
  answer.type = kJson;
  answer.body = std::move(text);
  return answer;
}

Json json_of(const Traffic& t) {
  return {{"connections", t.connections},
          {"in_packets", t.in_packets},
          {"out_packets", t.out_packets},
          {"in_bytes", t.in_bytes},
          {"out_bytes", t.out_bytes}};
}

std::string_view name_of(Hop::State state) {
  switch (state) {
    case Hop::State::asking: return "asking";
    case Hop::State::reachable: return "reachable";
    case Hop::State::failed: return "failed";
    case Hop::State::unused: break;
  }
  return "unused";
}

/// Those that nobody found first, and of all together not too many.
Json json_of_neighbours(const Network& network, std::size_t most) {
  Json list = Json::array();
  for (const Hop::State state : {Hop::State::failed, Hop::State::asking, Hop::State::reachable}) {
    for (const Hop& hop : network.hops()) {
      if (hop.state != state) continue;
      if (list.size() == most) return list;
      const Interface* device = network.find(hop.egress);
      Json one = {{"address", format_as(hop.via)}, {"device", device == nullptr ? "" : device->name}, {"state", name_of(state)}};
      if (state == Hop::State::reachable) one["mac"] = format_as(hop.mac);
      list.push_back(std::move(one));
    }
  }
  return list;
}

Json json_of(const ConnectionCounts& counts) {
  Json list = Json::array();
  constexpr std::string_view kProtocols[] = {"TCP", "UDP", "SCTP"};
  for (std::size_t row = 0; row < ConnectionCounts::kRows; ++row)
    for (std::size_t i = 0; i < kStateCount; ++i)
      if (const std::uint64_t count = counts.by_state[row][i]; count != 0)
        list.push_back({{"protocol", kProtocols[row]}, {"state", director::name_of(static_cast<State>(i))}, {"count", count}});
  if (counts.templates != 0) list.push_back({{"protocol", ""}, {"state", "templates"}, {"count", counts.templates}});
  return list;
}

}  // namespace

Site::Site(const Balancer& balancer, const LoopStatistics& loop, std::string version, Instant now)
    : balancer_(balancer), loop_(loop), version_(std::move(version)), started_(now), census_(balancer) {}

HttpAnswer Site::answer(const HttpRequest& request, Instant now) {
  if (request.path == "/") {
    HttpAnswer page;
    page.type = "text/html; charset=utf-8";
    page.body = kStatusPage;
    page.content_policy = kStatusPagePolicy;
    return page;
  }
  if (request.path == "/metrics") return metrics(now);
  if (request.path == "/healthz") return words(200, "ok\n");
  if (request.path == "/api/services")
    return kept(services_, now,
                [&] { return json_services(balancer_.services(), balancer_.bucket_count(), Order::sorted); });
  if (request.path == "/api/reasons") return kept(reasons_, now, [&] { return json_reasons(balancer_.counters()); });
  if (request.path == "/api/status") return kept(status_, now, [&] { return status(now); });
  if (request.path == "/api/connections") return connections(request, now);
  return words(404, std::string{"nothing is here; there are\n\n"}.append(kPaths));
}

template <typename Make>
HttpAnswer Site::kept(Kept& one, Instant now, Make make) {
  if (one.until <= now) {
    const Instant began = clock::now();
    one.text = make();
    const Instant ended = clock::now();
    one.until = ended + (ended - began) * kRest;
  }
  return json(one.text);
}

/// The text is made while it is sent, from a copy of the numbers.
HttpAnswer Site::metrics(Instant now) {
  MetricsSnapshot snapshot = take_snapshot(balancer_, loop_, census_.ask(now));
  snapshot.version = version_;
  snapshot.process = read_process_facts();
  snapshot.process.started = started_at(started_);
  HttpAnswer answer;
  answer.type = "text/plain; version=0.0.4; charset=utf-8";
  answer.more = [text = MetricsText{std::move(snapshot)}](std::string& out) mutable { return text.write_some(out, kPortion); };
  return answer;
}

HttpAnswer Site::connections(const HttpRequest& request, Instant now) {
  std::size_t limit = kUsualConnections;
  if (const std::string_view asked = request.query("limit"); !asked.empty()) {
    const auto [end, error] = std::from_chars(asked.data(), asked.data() + asked.size(), limit);
    if (error != std::errc{} || end != asked.data() + asked.size() || limit == 0)
      return words(400, "limit is a number from 1 to 1000\n");
  }
  return json(json_some_connections(balancer_, now, std::min(limit, kMostConnections), ConnectionCensus::kPortion));
}

std::string Site::status(Instant now) {
  Json devices = Json::array();
  for (const Interface& device : balancer_.network().interfaces())
    devices.push_back({{"name", device.name}, {"up", device.up}, {"mac", format_as(device.mac)}, {"mtu", device.mtu}});
  std::uint64_t turns = 0;
  for (const std::uint64_t bucket : loop_.turns.buckets) turns += bucket;
  const Json json = {
      {"version", version_},
      {"started", started_at(started_)},
      {"uptime", seconds(now - started_)},
      {"policy", balancer_.policy() == Policy::kernel ? "kernel" : "improved"},
      {"generation", balancer_.generation()},
      {"stats", json_of(balancer_.traffic().total)},
      {"rate", json_of(balancer_.traffic().rate)},
      {"connections",
       {{"entries", balancer_.connection_count()}, {"limit", balancer_.connection_limit()}, {"states", json_of(census_.ask(now))}}},
      {"devices", devices},
      {"neighbours", json_of_neighbours(balancer_.network(), kMostNeighbours)},
      {"loop", {{"turns", turns}, {"busy", static_cast<double>(loop_.turns.sum) / 1e9}}}};
  return json.dump(2) + "\n";
}

}  // namespace director
