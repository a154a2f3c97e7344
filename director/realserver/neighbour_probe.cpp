// See the header.
#include "director/realserver/neighbour_probe.h"

#include <algorithm>

#include "director/net/checksum.h"

namespace director::realserver {
namespace {

constexpr std::uint16_t kEthernetHardware = 1;
constexpr std::uint8_t kNeighbourSolicitation = 135;   // RFC 4861, 4.3
constexpr std::uint8_t kNeighbourAdvertisement = 136;  // RFC 4861, 4.4
constexpr std::uint8_t kHopLimit = 255;         // RFC 4861, 7.1: anything else came from beyond the link
constexpr std::uint8_t kSourceLinkAddress = 1;  // options, RFC 4861, 4.6.1
constexpr std::uint8_t kTargetLinkAddress = 2;

/// A neighbour discovery message: header, four reserved bytes or flags, the address in question.
struct NeighbourMessage {
  std::uint8_t type;
  std::uint8_t code;
  Be16 checksum;
  Be32 flags;
  std::array<std::uint8_t, 16> target;
};
struct LinkAddressOption {
  std::uint8_t type;
  std::uint8_t length;  // in units of 8 bytes
  MacAddress mac;
};
static_assert(sizeof(NeighbourMessage) == 24 && sizeof(LinkAddressOption) == 8);

constexpr std::size_t kPayload = sizeof(EthernetHeader);

std::vector<std::byte> arp_request(const MacAddress& own, const IpAddress& source, const IpAddress& asked) {
  std::vector<std::byte> storage(kPayload + sizeof(ArpHeader));
  const std::span<std::byte> frame{storage};
  header_at<EthernetHeader>(frame, 0) = {kBroadcastMac, own,
                                         Be16{static_cast<std::uint16_t>(EtherType::arp)}};
  header_at<ArpHeader>(frame, kPayload) = {Be16{kEthernetHardware},
                                           Be16{static_cast<std::uint16_t>(EtherType::ipv4)},
                                           sizeof(MacAddress),
                                           sizeof(Be32),
                                           Be16{ArpHeader::kRequest},
                                           own,
                                           source.v4_wire(),
                                           {},
                                           asked.v4_wire()};
  return storage;
}

std::vector<std::byte> solicitation(const MacAddress& own, const IpAddress& source, const IpAddress& asked) {
  const auto& a = asked.bytes();
  // RFC 4291, 2.7.1: the solicited-node group, and RFC 2464, 7: its MAC.
  const IpAddress group = IpAddress::v6({0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a[13], a[14], a[15]});
  const MacAddress group_mac{{0x33, 0x33, 0xff, a[13], a[14], a[15]}};
  const bool named = !source.is_unspecified();  // RFC 4861, 4.3: without a source no source link address
  const std::size_t length = sizeof(NeighbourMessage) + (named ? sizeof(LinkAddressOption) : 0);

  std::vector<std::byte> storage(kPayload + sizeof(Ipv6Header) + length);
  const std::span<std::byte> frame{storage};
  header_at<EthernetHeader>(frame, 0) = {group_mac, own, Be16{static_cast<std::uint16_t>(EtherType::ipv6)}};
  header_at<Ipv6Header>(frame, kPayload) = {Be32{0x60000000U}, Be16{static_cast<std::uint16_t>(length)},
                                            Protocol::icmpv6,  kHopLimit,
                                            source.bytes(),    group.bytes()};
  const std::size_t at = kPayload + sizeof(Ipv6Header);
  auto& message = header_at<NeighbourMessage>(frame, at);
  message = {kNeighbourSolicitation, 0, {}, {}, a};
  if (named) header_at<LinkAddressOption>(frame, at + sizeof message) = {kSourceLinkAddress, 1, own};
  message.checksum =
      pseudo_header_sum(source, group, Protocol::icmpv6, length).add(frame.subspan(at)).field();
  return storage;
}

std::optional<MacAddress> arp_claim(std::span<const std::byte> frame, const IpAddress& asked) {
  if (frame.size() < kPayload + sizeof(ArpHeader)) return {};
  const auto& arp = header_at<ArpHeader>(frame, kPayload);
  if (arp.hardware.host() != kEthernetHardware || arp.hardware_length != sizeof(MacAddress)) return {};
  if (IpAddress::v4(arp.sender_ip) != asked) return {};
  return arp.sender_mac;
}

std::optional<MacAddress> advertised(std::span<const std::byte> frame, const IpAddress& asked) {
  constexpr std::size_t kMessage = kPayload + sizeof(Ipv6Header);
  if (frame.size() < kMessage + sizeof(NeighbourMessage)) return {};
  const auto& ip = header_at<Ipv6Header>(frame, kPayload);
  const auto& message = header_at<NeighbourMessage>(frame, kMessage);
  if (ip.next_header != Protocol::icmpv6 || ip.hop_limit != kHopLimit) return {};
  if (message.type != kNeighbourAdvertisement || IpAddress::v6(message.target) != asked) return {};
  std::size_t at = kMessage + sizeof(NeighbourMessage);
  while (at + sizeof(LinkAddressOption) <= frame.size()) {
    const auto& option = header_at<LinkAddressOption>(frame, at);
    if (option.length == 0) return {};
    if (option.type == kTargetLinkAddress && option.length == 1) return option.mac;
    at += std::size_t{option.length} * 8;
  }
  return header_at<EthernetHeader>(frame, 0).source;
}

}  // namespace

std::vector<std::byte> probe_frame(const MacAddress& own, const IpAddress& source, const IpAddress& asked) {
  return asked.is_v4() ? arp_request(own, source, asked) : solicitation(own, source, asked);
}

std::optional<MacAddress> claimed_by(std::span<const std::byte> frame, const IpAddress& asked) {
  if (frame.size() < kPayload) return {};
  if (header_at<EthernetHeader>(frame, 0).type.host() != static_cast<std::uint16_t>(probe_type(asked)))
    return {};
  return asked.is_v4() ? arp_claim(frame, asked) : advertised(frame, asked);
}

EtherType probe_type(const IpAddress& asked) {
  return asked.is_v4() ? EtherType::arp : EtherType::ipv6;
}

}  // namespace director::realserver
