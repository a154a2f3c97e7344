// See the header. The order is that of the packet: outer header, tunnel header, inner header, then what is
// carried over.
#include "director/realserver/decapsulate.h"

#include "director/net/checksum.h"
#include "director/net/headers.h"

namespace director::realserver {
namespace {

constexpr std::uint8_t kEcnMask = 0x03;

// --- tunnels -----------------------------------------------------------------------------------------------

/// Where the inner packet begins, counted from the outer header's end, and which family it must be of.
struct Opened {
  std::size_t header_length = 0;
  Family inner = Family::ipv4;
};

/// A tunnel is its IP protocol and the code that reads what stands between the outer and the inner IP header.
/// Another one (GRE, GUE) is a function and a line in kTunnels.
struct Tunnel {
  Protocol protocol;
  std::optional<Opened> (*open)(std::span<const std::byte> payload);
};

/// RFC 2003 and RFC 4213: nothing stands between them.
template <Family inner>
std::optional<Opened> open_bare(std::span<const std::byte>) {
  return Opened{0, inner};
}

constexpr std::array kTunnels{
    Tunnel{Protocol::ipip, open_bare<Family::ipv4>},
    Tunnel{Protocol::ipv6, open_bare<Family::ipv6>},
};
constexpr auto kTunnelProtocols = [] {
  std::array<Protocol, kTunnels.size()> protocols{};
  std::transform(kTunnels.begin(), kTunnels.end(), protocols.begin(),
                 [](const Tunnel& t) { return t.protocol; });
  return protocols;
}();

const Tunnel* find_tunnel(Protocol protocol) {
  const auto* const t =
      std::find_if(kTunnels.begin(), kTunnels.end(), [&](const Tunnel& o) { return o.protocol == protocol; });
  return t == kTunnels.end() ? nullptr : t;
}

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

std::span<const Protocol> tunnel_protocols() {
  return kTunnelProtocols;
}

Fate decapsulate(Frame& packet, const Admission& admission) {
  const auto outer = view_v4(packet.bytes());
  if (!outer) return Fate::outer_malformed;
  const auto& ip = header_at<Ipv4Header>(packet.bytes(), 0);
  if (ChecksumSum{}.add(packet.bytes().first(outer->header_length)).field().raw() != 0)
    return Fate::outer_checksum;
  if (ip.more_fragments() || ip.fragment_offset() != 0) return Fate::outer_fragment;
  if (outer->source.is_multicast() || outer->source.is_broadcast() || outer->source.is_unspecified()) {
    return Fate::outer_source;
  }
  if (!admission.own.contains(outer->target)) return Fate::not_ours;
  packet.resize(outer->total_length);  // Ethernet pads short frames

  const Tunnel* const tunnel = find_tunnel(outer->protocol);
  if (tunnel == nullptr) return Fate::not_a_tunnel;
  const auto opened = tunnel->open(packet.bytes().subspan(outer->header_length));
  if (!opened) return Fate::inner_malformed;

  const std::size_t cut = outer->header_length + opened->header_length;
  if (packet.offload.checksum == Offload::Checksum::partial && packet.offload.checksum_start < cut) {
    return Fate::bad_offload;
  }
  packet.pull(cut);
  const auto inner = view_of(opened->inner, packet.bytes());
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
