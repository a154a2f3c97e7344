// Id<Tag>: an index into one particular table. Ids of different tables don't mix.
#pragma once

#include <compare>
#include <cstdint>

namespace director {

template <typename Tag>
struct Id {
  static constexpr std::uint32_t kNone = UINT32_MAX;
  std::uint32_t index = kNone;

  constexpr explicit operator bool() const { return index != kNone; }
  friend constexpr auto operator<=>(const Id&, const Id&) = default;
};

using DeviceId = Id<struct DeviceTag>;          ///< a Device the director opened, in the order of --device
using RealId = Id<struct RealTag>;              ///< a row of the real servers' table
using HopId = Id<struct HopTag>;                ///< a next hop: a neighbour on a device
using ConnectionId = Id<struct ConnectionTag>;  ///< a row of the connection table

using TemplateId = Id<struct TemplateTag>;      ///< a row of the persistence templates
using RecipeId = Id<struct RecipeTag>;          ///< a row of the recipes

}  // namespace director
