// CRC32c, and what SCTP's chunks mean.
#include "director/net/sctp.h"

#include <array>
#include <cstring>

#include "director/net/headers.h"

namespace director {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // Castagnoli's, bits reflected: the highest bit is x^0
constexpr std::uint32_t kOne = 0x80000000;

constexpr std::array<std::uint32_t, 256> kTable = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t r = i;
    for (int bit = 0; bit < 8; ++bit) r = (r >> 1U) ^ ((r & 1U) != 0 ? kPolynomial : 0U);
    table[i] = r;
  }
  return table;
}();

std::uint32_t advanced(std::uint32_t r, std::span<const std::byte> bytes) {
  for (const std::byte b : bytes) r = kTable[(r ^ std::to_integer<std::uint32_t>(b)) & 0xffU] ^ (r >> 8U);
  return r;
}

/// Of polynomials, modulo the CRC's.
constexpr std::uint32_t product(std::uint32_t a, std::uint32_t b) {
  std::uint32_t result = 0;
  for (; a != 0; a <<= 1U) {
    if ((a & kOne) != 0) result ^= b;
    b = (b >> 1U) ^ ((b & 1U) != 0 ? kPolynomial : 0U);
  }
  return result;
}

/// x^8, x^16, x^32, ...: what 1, 2, 4, ... bytes of zeros multiply a CRC by.
constexpr std::array<std::uint32_t, 32> kShift = [] {
  std::array<std::uint32_t, 32> shift{};
  shift[0] = kOne >> 8U;
  for (std::size_t i = 1; i < shift.size(); ++i) shift[i] = product(shift[i - 1], shift[i - 1]);
  return shift;
}();

constexpr std::size_t kField = offsetof(SctpHeader, checksum);

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes) { return ~advanced(~0U, bytes); }

std::uint32_t crc32c_change(std::span<const std::byte> difference, std::size_t behind) {
  std::uint32_t r = advanced(0, difference);
  for (std::size_t i = 0; behind != 0; behind >>= 1U, ++i)
    if ((behind & 1U) != 0) r = product(r, kShift[i]);
  return r;
}

std::uint32_t stored_sctp_checksum(std::span<const std::byte> packet) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value |= std::to_integer<std::uint32_t>(packet[kField + i]) << (8 * i);
  return value;
}

void store_sctp_checksum(std::span<std::byte> packet, std::uint32_t checksum) {
  for (std::size_t i = 0; i < 4; ++i) packet[kField + i] = static_cast<std::byte>(checksum >> (8 * i));
}

std::uint32_t true_sctp_checksum(std::span<const std::byte> packet) {
  constexpr std::array<std::byte, 4> kZero{};
  std::uint32_t r = advanced(~0U, packet.first(kField));
  r = advanced(r, kZero);
  return ~advanced(r, packet.subspan(kField + kZero.size()));
}

std::optional<SctpEvent> sctp_event(std::span<const std::byte> chunks) {
  using enum SctpEvent;
  constexpr std::uint8_t kAbort = 6, kCookieEcho = 10, kCookieAck = 11;
  // By chunk type: DATA INIT INIT-ACK SACK HEARTBEAT HEARTBEAT-ACK ABORT SHUTDOWN SHUTDOWN-ACK ERROR COOKIE-ECHO COOKIE-ACK ECNE CWR
  // SHUTDOWN-COMPLETE (RFC 9260, 3.2).
  constexpr std::array kEvents{data, init, init_ack, data, data, data, abort, shutdown, shutdown_ack, error, cookie_echo, cookie_ack,
                               data, data, shutdown_complete};
  if (chunks.size() < sizeof(SctpChunk)) return {};
  const auto& first = header_at<SctpChunk>(chunks, 0);
  std::uint8_t type = first.type;
  if ((type == kCookieEcho || type == kCookieAck) && first.length.host() >= sizeof(SctpChunk)) {
    const std::size_t next = (std::size_t{first.length.host()} + 3) & ~std::size_t{3};  // padded to four bytes
    if (next + sizeof(SctpChunk) <= chunks.size() && header_at<SctpChunk>(chunks, next).type == kAbort) type = kAbort;
  }
  return type < kEvents.size() ? kEvents[type] : data;
}

}  // namespace director
