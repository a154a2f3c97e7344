// parse_packet: Ethernet, ARP, IPv4, IPv6. Each check is one line with its Reason, in the order of the bytes.
#include "director/net/packet.h"

#include "director/net/checksum.h"
#include "director/net/ip_header.h"

namespace director {
namespace {

constexpr Failure<Reason> bad(Reason r) { return {r}; }

bool carries_ports(Protocol p) { return p == Protocol::tcp || p == Protocol::udp || p == Protocol::sctp; }

/// Reads the ports and, for TCP, the flags, as far as they are there.
void read_transport(std::span<const std::byte> bytes, PacketView& view) {
  const std::size_t length = view.payload_length();
  if (carries_ports(view.flow.protocol) && length >= sizeof(PortsHeader)) {
    const auto& ports = header_at<PortsHeader>(bytes, view.transport);
    view.flow.source.port = ports.source;
    view.flow.target.port = ports.target;
    view.has_ports = true;
  }
  switch (view.flow.protocol) {
    case Protocol::tcp:
      view.has_transport = length >= sizeof(TcpHeader);
      if (view.has_transport) view.tcp_flags = header_at<TcpHeader>(bytes, view.transport).flags;
      break;
    case Protocol::udp: view.has_transport = length >= sizeof(UdpHeader); break;
    case Protocol::icmp:
    case Protocol::icmpv6: view.has_transport = length >= sizeof(IcmpHeader); break;
    case Protocol::sctp:
      view.has_transport = length >= sizeof(SctpHeader);
      if (view.has_transport) view.sctp_event = sctp_event(bytes.subspan(view.transport + sizeof(SctpHeader)));
      break;
    default: view.has_transport = view.has_ports; break;
  }
}

/// What the device said of checksum and segments must fit the packet we found.
bool offload_fits(const Frame& frame, const PacketView& view) {
  const Offload& o = frame.offload;
  if (o.checksum == Offload::Checksum::partial) {
    if (o.checksum_start < view.transport ||
        o.checksum_start + std::size_t{o.checksum_offset} + 2 > frame.length)
      return false;
    // A partial checksum of a packet we translate must be that packet's own, not one of something inside it.
    if ((view.is_tcp() || view.is_udp() || view.is_sctp()) && o.checksum_start != view.transport) return false;
    if (view.is_sctp() && o.checksum_offset != offsetof(SctpHeader, checksum)) return false;
  }
  switch (o.segments) {
    case Offload::Segments::none: return true;
    case Offload::Segments::udp: return view.is_udp() && view.has_transport && o.segment_size > 0 && !view.fragment;
    case Offload::Segments::tcp4:
    case Offload::Segments::tcp6: {
      if ((o.segments == Offload::Segments::tcp4) != (view.family == Family::ipv4)) return false;
      if (!view.is_tcp() || !view.has_transport || o.segment_size == 0 || view.fragment) return false;
      const std::size_t header = header_at<TcpHeader>(frame.bytes(), view.transport).header_length();
      return header >= sizeof(TcpHeader) && header <= view.payload_length();
    }
  }
  return false;
}

/// What a piece of a packet must be, in either family.
Reason check_fragment(const PacketView& view) {
  const std::size_t payload = view.payload_length();
  if (view.fragment_offset + payload > 65535) return Reason::bad_fragment;
  // All but the last are multiples of 8 (RFC 791, 3.2; RFC 8200, 4.5).
  if (view.more_fragments && (payload % 8 != 0 || payload == 0)) return Reason::bad_fragment;
  // The first holds the transport header, so that the second can't write over it (RFC 1858, 2.1; RFC 7112, 5).
  const bool tcp_or_udp = view.is_tcp() || view.is_udp();
  if (!view.later_fragment && tcp_or_udp && !view.has_transport) return Reason::tiny_fragment;
  if (view.later_fragment && view.is_tcp() && view.fragment_offset < sizeof(TcpHeader)) return Reason::tiny_fragment;
  return Reason::none;
}

Reason parse_ipv4(Frame& frame, PacketView& view) {
  const auto bytes = frame.bytes();
  const std::size_t available = bytes.size() - view.network;
  if (available < sizeof(Ipv4Header)) return Reason::runt;
  const auto& ip = header_at<Ipv4Header>(bytes, view.network);
  if (ip.version_ihl >> 4U != 4) return Reason::bad_version;
  const std::size_t header = ip.header_length();
  if (header < sizeof(Ipv4Header) || header > available) return Reason::bad_header_length;
  const std::size_t total = ip.total_length.host();
  if (total < header || total > available) return Reason::bad_total_length;
  const ChecksumSum sum = header == sizeof(Ipv4Header) ? ChecksumSum{}.add(ip) : ChecksumSum{}.add(bytes.subspan(view.network, header));
  if (sum.folded() != 0xffff) return Reason::bad_ip_checksum;

  frame.resize(view.network + total);  // Ethernet pads to 60 bytes
  view.family = Family::ipv4;
  view.ttl = ip.ttl;
  view.tos = ip.tos;
  view.dont_fragment = ip.dont_fragment();
  view.fragment_offset = static_cast<std::uint16_t>(ip.fragment_offset());
  view.later_fragment = view.fragment_offset > 0;
  view.more_fragments = ip.more_fragments();
  view.fragment = view.later_fragment || view.more_fragments;
  view.fragment_id = ip.id.host();
  view.transport = static_cast<std::uint32_t>(view.network + header);
  view.ip_length = static_cast<std::uint32_t>(total);
  view.flow = {{IpAddress::v4(ip.source), {}}, {IpAddress::v4(ip.target), {}}, ip.protocol};
  if (!view.later_fragment) read_transport(frame.bytes(), view);
  if (view.fragment)
    if (const Reason r = check_fragment(view); r != Reason::none) return r;
  if (!offload_fits(frame, view)) return Reason::bad_offload;
  return Reason::none;
}

/// The options of a hop-by-hop header, as every node on the way looks at them (RFC 8200, 4.2 and 4.3).
Reason check_hop_by_hop(std::span<const std::byte> options) {
  constexpr std::uint8_t kPad1 = 0;
  constexpr std::uint8_t kJumboPayload = 0xc2;  // RFC 2675
  constexpr std::uint8_t kSkipUnknown = 0x3f;   // the two upper bits say what to do with an option nobody knows
  for (std::size_t at = 0; at < options.size();) {
    const auto type = std::to_integer<std::uint8_t>(options[at]);
    if (type == kPad1) {
      ++at;
      continue;
    }
    if (at + 2 > options.size()) return Reason::bad_options;
    at += 2 + std::to_integer<std::size_t>(options[at + 1]);
    if (at > options.size()) return Reason::bad_options;
    if (type == kJumboPayload) return Reason::jumbogram;
    if (type > kSkipUnknown) return Reason::bad_options;
  }
  return Reason::none;
}

Reason parse_ipv6(Frame& frame, PacketView& view) {
  const auto bytes = frame.bytes();
  const std::size_t available = bytes.size() - view.network;
  if (available < sizeof(Ipv6Header)) return Reason::runt;
  const auto& ip = header_at<Ipv6Header>(bytes, view.network);
  if (ip.version_class_flow.host() >> 28U != 6) return Reason::bad_version;
  const std::size_t total = sizeof(Ipv6Header) + ip.payload_length.host();
  if (total > available) return Reason::bad_total_length;

  const IpAddress source = IpAddress::v6(ip.source);
  const IpAddress target = IpAddress::v6(ip.target);
  if (source.is_v4() || target.is_v4()) return Reason::mapped_address;
  const Protocol first = ip.next_header;
  if (first == Ipv6Extension::kHopByHop && ip.payload_length == Be16{0}) return Reason::jumbogram;
  const auto packet = bytes.first(view.network + total);
  const auto chain = walk_extensions(packet, view.network + sizeof(Ipv6Header), first);
  if (!chain) return chain.error();

  frame.resize(view.network + total);  // Ethernet pads to 60 bytes
  view.family = Family::ipv6;
  view.ttl = ip.hop_limit;
  view.tos = ip.traffic_class();
  view.dont_fragment = true;
  view.source_routed = chain->source_routed;
  view.transport = static_cast<std::uint32_t>(chain->end);
  view.ip_length = static_cast<std::uint32_t>(total);
  view.flow = {{source, {}}, {target, {}}, chain->protocol};
  if (chain->fragment != 0) {
    const auto& fragment = header_at<Ipv6Fragment>(packet, chain->fragment);
    view.fragment_header = static_cast<std::uint16_t>(chain->fragment);
    view.fragment_id = fragment.id.host();
    view.fragment_offset = static_cast<std::uint16_t>(fragment.fragment_offset());
    view.later_fragment = view.fragment_offset > 0;
    view.more_fragments = fragment.more_fragments();
    view.fragment = view.later_fragment || view.more_fragments;  // else "atomic": whole for all purposes (RFC 6946)
  }
  if (!view.later_fragment) read_transport(packet, view);
  if (view.fragment)
    if (const Reason r = check_fragment(view); r != Reason::none) return r;
  if (!offload_fits(frame, view)) return Reason::bad_offload;
  if (view.is_icmp() && view.has_transport && !view.fragment) {
    switch (header_at<IcmpHeader>(packet, view.transport).type) {
      case Icmpv6::kListenerQuery:
      case Icmpv6::kNeighbourSolicitation:
      case Icmpv6::kNeighbourAdvertisement: view.kind = PacketView::Kind::neighbour; break;
      default: break;
    }
  }
  return Reason::none;
}

Reason parse_arp(const Frame& frame, PacketView& view) {
  const auto bytes = frame.bytes();
  if (bytes.size() - view.network < sizeof(ArpHeader)) return Reason::runt;
  const auto& arp = header_at<ArpHeader>(bytes, view.network);
  if (arp.hardware != Be16{1} || arp.protocol != Be16{static_cast<std::uint16_t>(EtherType::ipv4)} ||
      arp.hardware_length != 6 || arp.protocol_length != 4)
    return Reason::arp_ignored;
  view.kind = PacketView::Kind::arp;
  view.flow.source.address = IpAddress::v4(arp.sender_ip);
  view.flow.target.address = IpAddress::v4(arp.target_ip);
  return Reason::none;
}

Reason parse_ethernet(Frame& frame, PacketView& view) {
  const auto bytes = frame.bytes();
  if (bytes.size() < sizeof(EthernetHeader)) return Reason::runt;
  view.network = sizeof(EthernetHeader);
  switch (static_cast<EtherType>(header_at<EthernetHeader>(bytes, 0).type.host())) {
    case EtherType::ipv4: return parse_ipv4(frame, view);
    case EtherType::arp: return parse_arp(frame, view);
    case EtherType::vlan: return Reason::vlan;
    case EtherType::ipv6: return parse_ipv6(frame, view);
  }
  return Reason::not_ip;
}

}  // namespace

Result<PacketView, Reason> parse_packet(Frame& frame) {
  Result<PacketView, Reason> result{PacketView{}};
  if (const Reason r = parse_ethernet(frame, *result); r != Reason::none) result = bad(r);
  return result;
}

Result<ExtensionChain, Reason> walk_extensions(std::span<const std::byte> bytes, std::size_t at, Protocol first) {
  ExtensionChain chain{at, first};
  for (int seen = 0;; ++seen) {
    const Protocol kind = chain.protocol;
    const bool known = kind == Ipv6Extension::kHopByHop || kind == Ipv6Extension::kRouting ||
                       kind == Ipv6Extension::kFragment || kind == Ipv6Extension::kAuthentication ||
                       kind == Ipv6Extension::kDestinationOptions;
    if (!known) return chain;
    if (seen == kMostExtensions) return bad(Reason::too_many_extensions);
    constexpr std::size_t kLeast = 8;
    if (chain.end + kLeast > bytes.size()) return bad(Reason::bad_extension);
    const auto& header = header_at<Ipv6Extension>(bytes, chain.end);
    std::size_t length = kLeast + std::size_t{header.length} * 8;
    if (kind == Ipv6Extension::kFragment) length = sizeof(Ipv6Fragment);
    if (kind == Ipv6Extension::kAuthentication) length = kLeast + std::size_t{header.length} * 4;
    if (chain.end + length > bytes.size()) return bad(Reason::bad_extension);

    if (kind == Ipv6Extension::kHopByHop) {
      if (seen != 0) return bad(Reason::bad_extension);  // RFC 8200, 4.1: the first or nowhere
      const Reason r = check_hop_by_hop(bytes.subspan(chain.end + sizeof(Ipv6Extension), length - sizeof(Ipv6Extension)));
      if (r != Reason::none) return bad(r);
    } else if (kind == Ipv6Extension::kRouting) {
      chain.source_routed |= header_at<Ipv6Routing>(bytes, chain.end).segments_left != 0;
    } else if (kind == Ipv6Extension::kFragment) {
      if (chain.fragment != 0) return bad(Reason::bad_extension);  // a fragment isn't fragmented again
      chain.fragment = chain.end;
    }
    chain.protocol = header.next_header;
    chain.end += length;
    if (kind == Ipv6Extension::kFragment && header_at<Ipv6Fragment>(bytes, chain.fragment).fragment_offset() != 0)
      return chain;
  }
}

namespace {

/// What a plain packet has behind its IP header.
bool read_plain_transport(const Frame& frame, PacketView& view) {
  const auto bytes = frame.bytes();
  const std::size_t length = view.payload_length();
  if (view.is_tcp()) {
    if (length < sizeof(TcpHeader)) return false;
    view.tcp_flags = header_at<TcpHeader>(bytes, view.transport).flags;
  } else if (!view.is_udp() || length < sizeof(UdpHeader)) {
    return false;
  }
  const auto& ports = header_at<PortsHeader>(bytes, view.transport);
  view.flow.source.port = ports.source;
  view.flow.target.port = ports.target;
  view.has_ports = view.has_transport = true;
  const Offload& o = frame.offload;
  return o.segments == Offload::Segments::none &&
         (o.checksum == Offload::Checksum::complete ||
          (o.checksum_start == view.transport && o.checksum_start + std::size_t{o.checksum_offset} + 2 <= view.network + view.ip_length));
}

}  // namespace

bool read_plain(const Frame& frame, PacketView& view) {
  constexpr std::size_t kNetwork = sizeof(EthernetHeader);
  const auto bytes = frame.bytes();
  if (bytes.size() < kNetwork + sizeof(Ipv4Header)) return false;
  const Be16 type = header_at<EthernetHeader>(bytes, 0).type;
  view.network = kNetwork;
  if (type == Be16{static_cast<std::uint16_t>(EtherType::ipv4)}) {
    const auto& ip = header_at<Ipv4Header>(bytes, kNetwork);
    const std::size_t total = ip.total_length.host();
    if (ip.version_ihl != 0x45 || total < sizeof ip || total > bytes.size() - kNetwork || ip.fragment_offset() != 0 ||
        ip.more_fragments() || ChecksumSum{}.add(ip).folded() != 0xffff)
      return false;
    view.ttl = ip.ttl;
    view.tos = ip.tos;
    view.dont_fragment = ip.dont_fragment();
    view.fragment_id = ip.id.host();
    view.transport = kNetwork + sizeof ip;
    view.ip_length = static_cast<std::uint32_t>(total);
    view.flow = {{IpAddress::v4(ip.source), {}}, {IpAddress::v4(ip.target), {}}, ip.protocol};
    return read_plain_transport(frame, view);
  }
  if (type != Be16{static_cast<std::uint16_t>(EtherType::ipv6)} || bytes.size() < kNetwork + sizeof(Ipv6Header)) return false;
  const auto& ip = header_at<Ipv6Header>(bytes, kNetwork);
  const std::size_t total = sizeof ip + ip.payload_length.host();
  if (ip.version_class_flow.host() >> 28U != 6 || total > bytes.size() - kNetwork) return false;
  view.family = Family::ipv6;
  view.ttl = ip.hop_limit;
  view.tos = ip.traffic_class();
  view.dont_fragment = true;
  view.transport = kNetwork + sizeof ip;
  view.ip_length = static_cast<std::uint32_t>(total);
  view.flow = {{IpAddress::v6(ip.source), {}}, {IpAddress::v6(ip.target), {}}, ip.next_header};
  return !view.flow.source.address.is_v4() && !view.flow.target.address.is_v4() && read_plain_transport(frame, view);
}

namespace {

void read_quoted_ports(std::span<const std::byte> quoted, QuotedPacket& q) {
  if (q.later_fragment || !carries_ports(q.flow.protocol) || quoted.size() - q.header_length < sizeof(PortsHeader))
    return;
  const auto& ports = header_at<PortsHeader>(quoted, q.header_length);
  q.flow.source.port = ports.source;
  q.flow.target.port = ports.target;
  q.has_ports = true;
}

std::optional<QuotedPacket> parse_quoted_ipv4(std::span<const std::byte> quoted) {
  if (quoted.size() < sizeof(Ipv4Header)) return {};
  const auto& ip = header_at<Ipv4Header>(quoted, 0);
  QuotedPacket q;
  q.header_length = ip.header_length();
  if (q.header_length < sizeof(Ipv4Header) || q.header_length > quoted.size()) return {};
  q.dont_fragment = ip.dont_fragment();
  q.later_fragment = ip.fragment_offset() > 0;
  q.flow = {{IpAddress::v4(ip.source), {}}, {IpAddress::v4(ip.target), {}}, ip.protocol};
  return q;
}

std::optional<QuotedPacket> parse_quoted_ipv6(std::span<const std::byte> quoted) {
  if (quoted.size() < sizeof(Ipv6Header)) return {};
  const auto& ip = header_at<Ipv6Header>(quoted, 0);
  const auto chain = walk_extensions(quoted, sizeof(Ipv6Header), ip.next_header);
  if (!chain) return {};
  QuotedPacket q;
  q.family = Family::ipv6;
  q.header_length = chain->end;
  q.dont_fragment = true;
  q.later_fragment =
      chain->fragment != 0 && header_at<Ipv6Fragment>(quoted, chain->fragment).fragment_offset() != 0;
  q.flow = {{IpAddress::v6(ip.source), {}}, {IpAddress::v6(ip.target), {}}, chain->protocol};
  if (q.flow.source.address.is_v4() || q.flow.target.address.is_v4()) return {};
  return q;
}

}  // namespace

std::optional<QuotedPacket> parse_quoted(std::span<const std::byte> quoted) {
  if (quoted.empty()) return {};
  std::optional<QuotedPacket> q;
  switch (std::to_integer<unsigned>(quoted[0]) >> 4U) {
    case 4: q = parse_quoted_ipv4(quoted); break;
    case 6: q = parse_quoted_ipv6(quoted); break;
    default: break;
  }
  if (q) read_quoted_ports(quoted, *q);
  return q;
}

}  // namespace director
