// The way of a packet, top to bottom: parse, what is it, whose is it, which connection, which server, where to.
// Changes come in by services.cpp; this file is the packet path and the clock's work.
#include "director/core/balancer.h"

#include <algorithm>
#include <cstring>

#include "director/core/neighbour.h"
#include "director/core/sctp_state.h"
#include "director/forward/sctp_nat.h"
#include "director/net/headers.h"
#include "director/net/icmp.h"
#include "director/net/ip_header.h"
#include "director/net/ip_options.h"
#include "director/net/tcp_options.h"
#include "director/net/tunnel_header.h"

namespace director {
namespace {

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

std::uint8_t echo_request(Family family) { return family == Family::ipv4 ? IcmpHeader::kEcho : Icmpv6::kEcho; }

/// Of IPv4 the kernel relays the three a transport can act on; of IPv6 every error (ip_vs_core.c, ip_vs_in_icmp, ip_vs_in_icmp_v6).
bool is_relayed_error(Family family, std::uint8_t type) {
  if (family == Family::ipv6) return type < Icmpv6::kFirstQuery;
  return type == IcmpHeader::kUnreachable || type == IcmpHeader::kSourceQuench || type == IcmpHeader::kTimeExceeded;
}

/// An "atomic" fragment is a whole packet; without its header it is one on every way (RFC 6946; nf_defrag_ipv6 does so too).
void strip_fragment_header(Frame& frame, PacketView& view) {
  const auto bytes = frame.bytes();
  const Protocol behind = header_at<Ipv6Fragment>(bytes, view.fragment_header).next_header;
  // Whoever announced the fragment header now announces what stood behind it.
  Protocol* announced = &header_at<Ipv6Header>(bytes, view.network).next_header;
  for (std::size_t at = view.network + sizeof(Ipv6Header); at < view.fragment_header;) {
    auto& extension = header_at<Ipv6Extension>(bytes, at);
    at += *announced == Ipv6Extension::kAuthentication ? 8 + std::size_t{extension.length} * 4
                                                       : 8 + std::size_t{extension.length} * 8;
    announced = &extension.next_header;
  }
  *announced = behind;
  std::memmove(bytes.data() + sizeof(Ipv6Fragment), bytes.data(), view.fragment_header);
  frame.pull(sizeof(Ipv6Fragment));
  set_ip_length(frame.bytes(), view.network, Family::ipv6);
  view.transport -= static_cast<std::uint32_t>(sizeof(Ipv6Fragment));
  view.ip_length -= static_cast<std::uint32_t>(sizeof(Ipv6Fragment));
  view.fragment_header = 0;
}

/// It left as one frame or as a super-frame's segments, and not as an answer.
bool went_plainly(const Verdict& v) {
  return (v.action == Action::transmit && v.reason == Reason::none) || v.reason == Reason::segmented;
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

/// Makes the copied header one of a piece that begins `at` bytes into what is cut; that may be a fragment itself.
void mark_fragment4(std::span<std::byte> piece, std::size_t network, std::size_t at, bool more) {
  auto& ip = header_at<Ipv4Header>(piece, network);
  const std::size_t header = ip.header_length();
  const std::size_t offset = (ip.fragment_offset() + at) / 8;
  ip.fragment = Be16{static_cast<std::uint16_t>((ip.fragment.host() & Ipv4Header::kDontFragment) | offset |
                                                (more || ip.more_fragments() ? Ipv4Header::kMoreFragments : 0U))};
  if (at > 0)
    blank_uncopied_options(piece.subspan(network + sizeof(Ipv4Header), header - sizeof(Ipv4Header)));
  set_ip_length(piece, network, Family::ipv4);
}

/// Writes the fragment header behind the copied IPv6 header, which has no extension headers: the director made the packet.
void mark_fragment6(std::span<std::byte> piece, std::size_t network, std::size_t at, bool more, std::uint32_t id) {
  auto& ip = header_at<Ipv6Header>(piece, network);
  header_at<Ipv6Fragment>(piece, network + sizeof(Ipv6Header)) = {
      ip.next_header, 0, Be16{static_cast<std::uint16_t>(at | (more ? Ipv6Fragment::kMoreFragments : 0U))}, Be32{id}};
  ip.next_header = Ipv6Extension::kFragment;
  set_ip_length(piece, network, Family::ipv6);
}

/// For those who ask what time it is: the core doesn't know the time of day. RFC 791 and RFC 792 have a bit for that.
std::uint32_t milliseconds(Instant now) {
  constexpr std::uint32_t kNotTimeOfDay = 0x80000000;
  const auto count = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  return static_cast<std::uint32_t>(count) | kNotTimeOfDay;
}

Reason translate(const Nat& nat, Frame& frame, const PacketView& view) {
  return view.is_sctp() ? apply_to_sctp(nat, frame, view) : apply(nat, frame, view);
}

/// Says that it ends what there was (nat_icmp_send leaves it unanswered).
bool is_abort(const PacketView& view) {
  return view.is_sctp() ? view.sctp_event == SctpEvent::abort : view.is_tcp() && (view.tcp_flags & TcpHeader::kRst) != 0;
}

constexpr Duration kAnnounceEvery = 1s;
constexpr std::size_t kExpireBudget = 1024;  // connections a call: under a millisecond, cold as they are

}  // namespace

Balancer::Balancer(const Options& options)
    : options_(options),
      connections_(options.seed, options.max_connections),
      ip_id_(static_cast<std::uint32_t>(options.seed >> 32U) ^ static_cast<std::uint32_t>(options.seed)) {
  if (options.policy == Policy::kernel) tunables_.mss_clamp = 0;
}

Balancer::~Balancer() = default;

// === process ========================================================================================================

void Balancer::glimpse(const Frame& frame, Glimpse& seen) const {
  seen.view = {};
  seen.place = ConnectionTable::kNowhere;
  seen.plain = options_.short_way && read_plain(frame, seen.view);
  if (seen.plain) seen.view.flow_hash = connections_.hash_of(seen.view.flow);
}

Verdict Balancer::process(Frame& frame, Instant now) noexcept {
  Glimpse seen;
  glimpse(frame, seen);
  return process(frame, seen, now);
}

std::span<const Balancer::Glimpse> Balancer::look_ahead(std::span<const Frame> batch) {
  constexpr std::size_t kFitsIntoCaches = 32768;  // connections; below it only the rows are far enough to be worth it
  if (glimpses_.size() < batch.size()) glimpses_.resize(batch.size());
  for (std::size_t i = 0; i < batch.size(); ++i) glimpse(batch[i], glimpses_[i]);
  const std::span<Glimpse> seen = std::span{glimpses_}.first(batch.size());
  if (seen.size() < 2) return seen;
  const bool is_large = connections_.size() > kFitsIntoCaches;
  if (is_large)
    for (const Glimpse& g : seen)
      if (g.plain) connections_.fetch_bucket(g.view.flow_hash);
  for (Glimpse& g : seen)
    if (g.plain) g.place = connections_.fetch_first(g.view.flow_hash);
  for (int i = 0; i < (is_large ? 2 : 1); ++i)
    for (Glimpse& g : seen)
      if (g.plain) g.place = connections_.fetch_next(g.view.flow, g.place);
  return seen;
}

Verdict Balancer::process(Frame& frame, const Glimpse& seen, Instant now) noexcept {
  ShortWay way;
  const Verdict verdict = seen.plain && find_short_way(frame, seen, now, way) ? take_short_way(frame, seen.view, way, now)
                                                                                  : decide(frame, seen.plain ? &seen.view : nullptr, now);
  counters_.count(verdict.reason);
  if (explains()) tell_verdict(verdict);
  return verdict;
}

/// `plain`: what was read of it already.
Verdict Balancer::decide(Frame& frame, const PacketView* plain, Instant now) {
  const Interface* in = network_.find(frame.ingress);
  if (in == nullptr) return Verdict::drop(Reason::device_down);
  if (plain != nullptr) frame.resize(plain->network + plain->ip_length);
  auto parsed = plain != nullptr ? Result<PacketView, Reason>{*plain} : parse_packet(frame);
  if (!parsed) {
    if (explains()) tell_unreadable(frame, parsed.error());
    // What can't be read and isn't for us anyway is the host's to judge.
    return in->stack == Stack::host ? Verdict::pass(parsed.error()) : Verdict::drop(parsed.error());
  }
  PacketView& view = *parsed;
  if (explains()) tell_packet(frame, view);
  if (view.kind != PacketView::Kind::ip) {
    const Verdict verdict =
        view.kind == PacketView::Kind::arp ? arp(frame, view, now) : neighbour(frame, view, now);
    end_stale_shortcuts();
    return verdict;
  }
  if (is_sync_message(frame, view)) return receive_sync(frame, view, now);
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
  if (!sender.is_unspecified())
    network_.learn(frame.ingress, sender, arp.sender_mac, Network::Claim::certain, now, outbox_);
  const bool ours = speaks_for(asked, frame.ingress) || (in.stack == Stack::own && in.owns(asked));
  if (arp.operation != Be16{ArpHeader::kRequest} || !ours || sender == asked) {
    return Verdict::pass(arp.operation == Be16{ArpHeader::kReply} ? Reason::arp_learnt : Reason::arp_ignored);
  }
  answer_arp(frame, view, in.mac);
  return Verdict::transmit(frame.ingress, Reason::arp_answered);
}

/// Neighbour discovery is IPv6's ARP, and more careful: a hop limit of 255 proves that the message is from this link.
Verdict Balancer::neighbour(Frame& frame, const PacketView& view, Instant now) {
  const Interface& in = *network_.find(frame.ingress);
  if (header_at<EthernetHeader>(frame.bytes(), 0).source == in.mac)
    return Verdict::drop(Reason::neighbour_ignored);  // our own, come back
  const auto message = read_neighbour(frame.bytes(), view);
  if (!message) return Verdict::pass(Reason::neighbour_invalid);
  if (message->kind == NeighbourMessage::Kind::query) {
    const Reason reason = report_groups(frame.ingress, *message) ? Reason::listener_answered : Reason::neighbour_ignored;
    return Verdict::pass(reason);  // the host has groups of its own
  }
  if (message->kind == NeighbourMessage::Kind::advertisement) {
    if (message->mac) network_.learn(frame.ingress, message->target, *message->mac,
                                     message->replaces ? Network::Claim::certain : Network::Claim::careful, now, outbox_);
    return Verdict::pass(Reason::neighbour_learnt);
  }
  const IpAddress& sender = view.flow.source.address;
  if (!sender.is_unspecified() && message->mac)
    network_.learn(frame.ingress, sender, *message->mac, Network::Claim::certain, now, outbox_);
  const bool own = in.stack == Stack::own && in.owns(message->target);
  if (!own && !speaks_for(message->target, frame.ingress)) return Verdict::pass(Reason::neighbour_ignored);
  const MacAddress asker = header_at<EthernetHeader>(frame.bytes(), 0).source;
  write_advertisement(frame, in.mac, message->target, own && forwarding_, sender,
                      message->mac.value_or(asker));
  return Verdict::transmit(frame.ingress, Reason::neighbour_answered);
}

/// The groups of this device's addresses and of the virtual ones, for switches that deliver groups to listeners only.
std::vector<IpAddress> Balancer::listened_groups(DeviceId device) const {
  const Interface& in = *network_.find(device);
  std::vector<IpAddress> groups;
  const auto add = [&](const IpAddress& a) {
    const IpAddress group = solicited_node(a);
    if (std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
  };
  for (const auto& [vip, services] : virtual_)
    if (!vip.is_v4() && speaks_for(vip, device)) add(vip);
  if (in.stack == Stack::own)
    for (const Prefix& p : in.addresses)
      if (!p.address.is_v4()) add(p.address);
  std::sort(groups.begin(), groups.end());
  return groups;
}

/// Answers a query for listeners with what it asks for; whether there was anything to say.
bool Balancer::report_groups(DeviceId device, const NeighbourMessage& query) {
  std::vector<IpAddress> groups = listened_groups(device);
  if (!query.target.is_unspecified()) std::erase_if(groups, [&](const IpAddress& g) { return g != query.target; });
  if (groups.empty()) return false;
  const Interface& out = *network_.find(device);
  const IpAddress from = out.link_local_address();
  if (query.version == 1) {
    for (const IpAddress& group : groups) write_listener_report1(outbox_.add(128, device), out.mac, from, group);
  } else {
    write_listener_reports(outbox_, device, out.mac, from, ListenerRecord::is_exclude, groups);
  }
  return true;
}

bool Balancer::speaks_for(const IpAddress& vip, DeviceId device) const {
  if (!is_virtual(vip) || stands_by()) return false;
  const Interface& in = *network_.find(device);
  if (in.stack == Stack::host && in.owns(vip)) return false;  // the host answers for what it owns
  // Where it is reachable: in the subnet that holds it; if none does, it is routed to us and anybody may ask.
  return network_.on_link(device, vip) || !network_.on_link_anywhere(vip);
}

// --- IP: whose packet is it? ---------------------------------------------------------------------------------------

Verdict Balancer::ip(Frame& frame, PacketView& view, Instant now) {
  if (RealServer* const server = checked_by(view)) return hear_check(*server, frame, view, now);
  const IpAddress& source = view.flow.source.address;
  const bool unspecified = view.family == Family::ipv6 && source.is_unspecified();
  if (source.is_multicast() || source.is_broadcast() || source.is_loopback() || unspecified || is_virtual(source) ||
      network_.owns(source))
    return Verdict::drop(Reason::bad_source);  // fib_frontend.c: martian source; ip6_input.c
  if (view.family == Family::ipv6) {
    // Not the last stop: who goes on from here would decide past all filters (RFC 5095). The kernel's IPVS doesn't look.
    if (view.source_routed && options_.policy == Policy::improved && is_virtual(view.flow.target.address))
      return Verdict::drop(Reason::source_route);
    if (view.fragment_header != 0 && !view.fragment) strip_fragment_header(frame, view);
  }
  if (const Reason r = read_options(frame, view, now); r != Reason::none) return Verdict::drop(r);

  if (view.fragment)
    if (const Reason r = follow_fragments(frame, view, now); r != Reason::none) return Verdict::drop(r);
  const Verdict verdict = view.is_icmp() ? icmp(frame, view, now) : transport(frame, view, now);
  if (!later_fragments_.empty()) process_later_fragments(now);
  return verdict;
}

/// A later fragment learns from the first whose it is, or waits for it. Reason::none: it, or the first, goes on.
Reason Balancer::follow_fragments(Frame& frame, PacketView& view, Instant now) {
  if (view.later_fragment && !fragments_.knows(view) && !may_be_served(view.flow.target.address) &&
      nat_server_at(view.flow) == nullptr)
    return Reason::none;  // not ours
  if (const Reason r = fragments_.cover(view, now); r != Reason::none) return r;
  if (view.later_fragment) {
    if (const auto owner = fragments_.find(view)) {
      view.flow.source.port = owner->source;
      view.flow.target.port = owner->target;
      view.flow.protocol = owner->protocol;
      return Reason::none;
    }
    fragments_.keep(view, frame, now);
    return Reason::fragment_waits;
  }
  if (!view.has_ports) return Reason::none;
  for (FragmentTable::Waiting& later : fragments_.learn(view, now)) {  // they leave behind their first fragment
    Outbox::Entry& entry = outbox_.add_entry(later.bytes.size(), DeviceId{});
    entry.frame.resize(later.bytes.size());
    std::memcpy(entry.frame.bytes().data(), later.bytes.data(), later.bytes.size());
    entry.frame.ingress = later.ingress;
    later_fragments_.push_back(&entry);
  }
  return Reason::none;
}

/// Packets with IP options are rare. What is for us is recorded as having come to the address it was sent to; what only passes
/// through, by the address its sender knows us by (ip_options.c, fib_compute_spec_dst); a reply, by the VIP it leaves from.
Reason Balancer::read_options(Frame& frame, const PacketView& view, Instant now) {
  if (view.family == Family::ipv6) return Reason::none;  // extension headers were walked by parse_packet
  const std::size_t length = view.transport - view.network;
  if (length == sizeof(Ipv4Header)) return Reason::none;
  IpAddress here = view.flow.target.address;
  const bool for_us = is_virtual(here) || network_.owns(here);
  const bool ours = for_us || network_.find(frame.ingress)->stack == Stack::own || nat_server_at(view.flow) != nullptr;
  if (!ours) return Reason::none;  // the host's to judge
  if (const auto [connection, direction] = connections_.find(view.flow); connection != nullptr && direction == Direction::reply) {
    here = connections_.recipe(*connection).virtual_.address;  // it leaves as the VIP's own (ip_vs_core.c, ip_vs_route_me_harder)
  } else if (!for_us) {
    if (const RouteTo* back = network_.route(view.flow.source.address)) here = back->source;
  }
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
  if (view.is_sctp()) finish_sctp_checksum(frame, view);
  // The kernel's IPVS sees no packets while there is no service at all (ip_vs_ctl.c, ip_vs_unregister_hooks).
  const bool looks = (options_.policy == Policy::improved || !services_.empty()) && !stands_by();
  if (looks && (view.has_ports || view.later_fragment)) {
    const std::uint32_t hash = view.flow_hash != 0 ? view.flow_hash : connections_.hash_of(view.flow);
    if (auto [connection, direction] = connections_.find(view.flow, hash); connection != nullptr) {
      if (explains()) tell_connection(*connection, direction, now);
      if (connections_.is_due(*connection, now)) {
        close(*connection, now);  // its time was up, the clock only hasn't come by
      } else if (direction == Direction::reply) {
        return reply(*connection, frame, view, now);
      } else {
        return request(connection, frame, view, now);
      }
    }
    if (explains()) tell_step("connection", "none has this flow");
    Service* service = service_for(view.flow, frame.mark);
    if (explains()) tell_service(service, view.flow, frame.mark);
    if (service != nullptr) return schedule(*service, frame, view, now);
    if (Connection* c = open_from_server(frame, view, now)) return reply(*c, frame, view, now);
  }
  return stray(frame, view, now);
}

// --- packets of a connection ---------------------------------------------------------------------------------------

Verdict Balancer::request(Connection* connection, Frame& frame, const PacketView& view, Instant now) {
  RealServer& server = server_of(*connection);
  const bool begins = view.is_tcp() ? (view.tcp_flags & TcpHeader::kSyn) != 0 : view.sctp_event == SctpEvent::init;
  if (begins) {
    // A client takes up an old port again (ip_vs_core.c, is_new_conn_expected).
    const State s = connection->state;
    // What a template made is left to it by the kernel; ours asks the template anew.
    const bool may_end = !connection->affinity || options_.policy == Policy::improved;
    const bool closing = s == State::time_wait || s == State::close || s == State::sctp_closed ||
                         ((tunables_.conn_reuse_mode & 2) != 0 && s == State::fin_wait && connection->input_only);
    const bool quiesced = server.config.weight == 0 && tunables_.expire_nodest_conn != 0;
    if (may_end && ((tunables_.conn_reuse_mode != 0 && closing) || quiesced)) return start_anew(*connection, frame, view, now);
  }
  if (server.removed()) return server_gone(*connection, frame, view, now);
  if (server.config.weight == 0 && server.service->config.policy.server_quiesced != ServerQuiesced::keep)
    return server_quiesced(*connection, frame, view, now);
  count_in(server, frame, view);
  ++connection->in_packets;
  advance(*connection, view, Direction::request, now);
  tell_backups(*connection, now);
  const DeviceId ingress = frame.ingress;
  const Verdict verdict = forward_request(*connection, frame, view, now);
  if (offers_shortcuts_ && !server.is_none && went_plainly(verdict))
    offer_shortcut(*connection, Direction::request, view, ingress, *way_to(server));
  return verdict;
}

/// The old connection ends here, and the packet in hand starts one.
Verdict Balancer::start_anew(Connection& old, Frame& frame, const PacketView& view, Instant now, Start start) {
  close_shortcuts(old);
  const Departure ended = departure(old);
  connections_.close(old);
  Service* service = service_for(view.flow, frame.mark);
  if (explains()) tell_service(service, view.flow, frame.mark);
  const Verdict verdict = service != nullptr ? schedule(*service, frame, view, now, start) : stray(frame, view, now);
  left(ended, now);  // its server is chosen again, or not, as one that still has it: the kernel's timer comes a tick later
  return verdict;
}

Verdict Balancer::reply(Connection& connection, Frame& frame, const PacketView& view, Instant now) {
  // As a router does first (ip_forward.c): TTL, MTU; then the translation.
  RealServer& server = server_of(connection);
  const RouteTo* back = way_to(server);
  const IpAddress speaker = back != nullptr ? back->source : view.flow.target.address;
  if (view.ttl <= 1)
    return answer_icmp(frame, view, icmp_error(view.family, Complaint::ttl_exceeded), speaker, Reason::ttl_exceeded, now);
  const RouteTo* way = way_to_client(connection);
  if (way == nullptr)
    return answer_icmp(frame, view, icmp_error(view.family, Complaint::no_route), speaker, Reason::no_route, now);
  if (view.dont_fragment && wire_length(frame, view) > way->mtu)
    return answer_icmp(frame, view,
                       icmp_error(view.family, Complaint::too_big, way->mtu),
                       speaker, Reason::too_big, now);
  if (explains()) tell_forwarding(connection, Direction::reply, frame);
  if (const Reason r = translate(std::get<Nat>(connections_.recipe(connection).reply), frame, view); r != Reason::none)
    return Verdict::drop(r);
  lower_ttl(frame.bytes(), view.network, view.family);
  count_out(server, frame, view);
  advance(connection, view, Direction::reply, now);
  const Verdict verdict = forward_to_hop(frame, view, *way, now);
  if (offers_shortcuts_ && went_plainly(verdict))
    offer_shortcut(connection, Direction::reply, view, frame.ingress, *way);
  return verdict;
}

// --- a packet without a connection ---------------------------------------------------------------------------------

Verdict Balancer::schedule(Service& service, Frame& frame, const PacketView& view, Instant now, Start start) {
  const bool anything = start == Start::anything;
  if (view.later_fragment) return Verdict::drop(Reason::fragment_unknown);
  if (view.is_tcp()) {  // ip_vs_proto_tcp.c, tcp_conn_schedule
    if (!view.has_transport) return Verdict::drop(Reason::truncated_transport);
    const bool may_start = ((view.tcp_flags & TcpHeader::kSyn) != 0 || tunables_.sloppy_tcp != 0 || anything) &&
                           (view.tcp_flags & TcpHeader::kRst) == 0;
    if (!may_start && explains())
      tell_step("connection", "it begins none: TCP begins with a SYN (net.ipv4.vs.sloppy_tcp takes any)");
    if (!may_start) return stray(frame, view, now);
  } else if (view.is_sctp()) {  // ip_vs_proto_sctp.c, sctp_conn_schedule
    if (!view.sctp_event) return Verdict::drop(Reason::truncated_transport);
    const bool may_start = (view.sctp_event == SctpEvent::init || tunables_.sloppy_sctp != 0 || anything) &&
                           view.sctp_event != SctpEvent::abort;
    if (!may_start) return stray(frame, view, now);
  } else if (!view.is_udp()) {
    return stray(frame, view, now);
  } else if (!view.has_transport) {
    return Verdict::drop(Reason::truncated_transport);
  }
  if (refused_by_defence()) return Verdict::drop(Reason::drop_packet);
  if (view.flow.source.port == Port::of(20)) return stray(frame, view, now);  // never: FTP data from a server here
  const auto payload = view.is_udp() ? frame.bytes().subspan(view.transport + sizeof(UdpHeader)) : std::span<std::byte>{};
  const auto choice = choose(service, view.flow, payload, now);
  if (!choice)
    return choice.error() == Reason::no_server ? no_server(service, frame, view, now) : Verdict::drop(choice.error());
  last_choice_ = choice->server->config.endpoint;
  if (service.config.one_packet && view.is_udp()) {
    tell_backups_of_template(choice->affinity, now);
    return send_one_packet(service, *choice->server, frame, view, now);
  }
  Connection* connection = open(service, *choice, view.flow, now);
  if (connection == nullptr) return Verdict::drop(Reason::table_full);
  count_in(*choice->server, frame, view);
  ++connection->in_packets;
  advance(*connection, view, Direction::request, now);
  tell_backups(*connection, now);
  return forward_request(*connection, frame, view, now);
}

/// ipvsadm -o: the connection lives for this datagram. The kernel then forwards a masqueraded server's answer with the server's
/// address, which the client never spoke to; ours remembers for a while whom the answer is from.
Verdict Balancer::send_one_packet(Service& service, RealServer& server, Frame& frame, const PacketView& view, Instant now) {
  constexpr Duration kAnswerTakes = 30s;
  const RecipeKey key = recipe_key(server, view.flow, real_endpoint(service, server, view.flow));
  Connection once;
  once.client = view.flow.source;
  once.recipe = connections_.recipes().take(key);
  count_connection(service, server);
  if (server.config.method == Method::masq && options_.policy == Policy::improved) {
    Connection* answer = connections_.find(connections_.reply_flow(once)).connection;
    if (answer != nullptr && !answer->has_request_path && answer->recipe != once.recipe) {  // the server can't tell them apart
      close(*answer, now);
      answer = nullptr;
    }
    if (answer == nullptr) {
      answer = open_or_make_room(now, [&] { return connections_.open_reply_only(once.client, key, now + kAnswerTakes); });
      if (answer != nullptr) answer->state = State::udp;
    }
    if (answer != nullptr && !answer->has_request_path) connections_.set_deadline(*answer, now + kAnswerTakes);
  }
  count_in(server, frame, view);
  const Verdict verdict = forward_request(once, frame, view, now);
  connections_.recipes().release(once.recipe);
  return verdict;
}

Verdict Balancer::stray(Frame& frame, const PacketView& view, Instant now) {
  const IpAddress& to = view.flow.target.address;
  if (is_virtual(to)) return refuse_unserved(frame, view, now);
  // A real server speaks to a client about a connection we don't know (ip_vs_core.c, nat_icmp_send).
  if (tunables_.nat_icmp_send != 0 && view.has_ports && nat_server_at(view.flow) != nullptr &&
      !is_abort(view)) {
    const RouteTo* back = network_.route(view.flow.source.address);
    if (back != nullptr && !back->local) {
      const IpAddress speaker = back->source;
      if (view.ttl <= 1)
        return answer_icmp(frame, view, icmp_error(view.family, Complaint::ttl_exceeded), speaker, Reason::ttl_exceeded, now);
      lower_ttl(frame.bytes(), view.network, view.family);  // it was on its way already
      return answer_icmp(frame, view, icmp_error(view.family, Complaint::port_unreachable), speaker,
                         Reason::refused_unreachable, now);
    }
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
  if (is_relayed_error(view.family, type)) return relay_error(frame, view, now);
  if (in.stack == Stack::host && in.owns(to)) return Verdict::pass(Reason::not_ours);
  if (!is_virtual(to)) return stray(frame, view, now);
  if (type != echo_request(view.family)) return to_own_stack(frame, view, now);
  // Answered while a service of the address can serve: ping tells the truth. The kernel's host answers always.
  if (options_.policy == Policy::improved && !has_usable_server(to)) return Verdict::drop(Reason::no_server);
  return to_own_stack(frame, view, now);
}

Verdict Balancer::relay_error(Frame& frame, const PacketView& view, Instant now) {
  const auto quoted = parse_quoted(frame.bytes().subspan(view.transport + sizeof(IcmpHeader)));
  const bool checksum_true = icmp_checksum_true(frame.bytes(), view);
  if (!quoted || quoted->family != view.family)
    return is_virtual(view.flow.target.address) ? Verdict::drop(Reason::icmp_malformed) : stray(frame, view, now);
  if (network_.owns(view.flow.target.address)) {
    const auto tunnel = find_tunnel(frame.bytes().subspan(view.transport + sizeof(IcmpHeader)), *quoted);
    if (tunnel)
      return checksum_true ? tunnel_error(frame, view, *tunnel, now) : Verdict::drop(Reason::bad_icmp_checksum);
  }

  // The quoted packet went the other way: an error from the client's side quotes a reply.
  const auto found = quoted->has_ports ? connections_.find(quoted->flow.reversed()) : ConnectionTable::Found{};
  if (!found) {
    const bool schedules = tunables_.schedule_icmp != 0 && quoted->has_ports &&
                           may_be_served(view.flow.target.address) && may_be_served(quoted->flow.source.address);
    if (schedules) return schedule_icmp(frame, view, *quoted, checksum_true, now);
    if (is_virtual(view.flow.target.address)) return Verdict::drop(Reason::icmp_no_connection);
    return stray(frame, view, now);
  }
  Connection& connection = *found.connection;
  RealServer& server = server_of(connection);
  if (found.direction == Direction::request) {
    if (!checksum_true) return Verdict::drop(Reason::bad_icmp_checksum);
    return relay_icmp_error(connection, frame, view, *quoted, now);
  }
  // From the real server's side, to the client.
  if (view.ttl <= 1) return Verdict::drop(Reason::ttl_exceeded);
  if (!checksum_true) return Verdict::drop(Reason::bad_icmp_checksum);
  const RouteTo* way = way_to_client(connection);
  if (way == nullptr) return Verdict::drop(Reason::no_route);
  translate_icmp_error(std::get<Nat>(connections_.recipe(connection).reply), frame, view, *quoted);
  lower_ttl(frame.bytes(), view.network, view.family);
  count_out(server, frame, view);
  return forward_to_hop(frame, view, *way, now);
}

Verdict Balancer::relay_icmp_error(Connection& connection, Frame& frame, const PacketView& view,
                                   const QuotedPacket& quoted, Instant now) {
  RealServer& server = server_of(connection);
  count_in(server, frame, view);
  const RouteTo* way = way_of(connection, server);
  if (way == nullptr) return Verdict::drop(Reason::no_route);
  if (way->local) return Verdict::drop(Reason::icmp_not_relayed);
  if (view.ttl <= 1) return Verdict::drop(Reason::ttl_exceeded);  // no error about an error
  lower_ttl(frame.bytes(), view.network, view.family);
  const Forwarder& recipe = connections_.recipe(connection).request;
  if (const auto* nat = std::get_if<Nat>(&recipe)) translate_icmp_error(*nat, frame, view, quoted);
  if (std::holds_alternative<Tunnel>(recipe))
    return tunnel_to_hop(frame, view, server, connections_.flow(connection), *way, now);
  return forward_to_hop(frame, view, *way, now);
}

/// net.ipv4.vs.schedule_icmp: an error about a flow nobody knows is scheduled as the flow would be (for ECMP set-ups, where errors
/// may come to another director than the flow did).
Verdict Balancer::schedule_icmp(Frame& frame, const PacketView& view, const QuotedPacket& quoted, bool checksum_true,
                                Instant now) {
  const FlowKey flow = quoted.flow.reversed();
  Service* service = service_for(flow, frame.mark);
  const bool ftp_data = flow.source.port == Port::of(20);  // as in schedule()
  if (service == nullptr || ftp_data) return Verdict::drop(Reason::icmp_no_connection);
  const auto choice = choose(*service, flow, {}, now);
  if (!choice) return Verdict::drop(choice.error());
  Connection* connection = open(*service, *choice, flow, now);
  if (connection == nullptr) return Verdict::drop(Reason::table_full);
  if (!checksum_true) return Verdict::drop(Reason::bad_icmp_checksum);
  return relay_icmp_error(*connection, frame, view, quoted, now);
}

std::optional<Balancer::QuotedTunnel> Balancer::find_tunnel(std::span<const std::byte> quoted, const QuotedPacket& outer) {
  if (outer.later_fragment) return {};
  const auto behind = quoted.subspan(outer.header_length);
  const auto header = outer.flow.protocol == Protocol::udp   ? read_gue_header(behind)
                      : outer.flow.protocol == Protocol::gre ? read_gre_header(behind)
                                                             : read_bare_header(outer.flow.protocol);
  if (!header) return {};
  const auto inner = parse_quoted(behind.subspan(header->length));
  if (!inner || !inner->has_ports || inner->flow.source.address.family() != header->inner) return {};
  const auto found = connections_.find(inner->flow);
  if (!found || found.direction != Direction::request) return {};
  const auto* tunnel = std::get_if<Tunnel>(&connections_.recipe(*found.connection).request);
  if (tunnel == nullptr || tunnel->remote != outer.flow.target.address) return {};
  const ServerConfig& server = server_of(*found.connection).config;
  if (outer.flow.protocol == Protocol::udp && outer.flow.target.port != server.tunnel_port) return {};
  return QuotedTunnel{found.connection, outer, *inner, outer.header_length + header->length};
}

/// A router on the way to a real server complains about our outer packet. The client can do something about it: it is told in terms of
/// its own packet (ip_vs_core.c, ip_vs_in_icmp).
Verdict Balancer::tunnel_error(Frame& frame, const PacketView& view, const QuotedTunnel& quoted, Instant now) {
  const auto bytes = frame.bytes();
  const IcmpHeader icmp = header_at<IcmpHeader>(bytes, view.transport);
  Connection& connection = *quoted.connection;
  RealServer& server = server_of(connection);
  const bool as_kernel = options_.policy == Policy::kernel;
  // Nobody's tunnel any more: its server was removed, and no other service has one to there (ip_vs_ctl.c, ip_vs_find_tunnel).
  const auto is_far_end = [&](const auto& s) {
    return s != nullptr && !s->removed() && s->config.method == Method::tunnel &&
           s->config.endpoint.address == quoted.outer.flow.target.address;
  };
  if (server.removed() && std::ranges::none_of(reals_, is_far_end)) return Verdict::drop(Reason::icmp_no_connection);

  const auto complaint = complaint_of(view.family, icmp);
  const bool same_family = quoted.inner.family == view.family;
  if (!same_family && !complaint) return Verdict::drop(Reason::icmp_not_relayed);
  IcmpError error = same_family ? IcmpError{icmp.type, icmp.code} : icmp_error(quoted.inner.family, *complaint);
  const bool too_big = complaint == Complaint::too_big;
  if (too_big) {
    const std::uint32_t told = view.family == Family::ipv4
                                   ? icmp.word1.host()
                                   : std::uint32_t{icmp.word0.host()} << 16U | icmp.word1.host();
    network_.learn_path_mtu(quoted.outer.flow.target.address, told, now);
    // Without DF the client fragments, or lets us.
    if (!quoted.inner.dont_fragment && quoted.inner.family == Family::ipv4) return Verdict::drop(Reason::too_big);
    // The client is told what its packets have to fit from now on. The kernel (6.1) takes every tunnel for IPIP, and looks into the
    // route it has cached, which doesn't learn: the first narrowing shows when a packet has fetched the route that does.
    const bool cached = as_kernel && server.way && !server.way->learnt;
    const RouteTo* way = cached ? &*server.way : way_to(server);
    const std::size_t overhead = as_kernel ? sizeof(Ipv4Header) : tunnel_overhead(server.outer, frame.offload);
    RouteTo narrow;
    narrow.mtu = told;
    const std::size_t mtu = mtu_inside(way != nullptr ? *way : narrow, overhead, quoted.inner.family);
    error.word = static_cast<std::uint32_t>(mtu != 0 ? mtu : told);
  }
  // The frame becomes the inner packet, as the client would recognise it, and is answered.
  const auto ethernet = header_at<EthernetHeader>(bytes, 0);
  frame.pull(view.transport + sizeof(IcmpHeader) + quoted.inner_at - sizeof(EthernetHeader));
  header_at<EthernetHeader>(frame.bytes(), 0) = ethernet;
  PacketView client = view;
  client.family = quoted.inner.family;
  client.transport = view.network + static_cast<std::uint32_t>(quoted.inner.header_length);
  client.flow = quoted.inner.flow;
  client.tos = tos_at(frame.bytes(), view.network, client.family);
  client.later_fragment = false;
  PacketView inner = client;
  inner.ip_length = static_cast<std::uint32_t>(frame.length - view.network);
  const Verdict verdict =
      answer_client(connection, frame, client, error, too_big ? Reason::too_big : Reason::none, now);
  // The kernel counts what it takes out of the quotation, and then the message it makes of it.
  if (as_kernel && verdict.action == Action::transmit) count_out(server, frame, inner);
  return verdict;
}

// === forwarding =====================================================================================================

Verdict Balancer::forward_request(Connection& connection, Frame& frame, const PacketView& view, Instant now) {
  RealServer& server = server_of(connection);
  const RouteTo* way = way_of(connection, server);
  if (way == nullptr)
    return answer_client(connection, frame, view, icmp_error(view.family, Complaint::host_unreachable), Reason::no_route,
                         now);
  if (way->local) return deliver_here(connection, frame, view, now);
  if (view.ttl <= 1)
    return answer_client(connection, frame, view, icmp_error(view.family, Complaint::ttl_exceeded), Reason::ttl_exceeded, now);
  lower_ttl(frame.bytes(), view.network, view.family);

  if (explains()) tell_forwarding(connection, Direction::request, frame);
  const Forwarder& recipe = connections_.recipe(connection).request;
  const auto* tunnel = std::get_if<Tunnel>(&recipe);
  const std::size_t overhead = tunnel != nullptr ? tunnel_overhead(server.outer, frame.offload) : 0;
  const std::size_t mtu = mtu_inside(*way, overhead, view.family);
  if (mtu == 0) return Verdict::drop(Reason::too_big);
  const bool honour_df = tunnel == nullptr || tunables_.pmtu_disc != 0 || view.family == Family::ipv6;
  if (view.dont_fragment && honour_df && wire_length(frame, view) > mtu)
    return answer_client(connection, frame, view,
                         icmp_error(view.family, Complaint::too_big, static_cast<std::uint32_t>(mtu)),
                         Reason::too_big, now);
  if (tunnel != nullptr && tunables_.mss_clamp != 0) clamp_mss(frame, view, server.outer, way->mtu);
  if (tunnel != nullptr) return cut_and_tunnel(frame, view, server, connections_.flow(connection), *way, now);
  if (const auto* nat = std::get_if<Nat>(&recipe)) {
    if (const Reason r = translate(*nat, frame, view); r != Reason::none) return Verdict::drop(r);
  }
  return forward_to_hop(frame, view, *way, now);
}

Verdict Balancer::seal(Frame& frame, const RouteTo& way, Instant now) {
  if (explains()) tell_hop(way);
  return network_.seal(frame, way.hop, now, outbox_, counters_);
}

Verdict Balancer::forward_to_hop(Frame& frame, const PacketView& view, const RouteTo& way, Instant now) {
  if (wire_length(frame, view) <= way.mtu) return seal(frame, way, now);
  if (!is_super(frame)) return fragment_to_hop(frame, view.network, way, now);
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

/// Sends the packet whole when it fits, else as IP fragments (ip_output.c, ip_do_fragment; ip6_output.c, ip6_fragment). The pieces go to
/// the outbox. IPv6 is fragmented by who sends it: only what the director made comes here too large.
Verdict Balancer::fragment_to_hop(Frame& frame, std::size_t network, const RouteTo& way, Instant now) {
  const std::size_t total = frame.length - network;
  if (total <= way.mtu) return seal(frame, way, now);
  finish_checksum(frame);  // no piece could carry it partial
  const auto bytes = frame.bytes();
  const bool v6 = header_at<EthernetHeader>(bytes, 0).type == Be16{static_cast<std::uint16_t>(EtherType::ipv6)};
  const std::size_t header = v6 ? sizeof(Ipv6Header) : header_at<Ipv4Header>(bytes, network).header_length();
  const std::size_t in_front = v6 ? header + sizeof(Ipv6Fragment) : header;  // of each piece
  if (way.mtu < in_front + 8) return Verdict::drop(Reason::cannot_fragment);
  const std::uint32_t id = v6 ? std::uint32_t{next_ip_id()} << 16U | next_ip_id() : 0;
  const std::size_t step = (way.mtu - in_front) & ~std::size_t{7};
  const std::size_t payload = total - header;
  for (std::size_t at = 0; at < payload; at += step) {
    const std::size_t size = std::min(step, payload - at);
    const bool more = at + size < payload;
    Outbox::Entry& entry = outbox_.add_entry(network + in_front + size, DeviceId{});
    entry.frame.resize(network + in_front + size);
    entry.frame.ingress = frame.ingress;
    const auto to = entry.frame.bytes();
    std::memcpy(to.data(), bytes.data(), network + header);
    std::memcpy(to.data() + network + in_front, bytes.data() + network + header + at, size);
    if (v6) {
      mark_fragment6(to, network, at, more, id);
    } else {
      mark_fragment4(to, network, at, more);
    }
    const Verdict verdict = seal(entry.frame, way, now);
    if (verdict.action == Action::transmit)
      entry.egress = verdict.egress;
    else
      counters_.count(verdict.reason);
  }
  return Verdict::drop(Reason::fragmented);
}

/// The largest packet that goes into a tunnel (overhead 0: over the link) whole; 0: none worth the name does. IPv6 senders go no lower
/// than 1280 (RFC 8200, 5), so where a tunnel is narrower its outer packets are cut (RFC 2473, 7.1; RFC 4213, 3.2.1); the kernel says
/// the smaller number, or nothing.
std::size_t Balancer::mtu_inside(const RouteTo& way, std::size_t overhead, Family inner) const {
  const bool floor = options_.policy == Policy::improved && overhead != 0 && inner == Family::ipv6;
  const std::size_t least = floor ? least_mtu(Family::ipv4) : least_mtu(way.source.family());
  if (way.mtu < least + overhead) return 0;
  return floor ? std::max<std::size_t>(way.mtu - overhead, least_mtu(Family::ipv6)) : way.mtu - overhead;
}

/// As the kernel's udp_flow_src_port(): some ephemeral port, the same for all packets of a flow. Multiplied, so that the port doesn't
/// give the table's key away.
Port Balancer::gue_port(const FlowKey& flow) const {
  constexpr std::uint32_t kFirst = 32768;  // net.ipv4.ip_local_port_range
  constexpr std::uint32_t kCount = 60999 - kFirst + 1;
  const std::uint32_t mixed = connections_.hash_of(flow) * 0x9e3779b1U;
  return Port::of(static_cast<std::uint16_t>(kFirst + (std::uint64_t{mixed} * kCount >> 32U)));
}

/// A SYN into a tunnel: both ends shall agree on segments that fit, where path MTU discovery's ICMP may not get through. The server's
/// own offer, in its SYN+ACK, doesn't pass here; servers that offer no more than they were offered, and the replies, are covered.
void Balancer::clamp_mss(Frame& frame, const PacketView& view, const OuterHeaders& outer, std::size_t path_mtu) const {
  if (!view.is_tcp() || !view.has_transport || (view.tcp_flags & TcpHeader::kSyn) == 0) return;
  Offload worst;
  worst.checksum = Offload::Checksum::partial;  // segments that leave it to the far end are the largest
  const std::size_t headers = tunnel_overhead(outer, worst) + ip_header_size(view.family) + sizeof(TcpHeader);
  if (path_mtu > headers) lower_mss(frame, view, static_cast<std::uint16_t>(std::min<std::size_t>(path_mtu - headers, 65535)));
}

Verdict Balancer::tunnel_to_hop(Frame& frame, const PacketView& view, const RealServer& server, const FlowKey& flow, const RouteTo& way,
                                Instant now) {
  if (const Reason r = put_in_tunnel(frame, view, server, flow); r != Reason::none) return Verdict::drop(r);
  return fragment_to_hop(frame, view.network, way, now);
}

/// A super-frame can't be described inside a tunnel: its segments are cut here and tunnelled one by one.
Verdict Balancer::cut_and_tunnel(Frame& frame, const PacketView& view, const RealServer& server, const FlowKey& flow, const RouteTo& way,
                                 Instant now) {
  if (!is_super(frame)) return tunnel_to_hop(frame, view, server, flow, way, now);
  const std::size_t count = segment_count(frame, payload_offset(frame, view));
  for (std::size_t i = 0; i < count; ++i) {
    Outbox::Entry& entry =
        outbox_.add_entry(payload_offset(frame, view) + frame.offload.segment_size, DeviceId{});
    cut_segment(frame, view.network, view.transport, i, entry.frame);
    const Verdict verdict = tunnel_to_hop(entry.frame, view, server, flow, way, now);
    if (verdict.action == Action::transmit) entry.egress = verdict.egress;
    if (verdict.reason != Reason::none) counters_.count(verdict.reason);
  }
  return Verdict::drop(Reason::segmented);
}

/// What a router does with a packet that is nobody's: the host behind Stack::own routes when told to (ip_forward.c).
Verdict Balancer::route_plainly(Frame& frame, const PacketView& view, Instant now) {
  const RouteTo* back = network_.route(view.flow.source.address);
  const IpAddress speaker = back != nullptr && !back->local ? back->source : view.flow.target.address;
  const RouteTo* way = network_.route(view.flow.target.address);
  if (view.flow.target.address.is_multicast() || view.flow.target.address.is_broadcast())
    return Verdict::drop(Reason::not_ours);
  if (way == nullptr || way->local)
    return answer_icmp(frame, view, icmp_error(view.family, Complaint::no_route), speaker, Reason::no_route, now);
  if (view.ttl <= 1)
    return answer_icmp(frame, view, icmp_error(view.family, Complaint::ttl_exceeded), speaker, Reason::ttl_exceeded, now);
  if (view.dont_fragment && wire_length(frame, view) > way->mtu)
    return answer_icmp(frame, view,
                       icmp_error(view.family, Complaint::too_big, way->mtu),
                       speaker, Reason::too_big, now);
  lower_ttl(frame.bytes(), view.network, view.family);
  Verdict verdict = forward_to_hop(frame, view, *way, now);
  if (verdict.reason == Reason::none) verdict.reason = Reason::routed;
  return verdict;
}

// --- the director as a host ----------------------------------------------------------------------------------------

/// A packet for the director's own host: nothing listens there, so echo is answered and the rest refused.
Verdict Balancer::to_own_stack(Frame& frame, const PacketView& view, Instant now) {
  if (!view.is_icmp()) return refuse_unserved(frame, view, now);
  if (!view.has_transport || view.fragment) return Verdict::drop(Reason::icmp_not_relayed);
  const std::uint8_t type = header_at<IcmpHeader>(frame.bytes(), view.transport).type;
  // A timestamp tells strangers the clock and is what security scanners report (CVE-1999-0524).
  const bool tells_time =
      view.family == Family::ipv4 && type == IcmpHeader::kTimestamp && options_.policy == Policy::kernel;
  if (type != echo_request(view.family) && !tells_time) return Verdict::drop(Reason::icmp_not_relayed);
  const bool checksum_true =
      frame.offload.checksum == Offload::Checksum::partial || icmp_checksum_true(frame.bytes(), view);
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
  if (view.fragment) return Verdict::drop(Reason::no_service);
  if (!transport_intact(frame, view)) return Verdict::drop(Reason::bad_transport);
  // What the stack would say to the packet, said as the VIP at once: a reset or port unreachable.
  if (view.is_tcp() && (view.tcp_flags & TcpHeader::kRst) == 0) {
    PacketView answer = view;
    answer.tcp_flags = TcpHeader::kRst;
    advance(connection, answer, Direction::reply, now);
  }
  const auto* nat = std::get_if<Nat>(&connections_.recipe(connection).request);
  // The kernel quotes what its stack got, with only addresses and port turned back; ours what the client sent.
  if (nat != nullptr && view.is_udp() && options_.policy == Policy::kernel) {
    auto& checksum = header_at<UdpHeader>(frame.bytes(), view.transport).checksum;
    checksum = nat->endpoint_delta.applied_to(checksum);
  }
  const Verdict verdict = refuse(frame, view, now);
  if (verdict.action == Action::transmit) count_made(server_of(connection), frame);
  return verdict;
}

// === refusals =======================================================================================================

/// An address of ours, but nobody wants the packet: what a host without a listener says (tcp_ipv4.c, udp.c, ip_input.c).
Verdict Balancer::refuse_unserved(Frame& frame, const PacketView& view, Instant now) {
  if (stands_by() && options_.policy == Policy::improved) return Verdict::drop(Reason::standing_by);
  const Interface& in = *network_.find(frame.ingress);
  if (in.stack == Stack::host && in.owns(view.flow.target.address)) return Verdict::pass(Reason::no_service);
  if (view.fragment || view.is_icmp()) return Verdict::drop(Reason::no_service);
  if (!transport_intact(frame, view)) return Verdict::drop(Reason::bad_transport);
  return refuse(frame, view, now);
}

Verdict Balancer::refuse(Frame& frame, const PacketView& view, Instant now) {
  if (view.is_tcp()) return answer_reset(frame, view, now);
  const Complaint complaint = view.is_udp() ? Complaint::port_unreachable : Complaint::protocol_unreachable;
  return answer_icmp(frame, view, icmp_error(view.family, complaint), view.flow.target.address,
                     Reason::refused_unreachable, now);
}

/// The kernel sends ICMP port unreachable for TCP too, which firewalls eat and clients wait for; a reset is understood by all.
Verdict Balancer::no_server(Service& service, Frame& frame, const PacketView& view, Instant now) {
  // An FTP service is found for every port its data may use: what isn't its own isn't its business to refuse (ip_vs_leave).
  const Port ftp = Port::of(21);
  if (service.key().mark == 0 && service.key().endpoint.port == ftp && view.flow.target.port != ftp)
    return stray(frame, view, now);
  counters_.count(Reason::no_server);
  const IpAddress& to = view.flow.target.address;
  if (tunables_.cache_bypass != 0 && service.key().mark != 0 && !is_virtual(to) && !to.is_multicast() && !to.is_broadcast())
    if (const RouteTo* way = network_.route(to); way != nullptr && !way->local) return go_past(service, frame, view, now);
  NoServer answer = service.config.policy.no_server;
  if (answer == NoServer::by_policy) answer = options_.policy == Policy::improved ? NoServer::reset : NoServer::icmp;
  if (answer == NoServer::drop) return Verdict::drop(Reason::no_server);
  if (answer == NoServer::reset && view.is_tcp()) return answer_reset(frame, view, now);
  return answer_icmp(frame, view, icmp_error(view.family, Complaint::port_unreachable), view.flow.target.address,
                     Reason::refused_unreachable, now);
}

/// The connection's server was removed. The kernel drops such packets in silence until the connection times out (or, with
/// expire_nodest_conn, forgets it). Ours ends TCP for both sides at once and gives UDP to another server.
Verdict Balancer::server_gone(Connection& connection, Frame& frame, const PacketView& view, Instant now) {
  if (server_of(connection).is_none) return start_anew(connection, frame, view, now);  // it never had one
  const Service* service = exact_service(server_of(connection).service_key);
  ServerGone then = service != nullptr ? service->config.policy.server_gone : ServerGone::by_policy;
  const bool as_kernel = then == ServerGone::by_policy && options_.policy == Policy::kernel;
  if (then == ServerGone::by_policy)
    then = as_kernel && tunables_.expire_nodest_conn == 0 ? ServerGone::drop : ServerGone::reset;
  if (then == ServerGone::drop) return Verdict::drop(Reason::server_removed);
  counters_.count(Reason::server_removed);
  if (then == ServerGone::reschedule) return start_anew(connection, frame, view, now, Start::anything);
  return as_kernel ? start_anew(connection, frame, view, now) : reset_both(connection, frame, view, now);
}

/// The same for a server that takes no new connections any more, where the service wants it so.
Verdict Balancer::server_quiesced(Connection& connection, Frame& frame, const PacketView& view, Instant now) {
  const Service& service = *server_of(connection).service;
  counters_.count(Reason::server_quiesced);
  if (service.config.policy.server_quiesced == ServerQuiesced::reset) return reset_both(connection, frame, view, now);
  return start_anew(connection, frame, view, now, Start::anything);
}

/// A TCP connection ends for both sides; what else it is starts anew.
Verdict Balancer::reset_both(Connection& connection, Frame& frame, const PacketView& view, Instant now) {
  const bool resets = view.is_tcp() && view.has_transport && (view.tcp_flags & (TcpHeader::kSyn | TcpHeader::kRst)) == 0;
  if (resets) {
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
  if (!resets) return start_anew(connection, frame, view, now);
  close(connection, now);
  return answer_reset(frame, view, now);
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
  const Verdict verdict = answer_icmp(frame, view, error, connections_.recipe(connection).virtual_.address, why, now);
  if (verdict.action == Action::transmit && !connection.has_reply_path) count_made(server_of(connection), frame);
  return verdict;
}

/// The director's own packet finds its way like any other.
Verdict Balancer::send_own(Frame& frame, const IpAddress& to, Instant now, Reason why) {
  const RouteTo* way = network_.route(to, frame.ingress);
  if (way == nullptr || way->local) return Verdict::drop(Reason::no_route);
  Verdict verdict = fragment_to_hop(frame, sizeof(EthernetHeader), *way, now);
  if (verdict.action == Action::transmit) verdict.reason = why;
  return verdict;
}

// === connections ====================================================================================================

Result<Balancer::Choice, Reason> Balancer::choose(Service& service, const FlowKey& flow, std::span<const std::byte> payload,
                                                  Instant now) {
  if (service.config.persistence != Duration{}) return choose_persistent(service, flow, payload, now);
  // An FTP service without persistence can't know whose data this is.
  if (service.key().mark == 0 && service.key().endpoint.port != flow.target.port) return Failure{Reason::no_server};
  RealServer* server = pick(service, flow, now);
  if (server == nullptr) return Failure{Reason::no_server};
  return Choice{server, {}};
}

RealServer* Balancer::pick(Service& service, const FlowKey& flow, Instant now) {
  if (explains()) tell_candidates(service, flow);
  RealServer* taken = service.scheduler->pick(service.pool, flow, now);
  if (explains()) tell_pick(service, taken);
  return taken;
}

/// A server's own port, where it has one; a server of port 0 (of a class, of a service of port 0) keeps the packet's. What came to another
/// port than the service's, FTP's data, keeps it too. In the kernel the packets of a persistent class always do (ip_vs_sched_persist).
Endpoint Balancer::real_endpoint(const Service& service, const RealServer& server, const FlowKey& flow) const {
  const ServiceConfig& config = service.config;
  const bool kernel_class = config.key.mark != 0 && options_.policy == Policy::kernel;
  const bool own_port = config.persistence == Duration{} || flow.target.port == config.key.endpoint.port ||
                        (config.key.mark != 0 && !kernel_class);
  const Port port = server.config.endpoint.port;
  return {server.config.endpoint.address, own_port && port != Port{} ? port : flow.target.port};
}

RecipeKey Balancer::recipe_key(const RealServer& server, const FlowKey& flow, const Endpoint& real) const {
  const ZeroChecksum zero = options_.policy == Policy::kernel ? ZeroChecksum::filled : ZeroChecksum::stays;
  return {flow.protocol, server.config.method, zero, flow.target, real, server.id};
}

Connection* Balancer::open(Service& service, const Choice& choice, const FlowKey& flow, Instant now) {
  RealServer& server = *choice.server;
  const RecipeKey key = recipe_key(server, flow, real_endpoint(service, server, flow));
  if (choice.affinity) ++templates_[choice.affinity].made;  // at once: what makes room must not take the template away
  // ip_vs_conn.c: 3 s until its first state
  Connection* c = open_or_make_room(now, [&] { return connections_.open(flow.source, key, now + 3s); });
  if (c == nullptr) {
    if (choice.affinity) templates_.leave(choice.affinity);
    return nullptr;
  }
  if (explains()) tell_opened(*c);
  c->affinity = choice.affinity;
  c->input_only = !c->has_reply_path;
  ++server.inactive;
  if (server.config.upper_threshold != 0 && server.connections() >= server.config.upper_threshold)
    server.overloaded = true;
  count_connection(service, server);
  return c;
}

/// cache_bypass: nobody in the class can serve, so the client is led to the server it meant. In the kernel such connections have no
/// server; here they have one that stands for none.
Verdict Balancer::go_past(Service& service, Frame& frame, const PacketView& view, Instant now) {
  if (service.past == nullptr) {
    const Endpoint nowhere{view.family == Family::ipv4 ? IpAddress{} : IpAddress::v6({}), {}};
    RealServer& none = room_for(service.key(), nowhere);
    none.config.endpoint = nowhere;
    none.config.method = Method::direct;
    none.is_none = true;
    none.service = &service;
    service.past = &none;
  }
  RealServer& none = *service.past;
  const RecipeKey key = recipe_key(none, view.flow, none.config.endpoint);
  Connection* c = open_or_make_room(now, [&] { return connections_.open(view.flow.source, key, now + 3s); });
  if (c == nullptr) return Verdict::drop(Reason::table_full);
  c->input_only = true;
  ++none.inactive;
  ++c->in_packets;
  advance(*c, view, Direction::request, now);
  return forward_request(*c, frame, view, now);
}

const RouteTo* Balancer::way_of(const Connection& c, RealServer& server) {
  if (!server.is_none) return way_to(server);
  return network_.route(connections_.recipe(c).virtual_.address);
}

void Balancer::count_connection(Service& service, RealServer& server) {
  ++server.traffic.total.connections;
  ++service.traffic.total.connections;
  ++traffic_.total.connections;
}

/// What becomes of a connection whose time is up; what ends is counted out of its server.
Ending Balancer::judge(Connection& c, Instant now) {
  if (c.is_template && judge_template(c, now) == Ending::postponed) return Ending::postponed;
  left(departure(c), now);
  return Ending::due;
}

/// A connection is about to end: whatever is kept about it elsewhere goes, and who counts it can be told, after it has gone too.
Balancer::Departure Balancer::departure(Connection& c) {
  close_shortcuts(c);
  sync_.forget(connections_.id_of(c));
  return {connections_.recipe(c).server, c.affinity, c.state, c.has_request_path, c.is_template};
}

/// Counts the connection out of its server; the table forgets it elsewhere.
void Balancer::left(const Departure& c, Instant now) {
  if (!c.counted) return;
  RealServer& server = *reals_[c.server.index];
  if (c.is_template) {
    --server.persistent;
    templates_.end(c.affinity);
    return forget_soon(server, now);
  }
  if (c.affinity) templates_.leave(c.affinity);
  --(is_active(c.state) ? server.active : server.inactive);
  const std::uint64_t total = server.connections();
  const ServerConfig& limit = server.config;
  if (limit.lower_threshold != 0 ? total < limit.lower_threshold
                                 : limit.upper_threshold == 0 || total * 4 < std::uint64_t{limit.upper_threshold} * 3)
    server.overloaded = false;  // ip_vs_conn.c, ip_vs_unbind_dest
  forget_soon(server, now);
}

void Balancer::close(Connection& c, Instant now) {
  left(departure(c), now);
  connections_.close(c);
}

void Balancer::advance(Connection& c, const PacketView& view, Direction direction, Instant now) {
  State next = State::udp;
  if (view.is_tcp()) {
    if (!view.has_transport) return;  // a later fragment says nothing about the state
    if (direction == Direction::reply) c.input_only = false;
    next = next_tcp_state(tunables_.secure_tcp >= 2 ? TcpTable::secure : TcpTable::normal, c.state, view.tcp_flags,
                          direction, c.visibility());
  } else if (view.is_sctp()) {
    if (!view.sctp_event) return;
    if (direction == Direction::reply) c.input_only = false;
    next = next_sctp_state(c.state, *view.sctp_event, direction, c.visibility());
  }
  if (next == State::udp ? direction == Direction::reply : (next == State::established || next == State::sctp_established) && c.state != next)
    assure_template(c);
  if (!c.has_request_path) return;  // an answer to one packet: it has its time, and no state
  if (is_active(next) != is_active(c.state)) {
    RealServer& server = server_of(c);
    const bool up = is_active(next);
    ++(up ? server.active : server.inactive);
    --(up ? server.inactive : server.active);
  }
  if (next_tick_ == kNever) next_tick_ = now + kRateInterval;  // there is something to tell again
  if (next != c.state) close_shortcuts(c);
  const State before = c.state;
  c.state = next;
  const Service* service = server_of(c).service;
  c.set_timeout((service != nullptr ? service->timeouts : timeouts_)[next]);
  if (explains()) tell_state(c, before);
  connections_.set_deadline(c, now + c.timeout());
  if (c.young && !is_unanswered(c)) connections_.grow_up(c);
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
  if (server.is_none) return;
  const auto [packets, bytes] = on_the_wire(frame, view);
  count_traffic(server, Direction::request, packets, bytes);
}

void Balancer::count_out(RealServer& server, const Frame& frame, const PacketView& view) {
  const auto [packets, bytes] = on_the_wire(frame, view);
  count_traffic(server, Direction::reply, packets, bytes);
}

/// Of the server, its service and the whole. A removed server counts nothing.
void Balancer::count_traffic(RealServer& server, Direction direction, std::uint64_t packets, std::uint64_t bytes) {
  if (server.removed()) return;
  for (Traffic* total : {&server.traffic.total, &server.service->traffic.total, &traffic_.total})
    count(*total, direction == Direction::request, packets, bytes);
}

/// Counts an answer of the director's own, in place of the real server.
void Balancer::count_made(RealServer& server, const Frame& frame) {
  PacketView view;
  view.ip_length = static_cast<std::uint32_t>(frame.length - sizeof(EthernetHeader));
  count_out(server, frame, view);
}

const RouteTo* Balancer::way_to(RealServer& server) {
  if (server.way_generation != network_.generation()) {
    const RouteTo* way = network_.route(server.config.endpoint.address);
    server.way = way != nullptr ? std::optional{*way} : std::nullopt;
    server.outer = {way != nullptr ? way->source : IpAddress{}, server.config, tunables_.pmtu_disc != 0};
    server.way_generation = network_.generation();  // after: route() may make a hop
  }
  return server.way ? &*server.way : nullptr;
}

const RouteTo* Balancer::way_to_client(const Connection& c) {
  const RouteTo* way = network_.route(c.client.address);
  return way != nullptr && !way->local ? way : nullptr;
}

// === the clock ======================================================================================================

std::size_t Balancer::expire(Instant now) noexcept {
  if (listener_) listener_(nullptr, now);
  network_.expire(now, outbox_, counters_);
  end_stale_shortcuts();
  fragments_.expire(now);
  if (next_announcement_ <= now) announce(now);
  if (next_defence_ <= now) defend(now);
  if (next_tick_ <= now) tick_rates(now);
  if (sync_.send_at <= now) send_sync_message();
  if (next_check() <= now) check_health(now);
  forget_removed(now);
  return connections_.expire(now, kExpireBudget, [&](Connection& c) { return judge(c, now); });
}

Instant Balancer::next_deadline() const {
  return std::min({network_.next_deadline(), fragments_.next_deadline(), next_announcement_, next_tick_, next_defence_, sync_.send_at, next_check(),
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

/// Switches and neighbours learn where the virtual addresses are now: by gratuitous ARP (RFC 5944, 4.6: as a request, to everybody), by
/// unsolicited neighbour advertisements (RFC 4861, 7.2.6), and switches that look, which groups are listened to (RFC 3810, 6.1).
void Balancer::announce(Instant now) {
  for (std::uint32_t i = 0; i < network_.interfaces().size(); ++i) {
    const Interface& out = network_.interfaces()[i];
    if (!out.known || !out.up) continue;
    if (const std::vector<IpAddress> groups = listened_groups(DeviceId{i}); !groups.empty())
      write_listener_reports(outbox_, DeviceId{i}, out.mac, out.link_local_address(), ListenerRecord::to_exclude, groups);
    for (const auto& [vip, services] : virtual_) {
      if (!speaks_for(vip, DeviceId{i})) continue;
      Frame& frame = outbox_.add(128, DeviceId{i});
      if (vip.is_v4())
        write_arp(frame, ArpHeader::kRequest, kBroadcastMac, out.mac, vip, {}, vip);
      else
        write_advertisement(frame, out.mac, vip, false, {}, {});
    }
  }
  next_announcement_ = --announcements_left_ > 0 ? now + kAnnounceEvery : kNever;
}

}  // namespace director
