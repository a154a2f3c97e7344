// Spans of time, read and written.
#include "director/duration_text.h"

#include <fmt/format.h>

#include <charconv>

namespace director {
namespace {

struct Unit {
  std::string_view name;
  Duration one;
};
constexpr Unit kUnits[] = {{"h", 1h}, {"m", 1min}, {"s", 1s}, {"ms", 1ms}};
constexpr Duration kLongest = 31 * 24h;

}  // namespace

std::optional<Duration> parse_duration(std::string_view text) {
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc{} || count < 0) return {};
  const std::string_view name = text.substr(static_cast<std::size_t>(end - text.data()));
  for (const Unit& unit : kUnits)
    if (name == unit.name || (name.empty() && unit.one == Duration{1s})) {
      if (count > kLongest / unit.one) return {};
      return count * unit.one;
    }
  return {};
}

std::string duration_text(Duration d) {
  for (const Unit& unit : kUnits)
    if (d != Duration{} && d % unit.one == Duration{}) return fmt::format("{}{}", d / unit.one, unit.name);
  return fmt::format("{}ms", d / Duration{1ms});
}

}  // namespace director
