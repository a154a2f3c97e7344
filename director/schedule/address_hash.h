// How the kernel's hashing schedulers turn an address into a number. Used by sh, dh and mh.
#pragma once

#include <cstdint>

#include "director/net/address.h"

namespace director {

/// An IPv4 address, or an IPv6 address's four words combined by exclusive or (ip_vs_sh_hashkey).
inline std::uint32_t folded(const IpAddress& address) {
  std::uint32_t all = 0;
  const auto wire = address.wire();
  for (std::size_t i = 0; i < wire.size(); ++i) all ^= static_cast<std::uint32_t>(wire[i]) << (24 - 8 * (i % 4));
  return all;
}

inline constexpr std::size_t kHashSlots = 256;  // IP_VS_SH_TAB_SIZE, IP_VS_DH_TAB_SIZE

/// A slot of a table of 256: linux/hash.h, hash_32(value, 8).
constexpr std::size_t hash_slot(std::uint32_t value) { return value * 0x61C88647U >> 24U; }

}  // namespace director
