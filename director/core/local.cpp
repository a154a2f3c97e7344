// Answers in the director's own voice. local.h says who does what.
#include "director/core/local.h"

#include <algorithm>
#include <cstring>

#include "director/net/checksum.h"
#include "director/net/icmp.h"
#include "director/net/ip_header.h"

namespace director {
namespace {

constexpr std::uint8_t kOwnTtl = 64;  // net.ipv4.ip_default_ttl, net.ipv6.conf.all.hop_limit

/// What fits every host's reassembly buffer (icmp.c; RFC 1812, 4.3.2.3), and every IPv6 link (RFC 4443, 2.4).
constexpr std::size_t most_icmp(Family family) { return family == Family::ipv4 ? 576 : 1280; }

/// A query becomes its reply: addresses swapped, a TTL and ID of our own, checksums true.
void turn_icmp_round(std::span<std::byte> bytes, const PacketView& view, std::uint16_t id) {
  const IpAddress source = address_at(bytes, view.network, view.family, AddressEnd::source);
  put_address(bytes, view.network, AddressEnd::source,
              address_at(bytes, view.network, view.family, AddressEnd::target));
  put_address(bytes, view.network, AddressEnd::target, source);
  if (view.family == Family::ipv4) {
    auto& ip = header_at<Ipv4Header>(bytes, view.network);
    ip.ttl = kOwnTtl;
    ip.id = Be16{id};
    ip.fragment = Be16{0};
    fill_ip_checksum(bytes, view.network, view.family);
  } else {
    auto& ip = header_at<Ipv6Header>(bytes, view.network);
    ip.hop_limit = kOwnTtl;
    ip.version_class_flow = Be32{6U << 28U | std::uint32_t{view.tos} << 20U};  // the label was of the other direction
  }
  fill_icmp_checksum(bytes, view);
}

}  // namespace

void answer_arp(Frame& frame, const PacketView& view, const MacAddress& mac) {
  const auto bytes = frame.bytes();
  auto& ethernet = header_at<EthernetHeader>(bytes, 0);
  auto& arp = header_at<ArpHeader>(bytes, view.network);
  ethernet.target = arp.sender_mac;
  ethernet.source = mac;
  const Be32 asked = arp.target_ip;
  arp.operation = Be16{ArpHeader::kReply};
  arp.target_mac = arp.sender_mac;
  arp.target_ip = arp.sender_ip;
  arp.sender_mac = mac;
  arp.sender_ip = asked;
  frame.resize(view.network + sizeof(ArpHeader));
  frame.offload = {};
}

void answer_echo(Frame& frame, const PacketView& view, std::uint16_t id) {
  finish_checksum(frame);
  const auto bytes = frame.bytes();
  header_at<IcmpHeader>(bytes, view.transport).type =
      view.family == Family::ipv4 ? IcmpHeader::kEchoReply : Icmpv6::kEchoReply;
  turn_icmp_round(bytes, view, id);
}

Reason answer_timestamp(Frame& frame, const PacketView& view, std::uint32_t milliseconds, std::uint16_t id) {
  constexpr std::size_t kTimes = 3 * sizeof(Be32);  // originated, received, transmitted
  if (view.payload_length() < sizeof(IcmpHeader) + kTimes) return Reason::truncated_transport;
  finish_checksum(frame);
  frame.resize(view.transport + sizeof(IcmpHeader) + kTimes);
  const auto bytes = frame.bytes();
  header_at<Ipv4Header>(bytes, view.network).total_length = Be16{static_cast<std::uint16_t>(frame.length - view.network)};
  header_at<IcmpHeader>(bytes, view.transport).type = IcmpHeader::kTimestampReply;
  const std::size_t received = view.transport + sizeof(IcmpHeader) + sizeof(Be32);
  header_at<Be32>(bytes, received) = Be32{milliseconds};
  header_at<Be32>(bytes, received + sizeof(Be32)) = Be32{milliseconds};
  turn_icmp_round(bytes, view, id);
  return Reason::none;
}

IcmpError icmp_error(Family family, Complaint complaint, std::uint32_t word) {
  const bool v4 = family == Family::ipv4;
  switch (complaint) {
    case Complaint::no_route:
      return v4 ? IcmpError{IcmpHeader::kUnreachable, IcmpHeader::kHostUnreachable}
                : IcmpError{Icmpv6::kUnreachable, Icmpv6::kNoRoute};
    case Complaint::host_unreachable:
      return v4 ? IcmpError{IcmpHeader::kUnreachable, IcmpHeader::kHostUnreachable}
                : IcmpError{Icmpv6::kUnreachable, Icmpv6::kAddressUnreachable};
    case Complaint::port_unreachable:
      return v4 ? IcmpError{IcmpHeader::kUnreachable, IcmpHeader::kPortUnreachable}
                : IcmpError{Icmpv6::kUnreachable, Icmpv6::kPortUnreachable};
    case Complaint::protocol_unreachable:
      return v4 ? IcmpError{IcmpHeader::kUnreachable, IcmpHeader::kProtocolUnreachable}
                : IcmpError{Icmpv6::kParameterProblem, Icmpv6::kUnknownNextHeader, offsetof(Ipv6Header, next_header)};
    case Complaint::too_big:
      return v4 ? IcmpError{IcmpHeader::kUnreachable, IcmpHeader::kFragmentationNeeded, word}
                : IcmpError{Icmpv6::kTooBig, 0, word};
    case Complaint::ttl_exceeded: break;
  }
  return v4 ? IcmpError{IcmpHeader::kTimeExceeded, 0} : IcmpError{Icmpv6::kTimeExceeded, 0};
}

std::optional<Complaint> complaint_of(Family family, const IcmpHeader& icmp) {
  for (const Complaint c : {Complaint::host_unreachable, Complaint::no_route, Complaint::port_unreachable,
                            Complaint::protocol_unreachable, Complaint::too_big, Complaint::ttl_exceeded})
    if (const IcmpError e = icmp_error(family, c); e.type == icmp.type && e.code == icmp.code) return c;
  return {};
}

bool may_answer_with_icmp(const Frame& frame, const PacketView& view) {
  const auto bytes = frame.bytes();
  if (view.later_fragment || header_at<EthernetHeader>(bytes, 0).target.is_group()) return false;
  const IpAddress& from = view.flow.source.address;
  if (from.is_unspecified() || from.is_multicast() || from.is_broadcast() || from.is_loopback()) return false;
  if (view.is_icmp()) {
    if (!view.has_transport) return false;
    const std::uint8_t type = header_at<IcmpHeader>(bytes, view.transport).type;
    if (view.family == Family::ipv6) return type >= Icmpv6::kFirstQuery;
    switch (type) {  // queries may be answered, errors may not
      case IcmpHeader::kEchoReply:
      case IcmpHeader::kEcho:
      case 13: case 14: case 15: case 16: case 17: case 18: return true;
      default: return false;
    }
  }
  return true;
}

Reason write_icmp_error(Frame& frame, const PacketView& view, IcmpError error, const IpAddress& source,
                        std::uint16_t id) {
  const std::size_t headers = ip_header_size(view.family) + sizeof(IcmpHeader);
  const std::size_t quoted = std::min<std::size_t>(frame.length - view.network, most_icmp(view.family) - headers);
  if (frame.push(headers) == nullptr) return Reason::no_headroom;
  frame.resize(view.network + headers + quoted);
  frame.offload = {};
  const auto bytes = frame.bytes();
  std::memmove(bytes.data(), bytes.data() + headers, view.network);
  set_ether_type(bytes, view.family);

  IpFields ip{icmp_protocol(view.family), kOwnTtl};
  // A message about a packet keeps its precedence and takes its delay bits no further: icmp.c, RFC 1812, 4.3.2.5.
  if (view.family == Family::ipv4) ip.tos = static_cast<std::uint8_t>((view.tos & 0x1eU) | 0xc0U);
  ip.id = id;
  write_ip_header(bytes, view.network, {source, view.flow.source.address}, ip);
  PacketView message = view;
  message.transport = static_cast<std::uint32_t>(view.network + ip_header_size(view.family));
  header_at<IcmpHeader>(bytes, message.transport) = {error.type, error.code, Be16{0},
                                                     Be16{static_cast<std::uint16_t>(error.word >> 16U)},
                                                     Be16{static_cast<std::uint16_t>(error.word)}};
  fill_icmp_checksum(bytes, message);
  return Reason::none;
}

bool transport_intact(const Frame& frame, const PacketView& view) {
  if (!view.is_tcp() && !view.is_udp()) return true;
  if (!view.has_transport) return false;
  auto packet = frame.bytes().subspan(view.transport, view.payload_length());
  if (view.is_tcp()) {
    const std::size_t header = header_at<TcpHeader>(packet, 0).header_length();
    if (header < sizeof(TcpHeader) || header > packet.size()) return false;
  } else {
    const auto& udp = header_at<UdpHeader>(packet, 0);
    if (udp.length.host() < sizeof(UdpHeader) || udp.length.host() > packet.size()) return false;
    if (udp.checksum == Be16{0} && view.flow.source.address.is_v4()) return true;  // RFC 768: none
    packet = packet.first(udp.length.host());
  }
  if (frame.offload.checksum == Offload::Checksum::partial) return true;  // it never was on a wire
  const FlowKey& flow = view.flow;
  return pseudo_header_sum(flow.source.address, flow.target.address, flow.protocol, packet.size()).add(packet).folded() ==
         0xffff;
}

void write_tcp_checksum(std::span<std::byte> bytes, std::size_t transport, const FlowKey& flow) {
  auto& tcp = header_at<TcpHeader>(bytes, transport);
  tcp.checksum = Be16{0};
  tcp.checksum = pseudo_header_sum(flow.source.address, flow.target.address, Protocol::tcp, bytes.size() - transport)
                     .add(bytes.subspan(transport))
                     .field();
}

void write_reset(Frame& frame, const PacketView& view) {
  const TcpHeader segment = header_at<TcpHeader>(frame.bytes(), view.transport);
  const std::size_t header = std::clamp<std::size_t>(segment.header_length(), sizeof(TcpHeader), view.payload_length());
  std::size_t occupied = view.payload_length() - header;  // of the sequence space
  if ((segment.flags & TcpHeader::kSyn) != 0) ++occupied;
  if ((segment.flags & TcpHeader::kFin) != 0) ++occupied;

  frame.resize(view.network + ip_header_size(view.family) + sizeof(TcpHeader));
  frame.offload = {};
  const auto bytes = frame.bytes();
  const FlowKey back = view.flow.reversed();
  IpFields ip{Protocol::tcp, kOwnTtl, view.tos, true};
  ip.tos &= static_cast<std::uint8_t>(~kEcnMask);  // ip_output.c, ip_reply_arg; tcp_ipv6.c: a refusal takes no part in ECN
  write_ip_header(bytes, view.network, {back.source.address, back.target.address}, ip);

  const std::size_t at = view.network + ip_header_size(view.family);
  TcpHeader reset{};
  reset.source = back.source.port;
  reset.target = back.target.port;
  reset.offset = 5U << 4U;
  reset.flags = TcpHeader::kRst;
  if ((segment.flags & TcpHeader::kAck) != 0) {
    reset.sequence = segment.acknowledgement;
  } else {
    reset.flags |= TcpHeader::kAck;
    reset.acknowledgement = Be32{static_cast<std::uint32_t>(segment.sequence.host() + occupied)};
  }
  header_at<TcpHeader>(bytes, at) = reset;
  write_tcp_checksum(bytes, at, back);
}

void become_reset(Frame& frame, const PacketView& view) {
  frame.resize(view.transport + sizeof(TcpHeader));
  frame.offload = {};
  const auto bytes = frame.bytes();
  set_ip_length(bytes, view.network, view.family);
  auto& tcp = header_at<TcpHeader>(bytes, view.transport);
  tcp.offset = 5U << 4U;
  tcp.flags = static_cast<std::uint8_t>(TcpHeader::kRst | (tcp.flags & TcpHeader::kAck));
  tcp.window = Be16{0};
  tcp.urgent = Be16{0};
  write_tcp_checksum(bytes, view.transport, view.flow);
}

}  // namespace director
