// The checksum of ICMP messages: of ICMPv6 it covers a pseudo-header (RFC 4443, 2.3), of ICMP it doesn't (RFC 792).
#pragma once

#include <cstddef>
#include <span>

#include "director/net/packet.h"

namespace director {

/// Whether the message's checksum is right. Addresses are taken from the packet as it stands, not from the view.
[[nodiscard]] bool icmp_checksum_true(std::span<const std::byte> frame, const PacketView& view);
/// Computes it. The message reaches from view.transport to the end of the frame.
void fill_icmp_checksum(std::span<std::byte> frame, const PacketView& view);

}  // namespace director
