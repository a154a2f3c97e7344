// What the director says itself: answers to ARP and echo, ICMP errors, TCP resets. Each turns the frame in hand into its answer;
// the caller finds the way back and seals it.
//
// Sources: RFC 792, RFC 1122 3.2.2, RFC 1812 4.3.2, RFC 4443; what the kernel puts in each field: icmp.c (icmp_send), tcp_ipv4.c
// (tcp_v4_send_reset), net/ipv6/icmp.c (icmp6_send), tcp_ipv6.c (tcp_v6_send_response).
#pragma once

#include <cstdint>
#include <optional>

#include "director/net/frame.h"
#include "director/net/packet.h"

namespace director {

/// "address is at mac": the ARP request becomes its answer, Ethernet header included.
void answer_arp(Frame& frame, const PacketView& view, const MacAddress& mac);

/// The echo request becomes the reply. REQUIRES: has_transport, an echo request of the view's family, not a fragment.
void answer_echo(Frame& frame, const PacketView& view, std::uint16_t id);

/// The timestamp request becomes the reply: received and answered at `milliseconds`. Reason::truncated_transport: not all there.
/// REQUIRES: has_transport, ICMP type 13, not a fragment.
[[nodiscard]] Reason answer_timestamp(Frame& frame, const PacketView& view, std::uint32_t milliseconds, std::uint16_t id);

/// What can be wrong with a packet, whatever its family.
enum class Complaint : std::uint8_t { no_route, host_unreachable, port_unreachable, protocol_unreachable, too_big, ttl_exceeded };

struct IcmpError {
  std::uint8_t type;
  std::uint8_t code;
  std::uint32_t word = 0;  ///< behind the checksum: the MTU (RFC 1191; RFC 4443, 3.2) or what parameter is the problem
};
/// How a complaint is said in ICMP or ICMPv6. `word`: the MTU with too_big.
[[nodiscard]] IcmpError icmp_error(Family family, Complaint complaint, std::uint32_t word = 0);
/// The complaint that an error of this family makes; nothing: another one.
[[nodiscard]] std::optional<Complaint> complaint_of(Family family, const IcmpHeader& icmp);
/// May this packet be answered with an ICMP error at all (RFC 1122, 3.2.2; RFC 4443, 2.4)? Not errors, later fragments, groups.
[[nodiscard]] bool may_answer_with_icmp(const Frame& frame, const PacketView& view);
/// The packet becomes an ICMP error from `source` to its sender, quoting it as it stands in the frame; at most 576 bytes of IPv4 and
/// 1280 of IPv6. REQUIRES: may_answer_with_icmp. Room for 48 bytes in front (Reason::no_headroom otherwise).
[[nodiscard]] Reason write_icmp_error(Frame& frame, const PacketView& view, IcmpError error, const IpAddress& source,
                                      std::uint16_t id);

/// Whether a host would look at the packet at all: TCP and UDP with the lengths and the checksum they should have. What isn't intact
/// is dropped in silence there, not refused (tcp_ipv4.c, tcp_v4_rcv; udp.c, __udp4_lib_rcv).
[[nodiscard]] bool transport_intact(const Frame& frame, const PacketView& view);

/// Of the segment at `transport`, which ends with `bytes`.
void write_tcp_checksum(std::span<std::byte> bytes, std::size_t transport, const FlowKey& flow);
/// The TCP segment becomes the reset its sender would get from a host without such a connection (RFC 9293, 3.10.7.1).
/// REQUIRES: has_transport, TCP, no RST in it.
void write_reset(Frame& frame, const PacketView& view);

/// The TCP segment becomes a reset in its own direction, taking its place in the sequence: for the end that still believes.
/// REQUIRES: has_transport, TCP.
void become_reset(Frame& frame, const PacketView& view);

}  // namespace director
