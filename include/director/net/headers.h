// Wire formats: Ethernet, ARP, IPv4, IPv6, TCP, UDP, ICMP as structs of bytes and big-endian numbers.
//
// All have alignment 1. header_at<T>() is the only way from bytes to a header, and parse_packet() (packet.h) the only
// code that doubts lengths.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "director/net/address.h"
#include "director/net/endian.h"

namespace director {

/// The header of type T at `offset`. REQUIRES: offset + sizeof(T) <= bytes.size(), checked before by parse_packet.
template <typename T>
T& header_at(std::span<std::byte> bytes, std::size_t offset) {
  static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
  assert(offset + sizeof(T) <= bytes.size());
  return *reinterpret_cast<T*>(bytes.data() + offset);
}
template <typename T>
const T& header_at(std::span<const std::byte> bytes, std::size_t offset) {
  static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
  assert(offset + sizeof(T) <= bytes.size());
  return *reinterpret_cast<const T*>(bytes.data() + offset);
}

enum class EtherType : std::uint16_t { ipv4 = 0x0800, arp = 0x0806, vlan = 0x8100, ipv6 = 0x86dd };

struct EthernetHeader {
  MacAddress target;
  MacAddress source;
  Be16 type;
};
static_assert(sizeof(EthernetHeader) == 14 && alignof(EthernetHeader) == 1);

/// ARP for IPv4 over Ethernet (RFC 826).
struct ArpHeader {
  Be16 hardware;                 // 1: Ethernet
  Be16 protocol;                 // 0x0800
  std::uint8_t hardware_length;  // 6
  std::uint8_t protocol_length;  // 4
  Be16 operation;
  MacAddress sender_mac;
  Be32 sender_ip;
  MacAddress target_mac;
  Be32 target_ip;

  static constexpr std::uint16_t kRequest = 1;
  static constexpr std::uint16_t kReply = 2;
};
static_assert(sizeof(ArpHeader) == 28 && alignof(ArpHeader) == 1);

/// RFC 791.
struct Ipv4Header {
  std::uint8_t version_ihl;
  std::uint8_t tos;
  Be16 total_length;
  Be16 id;
  Be16 fragment;  // flags and offset
  std::uint8_t ttl;
  Protocol protocol;
  Be16 checksum;
  Be32 source;
  Be32 target;

  static constexpr std::uint16_t kReserved = 0x8000;
  static constexpr std::uint16_t kDontFragment = 0x4000;
  static constexpr std::uint16_t kMoreFragments = 0x2000;
  static constexpr std::uint16_t kOffsetMask = 0x1fff;  // in units of 8 bytes

  [[nodiscard]] std::size_t header_length() const { return std::size_t{version_ihl & 0x0fU} * 4; }
  [[nodiscard]] bool dont_fragment() const { return (fragment.host() & kDontFragment) != 0; }
  [[nodiscard]] bool more_fragments() const { return (fragment.host() & kMoreFragments) != 0; }
  /// In bytes.
  [[nodiscard]] std::size_t fragment_offset() const {
    return std::size_t{fragment.host() & std::uint32_t{kOffsetMask}} * 8;
  }
};
static_assert(sizeof(Ipv4Header) == 20 && alignof(Ipv4Header) == 1);

/// RFC 8200.
struct Ipv6Header {
  Be32 version_class_flow;
  Be16 payload_length;
  Protocol next_header;
  std::uint8_t hop_limit;
  std::array<std::uint8_t, 16> source;
  std::array<std::uint8_t, 16> target;

  [[nodiscard]] std::uint8_t traffic_class() const {
    return static_cast<std::uint8_t>(version_class_flow.host() >> 20U);
  }
  [[nodiscard]] std::uint32_t flow_label() const { return version_class_flow.host() & 0xfffffU; }
};
static_assert(sizeof(Ipv6Header) == 40 && alignof(Ipv6Header) == 1);

/// What all IPv6 extension headers begin with (RFC 8200, 4; RFC 4302 for authentication).
struct Ipv6Extension {
  Protocol next_header;
  std::uint8_t length;  // beyond the first 8 bytes, in units of 8; of authentication: beyond 8, in units of 4

  static constexpr Protocol kHopByHop{0};
  static constexpr Protocol kRouting{43};
  static constexpr Protocol kFragment{44};
  static constexpr Protocol kAuthentication{51};
  static constexpr Protocol kNoNext{59};
  static constexpr Protocol kDestinationOptions{60};
};
static_assert(sizeof(Ipv6Extension) == 2 && alignof(Ipv6Extension) == 1);

/// RFC 8200, 4.5.
struct Ipv6Fragment {
  Protocol next_header;
  std::uint8_t reserved;
  Be16 fragment;  // offset, in units of 8 bytes times 8, and flags
  Be32 id;

  static constexpr std::uint16_t kMoreFragments = 0x0001;
  static constexpr std::uint16_t kOffsetMask = 0xfff8;

  [[nodiscard]] bool more_fragments() const { return (fragment.host() & kMoreFragments) != 0; }
  /// In bytes.
  [[nodiscard]] std::size_t fragment_offset() const { return fragment.host() & std::uint32_t{kOffsetMask}; }
};
static_assert(sizeof(Ipv6Fragment) == 8 && alignof(Ipv6Fragment) == 1);

/// RFC 8200, 4.4.
struct Ipv6Routing {
  Protocol next_header;
  std::uint8_t length;
  std::uint8_t type;
  std::uint8_t segments_left;
};
static_assert(sizeof(Ipv6Routing) == 4 && alignof(Ipv6Routing) == 1);

/// RFC 9293.
struct TcpHeader {
  Port source;
  Port target;
  Be32 sequence;
  Be32 acknowledgement;
  std::uint8_t offset;  // upper four bits: header length in 32-bit words
  std::uint8_t flags;
  Be16 window;
  Be16 checksum;
  Be16 urgent;

  static constexpr std::uint8_t kFin = 0x01;
  static constexpr std::uint8_t kSyn = 0x02;
  static constexpr std::uint8_t kRst = 0x04;
  static constexpr std::uint8_t kPsh = 0x08;
  static constexpr std::uint8_t kAck = 0x10;
  static constexpr std::uint8_t kUrg = 0x20;
  static constexpr std::uint8_t kEce = 0x40;
  static constexpr std::uint8_t kCwr = 0x80;

  [[nodiscard]] std::size_t header_length() const { return std::size_t{offset} / 16 * 4; }
};
static_assert(sizeof(TcpHeader) == 20 && alignof(TcpHeader) == 1);

/// RFC 768.
struct UdpHeader {
  Port source;
  Port target;
  Be16 length;
  Be16 checksum;  // 0: none was computed
};
static_assert(sizeof(UdpHeader) == 8 && alignof(UdpHeader) == 1);

/// RFC 2784. With kChecksum four more bytes follow: the checksum and two of zero.
struct GreHeader {
  Be16 flags_version;
  Be16 protocol;  // an EtherType

  static constexpr std::uint16_t kChecksum = 0x8000;
};
static_assert(sizeof(GreHeader) == 4 && alignof(GreHeader) == 1);

/// Generic UDP Encapsulation, variant 0, behind a UDP header (draft-ietf-intarea-gue; linux: include/net/gue.h).
struct GueHeader {
  std::uint8_t variant_control_length;  // 2, 1 and 5 bits; the length counts 32-bit words behind this header
  Protocol protocol;                    // of what is inside
  Be16 flags;

  static constexpr std::uint8_t kVariantControl = 0xe0;
  static constexpr std::uint8_t kLength = 0x1f;
  static constexpr std::uint16_t kPrivate = 0x0001;  // flags: a word of private flags follows
};
static_assert(sizeof(GueHeader) == 4 && alignof(GueHeader) == 1);

/// GUE's private flags, and the remote checksum that kRemoteChecksum announces: the field at `field` holds the pseudo-header's sum,
/// and the tunnel's far end adds the bytes from `start` on. Both are counted from the inner packet's first byte.
struct GueRemoteChecksum {
  Be32 private_flags;
  Be16 start;
  Be16 field;

  static constexpr std::uint32_t kRemoteChecksum = 0x80000000;
};
static_assert(sizeof(GueRemoteChecksum) == 8 && alignof(GueRemoteChecksum) == 1);

/// The ports that TCP, UDP and SCTP all begin with.
struct PortsHeader {
  Port source;
  Port target;
};
static_assert(sizeof(PortsHeader) == 4 && alignof(PortsHeader) == 1);

/// RFC 792 and RFC 4443: the part all messages share.
struct IcmpHeader {
  std::uint8_t type;
  std::uint8_t code;
  Be16 checksum;
  Be16 word0;  // identifier, or unused
  Be16 word1;  // sequence number, or the next hop's MTU (RFC 1191)

  static constexpr std::uint8_t kEchoReply = 0;
  static constexpr std::uint8_t kUnreachable = 3;
  static constexpr std::uint8_t kSourceQuench = 4;
  static constexpr std::uint8_t kRedirect = 5;
  static constexpr std::uint8_t kEcho = 8;
  static constexpr std::uint8_t kTimeExceeded = 11;
  static constexpr std::uint8_t kParameterProblem = 12;
  static constexpr std::uint8_t kTimestamp = 13;
  static constexpr std::uint8_t kTimestampReply = 14;

  static constexpr std::uint8_t kHostUnreachable = 1;  // codes of kUnreachable
  static constexpr std::uint8_t kProtocolUnreachable = 2;
  static constexpr std::uint8_t kPortUnreachable = 3;
  static constexpr std::uint8_t kFragmentationNeeded = 4;
};
static_assert(sizeof(IcmpHeader) == 8 && alignof(IcmpHeader) == 1);

/// Numbers of ICMPv6 (RFC 4443, RFC 4861, RFC 2710, RFC 3810) for an IcmpHeader's type and code.
struct Icmpv6 {
  static constexpr std::uint8_t kUnreachable = 1;
  static constexpr std::uint8_t kTooBig = 2;
  static constexpr std::uint8_t kTimeExceeded = 3;
  static constexpr std::uint8_t kParameterProblem = 4;
  static constexpr std::uint8_t kFirstQuery = 128;  // smaller types are errors and quote a packet
  static constexpr std::uint8_t kEcho = 128;
  static constexpr std::uint8_t kEchoReply = 129;
  static constexpr std::uint8_t kListenerQuery = 130;
  static constexpr std::uint8_t kListenerReport = 131;    // of version 1
  static constexpr std::uint8_t kNeighbourSolicitation = 135;
  static constexpr std::uint8_t kNeighbourAdvertisement = 136;
  static constexpr std::uint8_t kListenerReport2 = 143;

  static constexpr std::uint8_t kNoRoute = 0;  // codes of kUnreachable
  static constexpr std::uint8_t kProhibited = 1;
  static constexpr std::uint8_t kAddressUnreachable = 3;
  static constexpr std::uint8_t kPortUnreachable = 4;
  static constexpr std::uint8_t kUnknownNextHeader = 1;  // code of kParameterProblem
};

/// Neighbour solicitation and advertisement without their options (RFC 4861, 4.3 and 4.4).
struct NeighbourHeader {
  std::uint8_t type;
  std::uint8_t code;
  Be16 checksum;
  Be32 flags;  // of an advertisement
  std::array<std::uint8_t, 16> target;

  static constexpr std::uint32_t kRouter = 0x80000000;
  static constexpr std::uint32_t kSolicited = 0x40000000;
  static constexpr std::uint32_t kOverride = 0x20000000;
};
static_assert(sizeof(NeighbourHeader) == 24 && alignof(NeighbourHeader) == 1);

/// The option that says a link-layer address, on Ethernet (RFC 4861, 4.6.1; RFC 2464, 6).
struct LinkAddressOption {
  std::uint8_t type;
  std::uint8_t length;  // 1, in units of 8 bytes
  MacAddress mac;

  static constexpr std::uint8_t kSource = 1;
  static constexpr std::uint8_t kTarget = 2;
};
static_assert(sizeof(LinkAddressOption) == 8 && alignof(LinkAddressOption) == 1);

}  // namespace director
