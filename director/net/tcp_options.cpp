// Walking TCP options.
#include "director/net/tcp_options.h"

#include <algorithm>

#include "director/net/checksum.h"
#include "director/net/headers.h"

namespace director {
namespace {

constexpr std::uint8_t kEnd = 0;
constexpr std::uint8_t kNoOperation = 1;
constexpr std::uint8_t kMaximumSegmentSize = 2;
constexpr std::size_t kMssLength = 4;

Be16 swapped(Be16 v) { return Be16{static_cast<std::uint16_t>(v.host() << 8U | v.host() >> 8U)}; }

}  // namespace

bool lower_mss(Frame& frame, const PacketView& view, std::uint16_t most) {
  const auto bytes = frame.bytes();
  auto& tcp = header_at<TcpHeader>(bytes, view.transport);
  const std::size_t end = view.transport + std::min<std::size_t>(tcp.header_length(), view.payload_length());
  for (std::size_t at = view.transport + sizeof(TcpHeader); at + 1 < end;) {
    const auto kind = std::to_integer<std::uint8_t>(bytes[at]);
    if (kind == kEnd) return false;
    if (kind == kNoOperation) {
      ++at;
      continue;
    }
    const auto length = std::to_integer<std::size_t>(bytes[at + 1]);
    if (length < 2 || at + length > end) return false;
    if (kind != kMaximumSegmentSize) {
      at += length;
      continue;
    }
    if (length != kMssLength) return false;
    const std::size_t value_at = at + 2;
    Be16& value = header_at<Be16>(bytes, value_at);
    if (value.host() <= most) return false;
    const bool odd = (value_at - view.transport) % 2 != 0;  // behind an odd number of no-operations it straddles two words
    const Be16 before = value;
    value = Be16{most};
    if (frame.offload.checksum == Offload::Checksum::complete)
      tcp.checksum = ChecksumDelta{odd ? ChecksumSum{}.replace(swapped(before), swapped(value))
                                       : ChecksumSum{}.replace(before, value)}
                         .applied_to(tcp.checksum);
    return true;
  }
  return false;
}

}  // namespace director
