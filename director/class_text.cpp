// Class rules, read and written.
#include "director/class_text.h"

#include <fmt/format.h>

#include <charconv>

namespace director {
namespace {

constexpr std::string_view kPorts = "expected ports like 80,443,8000-8099";
constexpr std::string_view kAddresses = "expected addresses like 10.9.0.100,10.9.1.0/24,10.9.2.1-10.9.2.9";

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return {};
  return port;
}

/// Every item of a list separated by commas, or nothing if one is wrong.
template <typename Item>
bool parse_list(std::string_view list, std::optional<Item> (*parse)(std::string_view), std::vector<Item>& into) {
  for (;;) {
    const std::size_t comma = list.find(',');
    const auto item = parse(list.substr(0, comma));
    if (!item) return false;
    into.push_back(*item);
    if (comma == list.npos) return true;
    list.remove_prefix(comma + 1);
  }
}

std::string text_of(const PortRange& r) {
  return r.first == r.last ? std::to_string(r.first) : fmt::format("{}-{}", r.first, r.last);
}

/// The shortest of address, prefix and range.
std::string text_of(const AddressRange& r) {
  if (r.is_host()) return format_as(r.first);
  const std::uint8_t longest = r.first.is_v4() ? 32 : 128;
  for (std::uint8_t length = 0; length < longest; ++length) {
    const Prefix prefix{r.first, length};
    if (prefix.network() == r.first && prefix.broadcast() == r.last) return format_as(prefix);
  }
  return fmt::format("{}-{}", format_as(r.first), format_as(r.last));
}

template <typename Range>
void add_list(std::string& text, std::string_view name, const std::vector<Range>& ranges) {
  const char* separator = "";
  for (const Range& range : ranges) {
    if (*separator == 0) text += fmt::format(" {} ", name);
    text += separator + text_of(range);
    separator = ",";
  }
}

}  // namespace

std::optional<PortRange> parse_port_range(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto first = parse_port(text.substr(0, dash));
  const auto last = dash == text.npos ? first : parse_port(text.substr(dash + 1));
  if (!first || !last || *first > *last) return {};
  return PortRange{*first, *last};
}

std::optional<AddressRange> parse_address_range(std::string_view text) {
  if (const std::size_t dash = text.find('-'); dash != text.npos) {
    const auto first = IpAddress::parse(text.substr(0, dash));
    const auto last = IpAddress::parse(text.substr(dash + 1));
    if (!first || !last || first->family() != last->family() || *first > *last) return {};
    return AddressRange{*first, *last};
  }
  const auto prefix = Prefix::parse(text);
  if (!prefix) return {};
  const std::uint8_t longest = prefix->address.is_v4() ? 32 : 128;
  if (prefix->length == longest) return AddressRange{prefix->address, prefix->address};
  return AddressRange{prefix->network(), prefix->broadcast()};
}

Result<ClassRule, BadClass> parse_class(std::uint32_t mark, std::span<const std::string> words) {
  ClassRule rule;
  rule.mark = mark;
  bool protocol_given = false;
  std::optional<Family> family;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto bad = [&](std::size_t word, std::string message) {
      return Failure{BadClass{std::move(message), word}};
    };
    const std::string& word = words[i];
    const bool list = word == "dport" || word == "sport" || word == "daddr" || word == "saddr";
    if (list && i + 1 == words.size()) return bad(words.size(), fmt::format("'{}' needs a value", word));
    if (word == "-6") {
      if (family.value_or(Family::ipv6) != Family::ipv6) return bad(i, "-6 doesn't go with IPv4 addresses");
      family = Family::ipv6;
    } else if (word == "dport" || word == "sport") {
      auto& ports = word == "dport" ? rule.target_ports : rule.source_ports;
      if (!ports.empty()) return bad(i, fmt::format("'{}' is said twice", word));
      if (!parse_list(words[++i], &parse_port_range, ports))
        return bad(i, fmt::format("illegal ports '{}': {}", words[i], kPorts));
    } else if (word == "daddr" || word == "saddr") {
      auto& addresses = word == "daddr" ? rule.targets : rule.sources;
      if (!addresses.empty()) return bad(i, fmt::format("'{}' is said twice", word));
      if (!parse_list(words[++i], &parse_address_range, addresses))
        return bad(i, fmt::format("illegal addresses '{}': {}", words[i], kAddresses));
      for (const AddressRange& range : addresses) {
        if (family.value_or(range.first.family()) != range.first.family())
          return bad(i, fmt::format("'{}': a class rule is about one address family", words[i]));
        family = range.first.family();
      }
    } else if (!protocol_given && (word == "tcp" || word == "udp" || word == "sctp" || word == "any")) {
      protocol_given = true;
      if (word == "tcp") rule.protocol = Protocol::tcp;
      if (word == "udp") rule.protocol = Protocol::udp;
      if (word == "sctp") rule.protocol = Protocol::sctp;
    } else {
      return bad(i, fmt::format("unexpected argument '{}': expected tcp, udp, sctp or any, dport, daddr, sport, saddr, -6",
                                word));
    }
  }
  rule.family = family.value_or(Family::ipv4);
  return rule;
}

std::string format_as(const ClassRule& rule) {
  std::string text = fmt::format("{} {}", rule.mark,
                                 !rule.protocol                     ? "any"
                                 : *rule.protocol == Protocol::tcp ? "tcp"
                                 : *rule.protocol == Protocol::udp ? "udp"
                                                                   : "sctp");
  add_list(text, "dport", rule.target_ports);
  add_list(text, "daddr", rule.targets);
  add_list(text, "sport", rule.source_ports);
  add_list(text, "saddr", rule.sources);
  if (rule.family == Family::ipv6) text += " -6";
  return text;
}

}  // namespace director
