// The Internet checksum over bytes: eight at a time, with the carries gathered in 64 bits.
#include "director/net/checksum.h"

#include <cstring>

namespace director {

ChecksumSum& ChecksumSum::add(std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  for (; left >= 8; left -= 8, at += 8) {  // 32-bit words in two 64-bit sums can't overflow below 16 GiB
    std::uint32_t word[2];
    std::memcpy(word, at, 8);
    low += word[0];
    high += word[1];
  }
  if ((left & 4U) != 0) {
    std::uint32_t word = 0;
    std::memcpy(&word, at, 4);
    low += word;
    at += 4;
  }
  if ((left & 2U) != 0) {
    std::uint16_t half = 0;
    std::memcpy(&half, at, 2);
    low += half;
    at += 2;
  }
  if ((left & 1U) != 0) low += std::bit_cast<std::uint16_t>(std::array{*at, std::byte{0}});
  sum_ += (low & 0xffffffffU) + (low >> 32U) + (high & 0xffffffffU) + (high >> 32U);
  return *this;
}

ChecksumSum& ChecksumSum::replace(const IpAddress& before, const IpAddress& after) {
  ChecksumSum old;
  old.add(before);
  return add_folded(static_cast<std::uint16_t>(~old.folded())).add(after);
}

ChecksumSum pseudo_header_sum(const IpAddress& source, const IpAddress& target, Protocol protocol,
                              std::size_t length) {
  ChecksumSum s;
  s.add(source).add(target);
  s.add(Be16{static_cast<std::uint16_t>(length >> 16U)}).add(Be16{static_cast<std::uint16_t>(length)});
  s.add(Be16{static_cast<std::uint16_t>(protocol)});
  return s;
}

}  // namespace director
