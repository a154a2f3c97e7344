// SCTP as far as a load balancer cares: its ports, its checksum, its first chunk (RFC 9260).
//
// The checksum is a CRC32c of the packet with the field as 0, stored with the least significant byte first. It has no pseudo-header:
// addresses may change without it; only other ports change it. A CRC is linear, so the change can be worked out from the changed bytes
// alone and a packet that was damaged before it came here stays recognisable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "director/net/address.h"
#include "director/net/endian.h"

namespace director {

struct SctpHeader {
  Port source;
  Port target;
  Be32 verification_tag;
  Be32 checksum;  // bytes in the other order; read and written by the functions here
};
static_assert(sizeof(SctpHeader) == 12 && alignof(SctpHeader) == 1);

struct SctpChunk {
  std::uint8_t type;
  std::uint8_t flags;
  Be16 length;
};
static_assert(sizeof(SctpChunk) == 4 && alignof(SctpChunk) == 1);

/// What a packet says, in the kernel's order (ip_vs_proto_sctp.c, ipvs_sctp_event_t): its first chunk, except that an ABORT behind
/// COOKIE-ECHO or COOKIE-ACK is an ABORT. `data` is also SACK, HEARTBEAT, ECN and everything unknown.
enum class SctpEvent : std::uint8_t {
  data,
  init,
  init_ack,
  cookie_echo,
  cookie_ack,
  shutdown,
  shutdown_ack,
  shutdown_complete,
  error,
  abort,
  kCount,
};
/// Of the bytes behind the SCTP header; nothing: there is no whole chunk header.
[[nodiscard]] std::optional<SctpEvent> sctp_event(std::span<const std::byte> chunks);

/// The CRC32c of bytes (RFC 9260, appendix A), without regard to SCTP.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes);
/// What changes in the CRC32c of a packet when `difference`, the exclusive or of old and new, is followed by `behind` bytes that stay.
[[nodiscard]] std::uint32_t crc32c_change(std::span<const std::byte> difference, std::size_t behind);

/// The checksum as it stands in a packet that begins with an SctpHeader, and as it should be.
[[nodiscard]] std::uint32_t stored_sctp_checksum(std::span<const std::byte> packet);
[[nodiscard]] std::uint32_t true_sctp_checksum(std::span<const std::byte> packet);
void store_sctp_checksum(std::span<std::byte> packet, std::uint32_t checksum);

}  // namespace director
