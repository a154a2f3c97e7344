// Decapsulation, as a function: a tunnelled packet in, the inner packet or the reason to drop it out.
//
// It is what a kernel tunnel interface (ipip, sit, ip6tnl, gre, fou) does on a real server of VS/TUN, and a little more: only packets for
// this host's own VIPs come through, so that the decapsulator is no open relay. The offload state moves with
// the packet: an inner TCP segment whose checksum is still partial, or an inner super-frame, stays exactly
// that. Not here: sockets and interfaces (director/realserver/decapsulator.h), which use this.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "director/net/address.h"
#include "director/net/frame.h"
#include "director/realserver/tunnel_end.h"

namespace director::realserver {

enum class Fate : std::uint8_t {
#define FATE(name, words) name,
#include "director/realserver/fates.def"
#undef FATE
};

struct FateText {
  Fate fate;
  std::string_view name;
  std::string_view words;
};
inline constexpr std::array kFates{
#define FATE(name, words) FateText{Fate::name, #name, words},
#include "director/realserver/fates.def"
#undef FATE
};

/// A set of addresses, asked far more often than changed.
class AddressSet {
 public:
  AddressSet() = default;
  explicit AddressSet(std::vector<IpAddress> addresses) : sorted_(std::move(addresses)) {
    std::sort(sorted_.begin(), sorted_.end());
    sorted_.erase(std::unique(sorted_.begin(), sorted_.end()), sorted_.end());
  }
  [[nodiscard]] bool contains(const IpAddress& a) const {
    return std::binary_search(sorted_.begin(), sorted_.end(), a);
  }
  [[nodiscard]] std::span<const IpAddress> addresses() const { return sorted_; }
  friend bool operator==(const AddressSet&, const AddressSet&) = default;

 private:
  std::vector<IpAddress> sorted_;
};

/// The two ECN bits of a TOS or traffic class octet (RFC 3168, 5).
enum class Ecn : std::uint8_t { not_capable = 0, ect1 = 1, ect0 = 2, congestion = 3 };

/// What the inner packet says after decapsulation, none if it must be dropped. RFC 6040, figure 4.
[[nodiscard]] constexpr std::optional<Ecn> decapsulated_ecn(Ecn outer, Ecn inner) {
  if (outer == Ecn::congestion) {
    return inner == Ecn::not_capable ? std::nullopt : std::optional{Ecn::congestion};
  }
  if (outer == Ecn::ect1 && inner == Ecn::ect0) return Ecn::ect1;
  return inner;
}

/// Which packets are opened. `own`: this host's addresses, where tunnels may end. `vips`: where inner packets
/// may go. `ends`: the tunnels that end here.
struct Admission {
  AddressSet own;
  AddressSet vips;
  std::vector<TunnelEnd> ends;
};

/// The outer IP protocol of a tunnel, for whoever has to filter packets or keep the kernel from refusing them.
[[nodiscard]] Protocol outer_protocol(TunnelEnd::Kind kind);

/// Takes the outer headers off; either family may be outside. A GRE or UDP checksum is verified, a checksum that the
/// sender left to this end of the tunnel (GUE) becomes a partial one. Not read: IPv6 extension headers. `packet` starts at the outer IP header, without a link header. When the fate
/// is `delivered`, it starts at the inner IP header and ends where that says, with its offload description
/// adjusted; otherwise its window and state are of no further use.
[[nodiscard]] Fate decapsulate(Frame& packet, const Admission& admission);

}  // namespace director::realserver
