#include "compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "director/core/sync.h"
#include "director/net/checksum.h"
#include "director/net/format.h"
#include "director/net/headers.h"
#include "director/net/packet.h"
#include "director/net/tunnel_header.h"

namespace director::golden {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::size_t kEthernet = sizeof(EthernetHeader);
constexpr std::size_t kIpId = offsetof(Ipv4Header, id);
constexpr std::size_t kIpChecksum = offsetof(Ipv4Header, checksum);

bool is_ipv4(Bytes frame) {
  return frame.size() >= kEthernet + sizeof(Ipv4Header) && frame[12] == std::byte{8} &&
         frame[13] == std::byte{0};
}

bool is_ipv6(Bytes frame) {
  return frame.size() >= kEthernet + sizeof(Ipv6Header) && header_at<EthernetHeader>(frame, 0).type == Be16{0x86dd};
}

/// The IPv4 header at `offset`, if there is a whole one.
const Ipv4Header* ip_at(Bytes frame, std::size_t offset) {
  if (offset + sizeof(Ipv4Header) > frame.size()) return nullptr;
  const auto& ip = header_at<Ipv4Header>(frame, offset);
  const bool sane = ip.version_ihl / 16 == 4 && ip.header_length() >= sizeof(Ipv4Header) &&
                    offset + ip.header_length() <= frame.size();
  return sane ? &ip : nullptr;
}

bool quotes(Family family, const IcmpHeader& icmp) {
  if (family == Family::ipv6) return icmp.type < Icmpv6::kFirstQuery;
  return icmp.type == IcmpHeader::kUnreachable || icmp.type == IcmpHeader::kSourceQuench ||
         icmp.type == IcmpHeader::kRedirect || icmp.type == IcmpHeader::kTimeExceeded ||
         icmp.type == IcmpHeader::kParameterProblem;
}

/// What tunnels a packet of `protocol` into the one whose header ends at `offset`.
std::optional<TunnelHeader> tunnel_at(Bytes frame, std::size_t offset, Protocol protocol) {
  const Bytes behind = frame.subspan(offset);
  return protocol == Protocol::udp   ? read_gue_header(behind)
         : protocol == Protocol::gre ? read_gre_header(behind)
                                     : read_bare_header(protocol);
}

/// Where the IP headers of a frame are, outermost first: of a tunnel the inner one, of an ICMP error the quoted one.
std::vector<std::size_t> ip_headers(Bytes frame) {
  std::vector<std::size_t> offsets;
  std::size_t at = kEthernet;
  while ((is_ipv4(frame) || is_ipv6(frame)) && at < frame.size()) {
    const auto ip = parse_quoted(frame.subspan(at));
    if (!ip) break;
    offsets.push_back(at);
    at += ip->header_length;
    if (ip->later_fragment) break;
    if (const auto tunnel = tunnel_at(frame, at, ip->flow.protocol)) {
      at += tunnel->length;
      continue;
    }
    const bool icmp = ip->flow.protocol == (ip->family == Family::ipv4 ? Protocol::icmp : Protocol::icmpv6);
    if (!icmp || at + sizeof(IcmpHeader) > frame.size()) break;
    if (!quotes(ip->family, header_at<IcmpHeader>(frame, at))) break;
    at += sizeof(IcmpHeader);
  }
  return offsets;
}

void add_range(std::set<std::size_t>& set, std::size_t from, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) set.insert(from + i);
}

/// The times in the timestamp options (RFC 791, 3.1) of the header at `offset`.
std::set<std::size_t> option_times(Bytes frame, std::size_t offset) {
  std::set<std::size_t> times;
  if (ip_at(frame, offset) == nullptr) return times;
  const std::size_t end = offset + ip_at(frame, offset)->header_length();
  std::size_t at = offset + sizeof(Ipv4Header);
  while (at + 1 < end) {
    const auto kind = std::to_integer<unsigned>(frame[at]);
    if (kind == 0) break;
    if (kind == 1) {
      ++at;
      continue;
    }
    const auto length = std::to_integer<std::size_t>(frame[at + 1]);
    if (length < 2 || at + length > end) break;
    constexpr unsigned kTimestamp = 68;
    if (kind == kTimestamp && length >= 4) {
      const bool with_addresses = (std::to_integer<unsigned>(frame[at + 3]) & 0x0fU) != 0;
      for (std::size_t entry = at + 4; entry < at + length; entry += with_addresses ? 8 : 4)
        add_range(times, entry + (with_addresses ? 4 : 0), 4);
    }
    at += length;
  }
  return times;
}

bool ip_checksum_right(Bytes frame, std::size_t offset) {
  if (ip_at(frame, offset) == nullptr) return true;  // IPv6 has none
  return ChecksumSum{}.add(frame.subspan(offset, ip_at(frame, offset)->header_length())).folded() == 0xffff;
}

/// Whether the outer UDP checksum of a whole GUE packet is right; true where there is none to judge.
bool outer_udp_checksum_right(Bytes frame) {
  const auto ip = parse_quoted(frame.subspan(kEthernet));
  if (!ip || ip->flow.protocol != Protocol::udp || ip->later_fragment) return true;
  if (const Ipv4Header* v4 = ip_at(frame, kEthernet); v4 != nullptr && v4->more_fragments()) return true;
  const auto datagram = frame.subspan(kEthernet + ip->header_length);
  const auto gue = read_gue_header(datagram);
  if (!gue || !gue->has_checksum) return true;
  return pseudo_header_sum(ip->flow.source.address, ip->flow.target.address, Protocol::udp, datagram.size())
             .add(datagram)
             .folded() == 0xffff;
}

std::pair<std::byte, std::byte> id_of(Bytes frame) {
  return {frame[kEthernet + kIpId], frame[kEthernet + kIpId + 1]};
}

/// Traffic class and flow label.
std::uint32_t class_and_label(Bytes frame) {
  return header_at<Ipv6Header>(frame, kEthernet).version_class_flow.host();
}

}  // namespace

std::set<std::size_t> FrameComparison::ignored_bytes6(Bytes expected) const {
  constexpr std::uint32_t kLabel = 0xfffff;
  std::set<std::size_t> ignored;
  const Protocol next = header_at<Ipv6Header>(expected, kEthernet).next_header;
  const std::size_t behind = kEthernet + sizeof(Ipv6Header);
  const bool forwarded = std::ranges::any_of(caused_by_, [&](Bytes in) {
    return is_ipv6(in) && (class_and_label(in) & kLabel) == (class_and_label(expected) & kLabel);
  });
  const bool fragment = next == Ipv6Extension::kFragment;
  const bool tunnelled = tunnel_at(expected, behind, next).has_value() || fragment;
  // compare_one() looks at the traffic class, half of which shares a byte with the label.
  if ((ignored_.local_flow_label && next == Protocol::icmpv6 && !forwarded) || (ignored_.outer_flow_label && tunnelled))
    add_range(ignored, kEthernet + 1, 3);
  // Where a tunnel's outer packet is cut, its ID is as much the kernel's own dice as the flow label.
  if ((ignored_.fragment_id || (ignored_.outer_flow_label && tunnelled)) && fragment)
    add_range(ignored, behind + offsetof(Ipv6Fragment, id), 4);
  // In the first piece of a packet that was cut, too.
  const auto* piece = fragment && behind + sizeof(Ipv6Fragment) <= expected.size() ? &header_at<Ipv6Fragment>(expected, behind) : nullptr;
  if (piece != nullptr && piece->fragment_offset() != 0) return ignored;
  const Protocol upper = piece != nullptr ? piece->next_header : next;
  const std::size_t udp = behind + (piece != nullptr ? sizeof(Ipv6Fragment) : 0);
  if (ignored_.outer_udp_source && upper == Protocol::udp && read_gue_header(expected.subspan(udp))) {
    add_range(ignored, udp + offsetof(UdpHeader, source), 2);
    if (header_at<UdpHeader>(expected, udp).checksum != Be16{0}) add_range(ignored, udp + offsetof(UdpHeader, checksum), 2);
  }
  return ignored;
}

std::set<std::size_t> FrameComparison::ignored_bytes(Bytes expected) const {
  std::set<std::size_t> ignored;
  const std::vector<std::size_t> headers = ip_headers(expected);
  if (headers.empty()) return ignored;
  if (is_ipv6(expected)) return ignored_bytes6(expected);
  const Ipv4Header& outer = *ip_at(expected, kEthernet);
  const std::size_t transport = kEthernet + outer.header_length();
  const auto ignore_id = [&] {
    add_range(ignored, kEthernet + kIpId, 2);
    add_range(ignored, kEthernet + kIpChecksum, 2);
  };
  const bool tunnelled = tunnel_at(expected, transport, outer.protocol).has_value() || outer.fragment_offset() != 0;
  if (ignored_.outer_ip_id && tunnelled && !outer.dont_fragment()) ignore_id();
  if (ignored_.outer_udp_source && outer.protocol == Protocol::udp && outer.fragment_offset() == 0 &&
      read_gue_header(expected.subspan(transport))) {
    add_range(ignored, transport + offsetof(UdpHeader, source), 2);
    const Be16 checksum = header_at<UdpHeader>(expected, transport).checksum;
    if (checksum != Be16{0}) add_range(ignored, transport + offsetof(UdpHeader, checksum), 2);
  }
  const bool forwarded =
      std::ranges::any_of(caused_by_, [&](Bytes in) { return is_ipv4(in) && id_of(in) == id_of(expected); });
  if (ignored_.local_ip_id && outer.protocol == Protocol::icmp && !forwarded) ignore_id();
  constexpr std::uint8_t kTimestampReply = 14;
  if (ignored_.icmp_timestamp && outer.protocol == Protocol::icmp && transport + 20 <= expected.size() &&
      header_at<IcmpHeader>(expected, transport).type == kTimestampReply) {
    add_range(ignored, transport + 12, 8);  // when it was received and when it was sent
    add_range(ignored, transport + offsetof(IcmpHeader, checksum), 2);
  }
  if (ignored_.option_timestamp) {
    for (const std::size_t header : headers) {
      const std::set<std::size_t> times = option_times(expected, header);
      if (times.empty()) continue;
      ignored.insert(times.begin(), times.end());
      add_range(ignored, header + kIpChecksum, 2);
      if (header != kEthernet && outer.protocol == Protocol::icmp)
        add_range(ignored, transport + offsetof(IcmpHeader, checksum), 2);
    }
  }
  return ignored;
}

std::string FrameComparison::compare_one(Bytes expected, Bytes got) {
  const std::set<std::size_t> ignored = ignored_bytes(expected);
  const std::size_t common = std::min(expected.size(), got.size());
  std::string wrong;
  const auto complain = [&](const std::string& what) { wrong += "    " + what + "\n"; };
  for (std::size_t i = 0; i < common; ++i) {
    if (expected[i] == got[i] || ignored.contains(i)) continue;
    complain(fmt::format("first difference at byte {} ({}): expected {:02x}, got {:02x}", i,
                         field_at(expected, i), std::to_integer<unsigned>(expected[i]),
                         std::to_integer<unsigned>(got[i])));
    break;
  }
  if (expected.size() != got.size())
    complain(fmt::format("expected {} bytes, got {}", expected.size(), got.size()));
  if (is_ipv6(expected) && is_ipv6(got) && class_and_label(expected) >> 20U != class_and_label(got) >> 20U)
    complain("another traffic class");
  if (!wrong.empty()) return wrong;
  for (const std::size_t header : ip_headers(expected))
    if (ip_checksum_right(expected, header) != ip_checksum_right(got, header))
      complain(
          fmt::format("the IP header checksum at byte {} is {}", header + kIpChecksum,
                      ip_checksum_right(got, header) ? "right, expected the kernel's wrong one" : "wrong"));
  if (ignored_.outer_udp_source && outer_udp_checksum_right(expected) != outer_udp_checksum_right(got))
    complain("the outer UDP checksum isn't as right as the kernel's");
  if (is_ipv4(expected) && ignored.contains(kEthernet + kIpId)) {
    const auto [known, is_new] = ids_.emplace(id_of(expected), id_of(got));
    if (!is_new && known->second != id_of(got))
      complain("the IP ID isn't that of the packet's other fragments");
  }
  return wrong;
}

std::string FrameComparison::compare(std::span<const CapturedFrame> expected,
                                     std::span<const CapturedFrame> got) {
  std::string differences;
  const auto line = [](const CapturedFrame& frame) { return packet_line(frame.bytes, Detail::full); };
  for (std::size_t i = 0; i < std::max(expected.size(), got.size()); ++i) {
    if (i >= got.size()) {
      differences += fmt::format("  expected {}\n  got      nothing\n", line(expected[i]));
    } else if (i >= expected.size()) {
      differences += fmt::format("  expected nothing\n  got      {}\n", line(got[i]));
    } else if (const std::string wrong = compare_one(expected[i].bytes, got[i].bytes); !wrong.empty()) {
      differences += fmt::format("  expected {}\n  got      {}\n{}", line(expected[i]), line(got[i]), wrong);
    }
  }
  return differences;
}

std::string field_at(Bytes frame, std::size_t offset) {
  struct Field {
    std::string_view name;
    std::size_t begin;
  };
  const auto name_in = [](std::initializer_list<Field> fields, std::size_t at) {
    std::string_view name;
    for (const Field& f : fields)
      if (at >= f.begin) name = f.name;
    return std::string{name};
  };
  if (offset < kEthernet) return "ethernet." + name_in({{"target", 0}, {"source", 6}, {"type", 12}}, offset);
  const std::vector<std::size_t> headers = ip_headers(frame);
  std::string prefix;
  std::size_t transport = 0;
  std::optional<QuotedPacket> ip;
  for (std::size_t i = 0; i < headers.size() && headers[i] <= offset; ++i) {
    const bool quoting = ip && (ip->flow.protocol == Protocol::icmp || ip->flow.protocol == Protocol::icmpv6);
    prefix = i == 0 ? "" : quoting ? "quoted." : "inner.";
    ip = parse_quoted(frame.subspan(headers[i]));
    transport = headers[i] + ip->header_length;
    if (offset < transport && ip->family == Family::ipv6)
      return prefix + "ip6." +
             name_in({{"class_and_label", 0},
                      {"payload_length", 4},
                      {"next_header", 6},
                      {"hop_limit", 7},
                      {"source", 8},
                      {"target", 24},
                      {"extensions", 40}},
                     offset - headers[i]);
    if (offset < transport)
      return prefix + "ip." +
             name_in({{"version_ihl", 0},
                      {"tos", 1},
                      {"total_length", 2},
                      {"id", 4},
                      {"fragment", 6},
                      {"ttl", 8},
                      {"protocol", 9},
                      {"checksum", 10},
                      {"source", 12},
                      {"target", 16},
                      {"options", 20}},
                     offset - headers[i]);
  }
  if (!ip) return "payload";
  const std::size_t at = offset - transport;
  if (!ip->later_fragment && ip->flow.protocol == Protocol::tcp)
    return prefix + "tcp." +
           name_in({{"source", 0},
                    {"target", 2},
                    {"sequence", 4},
                    {"acknowledgement", 8},
                    {"offset", 12},
                    {"flags", 13},
                    {"window", 14},
                    {"checksum", 16},
                    {"urgent", 18},
                    {"options and payload", 20}},
                   at);
  if (!ip->later_fragment && ip->flow.protocol == Protocol::udp)
    return prefix + "udp." +
           name_in({{"source", 0}, {"target", 2}, {"length", 4}, {"checksum", 6}, {"payload", 8}}, at);
  if (!ip->later_fragment && (ip->flow.protocol == Protocol::icmp || ip->flow.protocol == Protocol::icmpv6))
    return prefix + "icmp." +
           name_in({{"type", 0}, {"code", 1}, {"checksum", 2}, {"rest", 4}, {"payload", 8}}, at);
  return prefix + "payload";
}

// --- messages to other directors -------------------------------------------------------------------------------------

bool SyncComparison::is_message(Bytes frame) {
  const Ipv4Header* ip = is_ipv4(frame) ? ip_at(frame, kEthernet) : nullptr;
  return ip != nullptr && ip->protocol == Protocol::udp && IpAddress::v4(ip->target).is_multicast();
}

/// A record in words, with the datagram's addresses; without what a case ignores (sync.udp.sport, sync.timeout, udp.checksum).
void SyncComparison::take(Bytes frame, std::vector<std::string>& lines) {
  const Ipv4Header& ip = *ip_at(frame, kEthernet);
  const std::size_t udp_at = kEthernet + ip.header_length();
  const auto udp = header_at<UdpHeader>(frame, udp_at);
  const auto& ethernet = header_at<EthernetHeader>(frame, 0);
  const std::size_t payload = udp_at + sizeof udp;
  const SyncReading reading = read_sync_message(frame.subspan(payload, udp.length.host() - sizeof udp));
  const std::string head =
      fmt::format("{} > {} {} > {}:{} ttl {} tos {} fragment {} id {}", format_as(ethernet.source), format_as(ethernet.target),
                  format_as(IpAddress::v4(ip.source)), format_as(IpAddress::v4(ip.target)), udp.target.host(), ip.ttl, ip.tos,
                  ip.fragment.host(), reading.sync_id);
  if (!reading.whole) lines.push_back(head + " nonsense");
  for (const SyncRecord& r : reading.records)
    lines.push_back(fmt::format("{}: {} {} > {} at {} flags {:#x} state {} mark {} {}{}", head, format_as(r.flow.protocol),
                                format_as(r.flow.source), format_as(r.flow.target), format_as(r.real), r.flags, r.state,
                                r.mark, r.engine, r.engine_data));
}

// --- text -----------------------------------------------------------------------------------------------------------

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string squeezed(std::string_view line) {
  std::string result;
  for (const char c : line)
    if (c != ' ' || (!result.empty() && result.back() != ' ')) result += c;
  if (!result.empty() && result.back() == ' ') result.pop_back();
  return result;
}

namespace {

/// A row without its expiry, and the expiry in seconds. Rows that have none (headings) as they are.
std::pair<std::string, std::optional<long>> split_expiry(const std::string& row) {
  const std::size_t begin = row.find(' ');
  const std::size_t end = begin == std::string::npos ? begin : row.find(' ', begin + 1);
  if (end == std::string::npos) return {row, {}};
  const std::string_view time = std::string_view{row}.substr(begin + 1, end - begin - 1);
  const std::size_t colon = time.find(':');
  long minutes = 0;
  long seconds = 0;
  const auto number = [](std::string_view text, long& into) {
    const auto [last, error] = std::from_chars(text.begin(), text.end(), into);
    return error == std::errc{} && last == text.end();
  };
  if (colon == std::string_view::npos || !number(time.substr(0, colon), minutes) ||
      !number(time.substr(colon + 1), seconds))
    return {row, {}};
  return {row.substr(0, begin) + row.substr(end), minutes * 60 + seconds};
}

}  // namespace

std::string compare_connections(std::vector<std::string> expected, std::vector<std::string> got, long slack) {
  using Row = std::pair<std::string, std::optional<long>>;
  const auto rows_of = [](const std::vector<std::string>& lines) {
    std::vector<Row> rows;
    for (const std::string& line : lines) rows.push_back(split_expiry(squeezed(line)));
    std::ranges::sort(rows);
    return rows;
  };
  const std::vector<Row> want = rows_of(expected);
  const std::vector<Row> have = rows_of(got);
  const auto text = [](const Row& row) {
    return row.second ? fmt::format("{} (expires in {} s)", row.first, *row.second) : row.first;
  };
  std::string differences;
  auto w = want.begin();
  auto h = have.begin();
  while (w != want.end() || h != have.end()) {
    if (h == have.end() || (w != want.end() && w->first < h->first)) {
      differences += "  expected " + text(*w++) + "\n  got      nothing\n";
    } else if (w == want.end() || h->first < w->first) {
      differences += "  expected nothing\n  got      " + text(*h++) + "\n";
    } else {
      const bool close = w->second.has_value() == h->second.has_value() &&
                         std::abs(w->second.value_or(0) - h->second.value_or(0)) <= slack;
      if (!close) differences += "  expected " + text(*w) + "\n  got      " + text(*h) + "\n";
      ++w;
      ++h;
    }
  }
  return differences;
}

namespace {

/// A row of /proc/net/ip_vs_conn as one of ipvsadm -Lnc: its last word, seconds, becomes the second word, minutes and seconds.
std::string with_expiry_second(const std::string& line) {
  const std::string row = squeezed(line);
  const std::size_t first = row.find(' ');
  const std::size_t last = row.rfind(' ');
  long seconds = 0;
  if (first == last || std::from_chars(row.data() + last + 1, row.data() + row.size(), seconds).ec != std::errc{}) return row;
  return fmt::format("{} {:02}:{:02} {}", row.substr(0, first), seconds / 60, seconds % 60, row.substr(first + 1, last - first - 1));
}

}  // namespace

std::string compare_output(const std::vector<std::string>& expected, const std::vector<std::string>& got, long slack) {
  const bool listing = !expected.empty() && expected.front() == "IPVS connection entries";
  const bool proc = !expected.empty() && expected.front().starts_with("Pro FromIP");
  const std::size_t headings = listing ? 2 : 1;
  if ((!listing && !proc) || got.size() < headings) return compare_lines(expected, got);
  const auto part = [&](const std::vector<std::string>& lines, bool rows) {
    const auto split = lines.begin() + static_cast<long>(headings);
    std::vector<std::string> some(rows ? split : lines.begin(), rows ? lines.end() : split);
    if (proc && rows) std::ranges::transform(some, some.begin(), with_expiry_second);
    return some;
  };
  return compare_lines(part(expected, false), part(got, false)) + compare_connections(part(expected, true), part(got, true), slack);
}

std::string compare_lines(const std::vector<std::string>& expected, const std::vector<std::string>& got) {
  std::string differences;
  for (std::size_t i = 0; i < std::max(expected.size(), got.size()); ++i) {
    const std::string want = i < expected.size() ? "\"" + expected[i] + "\"" : "nothing";
    const std::string have = i < got.size() ? "\"" + got[i] + "\"" : "nothing";
    if (want != have) differences += "  expected " + want + "\n  got      " + have + "\n";
  }
  return differences;
}

}  // namespace director::golden
