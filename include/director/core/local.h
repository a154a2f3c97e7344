// What the director says itself: answers to ARP and echo, ICMP errors, TCP resets. Each turns the frame in hand into its answer;
// the caller finds the way back and seals it.
//
// Sources: RFC 792, RFC 1122 3.2.2, RFC 1812 4.3.2; what the kernel puts in each field: icmp.c (icmp_send), tcp_ipv4.c
// (tcp_v4_send_reset).
#pragma once

#include <cstdint>

#include "director/net/frame.h"
#include "director/net/packet.h"

namespace director {

/// "address is at mac": the ARP request becomes its answer, Ethernet header included.
void answer_arp(Frame& frame, const PacketView& view, const MacAddress& mac);

/// The echo request becomes the reply. REQUIRES: has_transport, ICMP type 8, not a fragment.
void answer_echo(Frame& frame, const PacketView& view, std::uint16_t id);

/// The timestamp request becomes the reply: received and answered at `milliseconds`. Reason::truncated_transport: not all there.
/// REQUIRES: has_transport, ICMP type 13, not a fragment.
[[nodiscard]] Reason answer_timestamp(Frame& frame, const PacketView& view, std::uint32_t milliseconds, std::uint16_t id);

struct IcmpError {
  std::uint8_t type;
  std::uint8_t code;
  std::uint16_t mtu = 0;  ///< with fragmentation needed (RFC 1191)
};
/// May this packet be answered with an ICMP error at all (RFC 1122, 3.2.2)? Not errors, later fragments, groups.
[[nodiscard]] bool may_answer_with_icmp(const Frame& frame, const PacketView& view);
/// The packet becomes an ICMP error from `source` to its sender, quoting it as it stands in the frame; at most 576 bytes.
/// REQUIRES: may_answer_with_icmp. Room for 28 bytes in front (Reason::no_headroom otherwise).
[[nodiscard]] Reason write_icmp_error(Frame& frame, const PacketView& view, IcmpError error, const IpAddress& source,
                                      std::uint16_t id);

/// The TCP segment becomes the reset its sender would get from a host without such a connection (RFC 9293, 3.10.7.1).
/// REQUIRES: has_transport, TCP, no RST in it.
void write_reset(Frame& frame, const PacketView& view);

/// The TCP segment becomes a reset in its own direction, taking its place in the sequence: for the end that still believes.
/// REQUIRES: has_transport, TCP.
void become_reset(Frame& frame, const PacketView& view);

}  // namespace director
