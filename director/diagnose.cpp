// One function a mistake; the table of them is in diagnose().
#include "director/diagnose.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "director/core/hop.h"
#include "director/forward/tunnel.h"
#include "director/rules.h"

namespace director {
namespace {

using Findings = std::vector<Finding>;
using Weight = Finding::Weight;

std::string name_of(const ServiceKey& key) {
  return key.mark != 0 ? fmt::format("class {}", key.mark) : fmt::format("{} {}", format_as(key.protocol), format_as(key.endpoint));
}

/// What the connections of a real server look like.
struct Seen {
  std::uint32_t unanswered = 0;   // SYNs that nothing followed
  std::uint32_t established = 0;
};

/// Services that can serve nobody.
void no_server(const Service& service, Findings& into) {
  if (service.servers.empty())
    return into.push_back({Weight::bad, name_of(service.key()), "has no real server: every client is refused", "vsadm -a adds one"});
  if (std::ranges::none_of(service.servers, [](const RealServer* s) { return s->usable(); }))
    into.push_back({Weight::bad, name_of(service.key()), "none of its real servers takes connections: weight 0, or above the upper threshold",
                    "vsadm -e ... -w 1, or a higher -x"});
}

/// The next hop doesn't say its MAC address; or there is no way at all.
void no_way(Balancer& balancer, const Service& service, const RealServer& server, Findings& into) {
  const auto device = balancer.device_towards(server.config.endpoint.address);
  const std::string about = fmt::format("{} of {}", format_as(server.config.endpoint), name_of(service.key()));
  const auto hop = std::ranges::find_if(balancer.network().hops(), [&](const Hop& h) { return h.via == server.config.endpoint.address; });
  const bool on_link = hop != balancer.network().hops().end();
  if (!device && !balancer.network().owns(server.config.endpoint.address))
    return into.push_back({Weight::bad, about, "no route leads there", "ip route add, on the director's host"});
  if (on_link && hop->state == Hop::State::failed)
    return into.push_back({Weight::bad, about, fmt::format("doesn't answer ARP or ND on {}", balancer.network().find(hop->egress)->name),
                           "is it up, and on this link?"});
  if (server.config.method == Method::direct && device && !on_link && server.connections() != 0)
    into.push_back({Weight::bad, about, "is behind a router: direct routing only reaches the same link (the router would send its packets back here)",
                    "put it on this link, or vsadm -e ... -i (a tunnel)"});
}

/// SYNs go there and nothing comes of them. With NAT the director would see the answer.
void silence(const Service& service, const RealServer& server, const Seen& seen, Findings& into) {
  constexpr std::uint32_t kEnough = 3;
  if (seen.unanswered < kEnough || seen.established != 0) return;
  const std::string about = fmt::format("{} of {}", format_as(server.config.endpoint), name_of(service.key()));
  const std::string what = fmt::format("{} connections wait in SYN_RECV, none is established", seen.unanswered);
  switch (server.config.method) {
    case Method::masq:
      return into.push_back({Weight::bad, about, what + ", and no answer came back through the director",
                             "does it listen on that port? is its default route the director? are clients in its own subnet (they are answered directly)?"});
    case Method::tunnel:
      return into.push_back({Weight::bad, about, what, "on the real server: realserver check (decapsulator, rp_filter, VIP on lo, the service on the VIP's port)"});
    case Method::direct:
      return into.push_back({Weight::bad, about, what, "on the real server: realserver check (VIP on lo, the service on the VIP's port)"});
  }
}

/// Clients' packets go through NAT and no answer ever came: they go past the director.
void answers_go_past(const Service& service, const RealServer& server, const Seen& seen, Findings& into) {
  constexpr std::uint64_t kEnough = 8;
  const Traffic& total = server.traffic.total;
  if (server.config.method != Method::masq || total.in_packets < kEnough || total.out_packets != 0 || seen.unanswered != 0) return;
  into.push_back({Weight::bad, fmt::format("{} of {}", format_as(server.config.endpoint), name_of(service.key())),
                  fmt::format("{} packets went there by NAT and none came back", total.in_packets),
                  "make the director its default route; in one subnet with the clients, use direct routing"});
}

/// Outer headers take room that large packets don't have.
void narrow_tunnel(Balancer& balancer, const Service& service, const RealServer& server, Findings& into) {
  if (server.config.method != Method::tunnel || !server.way || server.way->local) return;
  const std::size_t overhead = tunnel_overhead(server.outer, Offload{});
  const std::uint64_t too_big = balancer.counters()[Reason::too_big];
  if (too_big == 0 || server.way->mtu >= 1500 + overhead) return;
  into.push_back({Weight::look, fmt::format("{} of {}", format_as(server.config.endpoint), name_of(service.key())),
                  fmt::format("{} packets were larger than the {} bytes the tunnel leaves of the way's {}", too_big, server.way->mtu - overhead, server.way->mtu),
                  fmt::format("an MTU of {} or more on the way, and no firewall in the way of ICMP \"fragmentation needed\"", 1500 + overhead)});
}

/// Losses that have one cause.
void losses(const Balancer& balancer, Findings& into) {
  struct Loss {
    Reason reason;
    std::string_view cure;
  };
  static constexpr Loss kLosses[] = {
      {Reason::table_full, "raise the limit, or vsadm tune drop_entry=1 against floods"},
      {Reason::neighbour_overflow, "is the next hop up?"},
      {Reason::transmit_full, "the link is slower than the traffic"},
      {Reason::bad_source, "somebody sends in the name of an address of ours: is the VIP configured on another host, or on this one?"},
  };
  for (const auto& [reason, cure] : kLosses)
    if (const std::uint64_t n = balancer.counters()[reason]; n != 0)
      into.push_back({Weight::look, std::string{name_of(reason)}, fmt::format("{} frames: {}", n, text_of(reason)), std::string{cure}});
}

}  // namespace

Findings diagnose(Balancer& balancer, Instant now) {
  std::map<std::string, Seen> seen;  // by protocol and real endpoint
  const auto place = [](Protocol protocol, const Endpoint& real) { return format_as(protocol) + format_as(real); };
  balancer.for_each_connection(now, [&](const Balancer::ConnectionRow& row) {
    Seen& s = seen[place(row.protocol, row.real)];
    if (row.state == State::syn_recv || row.state == State::syn_sent) ++s.unanswered;
    if (row.state == State::established) ++s.established;
  });
  Findings findings;
  for (const Service* service : balancer.services()) {
    no_server(*service, findings);
    for (const RealServer* server : service->servers) {
      const Seen& s = seen[place(service->key().mark == 0 ? service->key().protocol : Protocol::tcp, server->config.endpoint)];
      no_way(balancer, *service, *server, findings);
      silence(*service, *server, s, findings);
      answers_go_past(*service, *server, s, findings);
      narrow_tunnel(balancer, *service, *server, findings);
    }
  }
  losses(balancer, findings);
  std::ranges::stable_sort(findings, std::ranges::greater{}, &Finding::weight);
  return findings;
}

std::string findings_text(std::span<const Finding> findings) {
  if (findings.empty()) return "nothing looks wrong from here; `realserver check` on each real server sees what the director can't\n";
  std::string text;
  for (const Finding& f : findings)
    text += fmt::format("{:<5}{}: {}\n     cure: {}\n", f.weight == Weight::bad ? "bad" : "look", f.about, f.what, f.cure);
  return text;
}

std::string findings_json(std::span<const Finding> findings) {
  using Json = nlohmann::ordered_json;
  Json all = Json::array();
  for (const Finding& f : findings)
    all.push_back({{"weight", f.weight == Weight::bad ? "bad" : "look"}, {"about", f.about}, {"what", f.what}, {"cure", f.cure}});
  return Json{{"findings", std::move(all)}}.dump(2) + "\n";
}

}  // namespace director
