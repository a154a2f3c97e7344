// IP headers of either family, written and changed in the same words: the second family is a value, not a second function.
//
// Offsets are from the first byte of `bytes`. Which family a header is of is known from PacketView or the addresses, never guessed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "director/net/address.h"
#include "director/net/checksum.h"
#include "director/net/headers.h"

namespace director {

[[nodiscard]] constexpr std::size_t ip_header_size(Family family) {
  return family == Family::ipv4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header);
}
[[nodiscard]] constexpr EtherType ether_type(Family family) {
  return family == Family::ipv4 ? EtherType::ipv4 : EtherType::ipv6;
}
/// What an outer header says of a whole packet inside it: 4 or 41.
[[nodiscard]] constexpr Protocol inside_protocol(Family family) {
  return family == Family::ipv4 ? Protocol::ipip : Protocol::ipv6;
}
[[nodiscard]] constexpr Protocol icmp_protocol(Family family) {
  return family == Family::ipv4 ? Protocol::icmp : Protocol::icmpv6;
}
/// The smallest MTU a link may have (RFC 791, 3.2; RFC 8200, 5).
[[nodiscard]] constexpr std::uint32_t least_mtu(Family family) { return family == Family::ipv4 ? 68 : 1280; }

/// Of TOS or traffic class: explicit congestion notification (RFC 3168).
inline constexpr std::uint8_t kEcnMask = 0x03;

enum class AddressEnd : std::uint8_t { source, target };

/// The two ends of a header, and their part of an IPv4 header's checksum: kept where many headers have the same.
struct IpEnds {
  IpAddress source, target;  ///< both of the header's family
  ChecksumSum sum;

  IpEnds() = default;
  IpEnds(const IpAddress& from, const IpAddress& to) : source(from), target(to), sum(ChecksumSum{}.add(from).add(to)) {}
};
/// What else is in a header without options; lengths and checksum follow from what it stands in front of.
struct IpFields {
  Protocol protocol = Protocol::ip;
  std::uint8_t ttl = 64;  ///< hop limit
  std::uint8_t tos = 0;   ///< traffic class
  bool dont_fragment = false;  ///< IPv4 only; of an IPv6 packet always true
  std::uint16_t id = 0;        ///< IPv4 only
};
/// Writes the header at `network`; everything from behind it to the end of `bytes` is its payload. The flow label is 0.
/// Always inlined: fields that are put together in memory, byte by byte, and read there as words keep the processor waiting.
[[gnu::always_inline]] inline void write_ip_header(std::span<std::byte> bytes, std::size_t network, const IpEnds& ends, const IpFields& fields) {
  if (ends.target.is_v4()) {
    // Field by field, and summed from the same values: what has just been written isn't read again.
    auto& ip = header_at<Ipv4Header>(bytes, network);
    ip.version_ihl = 0x45;
    ip.tos = fields.tos;
    ip.total_length = Be16{static_cast<std::uint16_t>(bytes.size() - network)};
    ip.id = Be16{fields.id};
    ip.fragment = Be16{fields.dont_fragment ? Ipv4Header::kDontFragment : std::uint16_t{0}};
    ip.ttl = fields.ttl;
    ip.protocol = fields.protocol;
    ip.source = ends.source.v4_wire();
    ip.target = ends.target.v4_wire();
    const auto word = [](unsigned upper, unsigned lower) { return Be16{static_cast<std::uint16_t>(upper << 8U | lower)}; };
    ip.checksum = ChecksumSum{ends.sum}
                      .add(word(0x45, fields.tos))
                      .add(ip.total_length)
                      .add(ip.id)
                      .add(ip.fragment)
                      .add(word(fields.ttl, static_cast<std::uint8_t>(fields.protocol)))
                      .field();
    return;
  }
  header_at<Ipv6Header>(bytes, network) = {Be32{6U << 28U | std::uint32_t{fields.tos} << 20U},
                                           Be16{static_cast<std::uint16_t>(bytes.size() - network - sizeof(Ipv6Header))},
                                           fields.protocol,
                                           fields.ttl,
                                           ends.source.bytes(),
                                           ends.target.bytes()};
}

/// Says that the packet at `network` ends where `bytes` end; the IPv4 checksum stays true.
void set_ip_length(std::span<std::byte> bytes, std::size_t network, Family family);
/// Lowers TTL or hop limit by one, the IPv4 checksum by difference (RFC 1141). REQUIRES: it is not 0.
inline void lower_ttl(std::span<std::byte> bytes, std::size_t network, Family family) {
  if (family == Family::ipv6) {
    --header_at<Ipv6Header>(bytes, network).hop_limit;
    return;
  }
  auto& ip = header_at<Ipv4Header>(bytes, network);
  --ip.ttl;
  constexpr ChecksumDelta kOneLess{ChecksumSum{}.replace(Be16{0x0100}, Be16{0})};  // TTL is the upper byte of its word
  ip.checksum = kOneLess.applied_to(ip.checksum);
}
/// Replaces an address. The IPv4 checksum is the caller's business.
void put_address(std::span<std::byte> bytes, std::size_t network, AddressEnd end, const IpAddress& address);
[[nodiscard]] IpAddress address_at(std::span<const std::byte> bytes, std::size_t network, Family family, AddressEnd end);
/// TOS or traffic class.
[[nodiscard]] inline std::uint8_t tos_at(std::span<const std::byte> bytes, std::size_t network, Family family) {
  return family == Family::ipv4 ? header_at<Ipv4Header>(bytes, network).tos
                                : header_at<Ipv6Header>(bytes, network).traffic_class();
}
/// TTL or hop limit.
[[nodiscard]] inline std::uint8_t ttl_at(std::span<const std::byte> bytes, std::size_t network, Family family) {
  return family == Family::ipv4 ? header_at<Ipv4Header>(bytes, network).ttl
                                : header_at<Ipv6Header>(bytes, network).hop_limit;
}
/// Computes the IPv4 header checksum; of an IPv6 header there is none.
void fill_ip_checksum(std::span<std::byte> bytes, std::size_t network, Family family);

/// EtherType of the frame, for a packet of the other family than the frame had before.
inline void set_ether_type(std::span<std::byte> frame, Family family) {
  header_at<EthernetHeader>(frame, 0).type = Be16{static_cast<std::uint16_t>(ether_type(family))};
}

}  // namespace director
