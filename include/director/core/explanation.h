// Explanation: how the balancer came to what it did with one packet, decision by decision, in words and as facts.
//
// Told by the packet path itself while it decides (Balancer::explain), so it can't say anything but what was done; while nobody asks,
// the path looks at one pointer and builds nothing. Used by `director explain` and `vsadm explain`, which add what the frame was before
// and is after (explain.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "director/net/address.h"

namespace director {

struct Explanation {
  /// A server the scheduler could have taken.
  struct Candidate {
    Endpoint server;
    std::uint32_t weight = 0;
    std::uint32_t active = 0;
    std::uint32_t inactive = 0;
    std::string standing;  ///< what the scheduler compares, in its own formula; empty: nothing but whose turn it is
    bool taken = false;
    std::string why;  ///< taken, or why not
  };

  struct Step {
    std::string_view topic;  ///< packet, class, service, persistence, connection, scheduler, state, forward, checksum, hop, ...
    std::string says;        ///< a sentence
    std::vector<std::pair<std::string_view, std::string>> facts;  ///< the same, by name
    std::vector<Candidate> candidates;                            ///< of a scheduler's step
  };

  std::vector<Step> steps;  ///< in the order the decisions were taken
};

}  // namespace director
