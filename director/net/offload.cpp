// What a device would do with a frame's Offload state, in software: finish checksums, cut super-frames into segments.
#include "director/net/offload.h"

#include <algorithm>
#include <cstring>

#include "director/net/checksum.h"
#include "director/net/frame.h"
#include "director/net/headers.h"

namespace director {
namespace {

/// UDP's 0 would mean "no checksum" (RFC 768); TCP's 0 is just a number, but its complement is as good (RFC 1071).
Be16 never_zero(Be16 field, bool udp) { return udp && field == Be16{0} ? Be16{0xffff} : field; }

}  // namespace

void finish_checksum(Frame& frame) {
  Offload& o = frame.offload;
  if (o.checksum != Offload::Checksum::partial) return;
  const auto bytes = frame.bytes();
  assert(o.checksum_start + std::size_t{o.checksum_offset} + 2 <= bytes.size());
  // The field holds the pseudo-header's sum, so summing the bytes with the field in place gives the whole.
  const Be16 field = ChecksumSum{}.add(bytes.subspan(o.checksum_start)).field();
  const bool udp = o.checksum_offset == offsetof(UdpHeader, checksum);
  header_at<Be16>(bytes, o.checksum_start + std::size_t{o.checksum_offset}) = never_zero(field, udp);
  o.checksum = Offload::Checksum::complete;
  o.verified = false;
}

ChecksumSum wire_sum(const Frame& frame, std::size_t from) {
  const Offload& o = frame.offload;
  const auto bytes = frame.bytes();
  if (o.checksum != Offload::Checksum::partial) return ChecksumSum{}.add(bytes.subspan(from));
  assert(o.checksum_start >= from);
  // With p the pseudo-header's sum and s that of the bytes with p in the field, the field becomes ~s: s - p + ~s, which is ~p.
  const Be16 pseudo = header_at<Be16>(bytes, o.checksum_start + std::size_t{o.checksum_offset});
  const Be16 rest = Be16::from_raw(static_cast<std::uint16_t>(~pseudo.raw()));
  ChecksumSum sum = ChecksumSum{}.add(bytes.subspan(from, o.checksum_start - from));
  const bool odd = (o.checksum_start - from) % 2 != 0;  // its bytes then stand the other way round in the words
  return sum.add(odd ? Be16{static_cast<std::uint16_t>(rest.host() << 8U | rest.host() >> 8U)} : rest);
}

std::size_t segment_count(const Frame& frame, std::size_t payload) {
  const Offload& o = frame.offload;
  if (o.segments == Offload::Segments::none || o.segment_size == 0 || frame.length <= payload) return 1;
  return (frame.length - payload + o.segment_size - 1) / o.segment_size;
}

void cut_segment(const Frame& frame, std::size_t network, std::size_t transport, std::size_t index, Frame& out) {
  const auto from = frame.bytes();
  const bool udp = frame.offload.segments == Offload::Segments::udp;
  const std::size_t payload =
      transport + (udp ? sizeof(UdpHeader) : header_at<TcpHeader>(from, transport).header_length());
  const std::size_t count = segment_count(frame, payload);
  assert(index < count);
  const bool first = index == 0;
  const bool last = index + 1 == count;
  const std::size_t offset = index * frame.offload.segment_size;
  const std::size_t size = std::min<std::size_t>(frame.offload.segment_size, frame.length - payload - offset);

  out.offload = {};
  out.ingress = frame.ingress;
  out.resize(payload + size);
  const auto to = out.bytes();
  std::memcpy(to.data(), from.data(), payload);
  std::memcpy(to.data() + payload, from.data() + payload + offset, size);

  IpAddress source;
  IpAddress target;
  if ((std::to_integer<unsigned>(to[network]) >> 4U) == 4) {
    auto& ip = header_at<Ipv4Header>(to, network);
    ip.total_length = Be16{static_cast<std::uint16_t>(out.length - network)};
    ip.id = Be16{static_cast<std::uint16_t>(ip.id.host() + index)};  // the kernel's inet_gso_segment counts up alike
    ip.checksum = Be16{0};
    ip.checksum = ChecksumSum{}.add(to.subspan(network, ip.header_length())).field();
    source = IpAddress::v4(ip.source);
    target = IpAddress::v4(ip.target);
  } else {
    auto& ip = header_at<Ipv6Header>(to, network);
    ip.payload_length = Be16{static_cast<std::uint16_t>(out.length - network - sizeof(Ipv6Header))};
    source = IpAddress::v6(ip.source);
    target = IpAddress::v6(ip.target);
  }

  const std::size_t l4_length = out.length - transport;
  if (udp) {
    auto& h = header_at<UdpHeader>(to, transport);
    h.length = Be16{static_cast<std::uint16_t>(l4_length)};
    h.checksum = Be16{0};
    h.checksum = never_zero(
        pseudo_header_sum(source, target, Protocol::udp, l4_length).add(to.subspan(transport)).field(), true);
  } else {
    auto& h = header_at<TcpHeader>(to, transport);
    h.sequence = Be32{static_cast<std::uint32_t>(h.sequence.host() + offset)};
    if (!last) h.flags &= static_cast<std::uint8_t>(~(TcpHeader::kFin | TcpHeader::kPsh));
    if (!first) h.flags &= static_cast<std::uint8_t>(~TcpHeader::kCwr);  // RFC 3168, 6.1.2: once per window
    h.checksum = Be16{0};
    h.checksum =
        pseudo_header_sum(source, target, Protocol::tcp, l4_length).add(to.subspan(transport)).field();
  }
}

}  // namespace director
