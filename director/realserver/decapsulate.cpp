// See the header. The order is that of the packet: outer header, tunnel header, inner header, then what is
// carried over.
#include "director/realserver/decapsulate.h"

#include "director/net/checksum.h"
#include "director/net/headers.h"
#include "director/net/ip_header.h"
#include "director/net/tunnel_header.h"

namespace director::realserver {
namespace {

constexpr Protocol kIpv6Fragment{44};  // RFC 8200, 4.5

// --- IP headers, outer and inner ---------------------------------------------------------------------------

/// What both families' headers say, lengths already held against the bytes there are.
struct IpView {
  Family family = Family::ipv4;
  std::size_t header_length = 0;
  std::size_t total_length = 0;
  Protocol protocol = Protocol::ip;  ///< IPv6: the first next header
  IpAddress source;
  IpAddress target;
  Ecn ecn = Ecn::not_capable;
};

std::optional<IpView> view_v4(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(Ipv4Header)) return {};
  const auto& ip = header_at<Ipv4Header>(bytes, 0);
  const std::size_t total = ip.total_length.host();
  if (ip.version_ihl >> 4U != 4 || ip.header_length() < sizeof(Ipv4Header)) return {};
  if (total < ip.header_length() || total > bytes.size()) return {};
  return IpView{Family::ipv4,
                ip.header_length(),
                total,
                ip.protocol,
                IpAddress::v4(ip.source),
                IpAddress::v4(ip.target),
                static_cast<Ecn>(ip.tos & kEcnMask)};
}

/// The traffic class's low bits lie in the second byte, above the flow label.
constexpr unsigned kIpv6EcnShift = 20;

std::optional<IpView> view_v6(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(Ipv6Header)) return {};
  const auto& ip = header_at<Ipv6Header>(bytes, 0);
  const std::size_t total = sizeof(Ipv6Header) + ip.payload_length.host();
  const std::uint32_t first_word = ip.version_class_flow.host();
  if (first_word >> 28U != 6 || total > bytes.size()) return {};
  // RFC 4291, 2.5.5.2: an IPv4 address in IPv6 form never stands on a wire. Taken for one it would pass as an
  // IPv4 VIP.
  if (IpAddress::v6(ip.source).is_v4() || IpAddress::v6(ip.target).is_v4()) return {};
  return IpView{Family::ipv6,
                sizeof(Ipv6Header),
                total,
                ip.next_header,
                IpAddress::v6(ip.source),
                IpAddress::v6(ip.target),
                static_cast<Ecn>(first_word >> kIpv6EcnShift & kEcnMask)};
}

/// Of whichever family it says it is.
std::optional<IpView> view_outer(std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  return std::to_integer<unsigned>(bytes[0]) >> 4U == 6 ? view_v6(bytes) : view_v4(bytes);
}

std::optional<IpView> view_of(Family family, std::span<const std::byte> bytes) {
  return family == Family::ipv4 ? view_v4(bytes) : view_v6(bytes);
}

void set_ecn(std::span<std::byte> packet, Family family, Ecn ecn) {
  if (family == Family::ipv4) {
    auto& ip = header_at<Ipv4Header>(packet, 0);
    const Be16 before{static_cast<std::uint16_t>(ip.version_ihl << 8U | ip.tos)};
    ip.tos = static_cast<std::uint8_t>((ip.tos & ~kEcnMask) | static_cast<std::uint8_t>(ecn));
    const Be16 after{static_cast<std::uint16_t>(ip.version_ihl << 8U | ip.tos)};
    ip.checksum = ChecksumDelta{ChecksumSum{}.replace(before, after)}.applied_to(ip.checksum);
  } else {
    auto& ip = header_at<Ipv6Header>(packet, 0);
    const std::uint32_t cleared = ip.version_class_flow.host() & ~(std::uint32_t{kEcnMask} << kIpv6EcnShift);
    ip.version_class_flow = Be32{cleared | std::uint32_t{static_cast<std::uint8_t>(ecn)} << kIpv6EcnShift};
  }
}

// --- offload state -----------------------------------------------------------------------------------------

/// Whether what the frame says of itself is about this inner packet. A description of the outer packet (a
/// partial checksum of a UDP tunnel header, say) can't be carried over to the inner one.
bool describes(const Offload& offload, const IpView& inner) {
  if (offload.checksum == Offload::Checksum::partial) {
    const std::size_t field_end =
        std::size_t{offload.checksum_start} + offload.checksum_offset + sizeof(Be16);
    if (offload.checksum_start < inner.header_length || field_end > inner.total_length) return false;
  }
  using Segments = Offload::Segments;
  if (offload.segments == Segments::none) return true;
  if (offload.checksum != Offload::Checksum::partial || offload.segment_size == 0) return false;
  if (offload.segments == Segments::udp) return true;
  return (offload.segments == Segments::tcp4) == (inner.family == Family::ipv4) &&
         offload.checksum_start + sizeof(TcpHeader) <= inner.total_length;
}

/// A partial checksum of the tunnel's own UDP header: nobody computed it, as the packet never left the machine. There is
/// nothing to verify, and nothing to finish.
/// True if it was so.
bool forget_outer_checksum(Frame& packet, const IpView& outer) {
  Offload& o = packet.offload;
  const bool outers = outer.protocol == Protocol::udp && o.checksum == Offload::Checksum::partial &&
                      o.checksum_start == outer.header_length && o.checksum_offset == offsetof(UdpHeader, checksum);
  if (outers) o.checksum = Offload::Checksum::complete;
  return outers;
}

/// Bytes up to the payload that a super-frame's segments share; 0 for a single packet, where nobody asks.
std::size_t headers_of(const Frame& packet) {
  const std::size_t transport = packet.offload.checksum_start;
  switch (packet.offload.segments) {
    case Offload::Segments::none:
      return 0;
    case Offload::Segments::udp:
      return transport + sizeof(UdpHeader);
    case Offload::Segments::tcp4:
    case Offload::Segments::tcp6:
      break;
  }
  return transport + header_at<TcpHeader>(packet.bytes(), transport).header_length();
}

}  // namespace

Protocol outer_protocol(TunnelEnd::Kind kind) {
  switch (kind) {
    case TunnelEnd::Kind::ipip:
      return Protocol::ipip;
    case TunnelEnd::Kind::sit:
      return Protocol::ipv6;
    case TunnelEnd::Kind::gre:
      return Protocol::gre;
    case TunnelEnd::Kind::gue:
      break;
  }
  return Protocol::udp;
}

namespace {

// --- the tunnel ----------------------------------------------------------------------------------------------

/// The tunnel a packet came through, if one of that kind ends here. REQUIRES: `packet` starts at the outer header.
const TunnelEnd* find_end(std::span<const std::byte> packet, const IpView& outer, const Admission& admission) {
  const auto is = [&](const TunnelEnd& end) {
    if (outer_protocol(end.kind) != outer.protocol) return false;
    if (end.kind != TunnelEnd::Kind::gue) return true;
    return outer.total_length >= outer.header_length + sizeof(UdpHeader) &&
           header_at<UdpHeader>(packet, outer.header_length).target == end.port;
  };
  const auto at = std::find_if(admission.ends.begin(), admission.ends.end(), is);
  return at == admission.ends.end() ? nullptr : &*at;
}

std::optional<TunnelHeader> read_header(const TunnelEnd& end, std::span<const std::byte> behind_ip) {
  switch (end.kind) {
    case TunnelEnd::Kind::gre:
      return read_gre_header(behind_ip);
    case TunnelEnd::Kind::gue:
      return read_gue_header(behind_ip);
    case TunnelEnd::Kind::ipip:
    case TunnelEnd::Kind::sit:
      break;
  }
  return read_bare_header(outer_protocol(end.kind));
}

/// UDP says its length again; what lies behind it is no part of the packet.
bool trim_to_udp_length(Frame& packet, std::size_t at) {
  const std::size_t length = header_at<UdpHeader>(packet.bytes(), at).length.host();
  if (length < sizeof(UdpHeader) || at + length > packet.length) return false;
  packet.resize(at + length);
  return true;
}

/// A GRE or UDP checksum, over the bytes as they are on the wire. Of a super-frame the kernel has verified each segment's,
/// and what stands here is the first one's.
bool checksum_holds(const Frame& packet, const IpView& outer) {
  if (packet.offload.segments != Offload::Segments::none) return true;
  ChecksumSum sum = wire_sum(packet, outer.header_length);
  if (outer.protocol == Protocol::udp)
    sum.add_folded(
        pseudo_header_sum(outer.source, outer.target, Protocol::udp, packet.length - outer.header_length).folded());
  return sum.folded() == 0xffff;
}

}  // namespace

Fate decapsulate(Frame& packet, const Admission& admission) {
  const auto outer = view_outer(packet.bytes());
  if (!outer) return Fate::outer_malformed;
  if (outer->family == Family::ipv4) {
    const auto& ip = header_at<Ipv4Header>(packet.bytes(), 0);
    if (ChecksumSum{}.add(packet.bytes().first(outer->header_length)).field().raw() != 0)
      return Fate::outer_checksum;
    if (ip.more_fragments() || ip.fragment_offset() != 0) return Fate::outer_fragment;
  } else if (outer->protocol == kIpv6Fragment) {
    return Fate::outer_fragment;
  }
  if (outer->source.is_multicast() || outer->source.is_broadcast() || outer->source.is_unspecified()) {
    return Fate::outer_source;
  }
  if (!admission.own.contains(outer->target)) return Fate::not_ours;
  packet.resize(outer->total_length);  // Ethernet pads short frames

  const TunnelEnd* const end = find_end(packet.bytes(), *outer, admission);
  if (end == nullptr) return Fate::not_a_tunnel;
  const auto header = read_header(*end, packet.bytes().subspan(outer->header_length));
  if (!header) return Fate::tunnel_malformed;
  if (end->kind == TunnelEnd::Kind::gue && !trim_to_udp_length(packet, outer->header_length))
    return Fate::tunnel_malformed;
  const bool unmade = forget_outer_checksum(packet, *outer);
  const std::size_t cut = outer->header_length + header->length;
  if (cut > packet.length) return Fate::tunnel_malformed;
  if (packet.offload.checksum == Offload::Checksum::partial) {
    const std::size_t field_end = packet.offload.checksum_start + std::size_t{packet.offload.checksum_offset} + sizeof(Be16);
    if (packet.offload.checksum_start < cut || field_end > packet.length) return Fate::bad_offload;
  }
  if (header->has_checksum && !unmade && !checksum_holds(packet, *outer)) return Fate::tunnel_checksum;
  packet.pull(cut);
  if (!end->is_bare()) packet.offload.verified = false;  // that may have been said of the tunnel's checksum
  if (const auto& remote = header->remote_checksum) {
    if (packet.offload.checksum == Offload::Checksum::partial || remote->field < remote->start)
      return Fate::tunnel_malformed;
    packet.offload.checksum = Offload::Checksum::partial;
    packet.offload.checksum_start = remote->start;
    packet.offload.checksum_offset = static_cast<std::uint16_t>(remote->field - remote->start);
  }
  const auto inner = view_of(header->inner, packet.bytes());
  if (!inner) return Fate::inner_malformed;
  if (!admission.vips.contains(inner->target)) return Fate::not_a_vip;
  packet.resize(inner->total_length);

  const auto ecn = decapsulated_ecn(outer->ecn, inner->ecn);
  if (!ecn) return Fate::congestion_lost;
  if (!describes(packet.offload, *inner)) return Fate::bad_offload;
  packet.offload.header_length = static_cast<std::uint16_t>(headers_of(packet));
  if (*ecn != inner->ecn) set_ecn(packet.bytes(), inner->family, *ecn);
  return Fate::delivered;
}

}  // namespace director::realserver
