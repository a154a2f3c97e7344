// Addresses: MacAddress, IpAddress (both families in one value), Prefix, Port, Protocol, Endpoint, FlowKey.
//
// Values with order, equality and text. No resolver: names are the control tool's business.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "director/net/endian.h"

namespace director {

struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};

  static std::optional<MacAddress> parse(std::string_view text);                 ///< "02:00:00:00:00:0a"
  [[nodiscard]] constexpr bool is_group() const { return (bytes[0] & 1U) != 0; }  ///< multicast or broadcast
  friend constexpr auto operator<=>(const MacAddress&, const MacAddress&) = default;
  /// In words, not by memcmp: every frame's target is compared.
  friend constexpr bool operator==(const MacAddress& a, const MacAddress& b) {
    const auto x = std::bit_cast<std::array<std::uint16_t, 3>>(a.bytes);
    const auto y = std::bit_cast<std::array<std::uint16_t, 3>>(b.bytes);
    return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2])) == 0;
  }
};
inline constexpr MacAddress kBroadcastMac{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
static_assert(sizeof(MacAddress) == 6);

enum class Family : std::uint8_t { ipv4 = 4, ipv6 = 6 };

/// An IPv4 or IPv6 address in 16 bytes: IPv4 is kept as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), which is never a valid address
/// on the wire, so the family needs no byte of its own and tables hold both families alike.
class IpAddress {
 public:
  constexpr IpAddress() : bytes_{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0} {}  // 0.0.0.0
  static constexpr IpAddress v4(Be32 wire) {
    IpAddress a;
    a.bytes_ = std::bit_cast<std::array<std::uint8_t, 16>>(Words{0, 0, kMapped, wire.raw()});
    return a;
  }
  static constexpr IpAddress v4(std::uint32_t host) { return v4(Be32{host}); }
  static constexpr IpAddress v6(const std::array<std::uint8_t, 16>& wire) {
    IpAddress a;
    a.bytes_ = wire;
    return a;
  }
  /// "10.9.0.1" or "2001:db8::1", without brackets.
  static std::optional<IpAddress> parse(std::string_view text);

  [[nodiscard]] constexpr Family family() const { return is_v4() ? Family::ipv4 : Family::ipv6; }
  [[nodiscard]] constexpr bool is_v4() const {
    const auto words = std::bit_cast<Words>(bytes_);
    return (words[0] | words[1] | (words[2] ^ kMapped)) == 0;
  }
  /// REQUIRES: is_v4()
  [[nodiscard]] constexpr Be32 v4_wire() const {
    return Be32::from_raw(std::bit_cast<Words>(bytes_)[3]);
  }
  /// All 16 bytes; IPv4 as ::ffff:a.b.c.d.
  [[nodiscard]] constexpr const std::array<std::uint8_t, 16>& bytes() const { return bytes_; }
  /// The address as it stands on the wire: 4 or 16 bytes.
  [[nodiscard]] constexpr std::span<const std::uint8_t> wire() const {
    const std::span<const std::uint8_t> all{bytes_};
    return is_v4() ? all.subspan(12) : all;
  }
  [[nodiscard]] constexpr bool is_unspecified() const {  ///< 0.0.0.0 or ::
    for (const std::uint8_t b : wire())
      if (b != 0) return false;
    return true;
  }
  [[nodiscard]] constexpr bool is_multicast() const {
    return is_v4() ? (bytes_[12] & 0xf0U) == 0xe0 : bytes_[0] == 0xff;
  }
  [[nodiscard]] constexpr bool is_broadcast() const { return *this == v4(0xffffffffU); }
  [[nodiscard]] constexpr bool is_link_local() const {  ///< 169.254/16 or fe80::/10: means a neighbour on one link
    return is_v4() ? bytes_[12] == 169 && bytes_[13] == 254 : bytes_[0] == 0xfe && (bytes_[1] & 0xc0U) == 0x80;
  }
  [[nodiscard]] constexpr bool is_loopback() const {
    return is_v4() ? bytes_[12] == 127 : *this == v6({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
  }

  friend constexpr bool operator==(const IpAddress& a, const IpAddress& b) {
    const auto x = std::bit_cast<std::array<std::uint64_t, 2>>(a.bytes_);
    const auto y = std::bit_cast<std::array<std::uint64_t, 2>>(b.bytes_);
    return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
  }
  friend constexpr auto operator<=>(const IpAddress&, const IpAddress&) = default;

 private:
  using Words = std::array<std::uint32_t, 4>;  // as the machine loads them
  static constexpr std::uint32_t kMapped = std::bit_cast<std::uint32_t>(std::array<std::uint8_t, 4>{0, 0, 0xff, 0xff});

  std::array<std::uint8_t, 16> bytes_;
};
static_assert(sizeof(IpAddress) == 16);

/// For tables whose keys are the operator's choice (virtual addresses, neighbours), not an attacker's.
struct AddressHash {
  std::size_t operator()(const IpAddress& a) const {
    const auto [high, low] = std::bit_cast<std::array<std::uint64_t, 2>>(a.bytes());
    const std::uint64_t mixed = (high ^ (low * 0x9e3779b97f4a7c15ULL)) * 0xff51afd7ed558ccdULL;
    return mixed ^ (mixed >> 32U);
  }
};

/// ff02::1, every IPv6 node on the link.
inline constexpr IpAddress kAllNodes = IpAddress::v6({0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
/// The group that neighbour solicitations for this IPv6 address go to: ff02::1:ffXX:XXXX (RFC 4291, 2.7.1).
[[nodiscard]] constexpr IpAddress solicited_node(const IpAddress& a) {
  const auto& b = a.bytes();
  return IpAddress::v6({0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, b[13], b[14], b[15]});
}
/// Where Ethernet frames for an IPv6 group go: 33:33 and its last four bytes (RFC 2464, 7).
[[nodiscard]] constexpr MacAddress group_mac(const IpAddress& group) {
  const auto& b = group.bytes();
  return MacAddress{{0x33, 0x33, b[12], b[13], b[14], b[15]}};
}
/// The link-local address an interface with this MAC address gives itself (RFC 4291, appendix A).
[[nodiscard]] constexpr IpAddress link_local(const MacAddress& mac) {
  const auto& m = mac.bytes;
  return IpAddress::v6({0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(m[0] ^ 2U), m[1], m[2], 0xff, 0xfe, m[3],
                        m[4], m[5]});
}

/// A network: an address of which the leading `length` bits count (0..32 or 0..128). Host bits are kept as given:
/// 10.9.0.2/24 is both an interface's address and its subnet.
struct Prefix {
  IpAddress address;
  std::uint8_t length = 0;

  static std::optional<Prefix> parse(std::string_view text);  ///< "10.9.0.2/24"; without "/n" a host
  [[nodiscard]] bool contains(const IpAddress& a) const;
  [[nodiscard]] IpAddress network() const;    ///< the address with its host bits cleared
  [[nodiscard]] IpAddress broadcast() const;  ///< the address with its host bits set
  friend constexpr bool operator==(const Prefix&, const Prefix&) = default;
};

/// A TCP, UDP or SCTP port number. Port{80} does not compile; Port::of(80) does.
struct Port {
  Be16 wire;
  static constexpr Port of(std::uint16_t host) { return Port{Be16{host}}; }
  [[nodiscard]] constexpr std::uint16_t host() const { return wire.host(); }
  friend constexpr bool operator==(const Port&, const Port&) = default;
  friend constexpr auto operator<=>(const Port&, const Port&) = default;
};

/// IP protocol numbers (IANA) the director knows by name; every other value is legal too.
enum class Protocol : std::uint8_t {
  ip = 0,  ///< "any", as a class service and its templates have
  icmp = 1,
  ipip = 4,
  tcp = 6,
  udp = 17,
  ipv6 = 41,
  gre = 47,
  icmpv6 = 58,
  sctp = 132,
};

struct Endpoint {
  IpAddress address;
  Port port;
  friend constexpr bool operator==(const Endpoint&, const Endpoint&) = default;
  friend constexpr auto operator<=>(const Endpoint&, const Endpoint&) = default;
};

/// The five values a packet's flow is known by, in the packet's own direction.
struct FlowKey {
  Endpoint source;
  Endpoint target;
  Protocol protocol = Protocol::ip;

  [[nodiscard]] constexpr FlowKey reversed() const { return {target, source, protocol}; }
  friend constexpr bool operator==(const FlowKey&, const FlowKey&) = default;
};
static_assert(sizeof(FlowKey) == 37 && alignof(FlowKey) == 1, "hashed as bytes: no padding");

// Each prints in one line, here and nowhere else (fmt finds format_as by its argument).
std::string format_as(const MacAddress& a);
std::string format_as(const IpAddress& a);
std::string format_as(const Prefix& p);
std::string format_as(const Endpoint& e);  ///< 10.9.0.1:80, [2001:db8::1]:80
std::string format_as(Protocol p);         ///< "TCP", "UDP", "SCTP", "ICMP", "IP" ... or the number

}  // namespace director
