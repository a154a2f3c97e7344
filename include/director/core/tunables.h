// Tunables: the kernel's net.ipv4.vs.* knobs, by their names. The list is tunables.def.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace director {

struct Tunables {
#define TUNABLE(name, initial, least, most, effect) std::int64_t name = initial;
#define TUNABLE_WITHOUT_EFFECT(name, initial, least, most, why) std::int64_t name = initial;
#include "director/core/tunables.def"
#undef TUNABLE_WITHOUT_EFFECT
#undef TUNABLE
};

struct TunableInfo {
  std::string_view name;  ///< as below net.ipv4.vs.
  std::int64_t Tunables::*value;
  std::int64_t initial, least, most;
  std::string_view effect;  ///< or why there is none
  bool has_effect = true;
};

inline constexpr TunableInfo kTunables[] = {
#define TUNABLE(name, initial, least, most, effect) {#name, &Tunables::name, initial, least, most, effect, true},
#define TUNABLE_WITHOUT_EFFECT(name, initial, least, most, why) {#name, &Tunables::name, initial, least, most, why, false},
#include "director/core/tunables.def"
#undef TUNABLE_WITHOUT_EFFECT
#undef TUNABLE
};

/// The knob of that name; nullptr: none here.
[[nodiscard]] constexpr const TunableInfo* find_tunable(std::string_view name) {
  for (const TunableInfo& t : kTunables)
    if (t.name == name) return &t;
  return nullptr;
}

}  // namespace director
