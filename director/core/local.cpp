// Answers in the director's own voice. local.h says who does what.
#include "director/core/local.h"

#include <algorithm>
#include <cstring>

#include "director/net/checksum.h"

namespace director {
namespace {

constexpr std::uint8_t kOwnTtl = 64;  // net.ipv4.ip_default_ttl
constexpr std::size_t kMostIcmp = 576;  // icmp.c: the message fits every host's reassembly buffer (RFC 1812, 4.3.2.3)

/// A plain IPv4 header, checksum included, at the network offset.
void write_ipv4(std::span<std::byte> bytes, std::size_t network, Ipv4Header ip) {
  ip.version_ihl = 0x45;
  ip.total_length = Be16{static_cast<std::uint16_t>(bytes.size() - network)};
  ip.ttl = kOwnTtl;
  ip.checksum = Be16{0};
  header_at<Ipv4Header>(bytes, network) = ip;
  header_at<Ipv4Header>(bytes, network).checksum =
      ChecksumSum{}.add(bytes.subspan(network, sizeof(Ipv4Header))).field();
}

void write_tcp_checksum(std::span<std::byte> bytes, std::size_t transport, const FlowKey& flow) {
  auto& tcp = header_at<TcpHeader>(bytes, transport);
  tcp.checksum = Be16{0};
  tcp.checksum = pseudo_header_sum(flow.source.address, flow.target.address, Protocol::tcp, bytes.size() - transport)
                     .add(bytes.subspan(transport))
                     .field();
}

/// A query becomes its reply: addresses swapped, a TTL and ID of our own, checksums true.
void turn_icmp_round(std::span<std::byte> bytes, const PacketView& view, std::uint16_t id) {
  auto& ip = header_at<Ipv4Header>(bytes, view.network);
  std::swap(ip.source, ip.target);
  ip.ttl = kOwnTtl;
  ip.id = Be16{id};
  ip.fragment = Be16{0};
  ip.checksum = Be16{0};
  ip.checksum = ChecksumSum{}.add(bytes.subspan(view.network, ip.header_length())).field();
  auto& icmp = header_at<IcmpHeader>(bytes, view.transport);
  icmp.checksum = Be16{0};
  icmp.checksum = ChecksumSum{}.add(bytes.subspan(view.transport)).field();
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
  header_at<IcmpHeader>(bytes, view.transport).type = IcmpHeader::kEchoReply;
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

bool may_answer_with_icmp(const Frame& frame, const PacketView& view) {
  const auto bytes = frame.bytes();
  if (view.later_fragment || header_at<EthernetHeader>(bytes, 0).target.is_group()) return false;
  const IpAddress& from = view.flow.source.address;
  if (from.is_unspecified() || from.is_multicast() || from.is_broadcast() || from.is_loopback()) return false;
  if (view.flow.protocol == Protocol::icmp) {
    if (!view.has_transport) return false;
    switch (header_at<IcmpHeader>(bytes, view.transport).type) {  // queries may be answered, errors may not
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
  constexpr std::size_t kHeaders = sizeof(Ipv4Header) + sizeof(IcmpHeader);
  const std::size_t quoted = std::min<std::size_t>(frame.length - view.network, kMostIcmp - kHeaders);
  if (frame.push(kHeaders) == nullptr) return Reason::no_headroom;
  frame.resize(view.network + kHeaders + quoted);
  frame.offload = {};
  const auto bytes = frame.bytes();
  std::memmove(bytes.data(), bytes.data() + kHeaders, view.network);

  // A message about a packet keeps its precedence and takes its delay bits no further: icmp.c, RFC 1812, 4.3.2.5.
  Ipv4Header ip{};
  ip.tos = static_cast<std::uint8_t>((view.tos & 0x1eU) | 0xc0U);
  ip.id = Be16{id};
  ip.protocol = Protocol::icmp;
  ip.source = source.v4_wire();
  ip.target = view.flow.source.address.v4_wire();
  write_ipv4(bytes, view.network, ip);
  const std::size_t at = view.network + sizeof(Ipv4Header);
  header_at<IcmpHeader>(bytes, at) = {error.type, error.code, Be16{0}, Be16{0}, Be16{error.mtu}};
  header_at<IcmpHeader>(bytes, at).checksum = ChecksumSum{}.add(bytes.subspan(at)).field();
  return Reason::none;
}

void write_reset(Frame& frame, const PacketView& view) {
  const TcpHeader segment = header_at<TcpHeader>(frame.bytes(), view.transport);
  const std::size_t header = std::clamp<std::size_t>(segment.header_length(), sizeof(TcpHeader), view.payload_length());
  std::size_t occupied = view.payload_length() - header;  // of the sequence space
  if ((segment.flags & TcpHeader::kSyn) != 0) ++occupied;
  if ((segment.flags & TcpHeader::kFin) != 0) ++occupied;

  frame.resize(view.network + sizeof(Ipv4Header) + sizeof(TcpHeader));
  frame.offload = {};
  const auto bytes = frame.bytes();
  const FlowKey back = view.flow.reversed();
  Ipv4Header ip{};
  ip.fragment = Be16{Ipv4Header::kDontFragment};
  ip.tos = view.tos;
  ip.protocol = Protocol::tcp;
  ip.source = back.source.address.v4_wire();
  ip.target = back.target.address.v4_wire();
  write_ipv4(bytes, view.network, ip);

  const std::size_t at = view.network + sizeof(Ipv4Header);
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
  auto& ip = header_at<Ipv4Header>(bytes, view.network);
  ip.total_length = Be16{static_cast<std::uint16_t>(bytes.size() - view.network)};
  ip.checksum = Be16{0};
  ip.checksum = ChecksumSum{}.add(bytes.subspan(view.network, ip.header_length())).field();
  auto& tcp = header_at<TcpHeader>(bytes, view.transport);
  tcp.offset = 5U << 4U;
  tcp.flags = static_cast<std::uint8_t>(TcpHeader::kRst | (tcp.flags & TcpHeader::kAck));
  tcp.window = Be16{0};
  tcp.urgent = Be16{0};
  write_tcp_checksum(bytes, view.transport, view.flow);
}

}  // namespace director
