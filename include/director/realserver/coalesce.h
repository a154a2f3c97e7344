// coalesce(): joins the consecutive TCP segments of a batch into super-frames again, so that the stack takes them in one go.
//
// A director cuts a super-frame to put it into a tunnel; here its segments come out, and each would cost the stack as much as all of them
// together. What the kernel's GRO asks of two segments is asked here (net/ipv4/tcp_offload.c, tcp_gro_receive): the same headers but
// for lengths, sequence and checksums; no flag but ACK and, on the last, PSH; the next in sequence; no longer than the first. The order
// of a connection's packets stays. What can't be joined isn't touched, wrong checksums included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "director/net/frame.h"

namespace director::realserver {

/// Joins what it can of `packets`, which start at their IP headers, lie in storage with room behind them, and are in the order they came
/// in. Those that are left are moved to the front; `stands_for` says how many each of them was. Returns how many are left.
/// REQUIRES: stands_for has as many places.
std::size_t coalesce(std::span<Frame*> packets, std::span<std::uint16_t> stands_for);

}  // namespace director::realserver
