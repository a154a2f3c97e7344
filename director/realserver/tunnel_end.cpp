// See the header.
#include "director/realserver/tunnel_end.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

namespace director::realserver {
namespace {

constexpr std::array<std::string_view, 4> kNames{"ipip", "sit", "gre", "gue"};

}  // namespace

std::string format_as(const TunnelEnd& end) {
  const std::string_view name = kNames[static_cast<std::size_t>(end.kind)];
  return end.kind == TunnelEnd::Kind::gue ? fmt::format("{}:{}", name, end.port.host()) : std::string{name};
}

std::optional<TunnelEnd> parse_tunnel_end(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] != name) continue;
    TunnelEnd end{static_cast<TunnelEnd::Kind>(i), {}};
    if (end.kind != TunnelEnd::Kind::gue) return colon == std::string_view::npos ? std::optional{end} : std::nullopt;
    if (colon == std::string_view::npos) return {};
    const std::string_view digits = text.substr(colon + 1);
    std::uint16_t port = 0;
    const auto [last, error] = std::from_chars(digits.begin(), digits.end(), port);
    if (error != std::errc{} || last != digits.end() || port == 0) return {};
    end.port = Port::of(port);
    return end;
  }
  return {};
}

}  // namespace director::realserver
