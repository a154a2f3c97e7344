// Spans of time as people write them: "30", "30s", "500ms", "5m", "2h". Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "director/base/time.h"

namespace director {

/// Without a unit: seconds. Nothing: not such a text, or more than 31 days.
[[nodiscard]] std::optional<Duration> parse_duration(std::string_view text);
/// In the largest unit that divides it: "2h", "90s", "500ms".
[[nodiscard]] std::string duration_text(Duration d);

}  // namespace director
