// Addresses as text and back. inet_pton's grammar without its header: the core includes no <arpa/inet.h>.
#include "director/net/address.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace director {
namespace {

/// A decimal number without sign, blanks or leading zeros beyond "0", at most `most`.
std::optional<unsigned> parse_decimal(std::string_view text, unsigned most) {
  if (text.empty() || text.size() > 5 || (text.size() > 1 && text[0] == '0')) return {};
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc{} || end != text.end() || value > most) return {};
  return value;
}

std::optional<std::uint32_t> parse_v4(std::string_view text) {
  std::uint32_t host = 0;
  for (int i = 0; i < 4; ++i) {
    const std::size_t dot = i < 3 ? text.find('.') : text.size();
    if (dot == std::string_view::npos) return {};
    const auto octet = parse_decimal(text.substr(0, dot), 255);
    if (!octet) return {};
    host = host << 8U | *octet;
    text.remove_prefix(std::min(dot + 1, text.size()));
  }
  return host;
}

/// RFC 4291, 2.2: groups of hexadecimal digits, one "::" for a run of zeros, the last two groups may be an IPv4 address.
std::optional<std::array<std::uint8_t, 16>> parse_v6(std::string_view text) {
  std::array<std::uint16_t, 8> groups{};
  std::size_t count = 0;
  std::optional<std::size_t> gap;
  if (text.starts_with("::")) {
    gap = 0;
    text.remove_prefix(2);
  }
  while (!text.empty()) {
    const std::size_t colon = text.find(':');
    const std::string_view group = text.substr(0, colon);
    if (group.find('.') != std::string_view::npos) {
      const auto v4 = parse_v4(group);
      if (!v4 || colon != std::string_view::npos || count > 6) return {};
      groups[count++] = static_cast<std::uint16_t>(*v4 >> 16U);
      groups[count++] = static_cast<std::uint16_t>(*v4);
      break;
    }
    unsigned value = 0;
    const auto [end, error] = std::from_chars(group.begin(), group.end(), value, 16);
    if (group.empty() || group.size() > 4 || error != std::errc{} || end != group.end() || count == 8) return {};
    groups[count++] = static_cast<std::uint16_t>(value);
    if (colon == std::string_view::npos) break;
    text.remove_prefix(colon + 1);
    if (text.empty()) return {};  // a single colon at the end
    if (text.front() == ':') {
      if (gap) return {};
      gap = count;
      text.remove_prefix(1);
    }
  }
  if (gap ? count > 7 : count != 8) return {};
  if (gap) std::rotate(groups.begin() + static_cast<long>(*gap), groups.begin() + static_cast<long>(count), groups.end());
  std::array<std::uint8_t, 16> wire{};
  for (std::size_t i = 0; i < 8; ++i) {
    wire[2 * i] = static_cast<std::uint8_t>(groups[i] >> 8U);
    wire[2 * i + 1] = static_cast<std::uint8_t>(groups[i]);
  }
  return wire;
}

}  // namespace

std::optional<MacAddress> MacAddress::parse(std::string_view text) {
  if (text.size() != 17) return {};
  MacAddress mac;
  for (std::size_t i = 0; i < 6; ++i) {
    const std::string_view octet = text.substr(3 * i, 2);
    const auto [end, error] = std::from_chars(octet.begin(), octet.end(), mac.bytes[i], 16);
    if (error != std::errc{} || end != octet.end() || (i < 5 && text[3 * i + 2] != ':')) return {};
  }
  return mac;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  if (text.find(':') == std::string_view::npos) {
    const auto v4 = parse_v4(text);
    return v4 ? std::optional{IpAddress::v4(*v4)} : std::nullopt;
  }
  const auto wire = parse_v6(text);
  return wire ? std::optional{IpAddress::v6(*wire)} : std::nullopt;
}

std::optional<Prefix> Prefix::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) return {};
  const unsigned most = address->is_v4() ? 32 : 128;
  if (slash == std::string_view::npos) return Prefix{*address, static_cast<std::uint8_t>(most)};
  const auto length = parse_decimal(text.substr(slash + 1), most);
  if (!length) return {};
  return Prefix{*address, static_cast<std::uint8_t>(*length)};
}

namespace {

/// Calls `fill(byte, mask)` for each byte of the 16 with the mask of its network bits.
template <typename Fill>
IpAddress map_host_bits(const Prefix& p, Fill fill) {
  auto bytes = p.address.bytes();
  const unsigned skip = p.address.is_v4() ? 96 : 0;
  for (unsigned i = 0; i < 16; ++i) {
    const int bits = std::clamp(static_cast<int>(skip + p.length) - static_cast<int>(8 * i), 0, 8);
    bytes[i] = fill(bytes[i], static_cast<std::uint8_t>(0xff00U >> static_cast<unsigned>(bits)));
  }
  return IpAddress::v6(bytes);  // mapped bytes stay mapped: the first 96 bits are never host bits
}

}  // namespace

IpAddress Prefix::network() const {
  return map_host_bits(*this, [](std::uint8_t b, std::uint8_t mask) { return static_cast<std::uint8_t>(b & mask); });
}

IpAddress Prefix::broadcast() const {
  return map_host_bits(*this,
                       [](std::uint8_t b, std::uint8_t mask) { return static_cast<std::uint8_t>(b | ~mask); });
}

bool Prefix::contains(const IpAddress& a) const {
  const bool v4 = address.is_v4();
  if (a.is_v4() != v4) return false;
  // Of 16 bytes the leading ones that count, in two halves.
  const unsigned count = length + (v4 ? 96U : 0U);
  const auto [high, low] = std::bit_cast<std::array<Be64, 2>>(address.bytes());
  const auto [other_high, other_low] = std::bit_cast<std::array<Be64, 2>>(a.bytes());
  const auto leading = [](unsigned n) { return n == 0 ? 0 : ~std::uint64_t{0} << (64U - n); };
  return ((high.host() ^ other_high.host()) & leading(std::min(count, 64U))) == 0 &&
         ((low.host() ^ other_low.host()) & leading(count > 64 ? count - 64 : 0)) == 0;
}

std::string format_as(const MacAddress& a) {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", a.bytes[0], a.bytes[1], a.bytes[2], a.bytes[3],
                     a.bytes[4], a.bytes[5]);
}

std::string format_as(const IpAddress& a) {
  const auto w = a.wire();
  if (a.is_v4()) return fmt::format("{}.{}.{}.{}", w[0], w[1], w[2], w[3]);
  std::array<unsigned, 8> groups{};
  for (std::size_t i = 0; i < 8; ++i) groups[i] = static_cast<unsigned>(w[2 * i]) << 8U | w[2 * i + 1];
  // RFC 5952, 4.2: "::" for the first longest run of at least two zero groups.
  std::size_t best = 8;
  std::size_t best_length = 1;
  for (std::size_t i = 0; i < 8;) {
    std::size_t j = i;
    while (j < 8 && groups[j] == 0) ++j;
    if (j - i > best_length) {
      best = i;
      best_length = j - i;
    }
    i = j + 1;
  }
  std::string text;
  for (std::size_t i = 0; i < 8; ++i) {
    if (i == best) {
      text += "::";
      i += best_length - 1;
      continue;
    }
    if (!text.empty() && text.back() != ':') text += ':';
    text += fmt::format("{:x}", groups[i]);
  }
  return text;
}

std::string format_as(const Prefix& p) { return fmt::format("{}/{}", format_as(p.address), p.length); }

std::string format_as(const Endpoint& e) {
  const std::string address = format_as(e.address);
  return e.address.is_v4() ? fmt::format("{}:{}", address, e.port.host())
                           : fmt::format("[{}]:{}", address, e.port.host());
}

std::string format_as(Protocol p) {
  switch (p) {
    case Protocol::ip: return "IP";
    case Protocol::icmp: return "ICMP";
    case Protocol::ipip: return "IPIP";
    case Protocol::tcp: return "TCP";
    case Protocol::udp: return "UDP";
    case Protocol::ipv6: return "IPV6";
    case Protocol::gre: return "GRE";
    case Protocol::icmpv6: return "ICMPV6";
    case Protocol::sctp: return "SCTP";
  }
  return fmt::format("{}", static_cast<unsigned>(p));
}

}  // namespace director
