// Health checks, in the order of one: when it is due, the question, the answer, what it means for the service.
// A check is a TCP connection of four packets at most (RFC 9293), not kept open for a moment longer than its answer takes.
#include "director/core/health.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <span>

#include "director/core/balancer.h"
#include "director/core/local.h"
#include "director/net/ip_header.h"

namespace director {

// --- as text ----------------------------------------------------------------------------------------------------------

Result<HealthCheck> parse_check(std::string_view text) {
  const auto bad = [] { return fail("expected tcp, tcp:PORT, http:/PATH or http:PORT/PATH"); };
  HealthCheck check;
  const std::size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  std::string_view rest = colon == text.npos ? "" : text.substr(colon + 1);
  if (kind == "http")
    check.kind = HealthCheck::Kind::http;
  else if (kind != "tcp")
    return bad();
  if (const std::string_view port = rest.substr(0, rest.find('/')); !port.empty()) {
    std::uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc{} || end != port.data() + port.size() || number == 0) return bad();
    check.port = Port::of(number);
    rest.remove_prefix(port.size());
  } else if (colon != text.npos && check.kind == HealthCheck::Kind::tcp) {
    return bad();
  }
  const auto printable = [](char c) { return c > ' ' && c < '\x7f'; };
  if ((check.kind == HealthCheck::Kind::http) != rest.starts_with('/') || !std::ranges::all_of(rest, printable)) return bad();
  constexpr std::size_t kLongestPath = 256;  // a question is one packet
  if (rest.size() > kLongestPath) return fail(fmt::format("expected a path of at most {} characters", kLongestPath));
  check.path = rest;
  return check;
}

std::string check_text(const HealthCheck& check) {
  const std::string port = check.port == Port{} ? "" : fmt::format("{}", check.port.host());
  if (check.kind == HealthCheck::Kind::tcp) return port.empty() ? "tcp" : "tcp:" + port;
  return fmt::format("http:{}{}", port, check.path);
}

namespace {

/// "HTTP/1.1 503 ..." is 503; 0: not HTTP.
unsigned http_status(std::string_view answer) {
  unsigned status = 0;
  const std::size_t blank = answer.find(' ');
  if (!answer.starts_with("HTTP/") || blank == answer.npos || answer.size() < blank + 4) return 0;
  const char* const digits = answer.data() + blank + 1;
  const auto [end, error] = std::from_chars(digits, digits + 3, status);
  return error == std::errc{} && end == digits + 3 ? status : 0;
}

std::string question(const HealthCheck& check, const Endpoint& asked) {
  return fmt::format("GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: director\r\nConnection: close\r\n\r\n", check.path, format_as(asked));
}

}  // namespace

// --- when --------------------------------------------------------------------------------------------------------------

/// A server was added or edited: its check begins, goes on or ends. The first ones are spread over their interval.
void Balancer::follow_check(RealServer& server, const std::optional<HealthCheck>& before, Instant now) {
  const auto& check = server.config.check;
  if (check == before) return;
  give_up_check(server);
  if (!check) {
    if (server.failed()) rejoin_pool(server);
    server.health.reset();
    return;
  }
  if (!server.health) server.health.emplace();
  const auto place = static_cast<std::uint64_t>(server.id.index) * 0x9e3779b97f4a7c15ULL >> 32U;
  server.health->next = now + check->interval * static_cast<std::int64_t>(place % 64) / 64;
  health_.due.emplace(server.health->next, server.id.index);
}

/// Nobody waits for its answer any more.
void Balancer::give_up_check(RealServer& server) {
  if (!server.health || server.health->stage == Health::Stage::resting) return;
  health_.asked[server.health->self.port.host() - CheckPorts::kFirst] = RealId{};
  server.health->stage = Health::Stage::resting;
}

Instant Balancer::next_check() const { return health_.due.empty() ? kNever : health_.due.top().first; }

void Balancer::check_health(Instant now) {
  while (next_check() <= now) {
    const auto [at, row] = health_.due.top();
    health_.due.pop();
    RealServer* const server = row < reals_.size() ? reals_[row].get() : nullptr;
    if (server == nullptr || server->removed() || !server->health || server->health->next != at) continue;
    if (server->health->stage != Health::Stage::resting)
      conclude(*server, false, fmt::format("no answer within {} ms", server->config.check->interval / 1ms));
    start_check(*server, now);
  }
}

// --- the question ------------------------------------------------------------------------------------------------------

void Balancer::start_check(RealServer& server, Instant now) {
  Health& health = *server.health;
  const HealthCheck& check = *server.config.check;
  health.next = now + check.interval;
  health_.due.emplace(health.next, server.id.index);
  health.asked = asked_by_check(server.service_key, server.config);
  const RouteTo* way = way_to(server);
  if (way == nullptr) return conclude(server, false, "no route to it");
  if (way->local) return conclude(server, false, "it is the director itself");
  health.self.address = own_address(way->source, health.asked.address.family());
  if (health.self.address.is_unspecified()) return conclude(server, false, "the director has no address to ask from");
  const auto free = health_.take_port(server.id);
  if (!free) return;  // a later one's turn
  health.self.port = *free;
  health.stage = Health::Stage::connecting;
  health.sequence = std::uint32_t{next_ip_id()} << 16U | next_ip_id();
  send_check(server, TcpHeader::kSyn, {}, now);
  ++health.sequence;
}

/// What answers come to: the address of the way there, if it is of the packet's family (of a tunnel it may not be).
IpAddress Balancer::own_address(const IpAddress& preferred, Family family) const {
  if (!preferred.is_unspecified() && preferred.family() == family) return preferred;
  for (const Interface& i : network_.interfaces())
    for (const Prefix& p : i.addresses)
      if (i.up && p.address.family() == family && !p.address.is_link_local() && !is_virtual(p.address)) return p.address;
  return {};
}

/// A segment of the check's connection, by the server's method.
void Balancer::send_check(RealServer& server, std::uint8_t flags, std::string_view text, Instant now) {
  const Health& health = *server.health;
  const RouteTo* way = way_to(server);
  if (way == nullptr || way->local) return;
  const Family family = health.asked.address.family();
  const std::size_t transport = sizeof(EthernetHeader) + ip_header_size(family);
  const std::size_t size = transport + sizeof(TcpHeader) + text.size();
  Outbox::Entry& entry = outbox_.add_entry(size, DeviceId{});
  Frame& frame = entry.frame;
  frame.resize(size);
  const auto bytes = frame.bytes();
  header_at<EthernetHeader>(bytes, 0) = {};
  set_ether_type(bytes, family);
  TcpHeader tcp{};
  tcp.source = health.self.port;
  tcp.target = health.asked.port;
  tcp.sequence = Be32{health.sequence};
  tcp.acknowledgement = Be32{(flags & TcpHeader::kAck) != 0 ? health.expected : 0};
  tcp.offset = 5U << 4U;
  tcp.flags = flags;
  tcp.window = Be16{(flags & TcpHeader::kRst) != 0 ? std::uint16_t{0} : std::uint16_t{65535}};
  header_at<TcpHeader>(bytes, transport) = tcp;
  std::ranges::copy(std::as_bytes(std::span{text}), bytes.begin() + static_cast<long>(transport + sizeof tcp));
  IpFields ip{Protocol::tcp};
  ip.dont_fragment = true;
  write_ip_header(bytes, sizeof(EthernetHeader), {health.self.address, health.asked.address}, ip);
  const FlowKey flow{health.self, health.asked, Protocol::tcp};
  write_tcp_checksum(bytes, transport, flow);

  Verdict verdict = Verdict::drop(Reason::no_route);
  if (server.config.method == Method::tunnel) {
    verdict = tunnel_to_hop(frame, *parse_packet(frame), server, flow, *way, now);
  } else {
    verdict = seal(frame, *way, now);
  }
  if (verdict.action == Action::transmit) entry.egress = verdict.egress;
  counters_.count(verdict.action == Action::transmit ? Reason::check_sent : verdict.reason);
}

// --- the answer --------------------------------------------------------------------------------------------------------

/// Whose check this packet answers; nullptr: it is about something else.
RealServer* Balancer::checked_by(const PacketView& view) const {
  if (!view.is_tcp() || !view.has_transport || !CheckPorts::contains(view.flow.target.port)) return nullptr;
  const RealId id = health_.asked[view.flow.target.port.host() - CheckPorts::kFirst];
  if (!id) return nullptr;
  RealServer& server = *reals_[id.index];
  return server.health && server.health->asked == view.flow.source && server.health->self == view.flow.target ? &server : nullptr;
}

Verdict Balancer::hear_check(RealServer& server, const Frame& frame, const PacketView& view, Instant now) {
  if (!transport_intact(frame, view)) return Verdict::drop(Reason::bad_transport);
  Health& health = *server.health;
  const auto bytes = frame.bytes();
  const TcpHeader tcp = header_at<TcpHeader>(bytes, view.transport);
  const auto payload = bytes.subspan(view.transport, view.payload_length()).subspan(std::min<std::size_t>(tcp.header_length(), view.payload_length()));
  const auto has = [&](std::uint8_t flag) { return (tcp.flags & flag) != 0; };
  const Verdict heard = Verdict::drop(Reason::check_answered);
  if (has(TcpHeader::kAck) && tcp.acknowledgement.host() != health.sequence) return heard;  // of another time
  if (has(TcpHeader::kRst)) {
    conclude(server, false, health.stage == Health::Stage::connecting ? "refuses connections" : "resets the connection");
    return heard;
  }
  if (health.stage == Health::Stage::connecting) {
    if (!has(TcpHeader::kSyn) || !has(TcpHeader::kAck)) return heard;
    health.expected = tcp.sequence.host() + 1;
    if (server.config.check->kind == HealthCheck::Kind::tcp) {
      send_check(server, TcpHeader::kRst | TcpHeader::kAck, {}, now);
      conclude(server, true, "accepts connections");
      return heard;
    }
    const std::string text = question(*server.config.check, health.asked);
    send_check(server, TcpHeader::kPsh | TcpHeader::kAck, text, now);
    health.sequence += static_cast<std::uint32_t>(text.size());
    health.stage = Health::Stage::asking;
    return heard;
  }
  if (tcp.sequence.host() != health.expected || (payload.empty() && !has(TcpHeader::kFin))) return heard;
  send_check(server, TcpHeader::kRst | TcpHeader::kAck, {}, now);
  const unsigned status = http_status({reinterpret_cast<const char*>(payload.data()), payload.size()});
  if (status != 0)
    conclude(server, status >= 200 && status < 400, fmt::format("answers {}", status));
  else
    conclude(server, false, payload.empty() ? "closes without an answer" : "answers no HTTP");
  return heard;
}

// --- what it means -----------------------------------------------------------------------------------------------------

void Balancer::conclude(RealServer& server, bool passed, std::string says) {
  Health& health = *server.health;
  give_up_check(server);
  health.says = std::move(says);
  if (!health.take(passed, *server.config.check)) return;
  ++health_.turns;
  if (health.failed)
    leave_pool(server);
  else
    rejoin_pool(server);
}

/// Leaves those the scheduler picks from, as if it was removed. Its connections go on while it answers them.
void Balancer::leave_pool(RealServer& server) {
  Service& service = *server.service;
  const auto place = std::ranges::find(service.pool, &server);
  service.scheduler->server_leaving(service.pool, static_cast<std::size_t>(place - service.pool.begin()));
  service.pool.erase(place);
  service.scheduler->servers_changed(service.pool);
}

/// Is back at its place among those the scheduler picks from.
void Balancer::rejoin_pool(RealServer& server) {
  Service& service = *server.service;
  server.health->failed = false;
  service.pool.clear();
  std::ranges::copy_if(service.servers, std::back_inserter(service.pool), [](const RealServer* s) { return !s->failed(); });
  service.scheduler->server_added(service.pool, server);
  service.scheduler->servers_changed(service.pool);
}

}  // namespace director
