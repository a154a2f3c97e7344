// VS/TUN: the packet travels inside another IP packet to a real server that may be anywhere (RFC 2003).
#pragma once

#include "director/core/change.h"
#include "director/net/address.h"
#include "director/net/frame.h"
#include "director/net/packet.h"

namespace director {

/// Recipe of a tunnel connection: the tunnel's far end. Its near end and MTU belong to the route and may change.
struct Tunnel {
  IpAddress remote;
};

/// Bytes the tunnel adds to each packet.
[[nodiscard]] std::size_t tunnel_overhead(const ServerConfig& server);

/// Puts the outer header in front of the packet. The outer TTL is the inner one, DSCP and ECN follow RFC 6040's normal mode as the
/// kernel has it (inner CE becomes ECT(0) outside), DF is copied if `copy_df`, the ID is 0 with DF and `id` without.
/// Source: ip_vs_xmit.c, ip_vs_tunnel_xmit; net/inet_ecn.h. Reason::no_headroom.
/// REQUIRES: the frame is no super-frame (an IPIP super-frame can't be described to the kernel); cut it first.
[[nodiscard]] Reason encapsulate(Frame& frame, const PacketView& view, const IpAddress& local,
                                 const IpAddress& remote, bool copy_df, std::uint16_t id);

}  // namespace director
