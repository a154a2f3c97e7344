// VS/TUN: the outer headers, written from the inside out: what the tunnel has between the IP headers, then the outer IP header.
#include "director/forward/tunnel.h"

#include "director/net/checksum.h"
#include "director/net/ip_header.h"

namespace director {
namespace {

constexpr std::uint8_t kEct0 = 0x02;
constexpr std::uint8_t kCe = 0x03;
constexpr std::size_t kMostInPacket = 65535;  // what an IP header can say

/// DSCP copied; ECT copied, CE becomes ECT(0): the outer path shall report its own congestion (inet_ecn.h).
std::uint8_t outer_tos(std::uint8_t inner) {
  return (inner & kEcnMask) == kCe ? static_cast<std::uint8_t>((inner & ~kEcnMask) | kEct0) : inner;
}

/// Is the inner checksum left to the tunnel's far end? Only where the sender left it to us: a complete one is worth more.
bool leaves_checksum(const OuterHeaders& outer, const Offload& offload) {
  return outer.type == TunnelType::gue && outer.checksum == TunnelChecksum::remote &&
         offload.checksum == Offload::Checksum::partial && offload.segments == Offload::Segments::none;
}

/// Bytes between the IP headers.
std::size_t between(const OuterHeaders& outer, const Offload& offload) {
  constexpr std::size_t kGreChecksum = 4;
  switch (outer.type) {
    case TunnelType::ipip: return 0;
    case TunnelType::gre: return sizeof(GreHeader) + (outer.checksum == TunnelChecksum::none ? 0 : kGreChecksum);
    case TunnelType::gue: break;
  }
  return sizeof(UdpHeader) + sizeof(GueHeader) + (leaves_checksum(outer, offload) ? sizeof(GueRemoteChecksum) : 0);
}

void write_gre(Frame& frame, std::size_t at, Family inner, TunnelChecksum checksum) {
  const auto bytes = frame.bytes();
  const bool sum = checksum != TunnelChecksum::none;
  header_at<GreHeader>(bytes, at) = {Be16{sum ? GreHeader::kChecksum : std::uint16_t{0}},
                                     Be16{static_cast<std::uint16_t>(ether_type(inner))}};
  if (!sum) return;
  header_at<Be32>(bytes, at + sizeof(GreHeader)) = Be32{};
  header_at<Be16>(bytes, at + sizeof(GreHeader)) = wire_sum(frame, at).field();
}

/// REQUIRES: bytes [at, inner) are the room for it.
void write_gue(Frame& frame, std::size_t at, std::size_t inner, Family family, const OuterHeaders& outer, Port source_port) {
  const auto bytes = frame.bytes();
  const std::size_t options = inner - at - sizeof(UdpHeader) - sizeof(GueHeader);
  const auto length = static_cast<std::uint16_t>(bytes.size() - at);
  header_at<UdpHeader>(bytes, at) = {source_port, outer.target_port, Be16{length}, Be16{}};
  header_at<GueHeader>(bytes, at + sizeof(UdpHeader)) = {static_cast<std::uint8_t>(options / 4), inside_protocol(family),
                                                         Be16{options > 0 ? GueHeader::kPrivate : std::uint16_t{0}}};
  if (options > 0) {
    Offload& o = frame.offload;
    const auto start = static_cast<std::uint16_t>(o.checksum_start - inner);
    header_at<GueRemoteChecksum>(bytes, at + sizeof(UdpHeader) + sizeof(GueHeader)) = {
        Be32{GueRemoteChecksum::kRemoteChecksum}, Be16{start}, Be16{static_cast<std::uint16_t>(start + o.checksum_offset)}};
    o.checksum = Offload::Checksum::complete;
    o.verified = false;
  }
  if (outer.checksum == TunnelChecksum::none) return;
  Be16 sum = pseudo_header_sum(outer.ends.source, outer.ends.target, Protocol::udp, length)
                 .add_folded(wire_sum(frame, at).folded())
                 .field();
  if (sum == Be16{0}) sum = Be16{0xffff};  // RFC 768: 0 means none
  header_at<UdpHeader>(bytes, at).checksum = sum;
}

}  // namespace

std::size_t tunnel_overhead(const OuterHeaders& outer, const Offload& offload) {
  return ip_header_size(outer.ends.target.family()) + between(outer, offload);
}

Reason encapsulate(Frame& frame, const PacketView& view, const OuterHeaders& outer, Port source_port, std::uint16_t id) {
  // From the packet as it stands in the frame: the view may be older (its TTL is).
  const bool dont_fragment = outer.copy_df && view.family == Family::ipv4 &&
                             header_at<Ipv4Header>(frame.bytes(), view.network).dont_fragment();
  const std::uint8_t tos = tos_at(frame.bytes(), view.network, view.family);
  const std::uint8_t ttl = ttl_at(frame.bytes(), view.network, view.family);
  const Family outside = outer.ends.target.family();
  const std::size_t opened = tunnel_overhead(outer, frame.offload);
  if (frame.length - view.network + opened > kMostInPacket) return Reason::too_big;
  if (frame.push(opened) == nullptr) return Reason::no_headroom;
  const auto bytes = frame.bytes();
  header_at<EthernetHeader>(bytes, 0) = header_at<EthernetHeader>(bytes, opened);
  set_ether_type(bytes, outside);

  const std::size_t tunnel = view.network + ip_header_size(outside);
  Protocol protocol = inside_protocol(view.family);
  switch (outer.type) {
    case TunnelType::ipip: break;
    case TunnelType::gre:
      protocol = Protocol::gre;
      write_gre(frame, tunnel, view.family, outer.checksum);
      break;
    case TunnelType::gue:
      protocol = Protocol::udp;
      write_gue(frame, tunnel, view.network + opened, view.family, outer, source_port);
      break;
  }
  write_ip_header(bytes, view.network, outer.ends,
                  {protocol, ttl, outer_tos(tos), dont_fragment, dont_fragment ? std::uint16_t{0} : id});
  return Reason::none;
}

}  // namespace director
