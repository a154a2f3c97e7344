// Offload: what is still to be done to a frame before it is true on a wire, as virtio_net_hdr tells it.
//
// veth and TAP hand over frames whose transport checksum is *partial* (only the pseudo-header's sum, not complemented,
// stands in the field) and *super-frames* (one header, up to 64 KiB of payload, to be cut into segments later). The state
// travels with the frame: forwarders keep it true; who can't carry it calls finish_checksum() or cut_segment().
// Source: linux/virtio_net.h; Documentation/networking/segmentation-offloads.rst.
#pragma once

#include <cstddef>
#include <cstdint>

namespace director {

class ChecksumSum;
struct Frame;

struct Offload {
  enum class Checksum : std::uint8_t {
    complete,  ///< the field is as it should be on the wire, as far as the sender is concerned
    partial,   ///< the field holds the folded pseudo-header sum; the bytes from checksum_start on are to be added
  };
  enum class Segments : std::uint8_t {
    none,  ///< one packet
    tcp4,
    tcp6,
    udp,  ///< UDP segmentation (USO), either family
  };

  Checksum checksum = Checksum::complete;
  Segments segments = Segments::none;
  bool ecn = false;                   ///< a TCP super-frame with CWR set: only its first segment keeps it
  bool verified = false;              ///< the receiving kernel vouches for the checksum (VIRTIO_NET_HDR_F_DATA_VALID)
  std::uint16_t segment_size = 0;     ///< payload bytes of each segment but the last
  std::uint16_t header_length = 0;    ///< from the frame's first byte to the payload, as the sender said; informative
  std::uint16_t checksum_start = 0;   ///< offset of the transport header from the frame's first byte
  std::uint16_t checksum_offset = 0;  ///< offset of the field from checksum_start
};

/// Completes a partial checksum in software. Nothing to do, nothing done.
/// REQUIRES: the offsets lie inside the frame (devices and parse_packet see to it), and the frame is no super-frame.
void finish_checksum(Frame& frame);

/// The sum of the bytes from `from` to the end as they will be on the wire, with a partial checksum among them finished. It costs
/// nothing but the headers then, whatever the payload: the bytes a checksum covers sum up to the complement of its pseudo-header's
/// sum (linux: net/core/skbuff.c, lco_csum). REQUIRES: a partial checksum's bytes begin at `from` or behind it.
[[nodiscard]] ChecksumSum wire_sum(const Frame& frame, std::size_t from);

/// How many packets leave on the wire for this frame: 1, or the number of segments of a super-frame whose
/// payload starts `payload` bytes into the frame.
[[nodiscard]] std::size_t segment_count(const Frame& frame, std::size_t payload);

/// Writes segment `index` of the super-frame into `out`, with true lengths, IDs, sequence numbers, flags and a complete
/// checksum. `network` and `transport` are the offsets of the IP and the TCP or UDP header; what stands in front of `network`
/// is copied as it is. `out.start` says where to begin, so headroom is kept.
/// REQUIRES: frame is a super-frame, index < segment_count, `out` has room for the headers and segment_size bytes.
void cut_segment(const Frame& frame, std::size_t network, std::size_t transport, std::size_t index, Frame& out);

}  // namespace director
