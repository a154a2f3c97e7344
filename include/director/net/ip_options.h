// IPv4 options as a host on the way treats them (RFC 791, 3.1; RFC 1812, 5.2.4): source routes are refused, record route and timestamp
// get an entry, everything else passes.
//
// Used by the balancer for packets with options, which are rare. Source of the details: net/ipv4/ip_options.c.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "director/core/verdict.h"
#include "director/net/address.h"

namespace director {

/// Enters `here` (whose address records should show) and `milliseconds` in the options of this IP header, and keeps its checksum true.
/// Reason::source_route, Reason::bad_options: the packet is to be dropped; it may have been changed.
/// `milliseconds`: since midnight UT, or with the high-order bit set of any other clock.
/// REQUIRES: `header` is a whole IPv4 header.
[[nodiscard]] Reason enter_in_options(std::span<std::byte> header, const IpAddress& here,
                                      std::uint32_t milliseconds);

}  // namespace director
