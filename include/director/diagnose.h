// Diagnose: what the director can tell, from what it has seen, of the classical mistakes of LVS set-ups, each with its cure.
//
// Pure, and passive: it looks at live flows, counters, routes and neighbours, and sends nothing. What only real servers know about
// themselves (ARP, the VIP on lo, rp_filter) `realserver check` tells there. For `vsadm doctor`.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "director/core/balancer.h"

namespace director {

struct Finding {
  enum class Weight : std::uint8_t {
    look,  ///< may be right, may be not
    bad,   ///< clients notice
  };
  Weight weight = Weight::bad;
  std::string about;  ///< a service, a real server, a device
  std::string what;   ///< is wrong, and by which observation
  std::string cure;   ///< what to do or to type
};

/// The worst first. Empty: nothing was seen that looks wrong.
[[nodiscard]] std::vector<Finding> diagnose(Balancer& balancer, Instant now);

[[nodiscard]] std::string findings_text(std::span<const Finding> findings);
/// {"findings": [{"weight", "about", "what", "cure"}]}
[[nodiscard]] std::string findings_json(std::span<const Finding> findings);

}  // namespace director
