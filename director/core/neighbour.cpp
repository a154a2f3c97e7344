// Neighbour discovery and listener reports. neighbour.h says what is what.
#include "director/core/neighbour.h"

#include <algorithm>
#include <cstring>

#include "director/net/icmp.h"
#include "director/net/ip_header.h"

namespace director {
namespace {

constexpr std::uint8_t kThisLink = 255;  // RFC 4861, 3.1: no router has seen it
constexpr std::size_t kNetwork = sizeof(EthernetHeader);
constexpr IpAddress kUnspecified = IpAddress::v6({});
/// All routers and switches that count listeners: ff02::16 (RFC 3810, 5.2.14).
constexpr IpAddress kListenerRouters = IpAddress::v6({0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16});
/// Hop-by-hop header with the router alert for MLD (RFC 2711), padded to 8 bytes.
constexpr std::array<std::uint8_t, 8> kRouterAlert{static_cast<std::uint8_t>(Protocol::icmpv6), 0, 5, 2, 0, 0, 1, 0};

/// Begins an ICMPv6 message of `size` bytes with Ethernet and IPv6 headers; returns where it starts.
std::size_t begin(Frame& frame, const MacAddress& to, const MacAddress& from, const IpEnds& ends, std::uint8_t hop_limit,
                  std::size_t size, bool router_alert = false) {
  const std::size_t options = router_alert ? kRouterAlert.size() : 0;
  const std::size_t at = kNetwork + sizeof(Ipv6Header) + options;
  frame.offload = {};
  frame.resize(at + size);
  const auto bytes = frame.bytes();
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  header_at<EthernetHeader>(bytes, 0) = {to, from, Be16{static_cast<std::uint16_t>(EtherType::ipv6)}};
  write_ip_header(bytes, kNetwork, ends, {Protocol::icmpv6, hop_limit});
  if (router_alert) {
    header_at<Ipv6Header>(bytes, kNetwork).next_header = Ipv6Extension::kHopByHop;
    std::memcpy(bytes.data() + kNetwork + sizeof(Ipv6Header), kRouterAlert.data(), kRouterAlert.size());
  }
  return at;
}

void finish(Frame& frame, std::size_t at) {
  PacketView view;
  view.family = Family::ipv6;
  view.network = kNetwork;
  view.transport = static_cast<std::uint32_t>(at);
  fill_icmp_checksum(frame.bytes(), view);
}

/// Walks the options; nothing: one is malformed. The link-layer address of the wanted type, if there is one, goes to `mac`.
bool read_options(std::span<const std::byte> options, std::uint8_t wanted, std::optional<MacAddress>& mac) {
  for (std::size_t at = 0; at < options.size();) {
    if (at + 2 > options.size()) return false;
    const auto type = std::to_integer<std::uint8_t>(options[at]);
    const std::size_t length = std::to_integer<std::size_t>(options[at + 1]) * 8;
    if (length == 0 || at + length > options.size()) return false;
    if (type == wanted && length == sizeof(LinkAddressOption)) mac = header_at<LinkAddressOption>(options, at).mac;
    at += length;
  }
  return !mac || !mac->is_group();
}

std::optional<NeighbourMessage> read_query(std::span<const std::byte> message, const PacketView& view) {
  constexpr std::size_t kVersion1 = 24;
  constexpr std::size_t kVersion2 = 28;
  if (view.ttl != 1 || !view.flow.source.address.is_link_local()) return {};
  if (message.size() != kVersion1 && message.size() < kVersion2) return {};
  NeighbourMessage query{NeighbourMessage::Kind::query,
                         IpAddress::v6(header_at<NeighbourHeader>(message, 0).target), {}, true,
                         message.size() == kVersion1 ? 1 : 2};
  return query;
}

}  // namespace

std::optional<NeighbourMessage> read_neighbour(std::span<const std::byte> frame, const PacketView& view) {
  const auto message = frame.subspan(view.transport);
  if (message.size() < sizeof(NeighbourHeader) || !icmp_checksum_true(frame, view)) return {};
  const auto& header = header_at<NeighbourHeader>(message, 0);
  if (header.code != 0) return {};
  if (header.type == Icmpv6::kListenerQuery) return read_query(message, view);

  const IpAddress& source = view.flow.source.address;
  const IpAddress& to = view.flow.target.address;
  NeighbourMessage read;
  read.target = IpAddress::v6(header.target);
  if (view.ttl != kThisLink || read.target.is_multicast() || read.target.is_v4() || source.is_multicast()) return {};
  const bool asks = header.type == Icmpv6::kNeighbourSolicitation;
  read.kind = asks ? NeighbourMessage::Kind::solicitation : NeighbourMessage::Kind::advertisement;
  const std::uint8_t wanted = asks ? LinkAddressOption::kSource : LinkAddressOption::kTarget;
  if (!read_options(message.subspan(sizeof(NeighbourHeader)), wanted, read.mac)) return {};
  if (asks) {  // who has no address yet (duplicate address detection) asks the group and says no MAC
    if (source.is_unspecified() && (to != solicited_node(read.target) || read.mac)) return {};
    return read;
  }
  if (to.is_multicast() && (header.flags.host() & NeighbourHeader::kSolicited) != 0) return {};
  read.replaces = (header.flags.host() & NeighbourHeader::kOverride) != 0;
  return read;
}

void write_solicitation(Frame& frame, const MacAddress& mac, const IpAddress& source, const IpAddress& target,
                        std::optional<MacAddress> known) {
  const IpAddress to = known ? target : solicited_node(target);
  const bool probe = source.is_unspecified();
  const std::size_t size = sizeof(NeighbourHeader) + (probe ? 0 : sizeof(LinkAddressOption));
  const std::size_t at = begin(frame, known.value_or(group_mac(to)), mac,
                               {probe ? kUnspecified : source, to}, kThisLink, size);
  header_at<NeighbourHeader>(frame.bytes(), at) = {Icmpv6::kNeighbourSolicitation, 0, Be16{}, Be32{}, target.bytes()};
  if (!probe)
    header_at<LinkAddressOption>(frame.bytes(), at + sizeof(NeighbourHeader)) = {LinkAddressOption::kSource, 1, mac};
  finish(frame, at);
}

void write_advertisement(Frame& frame, const MacAddress& mac, const IpAddress& target, bool router, const IpAddress& asker,
                         const MacAddress& asker_mac) {
  const bool to_all = asker.is_unspecified();
  const IpAddress to = to_all ? kAllNodes : asker;
  const IpAddress about = target;  // they may lie in the frame that is written
  const std::size_t at = begin(frame, to_all ? group_mac(kAllNodes) : asker_mac, mac,
                               {about, to}, kThisLink, sizeof(NeighbourHeader) + sizeof(LinkAddressOption));
  const std::uint32_t flags = NeighbourHeader::kOverride | (router ? NeighbourHeader::kRouter : 0U) |
                              (to_all ? 0U : NeighbourHeader::kSolicited);
  header_at<NeighbourHeader>(frame.bytes(), at) = {Icmpv6::kNeighbourAdvertisement, 0, Be16{}, Be32{flags}, about.bytes()};
  header_at<LinkAddressOption>(frame.bytes(), at + sizeof(NeighbourHeader)) = {LinkAddressOption::kTarget, 1, mac};
  finish(frame, at);
}

void write_listener_reports(Outbox& outbox, DeviceId device, const MacAddress& mac, const IpAddress& source,
                            ListenerRecord record, std::span<const IpAddress> groups) {
  constexpr std::size_t kRecord = 20;
  constexpr std::size_t kMost = 60;  // records a message: 1248 bytes, less than every link's MTU
  while (!groups.empty()) {
    const auto now = groups.first(std::min(groups.size(), kMost));
    groups = groups.subspan(now.size());
    const std::size_t size = sizeof(IcmpHeader) + now.size() * kRecord;
    Frame& frame = outbox.add(kNetwork + sizeof(Ipv6Header) + kRouterAlert.size() + size, device);
    const std::size_t at = begin(frame, group_mac(kListenerRouters), mac,
                                 {source, kListenerRouters}, 1, size, true);
    const auto bytes = frame.bytes();
    header_at<IcmpHeader>(bytes, at) = {Icmpv6::kListenerReport2, 0, Be16{}, Be16{},
                                        Be16{static_cast<std::uint16_t>(now.size())}};
    for (std::size_t i = 0; i < now.size(); ++i) {
      const std::size_t entry = at + sizeof(IcmpHeader) + i * kRecord;
      bytes[entry] = static_cast<std::byte>(record);
      std::memcpy(bytes.data() + entry + 4, now[i].bytes().data(), sizeof(IpAddress));
    }
    finish(frame, at);
  }
}

void write_listener_report1(Frame& frame, const MacAddress& mac, const IpAddress& source, const IpAddress& group) {
  const std::size_t at =
      begin(frame, group_mac(group), mac, {source, group}, 1, sizeof(NeighbourHeader), true);
  header_at<NeighbourHeader>(frame.bytes(), at) = {Icmpv6::kListenerReport, 0, Be16{}, Be32{}, group.bytes()};
  finish(frame, at);
}

}  // namespace director
