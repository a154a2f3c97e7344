// Shortcut: what an established connection's packets need in one direction, put so plainly that a program inside the kernel can do it.
//
// The core decides; a shortcut only repeats a decision. It is offered after a connection's first packets have walked the whole way, and
// holds for plain packets alone: no TCP flag that changes the state, no fragment, no IP option, TTL above 1, within the MTU. All others
// come to the core as before. It ends with the connection's established state, and all end when routes, neighbours, services or real
// servers change: then the next packets walk again. What a shortcut carried comes back as Change (Carried), so counters and time-outs
// stay right. Used by control/kernel_path.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "director/base/id.h"
#include "director/net/address.h"

namespace director {

/// So many packets of the client walk first (super-frames counted once): short connections aren't worth telling anybody about.
inline constexpr std::uint32_t kWalkFirst = 32;

struct Shortcut {
  enum class Rewrite : std::uint8_t { nothing, target, source };

  FlowKey flow;  ///< of the packets as they arrive
  DeviceId ingress, egress;
  MacAddress here;      ///< the Ethernet target they come with
  MacAddress from, to;  ///< of the Ethernet header they leave with
  std::uint32_t mtu = 0;  ///< IP packets as they arrive (of a super-frame: each segment) above it are not for the shortcut
  Rewrite rewrite = Rewrite::nothing;
  Endpoint replacement;  ///< what the rewritten end becomes
  struct Tunnel {
    IpAddress local, remote;
  };
  std::optional<Tunnel> tunnel;  ///< the ends of the IP header to be put in front (forward/tunnel.h: ipip, DF copied)
};

/// What happened to shortcuts since the list was last emptied, in this order: all_closed, closed, opened.
struct ShortcutNews {
  bool all_closed = false;
  std::vector<FlowKey> closed;
  std::vector<Shortcut> opened;

  [[nodiscard]] bool empty() const { return !all_closed && closed.empty() && opened.empty(); }
  void clear() {
    all_closed = false;
    closed.clear();
    opened.clear();
  }
};

}  // namespace director
