// GuardPlan: which frames the host's own stack must not see, because the director deals with them. Pure:
// services and the host's addresses in, sets of addresses out. control/kernel_guard makes an nftables table
// of it.
//
// Only about hosts that the director shares a network interface with (packet: devices). ARP and neighbour
// discovery are left alone: the host doesn't own the virtual addresses, so it doesn't answer for them.
#pragma once

#include <span>
#include <vector>

#include "director/core/service.h"
#include "director/net/address.h"

namespace director {

struct GuardPlan {
  /// A port of a protocol at an address; port 0: all ports.
  struct Target {
    IpAddress address;
    Protocol protocol = Protocol::tcp;
    Port port;
    friend auto operator<=>(const Target&, const Target&) = default;
  };

  /// Virtual addresses the host doesn't own: nothing that is sent to them is for it.
  std::vector<IpAddress> virtual_addresses;
  /// Services at addresses the host owns as well: these ports are the director's, the others the host's.
  std::vector<Target> served;
  /// What masqueraded servers send from: answers that the director translates. Not if addressed to the host
  /// itself, which may talk to them too.
  std::vector<Target> answering;
  /// Where health checks ask: what comes from there to the host's address and the checks' ports (core/health.h) is the director's.
  std::vector<Target> checked;
  /// The host's own addresses.
  std::vector<IpAddress> host;

  friend bool operator==(const GuardPlan&, const GuardPlan&) = default;
};

/// Sorted and without duplicates, so that equal plans compare equal.
/// Of a class's rules only single addresses count: what is sent to a prefix stays the host's to see as well.
[[nodiscard]] GuardPlan plan_guard(std::span<const Service* const> services, const Classifier& classes,
                                   std::span<const IpAddress> host);

}  // namespace director
