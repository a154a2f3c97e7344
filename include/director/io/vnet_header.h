// VnetHeader: struct virtio_net_hdr, and its translation to and from Offload.
//
// Both AF_PACKET (PACKET_VNET_HDR) and TAP (IFF_VNET_HDR) put it in front of each frame, in the machine's
// byte order (virtio's legacy form). Written out here because UDP segmentation is newer than Debian 12's
// kernel headers. Source: linux/virtio_net.h; include/linux/virtio_net.h of the kernel for what it accepts.
#pragma once

#include <cstdint>
#include <optional>

#include "director/net/frame.h"

namespace director {

struct VnetHeader {
  std::uint8_t flags = 0;
  std::uint8_t segment_type = 0;
  std::uint16_t header_length = 0;  // Ethernet, IP and transport header
  std::uint16_t segment_size = 0;
  std::uint16_t checksum_start = 0;
  std::uint16_t checksum_offset = 0;

  static constexpr std::uint8_t kNeedsChecksum = 1;  // flags
  static constexpr std::uint8_t kDataValid = 2;
  static constexpr std::uint8_t kNone = 0;  // segment_type
  static constexpr std::uint8_t kTcp4 = 1;
  static constexpr std::uint8_t kTcp6 = 4;
  static constexpr std::uint8_t kUdp = 5;  // VIRTIO_NET_HDR_GSO_UDP_L4, Linux 6.2
  static constexpr std::uint8_t kEcn = 0x80;
};
static_assert(sizeof(VnetHeader) == 10);

/// What a kernel said of a frame of `length` bytes; nothing when it points outside the frame or names what no
/// forwarder knows (UFO).
[[nodiscard]] std::optional<Offload> to_offload(const VnetHeader& header, std::size_t length);
/// The same for the way out.
[[nodiscard]] VnetHeader to_vnet_header(const Offload& offload);

/// Calls `send(Frame&)` for each packet of a super-frame, cut in software with complete checksums; `storage`
/// holds one at a time. False when the frame isn't what its Offload says, and nothing was sent. REQUIRES:
/// frame.offload.segments != none.
template <typename Send>
bool for_each_segment(const Frame& frame, std::span<std::byte> storage, Send send);

/// Where the IP and the transport header of an Ethernet frame begin, and the payload; nothing if it is too
/// short for them.
struct SegmentOffsets {
  std::size_t network, transport, payload;
};
[[nodiscard]] std::optional<SegmentOffsets> segment_offsets(const Frame& frame);

template <typename Send>
bool for_each_segment(const Frame& frame, std::span<std::byte> storage, Send send) {
  const auto offsets = segment_offsets(frame);
  if (!offsets || offsets->payload + frame.offload.segment_size > storage.size()) return false;
  const std::size_t count = segment_count(frame, offsets->payload);
  for (std::size_t i = 0; i < count; ++i) {
    Frame segment;
    segment.storage = storage;
    cut_segment(frame, offsets->network, offsets->transport, i, segment);
    send(segment);
  }
  return true;
}

}  // namespace director
