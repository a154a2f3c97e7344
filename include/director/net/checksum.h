// The Internet checksum (RFC 1071), whole and by difference (RFC 1624).
//
// Sums are kept in machine byte order: one's complement addition doesn't care, as long as the result is stored the way the
// words were loaded. Fields are therefore read and written raw.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "director/net/address.h"
#include "director/net/endian.h"
#include "director/net/headers.h"

namespace director {

/// A running one's complement sum, neither folded nor complemented.
class ChecksumSum {
 public:
  constexpr ChecksumSum() = default;
  ChecksumSum& add(std::span<const std::byte> bytes);  ///< an odd last byte is padded with zero
  /// An IPv4 header without options: what nearly all packets have.
  ChecksumSum& add(const Ipv4Header& header) {
    const auto w = std::bit_cast<std::array<std::uint32_t, 5>>(header);
    sum_ += std::uint64_t{w[0]} + w[1] + w[2] + w[3] + w[4];
    return *this;
  }
  ChecksumSum& add(const IpAddress& address) {
    if (address.is_v4()) {
      sum_ += address.v4_wire().raw();
    } else {
      for (const std::uint32_t word : std::bit_cast<std::array<std::uint32_t, 4>>(address.bytes())) sum_ += word;
    }
    return *this;
  }
  constexpr ChecksumSum& add(Be16 word) { return add_folded(word.raw()); }
  /// The difference that replacing `before` by `after` makes: RFC 1624, HC' = ~(~HC + ~m + m').
  constexpr ChecksumSum& replace(Be16 before, Be16 after) {
    return add_folded(static_cast<std::uint16_t>(~before.raw())).add_folded(after.raw());
  }
  ChecksumSum& replace(const IpAddress& before, const IpAddress& after);
  constexpr ChecksumSum& add_folded(std::uint16_t raw) {
    sum_ += raw;
    return *this;
  }

  [[nodiscard]] constexpr std::uint16_t folded() const {
    std::uint64_t s = (sum_ & 0xffffffffU) + (sum_ >> 32U);  // 33 bits at most
    s = (s & 0xffffU) + (s >> 16U);                             // 18
    s = (s & 0xffffU) + (s >> 16U);                             // 16, or one carry more
    s = (s & 0xffffU) + (s >> 16U);
    return static_cast<std::uint16_t>(s);
  }
  /// What belongs in a checksum field: folded and complemented.
  [[nodiscard]] constexpr Be16 field() const {
    return Be16::from_raw(static_cast<std::uint16_t>(~folded()));
  }

 private:
  std::uint64_t sum_ = 0;
};

/// The difference between two states of a packet, to be applied to any checksum that covers what changed.
/// Computed once per connection.
struct ChecksumDelta {
  std::uint16_t raw = 0;  ///< folded, machine order

  constexpr ChecksumDelta() = default;
  constexpr explicit ChecksumDelta(const ChecksumSum& difference) : raw(difference.folded()) {}

  /// To a complete checksum field.
  [[nodiscard]] constexpr Be16 applied_to(Be16 field) const {
    return ChecksumSum{}.add_folded(static_cast<std::uint16_t>(~field.raw())).add_folded(raw).field();
  }
  /// To a partial checksum: the field is the pseudo-header's sum itself, not complemented.
  [[nodiscard]] constexpr Be16 applied_to_partial(Be16 field) const {
    return Be16::from_raw(ChecksumSum{}.add_folded(field.raw()).add_folded(raw).folded());
  }
};

/// The sum of a TCP or UDP pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1). `length`: transport header and payload.
[[nodiscard]] ChecksumSum pseudo_header_sum(const IpAddress& source, const IpAddress& target, Protocol protocol,
                                            std::size_t length);

}  // namespace director
