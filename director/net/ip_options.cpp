// One pass over the options, each checked as it comes.
#include "director/net/ip_options.h"

#include "director/net/checksum.h"
#include "director/net/headers.h"

namespace director {
namespace {

// IANA, IP Option Numbers; copied flag and class included.
constexpr std::uint8_t kEnd = 0;
constexpr std::uint8_t kNoOperation = 1;
constexpr std::uint8_t kRecordRoute = 7;
constexpr std::uint8_t kTimestamp = 68;
constexpr std::uint8_t kLooseSourceRoute = 131;
constexpr std::uint8_t kStrictSourceRoute = 137;

// Timestamp flags (RFC 791).
constexpr unsigned kTimesOnly = 0;
constexpr unsigned kWithAddresses = 1;
constexpr unsigned kPrespecified = 3;

using Option = std::span<std::byte>;  // type, length, pointer, ...

std::size_t byte_at(Option option, std::size_t i) {
  return std::to_integer<std::size_t>(option[i]);
}

/// Where the next entry goes, from the option's first byte; entries are counted from 1 on the wire.
std::size_t next_entry(Option option) {
  return byte_at(option, 2) - 1;
}
void move_pointer(Option option, std::size_t by) {
  option[2] = static_cast<std::byte>(byte_at(option, 2) + by);
}

Reason record_route(Option option, const IpAddress& here) {
  if (option.size() < 3 || byte_at(option, 2) < 4) return Reason::bad_options;
  if (next_entry(option) >= option.size()) return Reason::none;  // full
  if (next_entry(option) + 4 > option.size()) return Reason::bad_options;
  header_at<Be32>(option, next_entry(option)) = here.v4_wire();
  move_pointer(option, 4);
  return Reason::none;
}

Reason timestamp(Option option, const IpAddress& here, Be32 time) {
  if (option.size() < 4 || byte_at(option, 2) < 5) return Reason::bad_options;
  const unsigned flags = static_cast<unsigned>(byte_at(option, 3)) & 0x0fU;
  const std::size_t at = next_entry(option);
  if (at >= option.size()) {  // full: counted, as far as the counter goes
    constexpr std::size_t kMostMissed = 15;
    const std::size_t missed = byte_at(option, 3) / 16;
    if (flags == kPrespecified) return Reason::none;
    if (missed == kMostMissed) return Reason::bad_options;
    option[3] = static_cast<std::byte>((missed + 1) * 16 + flags);
    return Reason::none;
  }
  const std::size_t size = flags == kTimesOnly ? 4 : 8;
  if (at + size > option.size()) return Reason::bad_options;
  switch (flags) {
    case kTimesOnly:
      break;
    case kWithAddresses:
      header_at<Be32>(option, at) = here.v4_wire();
      break;
    case kPrespecified:
      if (header_at<Be32>(option, at) != here.v4_wire()) return Reason::none;  // somebody else is asked
      break;
    default:
      return Reason::bad_options;
  }
  header_at<Be32>(option, at + size - 4) = time;
  move_pointer(option, size);
  return Reason::none;
}

}  // namespace

Reason enter_in_options(std::span<std::byte> header, const IpAddress& here, std::uint32_t milliseconds) {
  const Be32 time{milliseconds};
  for (std::size_t at = sizeof(Ipv4Header); at < header.size();) {
    const auto kind = std::to_integer<std::uint8_t>(header[at]);
    if (kind == kEnd) break;
    if (kind == kNoOperation) {
      ++at;
      continue;
    }
    if (at + 1 >= header.size()) return Reason::bad_options;
    const auto length = std::to_integer<std::size_t>(header[at + 1]);
    if (length < 2 || at + length > header.size()) return Reason::bad_options;
    const Option option = header.subspan(at, length);
    Reason reason = Reason::none;
    if (kind == kLooseSourceRoute || kind == kStrictSourceRoute) reason = Reason::source_route;
    if (kind == kRecordRoute) reason = record_route(option, here);
    if (kind == kTimestamp) reason = timestamp(option, here, time);
    if (reason != Reason::none) return reason;
    at += length;
  }
  auto& ip = header_at<Ipv4Header>(header, 0);
  ip.checksum = Be16{0};
  ip.checksum = ChecksumSum{}.add(header).field();
  return Reason::none;
}

}  // namespace director
