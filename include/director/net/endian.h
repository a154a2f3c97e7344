// BigEndian<T>: a number in network byte order, as bytes.
//
// Alignment 1, trivially copyable: header structs made of it need no "packed" and may lie at any address. Conversion is
// explicit both ways, because an implicit one is how host-order ports get on the wire. Compiles to a load and a rotate.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace director {

template <std::unsigned_integral T>
class BigEndian {
 public:
  constexpr BigEndian() = default;
  constexpr explicit BigEndian(T host) : bytes_(std::bit_cast<Bytes>(swapped(host))) {}

  [[nodiscard]] constexpr T host() const { return swapped(std::bit_cast<T>(bytes_)); }
  /// The bytes as the machine would load them: for checksum arithmetic, which is the same in either byte order.
  [[nodiscard]] constexpr T raw() const { return std::bit_cast<T>(bytes_); }
  static constexpr BigEndian from_raw(T raw) {
    BigEndian b;
    b.bytes_ = std::bit_cast<Bytes>(raw);
    return b;
  }

  friend constexpr bool operator==(const BigEndian&, const BigEndian&) = default;
  friend constexpr auto operator<=>(const BigEndian& a, const BigEndian& b) { return a.host() <=> b.host(); }

 private:
  using Bytes = std::array<std::byte, sizeof(T)>;
  static constexpr T swapped(T v) {
    if constexpr (std::endian::native == std::endian::big || sizeof(T) == 1) return v;
    else if constexpr (sizeof(T) == 2) return __builtin_bswap16(v);
    else if constexpr (sizeof(T) == 4) return __builtin_bswap32(v);
    else return __builtin_bswap64(v);
  }

  Bytes bytes_{};
};

using Be16 = BigEndian<std::uint16_t>;
using Be32 = BigEndian<std::uint32_t>;
using Be64 = BigEndian<std::uint64_t>;

static_assert(sizeof(Be16) == 2 && alignof(Be16) == 1);
static_assert(sizeof(Be32) == 4 && alignof(Be32) == 1);
static_assert(Be16{0x1234}.host() == 0x1234);

}  // namespace director
