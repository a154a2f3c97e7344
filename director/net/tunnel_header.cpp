// Reading tunnel headers; each check is a line.
#include "director/net/tunnel_header.h"

#include "director/net/headers.h"

namespace director {
namespace {

constexpr std::size_t kGreChecksum = 4;  // the checksum and two reserved bytes

std::optional<Family> family_inside(Protocol protocol) {
  if (protocol == Protocol::ipip) return Family::ipv4;
  if (protocol == Protocol::ipv6) return Family::ipv6;
  return {};
}

}  // namespace

std::optional<TunnelHeader> read_bare_header(Protocol outer) {
  const auto inner = family_inside(outer);
  if (!inner) return {};
  return TunnelHeader{0, *inner, false, {}};
}

std::optional<TunnelHeader> read_gre_header(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(GreHeader)) return {};
  const auto& gre = header_at<GreHeader>(bytes, 0);
  const std::uint16_t flags = gre.flags_version.host();
  if ((flags & ~GreHeader::kChecksum) != 0) return {};
  TunnelHeader header;
  header.has_checksum = flags != 0;
  header.length = sizeof(GreHeader) + (header.has_checksum ? kGreChecksum : 0);
  if (header.length > bytes.size()) return {};
  switch (static_cast<EtherType>(gre.protocol.host())) {
    case EtherType::ipv4: header.inner = Family::ipv4; return header;
    case EtherType::ipv6: header.inner = Family::ipv6; return header;
    default: return {};
  }
}

std::optional<TunnelHeader> read_gue_header(std::span<const std::byte> bytes) {
  constexpr std::size_t kFixed = sizeof(UdpHeader) + sizeof(GueHeader);
  if (bytes.size() < kFixed) return {};
  const auto& gue = header_at<GueHeader>(bytes, sizeof(UdpHeader));
  if ((gue.variant_control_length & GueHeader::kVariantControl) != 0) return {};
  const auto inner = family_inside(gue.protocol);
  if (!inner) return {};
  const std::size_t options = std::size_t{gue.variant_control_length & std::uint32_t{GueHeader::kLength}} * 4;
  TunnelHeader header{kFixed + options, *inner, header_at<UdpHeader>(bytes, 0).checksum != Be16{0}, {}};
  if (header.length > bytes.size()) return {};
  const std::uint16_t flags = gue.flags.host();
  if (flags == 0) return header;
  if (flags != GueHeader::kPrivate || options < sizeof(Be32)) return {};
  const std::uint32_t private_flags = header_at<Be32>(bytes, kFixed).host();
  if (private_flags == 0) return header;
  if (private_flags != GueRemoteChecksum::kRemoteChecksum || options < sizeof(GueRemoteChecksum)) return {};
  const auto& remote = header_at<GueRemoteChecksum>(bytes, kFixed);
  header.remote_checksum = {remote.start.host(), remote.field.host()};
  return header;
}

}  // namespace director
