// Rows of departures.md that hold for any traffic, as rules: for captures that nobody has read yet, such as tests/oracle makes.
//
// A rule looks at what one step received and at what both sides sent, and says whether the whole of the difference is what its row
// says. Captures kept in this folder don't need rules: what ours does there is written down in departures/, line by line.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "compare.h"

namespace director::golden {

struct StepFrames {
  std::span<const std::span<const std::byte>> received;
  std::span<const CapturedFrame> expected;
  std::span<const CapturedFrame> got;
};

/// The name of the rule that explains all of the difference; none: it is a difference.
std::optional<std::string_view> explaining_rule(const StepFrames& step, const Ignored& ignored);

}  // namespace director::golden
