// Asking a link "who has this address?", by ARP or neighbour discovery, as frames: what to send and how to
// read an answer.
//
// `realserver check` sends these itself instead of asking the kernel's neighbour table, because the table
// keeps one answer and the mistake to be found is that two hosts answer.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "director/net/address.h"
#include "director/net/headers.h"

namespace director::realserver {

/// An ARP request (RFC 826) or a neighbour solicitation (RFC 4861, 4.3) for `asked`. `source` is an address
/// of the asking interface and of the same family; unspecified if it has none (an ARP probe, RFC 5227).
[[nodiscard]] std::vector<std::byte> probe_frame(const MacAddress& own, const IpAddress& source,
                                                 const IpAddress& asked);

/// The MAC that claims `asked` in this Ethernet frame, if the frame is such a claim.
[[nodiscard]] std::optional<MacAddress> claimed_by(std::span<const std::byte> frame, const IpAddress& asked);

/// The Ethernet type answers come with.
[[nodiscard]] EtherType probe_type(const IpAddress& asked);

}  // namespace director::realserver
