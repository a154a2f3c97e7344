// Fate: what a Reason means to those who watch: all went well, somebody was told no, or a frame was lost.
//
// Pure. Used by listings and metrics, so that all of them call the same things drops.
#pragma once

#include <cstdint>
#include <string_view>

#include "director/core/verdict.h"

namespace director {

enum class Fate : std::uint8_t {
  handled,  ///< forwarded, answered, taken note of, kept for later, or left to whom it belongs
  refused,  ///< ended here, and its sender was told
  dropped,  ///< ended here
};

/// A reason that isn't known to be harmless is a drop.
[[nodiscard]] constexpr Fate fate_of(Reason r) {
  switch (r) {
    case Reason::none:
    case Reason::not_for_us:
    case Reason::not_ip:
    case Reason::vlan:
    case Reason::arp_answered:
    case Reason::arp_learnt:
    case Reason::arp_ignored:
    case Reason::neighbour_answered:
    case Reason::neighbour_learnt:
    case Reason::neighbour_ignored:
    case Reason::listener_answered:
    case Reason::echo_answered:
    case Reason::not_ours:
    case Reason::fragment_waits:
    case Reason::neighbour_waits:
    case Reason::fragmented:
    case Reason::segmented:
    case Reason::routed:
    case Reason::made_room:
    case Reason::check_sent:
    case Reason::check_answered:
    case Reason::sync_sent:
    case Reason::sync_received:
    case Reason::sync_adopted:
    case Reason::sync_ignored:
    case Reason::sync_others:
    case Reason::standing_by: return Fate::handled;
    case Reason::refused_reset:
    case Reason::refused_unreachable: return Fate::refused;
    default: return Fate::dropped;
  }
}

[[nodiscard]] constexpr std::string_view name_of(Fate f) {
  return f == Fate::handled ? "handled" : f == Fate::refused ? "refused" : "dropped";
}

}  // namespace director
