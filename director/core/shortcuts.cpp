// When a connection gets a shortcut, and when it ends. core/shortcut.h says what one is.
#include <utility>

#include "director/core/balancer.h"
#include "director/net/ip_header.h"

namespace director {
namespace {

bool steady(State s) { return s == State::established || s == State::udp; }

}  // namespace

/// A program in the kernel repeats no more of a tunnel than an IP header that says what the one inside says.
bool Balancer::can_be_shortcut(const Forwarder& forwarder, const ServerConfig& server) const {
  return !std::holds_alternative<Tunnel>(forwarder) || (server.tunnel_type == TunnelType::ipip && tunables_.pmtu_disc != 0);
}

void Balancer::offer_shortcuts() {
  offers_shortcuts_ = true;
  shortcut_facts_ = shortcut_facts();
}

/// `view` is of a packet that has just gone this way, as it was before it was rewritten.
void Balancer::offer_shortcut(Connection& c, Direction direction, const PacketView& view, DeviceId ingress,
                              const RouteTo& way) {
  if (shortcut_facts_.has_backups) return;
  if (c.in_packets <= kWalkFirst) return;
  const bool is_request = direction == Direction::request;
  const bool open = is_request ? c.has_request_shortcut : c.has_reply_shortcut;
  const Forwarder& recipe = is_request ? connections_.recipe(c).request : connections_.recipe(c).reply;
  const bool plain = !view.fragment && view.transport - view.network == ip_header_size(view.family);
  if (open || !way.hop || !plain || !steady(c.state) || !can_be_shortcut(recipe, server_of(c).config)) return;
  const Hop& hop = network_.hop(way.hop);
  if (hop.state != Hop::State::reachable) return;

  Shortcut shortcut;
  shortcut.flow = is_request ? connections_.flow(c) : connections_.reply_flow(c);
  shortcut.ingress = ingress;
  shortcut.egress = hop.egress;
  shortcut.here = network_.find(ingress)->mac;
  shortcut.from = network_.find(hop.egress)->mac;
  shortcut.to = hop.mac;
  shortcut.mtu = way.mtu;
  if (const auto* nat = std::get_if<Nat>(&recipe)) {
    shortcut.rewrite = nat->end == NatEnd::target ? Shortcut::Rewrite::target : Shortcut::Rewrite::source;
    shortcut.replacement = nat->replacement;
  } else if (const auto* tunnel = std::get_if<Tunnel>(&recipe)) {
    const auto overhead = static_cast<std::uint32_t>(ip_header_size(tunnel->remote.family()));
    if (way.mtu <= overhead) return;
    shortcut.mtu -= overhead;
    shortcut.tunnel = {way.source, tunnel->remote};
  }
  shortcut_news_.opened.push_back(shortcut);
  if (is_request)
    c.has_request_shortcut = true;
  else
    c.has_reply_shortcut = true;
  with_shortcuts_.insert(connections_.id_of(c).index);
}

void Balancer::close_shortcuts(Connection& c) {
  if (!c.has_request_shortcut && !c.has_reply_shortcut) return;
  const auto close = [this](const FlowKey& flow) {
    // One that was offered since the news was read last was never opened, and told of as closed first it would be.
    const auto offered = std::erase_if(shortcut_news_.opened, [&](const Shortcut& s) { return s.flow == flow; });
    if (offered == 0) shortcut_news_.closed.push_back(flow);
  };
  if (c.has_request_shortcut) close(connections_.flow(c));
  if (c.has_reply_shortcut) close(connections_.reply_flow(c));
  c.has_request_shortcut = c.has_reply_shortcut = false;
  with_shortcuts_.erase(connections_.id_of(c).index);
}

/// Something changed that shortcuts were made from: all end, and the next packets find the way as it is now.
void Balancer::end_stale_shortcuts() {
  if (!offers_shortcuts_) return;
  const Facts now = shortcut_facts();
  if (now == shortcut_facts_) return;
  shortcut_facts_ = now;
  for (const std::uint32_t index : with_shortcuts_) {
    Connection& c = connections_[ConnectionId{index}];
    c.has_request_shortcut = c.has_reply_shortcut = false;
  }
  with_shortcuts_.clear();
  shortcut_news_.clear();
  shortcut_news_.all_closed = true;
}

Result<void, Refusal> Balancer::change(const Carried& c, Instant now) {
  const auto [connection, direction] = connections_.find(c.flow);
  if (connection == nullptr) return {};
  if (c.let_go) {  // the next packet walks, and is offered one again
    if (direction == Direction::request)
      connection->has_request_shortcut = false;
    else
      connection->has_reply_shortcut = false;
    if (!connection->has_request_shortcut && !connection->has_reply_shortcut)
      with_shortcuts_.erase(connections_.id_of(*connection).index);
  }
  RealServer& server = server_of(*connection);
  count_traffic(server, direction, c.packets, c.bytes);
  if (!steady(connection->state)) return {};
  if (const Instant deadline = c.last + connection->timeout(); deadline > connections_.deadline(*connection))
    connections_.set_deadline(*connection, deadline);
  if (next_tick_ == kNever) next_tick_ = now + std::chrono::seconds(TrafficMeter::kIntervalSeconds);
  if (direction == Direction::request) {
    connection->in_packets += static_cast<decltype(connection->in_packets)>(c.packets);
    if (const RouteTo* way = way_to(server); way != nullptr && way->hop) network_.keep_alive(way->hop);
  } else {
    if (const RouteTo* way = way_to_client(*connection); way != nullptr) network_.keep_alive(way->hop);
  }
  return {};
}

}  // namespace director
