// Frame: a window on bytes that somebody else owns, where they came from, and their Offload state.
//
// The loop owns the storage, everyone else borrows. push() and pull() move the front of the window: encapsulation opens
// bytes in the headroom, nothing is copied.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "director/base/id.h"
#include "director/net/offload.h"

namespace director {

/// Bytes a receiving device leaves free in front of a frame: room for an outer IPv6 header with GUE, rounded up.
inline constexpr std::size_t kHeadroom = 128;
/// The largest frame a device may hand over: a 64 KiB super-frame with its Ethernet header, rounded up.
inline constexpr std::size_t kMaxFrame = 65536 + 64;

struct Frame {
  std::span<std::byte> storage;  ///< headroom, frame, tailroom
  std::uint32_t start = 0;       ///< first byte of the frame in storage
  std::uint32_t length = 0;
  DeviceId ingress;
  std::uint32_t mark = 0;        ///< a class it was given before it came here (a replay's firewall marks); 0: none
  Offload offload;

  [[nodiscard]] std::span<std::byte> bytes() { return storage.subspan(start, length); }
  [[nodiscard]] std::span<const std::byte> bytes() const { return storage.subspan(start, length); }
  [[nodiscard]] std::size_t tailroom() const { return storage.size() - start - length; }

  /// Opens n bytes in front, nullptr when the headroom is spent.
  [[nodiscard]] std::byte* push(std::size_t n) {
    if (n > start) return nullptr;
    start -= static_cast<std::uint32_t>(n);
    length += static_cast<std::uint32_t>(n);
    offload.checksum_start = static_cast<std::uint16_t>(offload.checksum_start + n);
    offload.header_length = static_cast<std::uint16_t>(offload.header_length + n);
    return storage.data() + start;
  }
  /// Takes n bytes off the front. REQUIRES: n <= length.
  void pull(std::size_t n) {
    assert(n <= length);
    start += static_cast<std::uint32_t>(n);
    length -= static_cast<std::uint32_t>(n);
    offload.checksum_start = static_cast<std::uint16_t>(offload.checksum_start - n);
    offload.header_length = static_cast<std::uint16_t>(offload.header_length - n);
  }
  /// REQUIRES: n bytes fit behind start.
  void resize(std::size_t n) {
    assert(start + n <= storage.size());
    length = static_cast<std::uint32_t>(n);
  }
};

/// A copy of a frame in `room`, behind headroom. REQUIRES: it fits.
[[nodiscard]] inline Frame frame_in(std::span<std::byte> room, std::span<const std::byte> bytes, const Offload& offload = {}) {
  Frame frame;
  frame.storage = room;
  frame.start = kHeadroom;
  frame.resize(bytes.size());
  if (!bytes.empty()) std::memcpy(frame.bytes().data(), bytes.data(), bytes.size());
  frame.offload = offload;
  return frame;
}

}  // namespace director
