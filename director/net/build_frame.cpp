// From packet text to bytes: parse_line() reads the tree, build_frame() makes headers of it.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

#include "director/net/checksum.h"
#include "director/net/format.h"
#include "director/net/headers.h"
#include "director/net/ip_header.h"
#include "director/net/text_words.h"

namespace director {
namespace {

using Bytes = std::vector<std::byte>;

// --- the line
// -------------------------------------------------------------------------------------------------------

bool is_flag(std::string_view word) {
  return word == "df" || word == "mf" || word == "rf" || word == "atomic" || word == "noext" || word == "router" ||
         word == "solicited" || word == "override" || word == "v1";
}

/// Every complaint begins with what it is about, in quotes or as the field's `name=`: that tells the column.
auto refused(std::string_view line, const std::string& complaint) {
  std::string_view about = complaint;
  if (about.starts_with('"')) {
    about = about.substr(1, about.find('"', 1) - 1);
  } else {
    about = about.substr(0, about.find(": "));
    if (about.find('=') == about.npos || about.find(' ') != about.npos) about = {};
  }
  const std::size_t at = about.empty() ? line.npos : line.rfind(about);
  return fail(at == line.npos || at == 0 ? fmt::format("packet text: {}", complaint)
                                         : fmt::format("packet text, column {}: {}", at + 1, complaint));
}

/// Reads one packet up to the end or to the parenthesis that closes it.
class LineParser {
 public:
  explicit LineParser(std::string_view line) : rest_(line) {}

  Result<PacketText> packet(bool inside) {
    PacketText text;
    for (;;) {
      skip_blanks();
      if (rest_.empty()) {
        if (inside) return fail("a \"(\" is never closed");
        break;
      }
      if (rest_.front() == ')') {
        if (!inside) return fail("a \")\" without its \"(\"");
        rest_.remove_prefix(1);
        break;
      }
      const std::string_view word = rest_.substr(0, rest_.find_first_of(" \t()"));
      rest_.remove_prefix(word.size());
      if (!rest_.empty() && rest_.front() == '(') {
        rest_.remove_prefix(1);
        if (!text.inner.empty()) return fail("one packet inside another, not two");
        auto inner = packet(true);
        if (!inner) return inner;
        text.inner_label = word;
        text.inner.push_back(std::move(*inner));
        continue;
      }
      const std::size_t equals = word.find('=');
      if (equals != std::string_view::npos || is_flag(word)) {
        const std::string_view value = equals == std::string_view::npos ? "" : word.substr(equals + 1);
        if (text.find(word.substr(0, equals)) != nullptr)
          return fail(fmt::format("\"{}\" is said twice", word));
        text.fields.push_back({std::string{word.substr(0, equals)},
                               std::string{value},
                               PacketText::Field::Weight::notable,
                               {}});
      } else if (!text.fields.empty() || !text.inner.empty()) {
        return fail(fmt::format(
            "\"{}\" isn't expected here, expected a field such as ttl=63 or df", word));
      } else {
        text.head += text.head.empty() ? "" : " ";
        text.head += word;
      }
    }
    if (text.head.empty())
      return fail("expected a packet such as `tcp 10.0.0.1:4000 > 10.9.0.100:80 [S]`");
    return text;
  }

 private:
  void skip_blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t"), rest_.size())); }
  std::string_view rest_;
};

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const std::size_t blank = std::min(text.find(' '), text.size());
    words.push_back(text.substr(0, blank));
    text.remove_prefix(std::min(blank + 1, text.size()));
  }
  return words;
}

// --- values
// ---------------------------------------------------------------------------------------------------------

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x")) {
    text.remove_prefix(2);
    base = 16;
  }
  T value{};
  const auto [end, error] = std::from_chars(text.begin(), text.end(), value, base);
  if (error != std::errc{} || end != text.end()) return {};
  return value;
}

std::optional<Bytes> parse_hex(std::string_view text) {
  if (text.size() % 2 != 0) return {};
  Bytes bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const std::string_view digits = text.substr(i, 2);
    std::uint8_t value = 0;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), value, 16);
    if (error != std::errc{} || end != digits.end()) return {};
    bytes.push_back(std::byte{value});
  }
  return bytes;
}

std::optional<Endpoint> parse_endpoint(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return {};
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const auto address = IpAddress::parse(host);
  const auto port = parse_number<std::uint16_t>(text.substr(colon + 1));
  if (!address || address->is_v4() == bracketed || !port) return {};
  return Endpoint{*address, Port::of(*port)};
}

template <typename Header>
void append(Bytes& bytes, const Header& header) {
  const auto raw = std::as_bytes(std::span{&header, 1});
  bytes.insert(bytes.end(), raw.begin(), raw.end());
}

// --- the packet
// -----------------------------------------------------------------------------------------------------

/// An IP packet in the making, and where its transport checksum is.
struct Packet {
  Bytes bytes;
  std::optional<std::size_t> checksum_start;  // from the packet's first byte
  std::size_t checksum_offset = 0;
  Offload offload;  // checksum_start still counted from the packet's first byte
};

/// Builds one packet text, with what is inside it. The first thing wrong is kept in `error` and the rest goes
/// on with usual values, so that each step can be written as if nothing could fail.
class Builder {
 public:
  explicit Builder(const PacketText& text, std::string& error)
      : text_(text), words_(words_of(text.head)), used_(text.fields.size(), false), error_(error) {}

  Packet ip_packet() {
    Packet packet;
    IpAddress source;
    IpAddress target;
    Protocol protocol{};
    Bytes upper;
    const std::string_view kind = words_[0];
    if (kind == "tcp" || kind == "udp") {
      const auto [from, to] = endpoints();
      source = from.address;
      target = to.address;
      protocol = kind == "tcp" ? Protocol::tcp : Protocol::udp;
      packet.checksum_offset = kind == "tcp" ? offsetof(TcpHeader, checksum) : offsetof(UdpHeader, checksum);
      upper = kind == "tcp" ? tcp(from.port, to.port) : udp(from.port, to.port);
    } else if (kind == "icmp" || kind == "nd" || kind == "mld") {
      source = address(1);
      target = address(3);
      protocol = icmp_protocol(source.family());
      packet.checksum_offset = offsetof(IcmpHeader, checksum);
      if (kind == "icmp") expect_words(5, "icmp A > B echo-request");
      upper = kind == "icmp" ? icmp(source.family()) : kind == "nd" ? neighbour() : listeners();
      if (kind != "icmp" && source.is_v4()) wrong(fmt::format("\"{}\": {} is of IPv6", text_.head, kind));
      if (!upper.empty()) usual_ttl_ = usual_ttl(protocol, std::to_integer<std::uint8_t>(upper[0]));
    } else if (kind == "ipip") {
      expect_words(4, "ipip A > B (PACKET)");
      source = address(1);
      target = address(3);
      upper = carried();
      protocol = inside_protocol(is_v4(upper) ? Family::ipv4 : Family::ipv6);
    } else if (kind == "gre" || kind == "gue") {
      expect_words(4, "gre A > B (PACKET)");
      source = address(1);
      target = address(3);
      protocol = kind == "gre" ? Protocol::gre : Protocol::udp;
      upper = kind == "gre" ? gre() : gue(source, target);
    } else if (kind == "ip") {
      expect_words(5, "ip A > B PROTOCOL");
      source = address(1);
      target = address(3);
      protocol = protocol_number(word(4));
      upper = payload();
    } else {
      wrong(fmt::format("\"{}\" isn't a kind of packet; expected tcp, udp, icmp, nd, mld, ip, ipip, gre, gue, arp or ethernet",
                        kind));
    }
    if (source.family() != target.family()) wrong(fmt::format("\"{}\": addresses of two families", text_.head));
    if (source.is_v4() || target.is_v4()) {
      header(packet, source, target, protocol, upper);
    } else {
      header6(packet, source, target, protocol, upper);
    }
    transport_checksum(packet, source, target, protocol);
    const std::size_t quote = number<std::size_t>("quote", packet.bytes.size());
    if (quote < packet.bytes.size()) packet.bytes.resize(quote);
    return packet;
  }

  Bytes arp(const MacAddress& source, const MacAddress& target) {
    ArpHeader arp{Be16{1}, Be16{0x0800}, 6,     4, Be16{ArpHeader::kRequest}, source,
                  Be32{},  MacAddress{}, Be32{}};
    if (word(1) == "who-has") {
      expect_words(5, "arp who-has A tell B");
      arp.target_ip = address4(2).v4_wire();
      arp.sender_ip = address4(4).v4_wire();
      arp.sender_mac = mac("sha", source);
      arp.target_mac = mac("tha", MacAddress{});
    } else {
      expect_words(4, "arp A is-at MAC to=B");
      arp.operation = Be16{ArpHeader::kReply};
      arp.sender_ip = address4(1).v4_wire();
      if (const auto at = MacAddress::parse(word(3)); at && word(2) == "is-at") {
        arp.sender_mac = *at;
      } else {
        wrong("expected `arp A is-at MAC to=B` or `arp who-has A tell B`");
      }
      const auto to = take("to");
      const auto to_address = IpAddress::parse(to.value_or("0.0.0.0"));
      if (!to_address || !to_address->is_v4()) wrong(fmt::format("to={}: expected an IPv4 address", *to));
      if (to_address && to_address->is_v4()) arp.target_ip = to_address->v4_wire();
      arp.target_mac = mac("tha", target);
    }
    Bytes bytes;
    append(bytes, arp);
    return bytes;
  }

  Bytes other(Be16& type) {
    expect_words(2, "ethernet 0x88cc len=46");
    const auto number = parse_number<std::uint16_t>(word(1));
    if (!number) wrong(fmt::format("\"{}\": expected an Ethernet type such as 0x88cc", word(1)));
    type = Be16{number.value_or(0)};
    return payload();
  }

  MacAddress mac(std::string_view name, const MacAddress& otherwise) {
    const auto value = take(name);
    if (!value) return otherwise;
    const auto parsed = MacAddress::parse(*value);
    if (!parsed) wrong(fmt::format("{}={}: expected a MAC address such as 02:00:00:00:00:01", name, *value));
    return parsed.value_or(otherwise);
  }

  template <typename T>
  T number(std::string_view name, T otherwise) {
    const auto value = take(name);
    if (!value) return otherwise;
    const auto parsed = parse_number<T>(*value);
    if (!parsed)
      wrong(
          fmt::format("{}={}: expected a number from 0 to {}", name, *value, std::numeric_limits<T>::max()));
    return parsed.value_or(otherwise);
  }

  /// To be called last: every field must have meant something.
  void finish() {
    for (std::size_t i = 0; i < used_.size(); ++i)
      if (!used_[i]) wrong(fmt::format("\"{}\" isn't a field of this packet", text_.fields[i].name));
    if (!text_.inner.empty() && words_[0] != "icmp" && words_[0] != "ipip" &&
        words_[0] != "gre" && words_[0] != "gue")
      wrong(fmt::format("{} has no packet inside", words_[0]));
  }

  [[nodiscard]] std::string_view kind() const { return words_[0]; }
  static bool is_v4(const Bytes& packet) { return std::to_integer<unsigned>(packet[0]) >> 4U == 4; }

 private:
  void wrong(std::string message) {
    if (error_.empty()) error_ = std::move(message);
  }

  std::optional<std::string_view> take(std::string_view name) {
    for (std::size_t i = 0; i < text_.fields.size(); ++i) {
      if (text_.fields[i].name != name) continue;
      used_[i] = true;
      return text_.fields[i].value;
    }
    return {};
  }
  bool flag(std::string_view name) { return take(name).has_value(); }

  Bytes bytes_field(std::string_view name) {
    const auto value = take(name);
    if (!value) return {};
    auto bytes = parse_hex(*value);
    if (!bytes) wrong(fmt::format("{}={}: expected pairs of hexadecimal digits", name, *value));
    return bytes.value_or(Bytes{});
  }

  [[nodiscard]] std::string_view word(std::size_t i) const {
    return i < words_.size() ? words_[i] : std::string_view{};
  }
  void expect_words(std::size_t count, std::string_view form) {
    if (words_.size() != count || (count >= 4 && words_[0] != "arp" && words_[2] != ">"))
      wrong(fmt::format("\"{}\": expected `{}`", text_.head, form));
  }

  IpAddress address(std::size_t i) {
    const auto a = IpAddress::parse(word(i));
    if (!a) wrong(fmt::format("\"{}\": expected an IP address", word(i)));
    return a.value_or(IpAddress{});
  }
  IpAddress address4(std::size_t i) {
    const IpAddress a = address(i);
    if (!a.is_v4()) wrong(fmt::format("\"{}\": expected an IPv4 address", word(i)));
    return a.is_v4() ? a : IpAddress{};
  }
  IpAddress address6(std::string_view text) {
    const auto a = IpAddress::parse(text);
    if (!a || a->is_v4()) wrong(fmt::format("\"{}\": expected an IPv6 address", text));
    return a && !a->is_v4() ? *a : IpAddress::v6({});
  }

  std::pair<Endpoint, Endpoint> endpoints() {
    const auto from = parse_endpoint(word(1));
    const auto to = parse_endpoint(word(3));
    if (!from || !to || word(2) != ">")
      wrong(fmt::format("\"{}\": expected `{} ADDRESS:PORT > ADDRESS:PORT`", text_.head, words_[0]));
    return {from.value_or(Endpoint{}), to.value_or(Endpoint{})};
  }

  Protocol protocol_number(std::string_view name) {
    static constexpr std::array kNamed{Protocol::ip,   Protocol::icmp,   Protocol::ipip,
                                       Protocol::tcp,  Protocol::udp,    Protocol::gre,
                                       Protocol::ipv6, Protocol::icmpv6, Protocol::sctp};
    for (const Protocol p : kNamed) {
      const std::string upper = format_as(p);
      if (std::ranges::equal(upper, name,
                             [](char u, char n) { return u == n || (u >= 'A' && u <= 'Z' && u + 32 == n); }))
        return p;
    }
    const auto number = parse_number<std::uint8_t>(name);
    if (!number) wrong(fmt::format("\"{}\": expected a protocol, such as udp or 132", name));
    return static_cast<Protocol>(number.value_or(0));
  }

  Bytes payload() {
    Bytes bytes = bytes_field("data");
    const std::size_t length = number<std::uint16_t>("len", static_cast<std::uint16_t>(bytes.size()));
    if (!bytes.empty() && length != bytes.size()) wrong("len= and data= say different lengths");
    for (std::size_t i = bytes.size(); i < length; ++i) bytes.push_back(usual_payload(i));
    return bytes;
  }

  Bytes tcp(Port from, Port to) {
    TcpHeader tcp{from, to, Be32{}, Be32{}, 0, 0, Be16{}, Be16{}, Be16{}};
    const std::string_view flags = word(4).empty() ? "[]" : word(4);
    if (flags.size() < 2 || flags.front() != '[' || flags.back() != ']' || words_.size() > 5)
      wrong(fmt::format("\"{}\": expected flags such as [SA] behind the addresses", text_.head));
    for (const char letter : flags.substr(1, std::max<std::size_t>(flags.size(), 2) - 2)) {
      const auto found = std::ranges::find(kTcpFlagLetters, letter, &std::pair<std::uint8_t, char>::second);
      if (found == kTcpFlagLetters.end()) {
        wrong(fmt::format("\"{}\": a TCP flag is one of SFRPAUEC, not {}", flags, letter));
      } else {
        tcp.flags = static_cast<std::uint8_t>(tcp.flags | found->first);
      }
    }
    tcp.sequence = Be32{number<std::uint32_t>("seq", 0)};
    tcp.acknowledgement = Be32{number<std::uint32_t>("ack", 0)};
    tcp.window = Be16{number<std::uint16_t>("win", kUsualWindow)};
    tcp.urgent = Be16{number<std::uint16_t>("urg", 0)};
    const Bytes options = bytes_field("opts");
    if (options.size() % 4 != 0 || options.size() > 40)
      wrong("opts=: expected at most 40 bytes, a multiple of four");
    const auto words = static_cast<std::uint8_t>((sizeof(TcpHeader) + options.size()) / 4);
    tcp.offset = static_cast<std::uint8_t>(number<std::uint8_t>("doff", words) * 16);
    Bytes bytes;
    append(bytes, tcp);
    bytes.insert(bytes.end(), options.begin(), options.end());
    const Bytes behind = payload();
    bytes.insert(bytes.end(), behind.begin(), behind.end());
    header_size_ = sizeof(TcpHeader) + options.size();
    return bytes;
  }

  Bytes udp(Port from, Port to) {
    if (words_.size() != 4)
      wrong(fmt::format("\"{}\": expected `udp ADDRESS:PORT > ADDRESS:PORT`", text_.head));
    const Bytes behind = payload();
    const auto length = static_cast<std::uint16_t>(sizeof(UdpHeader) + behind.size());
    Bytes bytes;
    append(bytes, UdpHeader{from, to, Be16{number<std::uint16_t>("ulen", length)}, Be16{}});
    bytes.insert(bytes.end(), behind.begin(), behind.end());
    header_size_ = sizeof(UdpHeader);
    return bytes;
  }

  /// nd A > B who-has T, nd A > B has T
  Bytes neighbour() {
    expect_words(6, "nd A > B who-has T");
    const bool asks = word(4) == "who-has";
    if (!asks && word(4) != "has") wrong(fmt::format("\"{}\": expected who-has or has", word(4)));
    std::uint32_t flags = 0;
    if (flag("router")) flags |= NeighbourHeader::kRouter;
    if (flag("solicited")) flags |= NeighbourHeader::kSolicited;
    if (flag("override")) flags |= NeighbourHeader::kOverride;
    Bytes bytes;
    append(bytes, NeighbourHeader{asks ? Icmpv6::kNeighbourSolicitation : Icmpv6::kNeighbourAdvertisement, 0, Be16{},
                                  Be32{flags}, address6(word(5)).bytes()});
    const std::string_view option = asks ? "slla" : "tlla";
    if (text_.find(option) != nullptr)
      append(bytes, LinkAddressOption{asks ? LinkAddressOption::kSource : LinkAddressOption::kTarget, 1, mac(option, {})});
    const Bytes others = bytes_field("ndopts");
    bytes.insert(bytes.end(), others.begin(), others.end());
    return bytes;
  }

  /// mld A > B query, mld A > B report
  Bytes listeners() {
    expect_words(5, "mld A > B query");
    const bool query = word(4) == "query";
    if (!query && word(4) != "report") wrong(fmt::format("\"{}\": expected query or report", word(4)));
    router_alert_ = !flag("noext");
    const auto group = take("group");
    Bytes bytes;
    if (const bool v1 = flag("v1"); query || v1) {
      constexpr std::uint32_t kDelay = 10000U << 16U;  // ms, RFC 2710's usual
      append(bytes, NeighbourHeader{query ? Icmpv6::kListenerQuery : Icmpv6::kListenerReport, 0, Be16{},
                                    Be32{query ? kDelay : 0U}, address6(group.value_or("::")).bytes()});
      if (!v1) append(bytes, Be32{0x027d0000});  // robustness 2, every 125 s, no sources
      return bytes;
    }
    const auto record = number<std::uint8_t>("record", 4);
    std::uint16_t count = 0;
    append(bytes, IcmpHeader{Icmpv6::kListenerReport2, 0, Be16{}, Be16{}, Be16{}});
    std::string_view groups = take("groups").value_or("");
    while (!groups.empty()) {
      const std::size_t comma = std::min(groups.find(','), groups.size());
      append(bytes, Be32{std::uint32_t{record} << 24U});
      append(bytes, address6(groups.substr(0, comma)).bytes());
      groups.remove_prefix(std::min(comma + 1, groups.size()));
      ++count;
    }
    header_at<IcmpHeader>(std::span{bytes}, 0).word1 = Be16{count};
    return bytes;
  }

  Bytes icmp(Family family) {
    IcmpHeader icmp{};
    const std::string_view what = word(4);
    const IcmpName* name = icmp_name(family, what);
    if (name != nullptr) {
      icmp.type = name->type;
      icmp.code = name->code;
    } else {
      const std::size_t slash = what.find('/');
      const auto type =
          what.starts_with("type") ? parse_number<std::uint8_t>(what.substr(4, slash - 4)) : std::nullopt;
      const auto code =
          slash == std::string_view::npos ? std::nullopt : parse_number<std::uint8_t>(what.substr(slash + 1));
      if (!type || !code)
        wrong(fmt::format("\"{}\": expected an ICMP message such as port-unreachable or type13/0", what));
      icmp.type = type.value_or(0);
      icmp.code = code.value_or(0);
    }
    const std::uint32_t rest = number<std::uint32_t>("rest", 0);
    icmp.word0 = Be16{static_cast<std::uint16_t>(rest >> 16U)};
    icmp.word1 = Be16{static_cast<std::uint16_t>(rest)};
    const IcmpRest kind = name != nullptr ? name->rest : IcmpRest::other;
    if (kind == IcmpRest::echo) {
      icmp.word0 = Be16{number<std::uint16_t>("ident", 0)};
      icmp.word1 = Be16{number<std::uint16_t>("seq", 0)};
    } else if (kind == IcmpRest::mtu) {
      const std::uint32_t mtu = number<std::uint32_t>("mtu", rest);
      icmp.word0 = Be16{static_cast<std::uint16_t>(mtu >> 16U)};
      icmp.word1 = Be16{static_cast<std::uint16_t>(mtu)};
    } else if (const auto gateway = kind == IcmpRest::gateway ? take("gw") : std::nullopt) {
      const auto a = IpAddress::parse(*gateway);
      if (!a || !a->is_v4()) {
        wrong(fmt::format("gw={}: expected an IPv4 address", *gateway));
      } else {
        icmp.word0 = Be16{static_cast<std::uint16_t>(a->v4_wire().host() >> 16U)};
        icmp.word1 = Be16{static_cast<std::uint16_t>(a->v4_wire().host())};
      }
    }
    Bytes bytes;
    append(bytes, icmp);
    if (!text_.inner.empty() && (name == nullptr || !name->quotes || text_.inner_label != "about"))
      wrong("an ICMP error quotes a packet as about(PACKET)");
    const Bytes behind = text_.inner.empty() ? payload() : quoted(text_.inner[0]);
    bytes.insert(bytes.end(), behind.begin(), behind.end());
    return bytes;
  }

  /// What a tunnel carries, of either family.
  Bytes carried() {
    if (text_.inner.size() == 1 && text_.inner_label.empty()) return quoted(text_.inner[0]);
    wrong(fmt::format("{} carries a packet: expected `{} A > B (PACKET)`", words_[0], words_[0]));
    return Bytes(1);
  }

  /// csum= of a tunnel header; nothing: it has none.
  std::optional<Be16> tunnel_checksum(Be16 right) {
    const PacketText::Field* said = text_.find("csum");
    if (said != nullptr && said->value != "none") return said_checksum("csum", right);
    (void)take("csum");
    return {};
  }

  Bytes gre() {
    const Bytes inside = carried();
    const auto type = Be16{static_cast<std::uint16_t>(is_v4(inside) ? EtherType::ipv4 : EtherType::ipv6)};
    Bytes bytes;
    append(bytes, GreHeader{Be16{GreHeader::kChecksum}, type});
    append(bytes, Be32{});
    bytes.insert(bytes.end(), inside.begin(), inside.end());
    if (const auto sum = tunnel_checksum(ChecksumSum{}.add(bytes).field())) {
      header_at<Be16>(std::span{bytes}, sizeof(GreHeader)) = *sum;
      return bytes;
    }
    bytes.erase(bytes.begin() + sizeof(GreHeader), bytes.begin() + sizeof(GreHeader) + sizeof(Be32));
    header_at<GreHeader>(std::span{bytes}, 0).flags_version = Be16{};
    return bytes;
  }

  Bytes gue(const IpAddress& source, const IpAddress& target) {
    const Bytes inside = carried();
    const auto length = static_cast<std::uint16_t>(sizeof(UdpHeader) + sizeof(GueHeader) + inside.size());
    Bytes bytes;
    append(bytes, UdpHeader{Port::of(number<std::uint16_t>("sport", 0)), kUsualGuePort, Be16{length}, Be16{}});
    append(bytes, GueHeader{0, is_v4(inside) ? Protocol::ipip : Protocol::ipv6, Be16{}});
    bytes.insert(bytes.end(), inside.begin(), inside.end());
    Be16 right = pseudo_header_sum(source, target, Protocol::udp, length).add(bytes).field();
    if (right == Be16{}) right = Be16{0xffff};
    if (const auto sum = tunnel_checksum(right)) header_at<UdpHeader>(std::span{bytes}, 0).checksum = *sum;
    return bytes;
  }

  Bytes quoted(const PacketText& text) {
    Builder builder(text, error_);
    if (builder.kind() == "arp" || builder.kind() == "ethernet")
      wrong("only an IP packet can be inside another");
    Packet packet = builder.ip_packet();
    builder.finish();
    return std::move(packet.bytes);
  }

  void header(Packet& packet, const IpAddress& source, const IpAddress& target, Protocol protocol,
              const Bytes& upper) {
    const Bytes options = bytes_field("options");
    if (options.size() % 4 != 0 || options.size() > 40)
      wrong("options=: expected at most 40 bytes, a multiple of four");
    const std::size_t length = sizeof(Ipv4Header) + options.size();
    if (length + upper.size() > 65535) wrong("larger than an IP packet can be");
    const std::size_t offset = number<std::uint16_t>("offset", 0);
    if (offset % 8 != 0) wrong("offset=: expected a multiple of eight");
    std::uint32_t fragment = static_cast<std::uint32_t>(offset / 8);
    if (flag("df")) fragment |= Ipv4Header::kDontFragment;
    if (flag("mf")) fragment |= Ipv4Header::kMoreFragments;
    if (flag("rf")) fragment |= Ipv4Header::kReserved;
    const auto total = static_cast<std::uint16_t>(length + upper.size());
    Ipv4Header ip{static_cast<std::uint8_t>(0x40U | (length / 4 & 0x0fU)),
                  number<std::uint8_t>("tos", 0),
                  Be16{number<std::uint16_t>("iplen", total)},
                  Be16{number<std::uint16_t>("id", 0)},
                  Be16{static_cast<std::uint16_t>(fragment)},
                  number<std::uint8_t>("ttl", usual_ttl_),
                  protocol,
                  Be16{},
                  source.v4_wire(),
                  target.v4_wire()};
    Bytes bytes;
    append(bytes, ip);
    bytes.insert(bytes.end(), options.begin(), options.end());
    ip.checksum = said_checksum("ipcsum", ChecksumSum{}.add(bytes).field());
    header_at<Ipv4Header>(std::span{bytes}, 0) = ip;
    if (packet.checksum_offset != 0) packet.checksum_start = bytes.size();
    bytes.insert(bytes.end(), upper.begin(), upper.end());
    packet.bytes = std::move(bytes);
  }

  /// N/HEX,N/HEX: numbers and bytes of extension headers. Each is announced by what stands in front of it, the last announces `last`;
  /// returns the number of the first.
  Protocol extensions(std::string_view name, std::string_view otherwise, Protocol last, Bytes& bytes) {
    std::string_view text = take(name).value_or(otherwise);
    Protocol first = last;
    std::optional<std::size_t> announces;
    while (!text.empty()) {
      const std::string_view item = text.substr(0, std::min(text.find(','), text.size()));
      text.remove_prefix(std::min(item.size() + 1, text.size()));
      const std::size_t slash = std::min(item.find('/'), item.size());
      const auto number = parse_number<std::uint8_t>(item.substr(0, slash));
      const auto body = parse_hex(item.substr(std::min(slash + 1, item.size())));
      if (!number || !body || body->size() % 4 != 3)
        wrong(fmt::format("{}={}: expected headers such as 60/00010400000000", name, item));
      const Protocol kind{number.value_or(0)};
      if (announces) bytes[*announces] = static_cast<std::byte>(kind);
      else first = kind;
      announces = bytes.size();
      bytes.push_back(static_cast<std::byte>(last));
      if (body) bytes.insert(bytes.end(), body->begin(), body->end());
    }
    return first;
  }

  void header6(Packet& packet, const IpAddress& source, const IpAddress& target, Protocol protocol, const Bytes& upper) {
    Bytes behind;  // the fragment header
    Protocol next = extensions("fext", "", protocol, behind);
    const std::uint32_t offset = number<std::uint16_t>("offset", 0);
    if (offset % 8 != 0) wrong("offset=: expected a multiple of eight");
    const bool more = flag("mf");
    const bool atomic = flag("atomic");
    const auto id = number<std::uint32_t>("id", 0);
    if (more || atomic || offset != 0) {
      Bytes fragment;
      append(fragment, Ipv6Fragment{next, 0, Be16{static_cast<std::uint16_t>(offset | (more ? 1U : 0U))}, Be32{id}});
      behind.insert(behind.begin(), fragment.begin(), fragment.end());
      next = Ipv6Extension::kFragment;
    }
    Bytes before;
    next = extensions("ext", router_alert_ ? kRouterAlertText : "", next, before);
    const std::size_t payload = before.size() + behind.size() + upper.size();
    if (payload > 65535) wrong("larger than an IP packet can be");
    const std::uint32_t label = number<std::uint32_t>("flow", 0);
    if (label > 0xfffff) wrong("flow=: expected a label of 20 bits");
    append(packet.bytes, Ipv6Header{Be32{6U << 28U | std::uint32_t{number<std::uint8_t>("tos", 0)} << 20U | label},
                                    Be16{number<std::uint16_t>("iplen", static_cast<std::uint16_t>(payload))}, next,
                                    number<std::uint8_t>("ttl", usual_ttl_), source.bytes(), target.bytes()});
    packet.bytes.insert(packet.bytes.end(), before.begin(), before.end());
    packet.bytes.insert(packet.bytes.end(), behind.begin(), behind.end());
    if (packet.checksum_offset != 0) packet.checksum_start = packet.bytes.size();
    packet.bytes.insert(packet.bytes.end(), upper.begin(), upper.end());
  }

  /// The right value unless the field says something else.
  Be16 said_checksum(std::string_view name, Be16 right) {
    const auto said = take(name);
    if (!said || *said == "ok") return right;
    if (*said == "bad") return Be16{static_cast<std::uint16_t>(right.host() ^ 0x5555U)};
    const auto value = parse_number<std::uint16_t>(*said);
    if (!value || !said->starts_with("0x"))
      wrong(fmt::format("{}={}: expected ok, bad or 0xNNNN", name, *said));
    return Be16{value.value_or(0)};
  }

  void transport_checksum(Packet& packet, const IpAddress& source, const IpAddress& target,
                          Protocol protocol) {
    if (!packet.checksum_start) return;
    const std::size_t start = *packet.checksum_start;
    const std::span<std::byte> transport = std::span{packet.bytes}.subspan(start);
    Be16& field = header_at<Be16>(transport, packet.checksum_offset);
    field = Be16{};
    const ChecksumSum pseudo = protocol == Protocol::icmp
                                   ? ChecksumSum{}
                                   : pseudo_header_sum(source, target, protocol, transport.size());
    const std::uint16_t segment = number<std::uint16_t>("gso", 0);
    const PacketText::Field* said = text_.find("csum");
    if (said != nullptr && said->value == "partial" && protocol != Protocol::icmp && protocol != Protocol::icmpv6) {
      (void)take("csum");
      field = Be16::from_raw(pseudo.folded());
      packet.offload.checksum = Offload::Checksum::partial;
      packet.offload.checksum_start = static_cast<std::uint16_t>(start);
      packet.offload.checksum_offset = static_cast<std::uint16_t>(packet.checksum_offset);
    } else if (said != nullptr && said->value == "none" && protocol == Protocol::udp) {
      (void)take("csum");
    } else {
      Be16 right = ChecksumSum{pseudo}.add(transport).field();
      if (protocol == Protocol::udp && right == Be16{}) right = Be16{0xffff};  // RFC 768: 0 means none
      field = said_checksum("csum", right);
    }
    if (segment == 0) return;
    if (packet.offload.checksum != Offload::Checksum::partial) wrong("gso= needs csum=partial");
    const auto tcp = source.is_v4() ? Offload::Segments::tcp4 : Offload::Segments::tcp6;
    packet.offload.segments = protocol == Protocol::tcp ? tcp : Offload::Segments::udp;
    packet.offload.segment_size = segment;
    packet.offload.header_length = static_cast<std::uint16_t>(start + header_size_);
  }

  const PacketText& text_;
  std::vector<std::string_view> words_;
  std::vector<bool> used_;
  std::string& error_;
  std::size_t header_size_ = 0;  // of the transport
  std::uint8_t usual_ttl_ = kUsualTtl;
  bool router_alert_ = false;  // listener messages have one
};

}  // namespace

Result<PacketText> parse_line(std::string_view line) {
  auto text = LineParser{line}.packet(false);
  return text ? text : refused(line, text.error().message);
}

Result<BuiltFrame> build_frame(std::string_view line, const MacAddress& source, const MacAddress& target) {
  const auto text = parse_line(line);
  if (!text) return Failure{text.error()};
  std::string error;  // begins with what is wrong
  Builder builder(*text, error);
  EthernetHeader ethernet{builder.mac("dmac", target), builder.mac("smac", source),
                          Be16{static_cast<std::uint16_t>(EtherType::ipv4)}};
  const std::size_t padding = builder.number<std::uint16_t>("pad", 0);
  BuiltFrame built;
  Bytes bytes;
  if (builder.kind() == "arp") {
    ethernet.type = Be16{static_cast<std::uint16_t>(EtherType::arp)};
    bytes = builder.arp(ethernet.source, ethernet.target);
  } else if (builder.kind() == "ethernet") {
    bytes = builder.other(ethernet.type);
  } else {
    Packet packet = builder.ip_packet();
    bytes = std::move(packet.bytes);
    if (!Builder::is_v4(bytes)) {
      ethernet.type = Be16{static_cast<std::uint16_t>(EtherType::ipv6)};
      const IpAddress to = address_at(bytes, 0, Family::ipv6, AddressEnd::target);
      if (to.is_multicast() && text->find("dmac") == nullptr) ethernet.target = group_mac(to);
    }
    built.offload = packet.offload;
    if (built.offload.checksum == Offload::Checksum::partial)
      built.offload.checksum_start =
          static_cast<std::uint16_t>(built.offload.checksum_start + sizeof(EthernetHeader));
    if (built.offload.segments != Offload::Segments::none)
      built.offload.header_length =
          static_cast<std::uint16_t>(built.offload.header_length + sizeof(EthernetHeader));
  }
  builder.finish();
  if (!error.empty()) return refused(line, error);
  append(built.bytes, ethernet);
  built.bytes.insert(built.bytes.end(), bytes.begin(), bytes.end());
  built.bytes.resize(built.bytes.size() + padding);
  return built;
}

}  // namespace director
