// The way of a packet, top to bottom: parse, what is it, whose is it, which connection, which server, where to.
// Changes come in by services.cpp; this file is the packet path and the clock's work.
#include "director/core/balancer.h"

#include <algorithm>
#include <cstring>

#include "director/net/headers.h"
#include "director/net/ip_options.h"

namespace director {
namespace {

/// Lowers the TTL by one, the checksum by difference (RFC 1141).
void lower_ttl(Frame& frame, const PacketView& view) {
  auto& ip = header_at<Ipv4Header>(frame.bytes(), view.network);
  const Be16 before = header_at<Be16>(frame.bytes(), view.network + offsetof(Ipv4Header, ttl));
  --ip.ttl;
  const Be16 after = header_at<Be16>(frame.bytes(), view.network + offsetof(Ipv4Header, ttl));
  ip.checksum = ChecksumDelta{ChecksumSum{}.replace(before, after)}.applied_to(ip.checksum);
}

/// Bytes from the frame's start to the payload of its TCP or UDP header. REQUIRES: has_transport.
std::size_t payload_offset(const Frame& frame, const PacketView& view) {
  return view.transport +
         (view.is_tcp() ? header_at<TcpHeader>(frame.bytes(), view.transport).header_length() : sizeof(UdpHeader));
}

bool is_super(const Frame& frame) { return frame.offload.segments != Offload::Segments::none; }

/// The largest IP packet this frame will be on the wire: of a super-frame, one segment.
std::size_t wire_length(const Frame& frame, const PacketView& view) {
  if (!is_super(frame)) return view.ip_length;
  return std::min<std::size_t>(view.ip_length,
                               payload_offset(frame, view) - view.network + frame.offload.segment_size);
}

/// In later fragments, options that are not to be copied become no-ops (RFC 791, 3.1; ip_options.c, ip_options_fragment).
void blank_uncopied_options(std::span<std::byte> options) {
  for (std::size_t at = 0; at < options.size();) {
    const auto kind = std::to_integer<std::uint8_t>(options[at]);
    if (kind == 0) return;
    if (kind == 1) {
      ++at;
      continue;
    }
    if (at + 1 >= options.size()) return;
    const auto length = std::to_integer<std::size_t>(options[at + 1]);
    if (length < 2 || at + length > options.size()) return;
    if ((kind & 0x80U) == 0) std::fill_n(options.begin() + static_cast<long>(at), length, std::byte{1});
    at += length;
  }
}

/// For those who ask what time it is: the core doesn't know the time of day. RFC 791 and RFC 792 have a bit for that.
std::uint32_t milliseconds(Instant now) {
  constexpr std::uint32_t kNotTimeOfDay = 0x80000000;
  const auto count = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  return static_cast<std::uint32_t>(count) | kNotTimeOfDay;
}

constexpr Duration kAnnounceEvery = 1s;
constexpr Duration kRateInterval = std::chrono::seconds(TrafficMeter::kIntervalSeconds);
constexpr std::size_t kExpireBudget = 4096;  // connections a call: well under a millisecond

}  // namespace

Balancer::Balancer(const Options& options)
    : options_(options),
      connections_(options.seed, options.max_connections),
      ip_id_(static_cast<std::uint32_t>(options.seed >> 32U) ^ static_cast<std::uint32_t>(options.seed)) {}

Balancer::~Balancer() = default;

// === process ========================================================================================================

Verdict Balancer::process(Frame& frame, Instant now) noexcept {
  const Verdict verdict = decide(frame, now);
  counters_.count(verdict.reason);
  return verdict;
}

Verdict Balancer::decide(Frame& frame, Instant now) {
  const Interface* in = network_.find(frame.ingress);
  if (in == nullptr) return Verdict::drop(Reason::device_down);
  const auto parsed = parse_packet(frame);
  if (!parsed) {
    // What can't be read and isn't for us anyway is the host's to judge.
    return in->stack == Stack::host ? Verdict::pass(parsed.error()) : Verdict::drop(parsed.error());
  }
  PacketView view = *parsed;
  if (view.kind == PacketView::Kind::arp) return arp(frame, view, now);
  const MacAddress& to = header_at<EthernetHeader>(frame.bytes(), 0).target;
  if (to != in->mac) return Verdict::pass(Reason::not_for_us);
  return ip(frame, view, now);
}

// --- ARP -----------------------------------------------------------------------------------------------------------

Verdict Balancer::arp(Frame& frame, const PacketView& view, Instant now) {
  const Interface& in = *network_.find(frame.ingress);
  const auto& arp = header_at<ArpHeader>(frame.bytes(), view.network);
  const IpAddress& sender = view.flow.source.address;
  const IpAddress& asked = view.flow.target.address;
  if (arp.sender_mac == in.mac) return Verdict::drop(Reason::arp_ignored);  // our own, come back
  if (!sender.is_unspecified()) network_.learn(frame.ingress, sender, arp.sender_mac, now, outbox_);
  const bool ours = speaks_for(asked, frame.ingress) || (in.stack == Stack::own && in.owns(asked));
  if (arp.operation != Be16{ArpHeader::kRequest} || !ours || sender == asked) {
    return Verdict::pass(arp.operation == Be16{ArpHeader::kReply} ? Reason::arp_learnt : Reason::arp_ignored);
  }
  answer_arp(frame, view, in.mac);
  return Verdict::transmit(frame.ingress, Reason::arp_answered);
}

bool Balancer::speaks_for(const IpAddress& vip, DeviceId device) const {
  if (!is_virtual(vip)) return false;
  const Interface& in = *network_.find(device);
  if (in.stack == Stack::host && in.owns(vip)) return false;  // the host answers for what it owns
  // Where it is reachable: in the subnet that holds it; if none does, it is routed to us and anybody may ask.
  return network_.on_link(device, vip) || !network_.on_link_anywhere(vip);
}

// --- IP: whose packet is it? ---------------------------------------------------------------------------------------

Verdict Balancer::ip(Frame& frame, PacketView& view, Instant now) {
  const IpAddress& source = view.flow.source.address;
  if (source.is_multicast() || source.is_broadcast() || source.is_loopback() || is_virtual(source) ||
      network_.owns(source))
    return Verdict::drop(Reason::bad_source);  // fib_frontend.c: martian source
  if (const Reason r = read_options(frame, view, now); r != Reason::none) return Verdict::drop(r);

  if (view.later_fragment) {
    if (const auto ports = fragments_.find(view)) {
      view.flow.source.port = ports->source;
      view.flow.target.port = ports->target;
    } else if (is_virtual(view.flow.target.address) || nat_server_at(view.flow) != nullptr) {
      fragments_.keep(view, frame, now);
      return Verdict::drop(Reason::fragment_waits);
    }
  } else if (view.fragment && view.has_ports) {
    for (FragmentTable::Waiting& later : fragments_.learn(view, now)) {  // they leave behind their first fragment
      Outbox::Entry& entry = outbox_.add_entry(later.bytes.size(), DeviceId{});
      entry.frame.resize(later.bytes.size());
      std::memcpy(entry.frame.bytes().data(), later.bytes.data(), later.bytes.size());
      entry.frame.ingress = later.ingress;
      later_fragments_.push_back(&entry);
    }
  }
  const Verdict verdict = view.flow.protocol == Protocol::icmp ? icmp(frame, view, now) : transport(frame, view, now);
  if (!later_fragments_.empty()) process_later_fragments(now);
  return verdict;
}

/// Packets with IP options are rare. What is for us is recorded as having come to the address it was sent to; what only passes
/// through, by the address its sender knows us by (ip_options.c, fib_compute_spec_dst).
Reason Balancer::read_options(Frame& frame, const PacketView& view, Instant now) {
  const std::size_t length = view.transport - view.network;
  if (length == sizeof(Ipv4Header)) return Reason::none;
  IpAddress here = view.flow.target.address;
  const bool for_us = is_virtual(here) || network_.owns(here);
  const bool ours = for_us || network_.find(frame.ingress)->stack == Stack::own || nat_server_at(view.flow) != nullptr;
  if (!ours) return Reason::none;  // the host's to judge
  if (!for_us)
    if (const auto back = network_.route(view.flow.source.address)) here = back->source;
  return enter_in_options(frame.bytes().subspan(view.network, length), here, milliseconds(now));
}

void Balancer::process_later_fragments(Instant now) {
  const auto waiting = std::exchange(later_fragments_, {});
  for (Outbox::Entry* entry : waiting) {
    const Verdict verdict = process(entry->frame, now);
    if (verdict.action == Action::transmit) entry->egress = verdict.egress;
  }
}

Verdict Balancer::transport(Frame& frame, const PacketView& view, Instant now) {
  // The kernel's IPVS sees no packets while there is no service at all (ip_vs_ctl.c, ip_vs_unregister_hooks).
  const bool looks = options_.policy == Policy::improved || !services_.empty();
  if (looks && (view.has_ports || view.later_fragment)) {
    if (auto [connection, direction] = connections_.find(view.flow); connection != nullptr) {
      if (connection->deadline <= now) {
        close(*connection, now);  // its time was up, the clock only hasn't come by
      } else if (direction == Direction::reply) {
        return reply(*connection, frame, view, now);
      } else {
        return request(connection, frame, view, now);
      }
    }
    if (is_virtual(view.flow.target.address)) return schedule(frame, view, now);
  }
  return stray(frame, view, now);
}

// --- packets of a connection ---------------------------------------------------------------------------------------

Verdict Balancer::request(Connection* connection, Frame& frame, const PacketView& view, Instant now) {
  RealServer& server = *reals_[connection->server.index];
  if (view.is_tcp() && (view.tcp_flags & TcpHeader::kSyn) != 0) {
    // A client takes up an old port again (ip_vs_core.c, is_new_conn_expected).
    const State s = connection->state;
    const bool closing = s == State::time_wait || s == State::close ||
                         ((tunables_.conn_reuse_mode & 2) != 0 && s == State::fin_wait && connection->input_only);
    const bool quiesced = server.config.weight == 0 && tunables_.expire_nodest_conn != 0;
    if ((tunables_.conn_reuse_mode != 0 && closing) || quiesced) {
      close(*connection, now);
      return schedule(frame, view, now);
    }
  }
  if (server.removed()) return server_gone(*connection, frame, view, now);
  count_in(server, frame, view);
  advance(*connection, view, Direction::request, now);
  return forward_request(*connection, frame, view, now);
}

Verdict Balancer::reply(Connection& connection, Frame& frame, const PacketView& view, Instant now) {
  // As a router does first (ip_forward.c): TTL, MTU; then the translation.
  RealServer& server = *reals_[connection.server.index];
  const RouteTo* back = way_to(server);
  const IpAddress speaker = back != nullptr ? back->source : view.flow.target.address;
  if (view.ttl <= 1)
    return answer_icmp(frame, view, {IcmpHeader::kTimeExceeded, 0}, speaker, Reason::ttl_exceeded, now);
  RouteTo room;
  const RouteTo* way = way_to_client(connection, room);
  if (way == nullptr)
    return answer_icmp(frame, view, {IcmpHeader::kUnreachable, IcmpHeader::kHostUnreachable}, speaker,
                       Reason::no_route, now);
  if (view.dont_fragment && wire_length(frame, view) > way->mtu)
    return answer_icmp(frame, view,
                       {IcmpHeader::kUnreachable, IcmpHeader::kFragmentationNeeded, static_cast<std::uint16_t>(way->mtu)},
                       speaker, Reason::too_big, now);
  if (const Reason r = director::apply(std::get<Nat>(connection.reply), frame, view); r != Reason::none)
    return Verdict::drop(r);
  lower_ttl(frame, view);
  count_out(server, frame, view);
  advance(connection, view, Direction::reply, now);
  return forward_to_hop(frame, view, *way, now);
}

// --- a packet without a connection ---------------------------------------------------------------------------------

Verdict Balancer::schedule(Frame& frame, const PacketView& view, Instant now) {
  Service* service = service_for(view.flow);
  if (service == nullptr) return stray(frame, view, now);
  if (view.later_fragment) return Verdict::drop(Reason::fragment_unknown);
  if (view.is_tcp()) {  // ip_vs_proto_tcp.c, tcp_conn_schedule
    if (!view.has_transport) return Verdict::drop(Reason::truncated_transport);
    const bool may_start = ((view.tcp_flags & TcpHeader::kSyn) != 0 || tunables_.sloppy_tcp != 0) &&
                           (view.tcp_flags & TcpHeader::kRst) == 0;
    if (!may_start) return stray(frame, view, now);
  } else if (!view.is_udp()) {
    return stray(frame, view, now);
  } else if (!view.has_transport) {
    return Verdict::drop(Reason::truncated_transport);
  }
  if (tunables_.drop_packet == 3 && --until_drop_ <= 0) {  // ip_vs_todrop: the first is dropped
    until_drop_ = tunables_.am_droprate;
    return Verdict::drop(Reason::drop_packet);
  }
  if (view.flow.source.port == Port::of(20)) return stray(frame, view, now);  // never: FTP data from a server here
  RealServer* server = service->key().endpoint.port == view.flow.target.port
                           ? service->scheduler->pick(service->servers, view.flow, now)
                           : nullptr;
  if (server == nullptr) return no_server(frame, view, now);
  Connection* connection = open(*service, *server, view.flow, now);
  if (connection == nullptr) return Verdict::drop(Reason::table_full);
  count_in(*server, frame, view);
  advance(*connection, view, Direction::request, now);
  return forward_request(*connection, frame, view, now);
}

Verdict Balancer::stray(Frame& frame, const PacketView& view, Instant now) {
  const IpAddress& to = view.flow.target.address;
  if (is_virtual(to)) return refuse_unserved(frame, view, now);
  // A real server speaks to a client about a connection we don't know (ip_vs_core.c, nat_icmp_send).
  if (tunables_.nat_icmp_send != 0 && view.has_ports && nat_server_at(view.flow) != nullptr &&
      !(view.is_tcp() && (view.tcp_flags & TcpHeader::kRst) != 0)) {
    const auto back = network_.route(view.flow.source.address);
    if (back && !back->local)
      return answer_icmp(frame, view, {IcmpHeader::kUnreachable, IcmpHeader::kPortUnreachable}, back->source,
                         Reason::refused_unreachable, now);
  }
  if (network_.find(frame.ingress)->stack == Stack::host) return Verdict::pass(Reason::not_ours);
  if (network_.owns(to)) return to_own_stack(frame, view, now);
  if (forwarding_) return route_plainly(frame, view, now);
  return Verdict::drop(Reason::not_ours);
}

// --- ICMP ----------------------------------------------------------------------------------------------------------

Verdict Balancer::icmp(Frame& frame, const PacketView& view, Instant now) {
  const Interface& in = *network_.find(frame.ingress);
  const IpAddress& to = view.flow.target.address;
  if (view.fragment || !view.has_transport) return stray(frame, view, now);
  const std::uint8_t type = header_at<IcmpHeader>(frame.bytes(), view.transport).type;
  if (type == IcmpHeader::kUnreachable || type == IcmpHeader::kSourceQuench || type == IcmpHeader::kTimeExceeded)
    return icmp_error(frame, view, now);
  if (in.stack == Stack::host && in.owns(to)) return Verdict::pass(Reason::not_ours);
  if (!is_virtual(to)) return stray(frame, view, now);
  if (type != IcmpHeader::kEcho) return to_own_stack(frame, view, now);
  // Answered while a service of the address can serve: ping tells the truth. The kernel's host answers always.
  if (options_.policy == Policy::improved && !has_usable_server(to)) return Verdict::drop(Reason::no_server);
  return to_own_stack(frame, view, now);
}

Verdict Balancer::icmp_error(Frame& frame, const PacketView& view, Instant now) {
  const auto quoted = parse_quoted(frame.bytes().subspan(view.transport + sizeof(IcmpHeader)));
  const bool checksum_true = ChecksumSum{}.add(frame.bytes().subspan(view.transport)).folded() == 0xffff;
  if (!quoted) return is_virtual(view.flow.target.address) ? Verdict::drop(Reason::icmp_malformed)
                                                           : stray(frame, view, now);
  if (quoted->flow.protocol == Protocol::ipip && network_.owns(view.flow.target.address))
    return checksum_true ? tunnel_error(frame, view, now) : Verdict::drop(Reason::bad_icmp_checksum);

  // The quoted packet went the other way: an error from the client's side quotes a reply.
  const auto found = quoted->has_ports ? connections_.find(quoted->flow.reversed()) : ConnectionTable::Found{};
  if (!found) {
    const bool schedules = tunables_.schedule_icmp != 0 && quoted->has_ports && is_virtual(view.flow.target.address) &&
                           is_virtual(quoted->flow.source.address);
    if (schedules) return schedule_icmp(frame, view, *quoted, checksum_true, now);
    if (is_virtual(view.flow.target.address)) return Verdict::drop(Reason::icmp_no_connection);
    return stray(frame, view, now);
  }
  Connection& connection = *found.connection;
  RealServer& server = *reals_[connection.server.index];
  if (found.direction == Direction::request) {
    if (!checksum_true) return Verdict::drop(Reason::bad_icmp_checksum);
    return relay_icmp_error(connection, frame, view, *quoted, now);
  }
  // From the real server's side, to the client.
  if (view.ttl <= 1) return Verdict::drop(Reason::ttl_exceeded);
  if (!checksum_true) return Verdict::drop(Reason::bad_icmp_checksum);
  RouteTo room;
  const RouteTo* way = way_to_client(connection, room);
  if (way == nullptr) return Verdict::drop(Reason::no_route);
  translate_icmp_error(std::get<Nat>(connection.reply), frame, view, *quoted);
  lower_ttl(frame, view);
  count_out(server, frame, view);
  return forward_to_hop(frame, view, *way, now);
}

Verdict Balancer::relay_icmp_error(Connection& connection, Frame& frame, const PacketView& view,
                                   const QuotedPacket& quoted, Instant now) {
  RealServer& server = *reals_[connection.server.index];
  count_in(server, frame, view);
  const RouteTo* way = way_to(server);
  if (way == nullptr) return Verdict::drop(Reason::no_route);
  if (way->local) return Verdict::drop(Reason::icmp_not_relayed);
  if (view.ttl <= 1) return Verdict::drop(Reason::ttl_exceeded);  // no error about an error
  lower_ttl(frame, view);
  if (const auto* nat = std::get_if<Nat>(&connection.request)) translate_icmp_error(*nat, frame, view, quoted);
  if (const auto* tunnel = std::get_if<Tunnel>(&connection.request)) {
    const Reason r =
        encapsulate(frame, view, way->source, tunnel->remote, tunables_.pmtu_disc != 0, next_ip_id());
    if (r != Reason::none) return Verdict::drop(r);
    return fragment_to_hop(frame, view.network, *way, now);
  }
  return forward_to_hop(frame, view, *way, now);
}

/// net.ipv4.vs.schedule_icmp: an error about a flow nobody knows is scheduled as the flow would be (for ECMP set-ups, where errors
/// may come to another director than the flow did).
Verdict Balancer::schedule_icmp(Frame& frame, const PacketView& view, const QuotedPacket& quoted, bool checksum_true,
                                Instant now) {
  const FlowKey flow = quoted.flow.reversed();
  Service* service = service_for(flow);
  if (service == nullptr) return Verdict::drop(Reason::icmp_no_connection);
  RealServer* server = service->scheduler->pick(service->servers, flow, now);
  if (server == nullptr) return Verdict::drop(Reason::no_server);
  Connection* connection = open(*service, *server, flow, now);
  if (connection == nullptr) return Verdict::drop(Reason::table_full);
  if (!checksum_true) return Verdict::drop(Reason::bad_icmp_checksum);
  return relay_icmp_error(*connection, frame, view, quoted, now);
}

/// A router on the way to a real server complains about our outer packet. The client can do something about it: it is told in terms of
/// its own packet (ip_vs_core.c, ip_vs_in_icmp).
Verdict Balancer::tunnel_error(Frame& frame, const PacketView& view, Instant now) {
  const auto bytes = frame.bytes();
  const std::size_t outer_at = view.transport + sizeof(IcmpHeader);
  const IcmpHeader icmp = header_at<IcmpHeader>(bytes, view.transport);
  const auto outer = *parse_quoted(bytes.subspan(outer_at));
  const bool dont_fragment = outer.dont_fragment;
  if (outer.later_fragment) return Verdict::drop(Reason::icmp_no_connection);
  const std::size_t inner_at = outer_at + outer.header_length;
  const auto inner = parse_quoted(bytes.subspan(inner_at));
  if (!inner || !inner->has_ports) return Verdict::drop(Reason::icmp_malformed);
  const auto found = connections_.find(inner->flow);
  if (!found || found.direction != Direction::request) return Verdict::drop(Reason::icmp_no_connection);
  RealServer& server = *reals_[found.connection->server.index];
  const auto* tunnel = std::get_if<Tunnel>(&found.connection->request);
  if (tunnel == nullptr || tunnel->remote != outer.flow.target.address)
    return Verdict::drop(Reason::icmp_no_connection);

  IcmpError error{icmp.type, icmp.code};
  if (icmp.type == IcmpHeader::kUnreachable && icmp.code == IcmpHeader::kFragmentationNeeded) {
    network_.learn_path_mtu(tunnel->remote, icmp.word1.host(), now);
    if (!dont_fragment) return Verdict::drop(Reason::too_big);
    // The client is told what its packets have to fit from now on; by the kernel (6.1), what the last one had to.
    const RouteTo* way = options_.policy == Policy::kernel && server.way ? &*server.way : way_to(server);
    const std::size_t overhead = tunnel_overhead(server.config);
    const std::size_t mtu = way != nullptr ? way->mtu : icmp.word1.host();
    error.mtu = static_cast<std::uint16_t>(mtu > 68 + overhead ? mtu - overhead : mtu);
  }
  // The frame becomes the inner packet, as the client would recognise it, and is answered.
  const auto ethernet = header_at<EthernetHeader>(bytes, 0);
  frame.pull(inner_at - sizeof(EthernetHeader));
  header_at<EthernetHeader>(frame.bytes(), 0) = ethernet;
  PacketView client = view;
  client.transport = view.network + static_cast<std::uint32_t>(inner->header_length);
  client.flow = inner->flow;
  client.tos = header_at<Ipv4Header>(frame.bytes(), view.network).tos;
  client.later_fragment = false;
  return answer_client(*found.connection, frame, client, error, error.mtu != 0 ? Reason::too_big : Reason::none, now);
}

// === forwarding =====================================================================================================

Verdict Balancer::forward_request(Connection& connection, Frame& frame, const PacketView& view, Instant now) {
  RealServer& server = *reals_[connection.server.index];
  const RouteTo* way = way_to(server);
  if (way == nullptr)
    return answer_client(connection, frame, view, {IcmpHeader::kUnreachable, IcmpHeader::kHostUnreachable},
                         Reason::no_route, now);
  if (way->local) return deliver_here(connection, frame, view, now);
  if (view.ttl <= 1)
    return answer_client(connection, frame, view, {IcmpHeader::kTimeExceeded, 0}, Reason::ttl_exceeded, now);
  lower_ttl(frame, view);

  const auto* tunnel = std::get_if<Tunnel>(&connection.request);
  const std::size_t overhead = tunnel != nullptr ? tunnel_overhead(server.config) : 0;
  if (way->mtu < 68 + overhead) return Verdict::drop(Reason::too_big);
  const std::size_t mtu = way->mtu - overhead;
  const bool honour_df = tunnel == nullptr || tunables_.pmtu_disc != 0;
  if (view.dont_fragment && honour_df && wire_length(frame, view) > mtu)
    return answer_client(connection, frame, view,
                         {IcmpHeader::kUnreachable, IcmpHeader::kFragmentationNeeded, static_cast<std::uint16_t>(mtu)},
                         Reason::too_big, now);
  if (tunnel != nullptr) return cut_and_tunnel(frame, view, *tunnel, *way, now);
  if (const auto* nat = std::get_if<Nat>(&connection.request)) {
    if (const Reason r = director::apply(*nat, frame, view); r != Reason::none) return Verdict::drop(r);
  }
  return forward_to_hop(frame, view, *way, now);
}

Verdict Balancer::forward_to_hop(Frame& frame, const PacketView& view, const RouteTo& way, Instant now) {
  if (wire_length(frame, view) <= way.mtu) return network_.seal(frame, way.hop, now, outbox_, counters_);
  if (!is_super(frame)) {
    finish_checksum(frame);
    return fragment_to_hop(frame, view.network, way, now);
  }
  // A super-frame whose segments are too large, without DF: cut, then fragment each.
  const std::size_t count = segment_count(frame, payload_offset(frame, view));
  std::vector<std::byte> room(kHeadroom + kMaxFrame);
  for (std::size_t i = 0; i < count; ++i) {
    Frame piece;
    piece.storage = room;
    piece.start = kHeadroom;
    cut_segment(frame, view.network, view.transport, i, piece);
    (void)fragment_to_hop(piece, view.network, way, now);
  }
  return Verdict::drop(Reason::segmented);
}

/// Sends the packet whole when it fits, else as IP fragments (ip_output.c, ip_do_fragment). The pieces go to the outbox.
Verdict Balancer::fragment_to_hop(Frame& frame, std::size_t network, const RouteTo& way, Instant now) {
  const std::size_t total = frame.length - network;
  if (total <= way.mtu) return network_.seal(frame, way.hop, now, outbox_, counters_);
  const auto bytes = frame.bytes();
  const Ipv4Header whole = header_at<Ipv4Header>(bytes, network);
  const std::size_t header = whole.header_length();
  if (way.mtu < header + 8) return Verdict::drop(Reason::cannot_fragment);
  const std::size_t step = (way.mtu - header) & ~std::size_t{7};
  const std::size_t payload = total - header;
  for (std::size_t at = 0; at < payload; at += step) {
    const std::size_t size = std::min(step, payload - at);
    Outbox::Entry& entry = outbox_.add_entry(network + header + size, DeviceId{});
    entry.frame.resize(network + header + size);
    entry.frame.ingress = frame.ingress;
    const auto to = entry.frame.bytes();
    std::memcpy(to.data(), bytes.data(), network + header);
    std::memcpy(to.data() + network + header, bytes.data() + network + header + at, size);
    auto& ip = header_at<Ipv4Header>(to, network);
    ip.total_length = Be16{static_cast<std::uint16_t>(header + size)};
    const bool more = at + size < payload || whole.more_fragments();
    const std::size_t offset = (whole.fragment_offset() + at) / 8;
    ip.fragment = Be16{static_cast<std::uint16_t>((whole.fragment.host() & Ipv4Header::kDontFragment) | offset |
                                                  (more ? Ipv4Header::kMoreFragments : 0U))};
    if (at > 0) blank_uncopied_options(to.subspan(network + sizeof(Ipv4Header), header - sizeof(Ipv4Header)));
    ip.checksum = Be16{0};
    ip.checksum = ChecksumSum{}.add(to.subspan(network, header)).field();
    const Verdict verdict = network_.seal(entry.frame, way.hop, now, outbox_, counters_);
    if (verdict.action == Action::transmit)
      entry.egress = verdict.egress;
    else
      counters_.count(verdict.reason);
  }
  return Verdict::drop(Reason::fragmented);
}

/// A super-frame can't be described inside IPIP: its segments are cut here and tunnelled one by one.
Verdict Balancer::cut_and_tunnel(Frame& frame, const PacketView& view, const Tunnel& tunnel, const RouteTo& way,
                                 Instant now) {
  const bool copy_df = tunables_.pmtu_disc != 0;
  if (!is_super(frame)) {
    if (view.ip_length + sizeof(Ipv4Header) > way.mtu) finish_checksum(frame);  // it is going to be fragmented
    const Reason r = encapsulate(frame, view, way.source, tunnel.remote, copy_df, next_ip_id());
    if (r != Reason::none) return Verdict::drop(r);
    return fragment_to_hop(frame, view.network, way, now);
  }
  const std::size_t count = segment_count(frame, payload_offset(frame, view));
  for (std::size_t i = 0; i < count; ++i) {
    Outbox::Entry& entry =
        outbox_.add_entry(payload_offset(frame, view) + frame.offload.segment_size, DeviceId{});
    cut_segment(frame, view.network, view.transport, i, entry.frame);
    Reason reason = encapsulate(entry.frame, view, way.source, tunnel.remote, copy_df, next_ip_id());
    if (reason == Reason::none) {
      const Verdict verdict = fragment_to_hop(entry.frame, view.network, way, now);
      if (verdict.action == Action::transmit) entry.egress = verdict.egress;
      reason = verdict.reason;
    }
    if (reason != Reason::none) counters_.count(reason);
  }
  return Verdict::drop(Reason::segmented);
}

/// What a router does with a packet that is nobody's: the host behind Stack::own routes when told to (ip_forward.c).
Verdict Balancer::route_plainly(Frame& frame, const PacketView& view, Instant now) {
  const auto way = network_.route(view.flow.target.address);
  const auto back = network_.route(view.flow.source.address);
  const IpAddress speaker = back && !back->local ? back->source : view.flow.target.address;
  if (view.flow.target.address.is_multicast() || view.flow.target.address.is_broadcast())
    return Verdict::drop(Reason::not_ours);
  if (!way || way->local)
    return answer_icmp(frame, view, {IcmpHeader::kUnreachable, IcmpHeader::kHostUnreachable}, speaker, Reason::no_route,
                       now);
  if (view.ttl <= 1)
    return answer_icmp(frame, view, {IcmpHeader::kTimeExceeded, 0}, speaker, Reason::ttl_exceeded, now);
  if (view.dont_fragment && wire_length(frame, view) > way->mtu)
    return answer_icmp(frame, view,
                       {IcmpHeader::kUnreachable, IcmpHeader::kFragmentationNeeded, static_cast<std::uint16_t>(way->mtu)},
                       speaker, Reason::too_big, now);
  lower_ttl(frame, view);
  Verdict verdict = forward_to_hop(frame, view, *way, now);
  if (verdict.reason == Reason::none) verdict.reason = Reason::routed;
  return verdict;
}

// --- the director as a host ----------------------------------------------------------------------------------------

/// A packet for the director's own host: nothing listens there, so echo is answered and the rest refused.
Verdict Balancer::to_own_stack(Frame& frame, const PacketView& view, Instant now) {
  if (view.flow.protocol != Protocol::icmp) return refuse_unserved(frame, view, now);
  if (!view.has_transport || view.fragment) return Verdict::drop(Reason::icmp_not_relayed);
  const std::uint8_t type = header_at<IcmpHeader>(frame.bytes(), view.transport).type;
  // A timestamp tells strangers the clock and is what security scanners report (CVE-1999-0524).
  const bool tells_time = type == IcmpHeader::kTimestamp && options_.policy == Policy::kernel;
  if (type != IcmpHeader::kEcho && !tells_time) return Verdict::drop(Reason::icmp_not_relayed);
  const bool checksum_true = frame.offload.checksum == Offload::Checksum::partial ||
                             ChecksumSum{}.add(frame.bytes().subspan(view.transport)).folded() == 0xffff;
  if (!checksum_true) return Verdict::drop(Reason::bad_icmp_checksum);
  if (!tells_time) {
    answer_echo(frame, view, next_ip_id());
  } else if (const Reason r = answer_timestamp(frame, view, milliseconds(now), next_ip_id()); r != Reason::none) {
    return Verdict::drop(r);
  }
  return send_own(frame, view.flow.source.address, now, Reason::echo_answered);
}

/// The real server is the director's own address: its stack answers, and the answer takes the reply's way.
Verdict Balancer::deliver_here(Connection& connection, Frame& frame, const PacketView& view, Instant now) {
  if (!view.has_transport) return Verdict::drop(Reason::truncated_transport);
  // What the stack would say to the packet, said as the VIP at once: a reset or port unreachable.
  if (view.is_tcp() && (view.tcp_flags & TcpHeader::kRst) == 0) {
    PacketView answer = view;
    answer.tcp_flags = TcpHeader::kRst;
    advance(connection, answer, Direction::reply, now);
  }
  const auto* nat = std::get_if<Nat>(&connection.request);
  // The kernel quotes what its stack got, with only addresses and port turned back; ours what the client sent.
  if (nat != nullptr && view.is_udp() && options_.policy == Policy::kernel) {
    auto& checksum = header_at<UdpHeader>(frame.bytes(), view.transport).checksum;
    checksum = nat->endpoint_delta.applied_to(checksum);
  }
  const Verdict verdict = refuse_unserved(frame, view, now);
  if (verdict.action == Action::transmit) count_made(*reals_[connection.server.index], frame);
  return verdict;
}

// === refusals =======================================================================================================

/// An address of ours, but nobody wants the packet: what a host without a listener says (tcp_ipv4.c, udp.c, ip_input.c).
Verdict Balancer::refuse_unserved(Frame& frame, const PacketView& view, Instant now) {
  const Interface& in = *network_.find(frame.ingress);
  if (in.stack == Stack::host && in.owns(view.flow.target.address)) return Verdict::pass(Reason::no_service);
  if (view.fragment || view.flow.protocol == Protocol::icmp) return Verdict::drop(Reason::no_service);
  if (view.is_tcp()) return answer_reset(frame, view, now);
  const std::uint8_t code = view.is_udp() ? IcmpHeader::kPortUnreachable : IcmpHeader::kProtocolUnreachable;
  return answer_icmp(frame, view, {IcmpHeader::kUnreachable, code}, view.flow.target.address,
                     Reason::refused_unreachable, now);
}

/// The kernel sends ICMP port unreachable for TCP too, which firewalls eat and clients wait for; a reset is understood by all.
Verdict Balancer::no_server(Frame& frame, const PacketView& view, Instant now) {
  counters_.count(Reason::no_server);
  if (options_.policy == Policy::improved && view.is_tcp()) return answer_reset(frame, view, now);
  return answer_icmp(frame, view, {IcmpHeader::kUnreachable, IcmpHeader::kPortUnreachable}, view.flow.target.address,
                     Reason::refused_unreachable, now);
}

/// The connection's server was removed. The kernel drops such packets in silence until the connection times out (or, with
/// expire_nodest_conn, forgets it). Ours ends TCP for both sides at once and gives UDP to another server.
Verdict Balancer::server_gone(Connection& connection, Frame& frame, const PacketView& view, Instant now) {
  if (options_.policy == Policy::kernel && tunables_.expire_nodest_conn == 0)
    return Verdict::drop(Reason::server_removed);
  counters_.count(Reason::server_removed);
  const bool reset_both = options_.policy == Policy::improved && view.is_tcp() && view.has_transport &&
                          (view.tcp_flags & (TcpHeader::kSyn | TcpHeader::kRst)) == 0;
  if (reset_both) {
    const auto bytes = frame.bytes();
    Outbox::Entry& other = outbox_.add_entry(bytes.size(), DeviceId{});
    other.frame.resize(bytes.size());
    std::memcpy(other.frame.bytes().data(), bytes.data(), bytes.size());
    other.frame.ingress = frame.ingress;
    become_reset(other.frame, view);
    PacketView last = view;
    last.ip_length = static_cast<std::uint32_t>(other.frame.length - view.network);
    const Verdict verdict = forward_request(connection, other.frame, last, now);
    if (verdict.action == Action::transmit) other.egress = verdict.egress;
  }
  close(connection, now);
  if (reset_both) return answer_reset(frame, view, now);
  return schedule(frame, view, now);
}

Verdict Balancer::answer_reset(Frame& frame, const PacketView& view, Instant now) {
  if (!view.has_transport || (view.tcp_flags & TcpHeader::kRst) != 0) return Verdict::drop(Reason::no_service);
  write_reset(frame, view);
  return send_own(frame, view.flow.source.address, now, Reason::refused_reset);
}

Verdict Balancer::answer_icmp(Frame& frame, const PacketView& view, IcmpError error, const IpAddress& source, Reason why,
                              Instant now) {
  if (!may_answer_with_icmp(frame, view)) return Verdict::drop(why);
  if (const Reason r = write_icmp_error(frame, view, error, source, next_ip_id()); r != Reason::none)
    return Verdict::drop(r);
  return send_own(frame, view.flow.source.address, now, why);
}

/// An ICMP error from the VIP to a connection's client. Where replies aren't translated it counts as one: what the kernel says itself
/// passes ip_vs_out() too, and is found by the virtual address there.
Verdict Balancer::answer_client(const Connection& connection, Frame& frame, const PacketView& view, IcmpError error,
                                Reason why, Instant now) {
  const Verdict verdict = answer_icmp(frame, view, error, connection.flow.target.address, why, now);
  if (verdict.action == Action::transmit && !connection.has_reply_path)
    count_made(*reals_[connection.server.index], frame);
  return verdict;
}

/// The director's own packet finds its way like any other.
Verdict Balancer::send_own(Frame& frame, const IpAddress& to, Instant now, Reason why) {
  const auto way = network_.route(to);
  if (!way || way->local) return Verdict::drop(Reason::no_route);
  Verdict verdict = fragment_to_hop(frame, sizeof(EthernetHeader), *way, now);
  if (verdict.action == Action::transmit) verdict.reason = why;
  return verdict;
}

// === connections ====================================================================================================

Connection* Balancer::open(Service& service, RealServer& server, const FlowKey& flow, Instant now) {
  // -m keeps the server's own port; -g and -i hand the packet over as it is.
  const Endpoint real{server.config.endpoint.address,
                      server.config.method == Method::masq ? server.config.endpoint.port : flow.target.port};
  const bool nat = server.config.method == Method::masq;
  Connection* c = connections_.open(flow, real, nat, now + 3s);  // ip_vs_conn.c: 3 s until its first state
  if (c == nullptr) return nullptr;
  c->server = server.id;
  c->input_only = !nat;
  switch (server.config.method) {
    case Method::masq:
      c->request = Nat{NatEnd::target, flow.target, real, zero_checksum()};
      c->reply = Nat{NatEnd::source, real, flow.target, zero_checksum()};
      break;
    case Method::tunnel: c->request = Tunnel{server.config.endpoint.address}; break;
    case Method::direct: c->request = Direct{}; break;
  }
  ++server.inactive;
  if (server.config.upper_threshold != 0 && server.connections() >= server.config.upper_threshold)
    server.overloaded = true;
  ++server.traffic.total.connections;
  ++service.traffic.total.connections;
  ++traffic_.total.connections;
  return c;
}

/// Counts the connection out of its server; the table forgets it elsewhere.
void Balancer::left(const Connection& c, Instant now) {
  RealServer& server = *reals_[c.server.index];
  --(is_active(c.state) ? server.active : server.inactive);
  const std::uint64_t total = server.connections();
  const ServerConfig& limit = server.config;
  if (limit.lower_threshold != 0 ? total < limit.lower_threshold
                                 : limit.upper_threshold == 0 || total * 4 < std::uint64_t{limit.upper_threshold} * 3)
    server.overloaded = false;  // ip_vs_conn.c, ip_vs_unbind_dest
  forget_soon(server, now);
}

void Balancer::close(Connection& c, Instant now) {
  left(c, now);
  connections_.close(c);
}

void Balancer::advance(Connection& c, const PacketView& view, Direction direction, Instant now) {
  State next = State::udp;
  if (view.is_tcp()) {
    if (!view.has_transport) return;  // a later fragment says nothing about the state
    if (direction == Direction::reply) c.input_only = false;
    next = next_tcp_state(tunables_.secure_tcp == 3 ? TcpTable::secure : TcpTable::normal, c.state, view.tcp_flags,
                          direction, c.visibility());
  }
  if (is_active(next) != is_active(c.state)) {
    RealServer& server = *reals_[c.server.index];
    const bool up = is_active(next);
    ++(up ? server.active : server.inactive);
    --(up ? server.inactive : server.active);
  }
  if (next_tick_ == kNever) next_tick_ = now + kRateInterval;  // there is something to tell again
  c.state = next;
  c.timeout = timeouts_[next];
  connections_.set_deadline(c, now + c.timeout);
}

namespace {

void count(Traffic& traffic, bool in, std::uint64_t packets, std::uint64_t bytes) {
  (in ? traffic.in_packets : traffic.out_packets) += packets;
  (in ? traffic.in_bytes : traffic.out_bytes) += bytes;
}

/// Packets and bytes on the wire: a super-frame is as many packets as it will be cut into.
std::pair<std::uint64_t, std::uint64_t> on_the_wire(const Frame& frame, const PacketView& view) {
  if (!is_super(frame)) return {1, view.ip_length};
  const std::size_t payload = payload_offset(frame, view);
  const std::size_t n = segment_count(frame, payload);
  return {n, view.ip_length + (n - 1) * (payload - view.network)};
}

}  // namespace

void Balancer::count_in(RealServer& server, const Frame& frame, const PacketView& view) {
  if (server.removed()) return;
  const auto [packets, bytes] = on_the_wire(frame, view);
  count(server.traffic.total, true, packets, bytes);
  count(server.service->traffic.total, true, packets, bytes);
  count(traffic_.total, true, packets, bytes);
}

void Balancer::count_out(RealServer& server, const Frame& frame, const PacketView& view) {
  if (server.removed()) return;
  const auto [packets, bytes] = on_the_wire(frame, view);
  count(server.traffic.total, false, packets, bytes);
  count(server.service->traffic.total, false, packets, bytes);
  count(traffic_.total, false, packets, bytes);
}

/// Counts an answer of the director's own, in place of the real server.
void Balancer::count_made(RealServer& server, const Frame& frame) {
  PacketView view;
  view.ip_length = static_cast<std::uint32_t>(frame.length - sizeof(EthernetHeader));
  count_out(server, frame, view);
}

const RouteTo* Balancer::way_to(RealServer& server) {
  if (server.way_generation != network_.generation()) {
    server.way = network_.route(server.config.endpoint.address);
    server.way_generation = network_.generation();  // after: route() may make a hop
  }
  return server.way ? &*server.way : nullptr;
}

/// The way to a connection's client, remembered in the connection; `room` holds the answer.
const RouteTo* Balancer::way_to_client(Connection& c, RouteTo& room) {
  if (c.reply_generation == network_.generation()) {
    room.hop = c.reply_hop;
    room.mtu = c.reply_mtu;
    return &room;
  }
  const auto way = network_.route(c.flow.source.address);
  if (!way || way->local) return nullptr;
  c.reply_hop = way->hop;
  c.reply_mtu = way->mtu;
  c.reply_generation = network_.generation();
  room = *way;
  return &room;
}

// === the clock ======================================================================================================

std::size_t Balancer::expire(Instant now) noexcept {
  network_.expire(now, outbox_, counters_);
  fragments_.expire(now);
  if (next_announcement_ <= now) announce(now);
  if (next_tick_ <= now) tick_rates(now);
  forget_removed(now);
  return connections_.expire(now, kExpireBudget, [&](const Connection& c) { left(c, now); });
}

Instant Balancer::next_deadline() const {
  return std::min({network_.next_deadline(), fragments_.next_deadline(), next_announcement_, next_tick_,
                   forgotten_.empty() ? kNever : forgotten_.front().at, connections_.next_deadline()});
}

/// Rates need a tick every two seconds, but only while there is something to tell: an idle director sleeps.
void Balancer::tick_rates(Instant now) {
  const auto quiet = [this] {
    if (!traffic_.quiet()) return false;
    for (const auto& s : services_)
      if (!s->traffic.quiet()) return false;
    return true;
  };
  while (next_tick_ <= now) {
    traffic_.tick();
    for (const auto& service : services_) {
      service->traffic.tick();
      for (RealServer* server : service->servers) server->traffic.tick();
    }
    next_tick_ += kRateInterval;
    if (quiet()) {
      next_tick_ = kNever;
      return;
    }
  }
}

/// Gratuitous ARP: switches and neighbours learn where the virtual addresses are now (RFC 5944, 4.6: as a request, to everybody).
void Balancer::announce(Instant now) {
  for (std::uint32_t i = 0; i < network_.interfaces().size(); ++i) {
    const Interface& out = network_.interfaces()[i];
    if (!out.known || !out.up) continue;
    for (const auto& [vip, services] : virtual_)
      if (vip.is_v4() && speaks_for(vip, DeviceId{i}))
        write_arp(outbox_.add(64, DeviceId{i}), ArpHeader::kRequest, kBroadcastMac, out.mac, vip, {}, vip);
  }
  next_announcement_ = --announcements_left_ > 0 ? now + kAnnounceEvery : kNever;
}

}  // namespace director
