// VS/NAT: the destination becomes the real server's, and in replies the source becomes the virtual service's again.
//
// The addresses are known when the connection opens, so the checksums' differences are too: per packet NAT is "copy an
// endpoint, add two differences" (RFC 1624).
#pragma once

#include "director/net/address.h"
#include "director/net/checksum.h"
#include "director/net/frame.h"
#include "director/net/packet.h"

namespace director {

/// Which end of the packet is rewritten.
enum class NatEnd : std::uint8_t { target, source };  ///< requests, replies

/// What becomes of a UDP checksum of 0, "none" (RFC 768).
enum class ZeroChecksum : std::uint8_t {
  stays,   ///< we don't vouch for bytes nobody protected
  filled,  ///< computed, as the kernel does (ip_vs_proto_udp.c), where the whole datagram is in hand
};

/// Recipe of one direction of a NAT connection.
struct Nat {
  Endpoint replacement;        ///< what the end becomes
  ChecksumDelta address_delta;   ///< what the new address does to any sum that covers it
  ChecksumDelta endpoint_delta;  ///< what the new address and port do to a transport checksum
  NatEnd end = NatEnd::target;
  ZeroChecksum zero_checksum = ZeroChecksum::stays;

  Nat() = default;
  Nat(NatEnd which, const Endpoint& before, const Endpoint& after, ZeroChecksum zero = ZeroChecksum::stays);
};

/// Rewrites addresses, ports and checksums in place; partial checksums stay partial and true.
/// Reason::truncated_transport: no whole transport header to rewrite.
[[nodiscard]] Reason apply(const Nat& nat, Frame& frame, const PacketView& view);

/// Rewrites an ICMP error about a NAT connection, outside and inside (RFC 5508, 4.2): the outer address, and in the quoted packet the
/// address and port the translated packet had. The quoted IP checksum and the ICMP checksum become true.
/// REQUIRES: `quoted` is of the same family and was read from behind the ICMP header at view.transport.
void translate_icmp_error(const Nat& nat, Frame& frame, const PacketView& view, const QuotedPacket& quoted);

}  // namespace director
