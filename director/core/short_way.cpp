// The short way: nearly all packets belong to an established connection and change nothing but counters and a deadline. For those the
// long way (balancer.cpp) comes to the same every time; here its questions are asked in one go, and what it would do is done.
//
// Asked and answered with the long way's own functions, in its order. Whatever isn't plain takes the long way, untouched.
// tests/unit/short_way_test.cc compares the two, byte by byte and counter by counter.
#include "director/core/balancer.h"
#include "director/net/headers.h"
#include "director/net/ip_header.h"

namespace director {

/// Whether the packet may take it. The frame and the connection stay as they are.
bool Balancer::find_short_way(const Frame& frame, const Glimpse& seen, Instant now, ShortWay& found) {
  const PacketView& view = seen.view;
  if (explains() || view.ttl <= 1) return false;
  const Interface* in = network_.find(frame.ingress);
  if (in == nullptr || header_at<EthernetHeader>(frame.bytes(), 0).target != in->mac) return false;
  if (sync_.daemon(SyncRole::master) || sync_.daemon(SyncRole::backup)) return false;

  // A connection that goes on as it is.
  const auto [connection, direction] = connections_.find(view.flow, view.flow_hash, seen.place);
  if (connection == nullptr) return false;
  const Connection& c = *connection;
  const bool request = direction == Direction::request;
  if (c.young || !c.has_request_path || connections_.is_due(c, now)) return false;
  if (view.is_tcp()) {
    constexpr std::uint8_t kChanges = TcpHeader::kSyn | TcpHeader::kFin | TcpHeader::kRst;
    if (c.state != State::established || (view.tcp_flags & (kChanges | TcpHeader::kAck)) != TcpHeader::kAck) return false;
    if (!request && c.input_only) return false;  // the first reply
  } else if (c.state != State::udp || (!request && c.affinity)) {
    return false;
  }
  const Recipe& recipe = connections_.recipe(c);
  RealServer& server = *reals_[recipe.server.index];
  if (server.removed() || server.is_none || server.config.weight == 0) return false;
  const Forwarder& forwarder = request ? recipe.request : recipe.reply;
  if (offers_shortcuts_ && c.in_packets >= kWalkFirst && !(request ? c.has_request_shortcut : c.has_reply_shortcut) &&
      can_be_shortcut(forwarder, server.config))
    return false;

  // A way that is known, and takes the packet whole.
  const RouteTo* way = request ? way_to(server) : way_to_client(c);
  if (way == nullptr || way->local || network_.hop(way->hop).state != Hop::State::reachable) return false;
  const std::size_t overhead = std::holds_alternative<Tunnel>(forwarder) ? tunnel_overhead(server.outer, frame.offload) : 0;
  if (view.ip_length > (request ? mtu_inside(*way, overhead, view.family) : way->mtu)) return false;
  found = {connection, &server, &forwarder, way, direction};
  return true;
}

Verdict Balancer::take_short_way(Frame& frame, const PacketView& view, const ShortWay& short_way, Instant now) {
  const auto& [connection, server, forwarder, way, direction] = short_way;
  Connection& c = *connection;
  frame.resize(view.network + view.ip_length);
  count_traffic(*server, direction, 1, view.ip_length);
  if (direction == Direction::request) ++c.in_packets;
  if (next_tick_ == kNever) next_tick_ = now + kRateInterval;
  c.set_timeout(server->service->timeouts[c.state]);
  connections_.set_deadline(c, now + c.timeout());
  lower_ttl(frame.bytes(), view.network, view.family);
  if (std::holds_alternative<Tunnel>(*forwarder)) {
    if (const Reason r = put_in_tunnel(frame, view, *server, view.flow); r != Reason::none) return Verdict::drop(r);
  } else if (const auto* nat = std::get_if<Nat>(forwarder)) {
    (void)director::apply(*nat, frame, view);  // it has its transport header
  }
  return network_.seal(frame, way->hop, now, outbox_, counters_);
}

}  // namespace director
