// The server with the least overhead for its weight: wlc itself, and what lblc and lblcr fall back on.
#pragma once

#include <fmt/format.h>

#include "director/core/scheduler.h"

namespace director {

/// Ties go to the first in the list; nullptr: none is usable.
inline RealServer* least_loaded(ServerList servers) {
  RealServer* least = nullptr;
  for (RealServer* s : servers) {
    if (!s->usable()) continue;
    // overhead / weight, compared without division
    if (least == nullptr || least->overhead() * s->config.weight > s->overhead() * least->config.weight) least = s;
  }
  return least;
}

/// What least_loaded() compares, for people.
inline std::string load_by_weight(const RealServer& s) { return fmt::format("{}/{}", s.overhead(), s.config.weight); }

}  // namespace director
