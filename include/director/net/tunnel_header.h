// What stands between an outer and an inner IP header: nothing (RFC 2003, RFC 2473, RFC 4213), a GRE header (RFC 2784), or UDP with a
// GUE header. One reader for all who open tunnels: realserver, and the director when a router quotes one of its packets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "director/net/address.h"

namespace director {

struct TunnelHeader {
  std::size_t length = 0;  ///< from the end of the outer IP header to the inner one
  Family inner = Family::ipv4;
  bool has_checksum = false;  ///< a GRE or UDP checksum protects what is inside

  /// GUE: the inner transport checksum was left for the tunnel's far end. Offsets from the inner packet's first byte.
  struct RemoteChecksum {
    std::uint16_t start = 0;
    std::uint16_t field = 0;
  };
  std::optional<RemoteChecksum> remote_checksum;
};

// `bytes` are what follows the outer IP header; only its beginning need be there. Nothing: not such a header, or one that asks for what
// nobody here understands (GRE keys and routes, GUE control messages, unknown flags).
[[nodiscard]] std::optional<TunnelHeader> read_bare_header(Protocol outer);
[[nodiscard]] std::optional<TunnelHeader> read_gre_header(std::span<const std::byte> bytes);
[[nodiscard]] std::optional<TunnelHeader> read_gue_header(std::span<const std::byte> bytes);  ///< with its UDP header

}  // namespace director
