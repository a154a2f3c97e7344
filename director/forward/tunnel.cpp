// VS/TUN: the outer header.
#include "director/forward/tunnel.h"

#include <cstring>

#include "director/net/checksum.h"

namespace director {
namespace {

constexpr std::uint8_t kEcnMask = 0x03;
constexpr std::uint8_t kEct0 = 0x02;
constexpr std::uint8_t kCe = 0x03;

/// DSCP copied; ECT copied, CE becomes ECT(0): the outer path shall report its own congestion (inet_ecn.h).
std::uint8_t outer_tos(std::uint8_t inner) {
  return (inner & kEcnMask) == kCe ? static_cast<std::uint8_t>((inner & ~kEcnMask) | kEct0) : inner;
}

}  // namespace

std::size_t tunnel_overhead(const ServerConfig& server) {
  return server.endpoint.address.is_v4() ? sizeof(Ipv4Header) : sizeof(Ipv6Header);
}

Reason encapsulate(Frame& frame, const PacketView& view, const IpAddress& local, const IpAddress& remote, bool copy_df,
                   std::uint16_t id) {
  const std::size_t inner_length = frame.length - view.network;
  const auto inner = header_at<Ipv4Header>(frame.bytes(), view.network);
  if (frame.push(sizeof(Ipv4Header)) == nullptr) return Reason::no_headroom;
  const auto bytes = frame.bytes();
  std::memmove(bytes.data(), bytes.data() + sizeof(Ipv4Header), view.network);  // Ethernet moves to the front

  auto& outer = header_at<Ipv4Header>(bytes, view.network);
  const bool dont_fragment = copy_df && inner.dont_fragment();
  outer = Ipv4Header{};
  outer.version_ihl = 0x45;
  outer.tos = outer_tos(inner.tos);
  outer.total_length = Be16{static_cast<std::uint16_t>(inner_length + sizeof(Ipv4Header))};
  outer.fragment = Be16{dont_fragment ? Ipv4Header::kDontFragment : std::uint16_t{0}};
  outer.id = Be16{dont_fragment ? std::uint16_t{0} : id};
  outer.ttl = inner.ttl;
  outer.protocol = Protocol::ipip;
  outer.source = local.v4_wire();
  outer.target = remote.v4_wire();
  outer.checksum = ChecksumSum{}.add(bytes.subspan(view.network, sizeof(Ipv4Header))).field();
  return Reason::none;
}

}  // namespace director
