// VS/TUN: the packet travels inside another IP packet to a real server that may be anywhere: bare (RFC 2003, RFC 2473, RFC 4213), in GRE
// (RFC 2784), or in UDP with a GUE header. Either address family may be inside or outside.
#pragma once

#include "director/core/change.h"
#include "director/net/address.h"
#include "director/net/frame.h"
#include "director/net/ip_header.h"
#include "director/net/packet.h"

namespace director {

/// Recipe of a tunnel connection: the tunnel's far end. Its near end and MTU belong to the route, the kind of tunnel to the real server;
/// both may change under a connection.
struct Tunnel {
  IpAddress remote;
};

/// What the outer headers of all packets to one real server have in common.
struct OuterHeaders {
  IpEnds ends;  ///< the near one is of the route to the far one
  TunnelType type = TunnelType::ipip;
  TunnelChecksum checksum = TunnelChecksum::none;
  Port target_port;     ///< gue
  bool copy_df = true;  ///< net.ipv4.vs.pmtu_disc

  OuterHeaders() = default;
  OuterHeaders(const IpAddress& local, const ServerConfig& server, bool copies_df)
      : ends(local, server.endpoint.address),
        type(server.tunnel_type),
        checksum(server.tunnel_checksum),
        target_port(server.tunnel_port),
        copy_df(copies_df) {}
};

/// Bytes the tunnel adds to this packet (to each segment of a super-frame).
[[nodiscard]] std::size_t tunnel_overhead(const OuterHeaders& outer, const Offload& offload);

/// Puts the outer headers in front of the packet. The outer TTL is the inner one, DSCP and ECN follow RFC 6040's normal mode as the
/// kernel has it (inner CE becomes ECT(0) outside), DF is copied from IPv4 to IPv4 if `copy_df`, the ID is 0 with DF and `id` without.
/// `source_port` is GUE's: the same for all packets of a flow, so that routers with several ways keep them in order.
/// A checksum of the tunnel covers the packet as it will be on the wire: a partial one inside stays partial, or, with
/// TunnelChecksum::remote, is left to the tunnel's far end and said to be so in the GUE header.
/// Source: ip_vs_xmit.c, ip_vs_tunnel_xmit, ipvs_gue_encap, ipvs_gre_encap; net/inet_ecn.h. Reason::no_headroom, too_big (for any IP packet).
/// REQUIRES: the frame is no super-frame (one in a tunnel can't be described to the kernel); cut it first.
[[nodiscard]] Reason encapsulate(Frame& frame, const PacketView& view, const OuterHeaders& outer, Port source_port, std::uint16_t id);

}  // namespace director
