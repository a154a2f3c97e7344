// virtio_net_hdr to Offload and back.
#include "director/io/vnet_header.h"

#include "director/net/headers.h"

namespace director {

std::optional<Offload> to_offload(const VnetHeader& h, std::size_t length) {
  Offload o;
  if ((h.flags & VnetHeader::kNeedsChecksum) != 0) {
    if (std::size_t{h.checksum_start} + h.checksum_offset + 2 > length) return {};
    o.checksum = Offload::Checksum::partial;
    o.checksum_start = h.checksum_start;
    o.checksum_offset = h.checksum_offset;
  }
  o.verified = (h.flags & VnetHeader::kDataValid) != 0;
  const auto type = static_cast<std::uint8_t>(h.segment_type & ~VnetHeader::kEcn);
  switch (type) {
    case VnetHeader::kNone:
      return o;
    case VnetHeader::kTcp4:
      o.segments = Offload::Segments::tcp4;
      break;
    case VnetHeader::kTcp6:
      o.segments = Offload::Segments::tcp6;
      break;
    case VnetHeader::kUdp:
      o.segments = Offload::Segments::udp;
      break;
    default:
      return {};
  }
  if (h.segment_size == 0 || h.header_length > length) return {};
  o.ecn = (h.segment_type & VnetHeader::kEcn) != 0;
  o.segment_size = h.segment_size;
  o.header_length = h.header_length;
  return o;
}

VnetHeader to_vnet_header(const Offload& o) {
  VnetHeader h;
  if (o.checksum == Offload::Checksum::partial) {
    h.flags = VnetHeader::kNeedsChecksum;
    h.checksum_start = o.checksum_start;
    h.checksum_offset = o.checksum_offset;
  }
  switch (o.segments) {
    case Offload::Segments::none:
      return h;
    case Offload::Segments::tcp4:
      h.segment_type = VnetHeader::kTcp4;
      break;
    case Offload::Segments::tcp6:
      h.segment_type = VnetHeader::kTcp6;
      break;
    case Offload::Segments::udp:
      h.segment_type = VnetHeader::kUdp;
      break;
  }
  if (o.ecn) h.segment_type |= VnetHeader::kEcn;
  h.segment_size = o.segment_size;
  h.header_length = o.header_length;
  return h;
}

std::optional<SegmentOffsets> segment_offsets(const Frame& frame) {
  const auto bytes = frame.bytes();
  SegmentOffsets at{sizeof(EthernetHeader), 0, 0};
  if (bytes.size() < at.network + sizeof(Ipv4Header)) return {};
  const unsigned version = std::to_integer<unsigned>(bytes[at.network]) >> 4U;
  std::size_t network_length = sizeof(Ipv6Header);
  if (version == 4)
    network_length = header_at<Ipv4Header>(bytes, at.network).header_length();
  else if (version == 6 && frame.offload.checksum == Offload::Checksum::partial)
    network_length =
        std::size_t{frame.offload.checksum_start} - at.network;  // the sender knows where its chain ends
  const std::size_t least = version == 4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header);
  if ((version != 4 && version != 6) || network_length < least || network_length > bytes.size()) return {};
  at.transport = at.network + network_length;
  if (frame.offload.segments == Offload::Segments::udp) {
    at.payload = at.transport + sizeof(UdpHeader);
  } else {
    if (bytes.size() < at.transport + sizeof(TcpHeader)) return {};
    const std::size_t length = header_at<TcpHeader>(bytes, at.transport).header_length();
    if (length < sizeof(TcpHeader)) return {};
    at.payload = at.transport + length;
  }
  if (at.payload >= bytes.size()) return {};
  return at;
}

}  // namespace director
