// IP headers of either family, written and changed in the same words: the second family is a value, not a second function.
//
// Offsets are from the first byte of `bytes`. Which family a header is of is known from PacketView or the addresses, never guessed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "director/net/address.h"
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

/// A header without options; lengths and checksum follow from what it stands in front of.
struct IpFields {
  IpAddress source, target;  ///< both of the header's family
  Protocol protocol = Protocol::ip;
  std::uint8_t ttl = 64;  ///< hop limit
  std::uint8_t tos = 0;   ///< traffic class
  bool dont_fragment = false;  ///< IPv4 only; of an IPv6 packet always true
  std::uint16_t id = 0;        ///< IPv4 only
};
/// Writes the header at `network`; everything from behind it to the end of `bytes` is its payload. The flow label is 0.
void write_ip_header(std::span<std::byte> bytes, std::size_t network, const IpFields& fields);

/// Says that the packet at `network` ends where `bytes` end; the IPv4 checksum stays true.
void set_ip_length(std::span<std::byte> bytes, std::size_t network, Family family);
/// Lowers TTL or hop limit by one, the IPv4 checksum by difference (RFC 1141). REQUIRES: it is not 0.
void lower_ttl(std::span<std::byte> bytes, std::size_t network, Family family);
/// Replaces an address. The IPv4 checksum is the caller's business.
void put_address(std::span<std::byte> bytes, std::size_t network, AddressEnd end, const IpAddress& address);
[[nodiscard]] IpAddress address_at(std::span<const std::byte> bytes, std::size_t network, Family family, AddressEnd end);
/// TOS or traffic class.
[[nodiscard]] std::uint8_t tos_at(std::span<const std::byte> bytes, std::size_t network, Family family);
/// TTL or hop limit.
[[nodiscard]] std::uint8_t ttl_at(std::span<const std::byte> bytes, std::size_t network, Family family);
/// Computes the IPv4 header checksum; of an IPv6 header there is none.
void fill_ip_checksum(std::span<std::byte> bytes, std::size_t network, Family family);

/// EtherType of the frame, for a packet of the other family than the frame had before.
void set_ether_type(std::span<std::byte> frame, Family family);

}  // namespace director
