#include "departure_rules.h"

#include <algorithm>

#include "director/net/checksum.h"
#include "director/net/headers.h"

namespace director::golden {
namespace {

constexpr std::size_t kEthernet = sizeof(EthernetHeader);

/// departures.md, "a TCP segment with IP options is refused": a reset as it would be without the options; nullopt for other frames.
std::optional<CapturedFrame> reset_without_options(const CapturedFrame& frame) {
  const std::span<const std::byte> bytes = frame.bytes;
  if (bytes.size() < kEthernet + sizeof(Ipv4Header) || bytes[12] != std::byte{8} || bytes[13] != std::byte{0})
    return {};
  Ipv4Header ip = header_at<Ipv4Header>(bytes, kEthernet);
  const std::size_t header = ip.header_length();
  if (ip.protocol != Protocol::tcp || header <= sizeof(Ipv4Header)) return {};
  if (bytes.size() != kEthernet + header + sizeof(TcpHeader)) return {};
  if ((header_at<TcpHeader>(bytes, kEthernet + header).flags & TcpHeader::kRst) == 0) return {};
  CapturedFrame plain = frame;
  const auto from = plain.bytes.begin() + kEthernet + sizeof(Ipv4Header);
  plain.bytes.erase(from, from + static_cast<long>(header - sizeof(Ipv4Header)));
  ip.version_ihl = 0x45;
  ip.total_length = Be16{static_cast<std::uint16_t>(plain.bytes.size() - kEthernet)};
  ip.checksum = Be16{0};
  auto& written = header_at<Ipv4Header>(std::span{plain.bytes}, kEthernet);
  written = ip;
  written.checksum = ChecksumSum{}.add(std::span{plain.bytes}.subspan(kEthernet, sizeof(Ipv4Header))).field();
  return plain;
}

bool resets_carry_no_options(const StepFrames& step, const Ignored& ignored) {
  std::vector<CapturedFrame> plain;
  for (const CapturedFrame& frame : step.expected)
    plain.push_back(reset_without_options(frame).value_or(frame));
  return FrameComparison(ignored, {step.received.begin(), step.received.end()})
      .compare(plain, step.got)
      .empty();
}

struct Rule {
  std::string_view name;
  bool (*explains)(const StepFrames& step, const Ignored& ignored);
};
constexpr Rule kRules[] = {
    {"a reset carries no options", resets_carry_no_options},
};

}  // namespace

std::optional<std::string_view> explaining_rule(const StepFrames& step, const Ignored& ignored) {
  const auto* found =
      std::ranges::find_if(kRules, [&](const Rule& rule) { return rule.explains(step, ignored); });
  if (found == std::end(kRules)) return {};
  return found->name;
}

}  // namespace director::golden
