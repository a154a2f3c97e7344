// See the header.
#include "director/realserver/coalesce.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <vector>

#include "director/net/checksum.h"
#include "director/net/headers.h"
#include "director/net/ip_header.h"

namespace director::realserver {
namespace {

constexpr std::size_t kMostInPacket = 65535;
constexpr std::uint8_t kJoined = TcpHeader::kAck | TcpHeader::kPsh;  // the flags a segment may have

/// A TCP packet without IP options, extension headers or fragmentation.
struct Segment {
  Family family;
  std::size_t transport;
  std::size_t payload;
};

std::optional<Segment> read(const Frame& packet) {
  const auto bytes = packet.bytes();
  Segment s{Family::ipv4, sizeof(Ipv4Header), 0};
  if (bytes.size() < sizeof(Ipv4Header) + sizeof(TcpHeader)) return {};
  if (std::to_integer<unsigned>(bytes[0]) >> 4U == 4) {
    const auto& ip = header_at<Ipv4Header>(bytes, 0);
    if (ip.version_ihl != 0x45 || ip.protocol != Protocol::tcp || ip.more_fragments() || ip.fragment_offset() != 0) return {};
  } else {
    s.family = Family::ipv6;
    s.transport = sizeof(Ipv6Header);
    if (bytes.size() < sizeof(Ipv6Header) + sizeof(TcpHeader)) return {};
    if (header_at<Ipv6Header>(bytes, 0).next_header != Protocol::tcp) return {};
  }
  const auto& tcp = header_at<TcpHeader>(bytes, s.transport);
  s.payload = s.transport + tcp.header_length();
  if (tcp.header_length() < sizeof(TcpHeader) || s.payload > bytes.size()) return {};
  return s;
}

const TcpHeader& tcp_of(const Frame& packet, const Segment& s) { return header_at<TcpHeader>(packet.bytes(), s.transport); }
IpAddress address_of(const Frame& packet, const Segment& s, AddressEnd end) { return address_at(packet.bytes(), 0, s.family, end); }

bool same_connection(const Frame& a, const Segment& as, const Frame& b, const Segment& bs) {
  return as.family == bs.family && tcp_of(a, as).source == tcp_of(b, bs).source && tcp_of(a, as).target == tcp_of(b, bs).target &&
         address_of(a, as, AddressEnd::source) == address_of(b, bs, AddressEnd::source) &&
         address_of(a, as, AddressEnd::target) == address_of(b, bs, AddressEnd::target);
}

/// Of one connection: whether all else that is said once for a super-frame is the same.
bool same_headers(const Frame& a, const Segment& as, const Frame& b, const Segment& bs) {
  if (as.payload != bs.payload) return false;
  if (as.family == Family::ipv4) {
    const auto& x = header_at<Ipv4Header>(a.bytes(), 0);
    const auto& y = header_at<Ipv4Header>(b.bytes(), 0);
    if (x.tos != y.tos || x.ttl != y.ttl || x.fragment != y.fragment) return false;
  } else {
    const auto& x = header_at<Ipv6Header>(a.bytes(), 0);
    const auto& y = header_at<Ipv6Header>(b.bytes(), 0);
    if (x.version_class_flow != y.version_class_flow || x.hop_limit != y.hop_limit) return false;
  }
  if (tcp_of(a, as).acknowledgement != tcp_of(b, bs).acknowledgement || tcp_of(a, as).window != tcp_of(b, bs).window) return false;
  const auto options = [](const Frame& f, const Segment& s) {
    return f.bytes().subspan(s.transport + sizeof(TcpHeader), s.payload - s.transport - sizeof(TcpHeader));
  };
  return std::ranges::equal(options(a, as), options(b, bs));
}

ChecksumSum pseudo_sum(const Frame& packet, const Segment& s) {
  return pseudo_header_sum(address_of(packet, s, AddressEnd::source), address_of(packet, s, AddressEnd::target), Protocol::tcp,
                           packet.length - s.transport);
}

/// Nobody will look at it once it is part of a super-frame. One that the sender left undone is as good as right.
bool checksum_holds(const Frame& packet, const Segment& s) {
  if (packet.offload.checksum == Offload::Checksum::partial || packet.offload.verified) return true;
  return pseudo_sum(packet, s).add(packet.bytes().subspan(s.transport)).folded() == 0xffff;
}

/// A super-frame in the making: its first segment, with the payload of those that have joined it.
class Stream {
 public:
  Stream(Frame& first, const Segment& s, std::uint16_t& count) : first_(&first), at_(s), count_(&count) {
    segment_size_ = first.length - s.payload;
    const auto& tcp = tcp_of(first, s);
    open_ = first.offload.segments == Offload::Segments::none && segment_size_ > 0 && tcp.flags == TcpHeader::kAck;
  }

  [[nodiscard]] bool is_of(const Frame& packet, const Segment& s) const { return same_connection(*first_, at_, packet, s); }

  /// False: the packet stays itself.
  bool join(const Frame& packet, const Segment& s) {
    const auto& tcp = tcp_of(packet, s);
    const std::size_t size = packet.length - s.payload;
    const std::size_t had = first_->length - at_.payload;
    const bool joins = open_ && packet.offload.segments == Offload::Segments::none && size > 0 && size <= segment_size_ &&
                       (tcp.flags | kJoined) == kJoined && (tcp.flags & TcpHeader::kAck) != 0 &&
                       tcp.sequence == Be32{static_cast<std::uint32_t>(tcp_of(*first_, at_).sequence.host() + had)} &&
                       first_->length + size <= kMostInPacket && first_->tailroom() >= size && same_headers(*first_, at_, packet, s) &&
                       (*count_ > 1 || checksum_holds(*first_, at_)) && checksum_holds(packet, s);
    if (!joins) return false;
    const auto payload = packet.bytes().subspan(s.payload);
    first_->resize(first_->length + size);
    std::memcpy(first_->bytes().data() + at_.payload + had, payload.data(), size);
    header_at<TcpHeader>(first_->bytes(), at_.transport).flags |= tcp.flags & TcpHeader::kPsh;
    open_ = size == segment_size_ && (tcp.flags & TcpHeader::kPsh) == 0;
    ++*count_;
    return true;
  }

  /// Makes one packet of them, as the kernel describes it.
  void finish() {
    if (*count_ == 1) return;
    const auto bytes = first_->bytes();
    set_ip_length(bytes, 0, at_.family);
    auto& tcp = header_at<TcpHeader>(bytes, at_.transport);
    tcp.checksum = Be16::from_raw(pseudo_sum(*first_, at_).folded());
    Offload& o = first_->offload;
    o = {};
    o.checksum = Offload::Checksum::partial;
    o.checksum_start = static_cast<std::uint16_t>(at_.transport);
    o.checksum_offset = offsetof(TcpHeader, checksum);
    o.segments = at_.family == Family::ipv4 ? Offload::Segments::tcp4 : Offload::Segments::tcp6;
    o.segment_size = static_cast<std::uint16_t>(segment_size_);
    o.header_length = static_cast<std::uint16_t>(at_.payload);
  }

 private:
  Frame* first_;
  Segment at_;
  std::uint16_t* count_;  // segments
  std::size_t segment_size_ = 0;
  bool open_ = false;
};

}  // namespace

std::size_t coalesce(std::span<Frame*> packets, std::span<std::uint16_t> stands_for) {
  std::vector<Stream> streams;  // the latest of each connection in the batch
  std::size_t left = 0;
  for (Frame* const packet : packets) {
    const auto segment = read(*packet);
    auto stream = streams.end();
    if (segment) stream = std::ranges::find_if(streams, [&](const Stream& s) { return s.is_of(*packet, *segment); });
    if (stream != streams.end()) {
      if (stream->join(*packet, *segment)) continue;
      stream->finish();  // what joined it from now on would come before this packet
      streams.erase(stream);
    }
    packets[left] = packet;
    stands_for[left] = 1;
    if (segment) streams.emplace_back(*packet, *segment, stands_for[left]);
    ++left;
  }
  for (Stream& stream : streams) stream.finish();
  return left;
}

}  // namespace director::realserver
