// parse_packet: Ethernet, ARP, IPv4. Each check is one line with its Reason, in the order of the bytes.
#include "director/net/packet.h"

#include "director/net/checksum.h"

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
    case Protocol::icmp: view.has_transport = length >= sizeof(IcmpHeader); break;
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
    if ((view.is_tcp() || view.is_udp()) && o.checksum_start != view.transport) return false;
  }
  switch (o.segments) {
    case Offload::Segments::none: return true;
    case Offload::Segments::udp: return view.is_udp() && view.has_transport && o.segment_size > 0 && !view.fragment;
    case Offload::Segments::tcp4:
    case Offload::Segments::tcp6: {
      if (!view.is_tcp() || !view.has_transport || o.segment_size == 0 || view.fragment) return false;
      const std::size_t header = header_at<TcpHeader>(frame.bytes(), view.transport).header_length();
      return header >= sizeof(TcpHeader) && header <= view.payload_length();
    }
  }
  return false;
}

Result<PacketView, Reason> parse_ipv4(Frame& frame, PacketView view) {
  const auto bytes = frame.bytes();
  const std::size_t available = bytes.size() - view.network;
  if (available < sizeof(Ipv4Header)) return bad(Reason::runt);
  const auto& ip = header_at<Ipv4Header>(bytes, view.network);
  if (ip.version_ihl >> 4U != 4) return bad(Reason::bad_version);
  const std::size_t header = ip.header_length();
  if (header < sizeof(Ipv4Header) || header > available) return bad(Reason::bad_header_length);
  const std::size_t total = ip.total_length.host();
  if (total < header || total > available) return bad(Reason::bad_total_length);
  if (ChecksumSum{}.add(bytes.subspan(view.network, header)).folded() != 0xffff) return bad(Reason::bad_ip_checksum);

  frame.resize(view.network + total);  // Ethernet pads to 60 bytes
  view.family = Family::ipv4;
  view.ttl = ip.ttl;
  view.tos = ip.tos;
  view.dont_fragment = ip.dont_fragment();
  view.later_fragment = ip.fragment_offset() > 0;
  view.fragment = view.later_fragment || ip.more_fragments();
  view.fragment_id = ip.id.host();
  view.transport = static_cast<std::uint32_t>(view.network + header);
  view.ip_length = static_cast<std::uint32_t>(total);
  view.flow = {{IpAddress::v4(ip.source), {}}, {IpAddress::v4(ip.target), {}}, ip.protocol};
  if (view.fragment) {
    const std::size_t payload = total - header;
    if (ip.fragment_offset() + payload > 65535) return bad(Reason::bad_fragment);
    // RFC 791: all but the last are multiples of 8; RFC 1858: a first fragment holds the ports and flags.
    if (ip.more_fragments() && (payload % 8 != 0 || payload == 0)) return bad(Reason::bad_fragment);
  }
  if (!view.later_fragment) read_transport(frame.bytes(), view);
  if (!offload_fits(frame, view)) return bad(Reason::bad_offload);
  return view;
}

Result<PacketView, Reason> parse_arp(const Frame& frame, PacketView view) {
  const auto bytes = frame.bytes();
  if (bytes.size() - view.network < sizeof(ArpHeader)) return bad(Reason::runt);
  const auto& arp = header_at<ArpHeader>(bytes, view.network);
  if (arp.hardware != Be16{1} || arp.protocol != Be16{static_cast<std::uint16_t>(EtherType::ipv4)} ||
      arp.hardware_length != 6 || arp.protocol_length != 4)
    return bad(Reason::arp_ignored);
  view.kind = PacketView::Kind::arp;
  view.flow.source.address = IpAddress::v4(arp.sender_ip);
  view.flow.target.address = IpAddress::v4(arp.target_ip);
  return view;
}

}  // namespace

Result<PacketView, Reason> parse_packet(Frame& frame) {
  const auto bytes = frame.bytes();
  if (bytes.size() < sizeof(EthernetHeader)) return bad(Reason::runt);
  PacketView view;
  view.network = sizeof(EthernetHeader);
  switch (static_cast<EtherType>(header_at<EthernetHeader>(bytes, 0).type.host())) {
    case EtherType::ipv4: return parse_ipv4(frame, view);
    case EtherType::arp: return parse_arp(frame, view);
    case EtherType::vlan: return bad(Reason::vlan);
    case EtherType::ipv6: return bad(Reason::not_supported);
  }
  return bad(Reason::not_ip);
}

std::optional<QuotedPacket> parse_quoted(std::span<const std::byte> quoted) {
  if (quoted.size() < sizeof(Ipv4Header)) return {};
  const auto& ip = header_at<Ipv4Header>(quoted, 0);
  QuotedPacket q;
  q.header_length = ip.header_length();
  if (ip.version_ihl >> 4U != 4 || q.header_length < sizeof(Ipv4Header) || q.header_length > quoted.size()) return {};
  q.dont_fragment = ip.dont_fragment();
  q.later_fragment = ip.fragment_offset() > 0;
  q.flow = {{IpAddress::v4(ip.source), {}}, {IpAddress::v4(ip.target), {}}, ip.protocol};
  if (!q.later_fragment && carries_ports(ip.protocol) && quoted.size() - q.header_length >= sizeof(PortsHeader)) {
    const auto& ports = header_at<PortsHeader>(quoted, q.header_length);
    q.flow.source.port = ports.source;
    q.flow.target.port = ports.target;
    q.has_ports = true;
  }
  return q;
}

}  // namespace director
