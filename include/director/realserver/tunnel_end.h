// TunnelEnd: a kind of tunnel that ends on this host, as users and the ledger name it: "ipip", "gre", "gue:6080".
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "director/net/address.h"

namespace director::realserver {

struct TunnelEnd {
  enum class Kind : std::uint8_t {
    ipip,  ///< bare, with IPv4 inside; of a service: with the service's family inside
    sit,   ///< bare, with IPv6 inside
    gre,
    gue,
  };
  Kind kind = Kind::ipip;
  Port port;  ///< gue: the UDP port

  /// What of a bare tunnel carries packets of this family.
  static constexpr TunnelEnd bare(Family inner) { return {inner == Family::ipv4 ? Kind::ipip : Kind::sit, {}}; }
  [[nodiscard]] constexpr bool is_bare() const { return kind == Kind::ipip || kind == Kind::sit; }
  friend constexpr auto operator<=>(const TunnelEnd&, const TunnelEnd&) = default;
};

inline constexpr Port kGuePort = Port::of(6080);  ///< IANA's

std::string format_as(const TunnelEnd& end);
std::optional<TunnelEnd> parse_tunnel_end(std::string_view text);

}  // namespace director::realserver
