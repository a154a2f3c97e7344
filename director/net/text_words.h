// Words of packet text that printing and parsing share: ICMP messages by name (RFC 792, RFC 1191), TCP flags,
// usual values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "director/net/headers.h"

namespace director {

/// In the order they are printed.
inline constexpr std::array<std::pair<std::uint8_t, char>, 8> kTcpFlagLetters{{{TcpHeader::kSyn, 'S'},
                                                                               {TcpHeader::kFin, 'F'},
                                                                               {TcpHeader::kRst, 'R'},
                                                                               {TcpHeader::kPsh, 'P'},
                                                                               {TcpHeader::kAck, 'A'},
                                                                               {TcpHeader::kUrg, 'U'},
                                                                               {TcpHeader::kEce, 'E'},
                                                                               {TcpHeader::kCwr, 'C'}}};
inline constexpr std::uint8_t kUsualTtl = 64;
inline constexpr std::uint16_t kUsualWindow = 65535;
inline constexpr Port kUsualGuePort = Port::of(6080);  ///< IANA's for GUE
/// Byte i of a payload nobody described: the alphabet, again and again.
[[nodiscard]] constexpr std::byte usual_payload(std::size_t i) {
  return static_cast<std::byte>('a' + i % 26);
}

/// What the four bytes behind the ICMP checksum are.
enum class IcmpRest : std::uint8_t { other, echo, mtu, gateway };

struct IcmpName {
  std::string_view name;
  std::uint8_t type;
  std::uint8_t code;
  IcmpRest rest;
  bool quotes;  ///< an error: the packet it is about follows
};

inline constexpr std::array kIcmpNames{
    IcmpName{"echo-reply", IcmpHeader::kEchoReply, 0, IcmpRest::echo, false},
    IcmpName{"echo-request", IcmpHeader::kEcho, 0, IcmpRest::echo, false},
    IcmpName{"net-unreachable", IcmpHeader::kUnreachable, 0, IcmpRest::other, true},
    IcmpName{"host-unreachable", IcmpHeader::kUnreachable, IcmpHeader::kHostUnreachable, IcmpRest::other,
             true},
    IcmpName{"protocol-unreachable", IcmpHeader::kUnreachable, IcmpHeader::kProtocolUnreachable,
             IcmpRest::other, true},
    IcmpName{"port-unreachable", IcmpHeader::kUnreachable, IcmpHeader::kPortUnreachable, IcmpRest::other,
             true},
    IcmpName{"frag-needed", IcmpHeader::kUnreachable, IcmpHeader::kFragmentationNeeded, IcmpRest::mtu, true},
    IcmpName{"source-route-failed", IcmpHeader::kUnreachable, 5, IcmpRest::other, true},
    IcmpName{"prohibited", IcmpHeader::kUnreachable, 13, IcmpRest::other, true},
    IcmpName{"source-quench", IcmpHeader::kSourceQuench, 0, IcmpRest::other, true},
    IcmpName{"redirect-net", IcmpHeader::kRedirect, 0, IcmpRest::gateway, true},
    IcmpName{"redirect", IcmpHeader::kRedirect, 1, IcmpRest::gateway, true},
    IcmpName{"ttl-exceeded", IcmpHeader::kTimeExceeded, 0, IcmpRest::other, true},
    IcmpName{"reassembly-exceeded", IcmpHeader::kTimeExceeded, 1, IcmpRest::other, true},
    IcmpName{"parameter-problem", IcmpHeader::kParameterProblem, 0, IcmpRest::other, true},
};

/// ICMPv6's (RFC 4443); what says the same is called the same.
inline constexpr std::array kIcmpv6Names{
    IcmpName{"echo-reply", Icmpv6::kEchoReply, 0, IcmpRest::echo, false},
    IcmpName{"echo-request", Icmpv6::kEcho, 0, IcmpRest::echo, false},
    IcmpName{"no-route", Icmpv6::kUnreachable, Icmpv6::kNoRoute, IcmpRest::other, true},
    IcmpName{"prohibited", Icmpv6::kUnreachable, Icmpv6::kProhibited, IcmpRest::other, true},
    IcmpName{"host-unreachable", Icmpv6::kUnreachable, Icmpv6::kAddressUnreachable, IcmpRest::other, true},
    IcmpName{"port-unreachable", Icmpv6::kUnreachable, Icmpv6::kPortUnreachable, IcmpRest::other, true},
    IcmpName{"too-big", Icmpv6::kTooBig, 0, IcmpRest::mtu, true},
    IcmpName{"ttl-exceeded", Icmpv6::kTimeExceeded, 0, IcmpRest::other, true},
    IcmpName{"reassembly-exceeded", Icmpv6::kTimeExceeded, 1, IcmpRest::other, true},
    IcmpName{"parameter-problem", Icmpv6::kParameterProblem, 0, IcmpRest::other, true},
    IcmpName{"unknown-next-header", Icmpv6::kParameterProblem, Icmpv6::kUnknownNextHeader, IcmpRest::other, true},
};

[[nodiscard]] constexpr std::span<const IcmpName> icmp_names(Family family) {
  return family == Family::ipv4 ? std::span<const IcmpName>{kIcmpNames} : std::span<const IcmpName>{kIcmpv6Names};
}
[[nodiscard]] constexpr const IcmpName* icmp_name(Family family, std::uint8_t type, std::uint8_t code) {
  for (const IcmpName& n : icmp_names(family))
    if (n.type == type && n.code == code) return &n;
  return nullptr;
}
[[nodiscard]] constexpr const IcmpName* icmp_name(Family family, std::string_view name) {
  for (const IcmpName& n : icmp_names(family))
    if (n.name == name) return &n;
  return nullptr;
}

/// The TTL that nobody mentions: neighbour discovery and listener messages have theirs by RFC 4861 and RFC 2710.
[[nodiscard]] constexpr std::uint8_t usual_ttl(Protocol protocol, std::uint8_t icmp_type) {
  if (protocol != Protocol::icmpv6) return kUsualTtl;
  switch (icmp_type) {
    case Icmpv6::kNeighbourSolicitation:
    case Icmpv6::kNeighbourAdvertisement: return 255;
    case Icmpv6::kListenerQuery:
    case Icmpv6::kListenerReport:
    case Icmpv6::kListenerReport2: return 1;
    default: return kUsualTtl;
  }
}
/// The hop-by-hop header of listener messages, without its next header: a router alert (RFC 2711).
inline constexpr std::string_view kRouterAlertText = "0/00050200000100";

}  // namespace director
