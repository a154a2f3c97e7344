// From bytes to packet text. Doubts every length itself: it has to print what parse_packet() refuses.
#include "director/net/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "director/net/checksum.h"
#include "director/net/headers.h"
#include "director/net/text_words.h"

namespace director {
namespace {

using Bytes = std::span<const std::byte>;
using Weight = PacketText::Field::Weight;

std::string hex(Bytes bytes) {
  std::string text;
  for (const std::byte b : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(b));
  return text;
}

template <typename T>
const T* take(Bytes& rest) {
  if (rest.size() < sizeof(T)) return nullptr;
  const T& header = header_at<T>(rest, 0);
  rest = rest.subspan(sizeof(T));
  return &header;
}

void say(PacketText& text, std::string name, std::string value, Weight weight = Weight::notable,
         std::string exact = {}) {
  text.fields.push_back({std::move(name), std::move(value), weight, std::move(exact)});
}

template <typename T>
void say_number(PacketText& text, std::string name, T value, T usual, std::string_view form = "{}") {
  say(text, std::move(name), fmt::format(fmt::runtime(form), value),
      value == usual ? Weight::usual : Weight::notable);
}

void say_payload(PacketText& text, Bytes payload) {
  constexpr std::size_t kPrintedWhole = 64;
  if (payload.empty()) return;
  bool usual = true;
  for (std::size_t i = 0; i < payload.size() && usual; ++i) usual = payload[i] == usual_payload(i);
  if (usual) return;
  if (payload.size() <= kPrintedWhole) {
    say(text, "data", hex(payload), Weight::plain);
  } else {
    say(text, "datasum", fmt::format("0x{:04x}", ChecksumSum{}.add(payload).field().host()), Weight::plain);
  }
}

/// How the checksum of a TCP or UDP packet stands.
struct TransportSum {
  IpAddress source, target;
  Protocol protocol;
  bool whole = true;  // all bytes are there and this is no fragment, so it can be verified
  const Offload* offload = nullptr;
};

void say_checksum(PacketText& text, Be16 field, Bytes transport, const TransportSum& sum) {
  const std::string raw = fmt::format("0x{:04x}", field.host());
  const ChecksumSum pseudo = pseudo_header_sum(sum.source, sum.target, sum.protocol, transport.size());
  if (sum.offload != nullptr && sum.offload->checksum == Offload::Checksum::partial) {
    const bool right = field.raw() == pseudo.folded();
    say(text, "csum", right ? "partial" : "badpartial", Weight::alarm, right ? "partial" : raw);
  } else if (sum.protocol == Protocol::udp && field == Be16{}) {
    say(text, "csum", "none");
  } else if (!sum.whole) {
    say(text, "csum", raw, Weight::plain);
  } else if (ChecksumSum{pseudo}.add(transport).folded() != 0xffff) {
    say(text, "csum", "bad", Weight::alarm, raw);
  }
}

void say_super_frame(PacketText& text, const Offload* offload) {
  if (offload != nullptr && offload->segments != Offload::Segments::none)
    say(text, "gso", fmt::format("{}", offload->segment_size), Weight::alarm);
}

std::string endpoints(const IpAddress& source, Port from, const IpAddress& target, Port to) {
  return fmt::format("{} > {}", format_as(Endpoint{source, from}), format_as(Endpoint{target, to}));
}

/// A transport header that isn't there whole: the bytes there are.
void cut_short(PacketText& text, std::string_view name, const TransportSum& sum, Bytes transport) {
  text.head = fmt::format("{} {} > {} short", name, format_as(sum.source), format_as(sum.target));
  if (!transport.empty()) say(text, "data", hex(transport), Weight::plain);
}

void say_tcp(PacketText& text, Bytes transport, std::size_t missing, const TransportSum& sum) {
  Bytes rest = transport;
  const auto* tcp = take<TcpHeader>(rest);
  if (tcp == nullptr) {
    const auto* ports = take<PortsHeader>(rest);
    const auto* sequence = take<Be32>(rest);
    if (sequence == nullptr) return cut_short(text, "tcp", sum, transport);
    // The eight bytes that an ICMP error quotes at least.
    text.head = fmt::format("tcp {}", endpoints(sum.source, ports->source, sum.target, ports->target));
    say(text, "seq", fmt::format("{}", sequence->host()), Weight::plain);
    if (const std::size_t length = transport.size() + missing; length > sizeof(TcpHeader))
      say(text, "len", fmt::format("{}", length - sizeof(TcpHeader)));
    return;
  }
  std::string flags;
  for (const auto& [bit, letter] : kTcpFlagLetters)
    if ((tcp->flags & bit) != 0) flags += letter;
  text.head = fmt::format("tcp {} [{}]", endpoints(sum.source, tcp->source, sum.target, tcp->target), flags);
  say(text, "seq", fmt::format("{}", tcp->sequence.host()), Weight::plain);
  say(text, "ack", fmt::format("{}", tcp->acknowledgement.host()), Weight::plain);
  say(text, "win", fmt::format("{}", tcp->window.host()), Weight::plain);
  if (tcp->urgent != Be16{}) say(text, "urg", fmt::format("{}", tcp->urgent.host()), Weight::plain);
  const std::size_t options = tcp->header_length() - std::min(tcp->header_length(), sizeof(TcpHeader));
  if (tcp->header_length() < sizeof(TcpHeader) || options > rest.size()) {
    say(text, "doff", fmt::format("{}", tcp->offset / 16U), Weight::alarm);
  } else if (options > 0) {
    say(text, "opts", hex(rest.first(options)), Weight::plain);
    rest = rest.subspan(options);
  }
  say_checksum(text, tcp->checksum, transport, sum);
  say_super_frame(text, sum.offload);
  if (!rest.empty() || missing > 0) say(text, "len", fmt::format("{}", rest.size() + missing));
  say_payload(text, rest);
}

void say_udp(PacketText& text, Bytes transport, std::size_t missing, const TransportSum& sum) {
  Bytes rest = transport;
  const auto* udp = take<UdpHeader>(rest);
  if (udp == nullptr) return cut_short(text, "udp", sum, transport);
  text.head = fmt::format("udp {}", endpoints(sum.source, udp->source, sum.target, udp->target));
  if (udp->length.host() != transport.size() + missing)
    say(text, "ulen", fmt::format("{}", udp->length.host()), sum.whole ? Weight::alarm : Weight::plain);
  say_checksum(text, udp->checksum, transport, sum);
  say_super_frame(text, sum.offload);
  if (!rest.empty() || missing > 0) say(text, "len", fmt::format("{}", rest.size() + missing));
  say_payload(text, rest);
}

PacketText describe_ip(Bytes packet, const Offload* offload);

void say_icmp(PacketText& text, Bytes transport, std::size_t missing, const TransportSum& sum) {
  Bytes rest = transport;
  const auto* icmp = take<IcmpHeader>(rest);
  if (icmp == nullptr) return cut_short(text, "icmp", sum, transport);
  const IcmpName* name = icmp_name(icmp->type, icmp->code);
  text.head = fmt::format(
      "icmp {} > {} {}", format_as(sum.source), format_as(sum.target),
      name != nullptr ? std::string{name->name} : fmt::format("type{}/{}", icmp->type, icmp->code));
  const IcmpRest kind = name != nullptr ? name->rest : IcmpRest::other;
  if (kind == IcmpRest::echo) {
    say(text, "ident", fmt::format("{}", icmp->word0.host()));
    say(text, "seq", fmt::format("{}", icmp->word1.host()));
  } else if (kind == IcmpRest::mtu && icmp->word0 == Be16{}) {
    say(text, "mtu", fmt::format("{}", icmp->word1.host()));
  } else if (kind == IcmpRest::gateway) {
    say(text, "gw", format_as(IpAddress::v4(std::uint32_t{icmp->word0.host()} << 16U | icmp->word1.host())));
  } else if (icmp->word0 != Be16{} || icmp->word1 != Be16{}) {
    say(text, "rest", fmt::format("0x{:04x}{:04x}", icmp->word0.host(), icmp->word1.host()));
  }
  if (!sum.whole) {
    say(text, "csum", fmt::format("0x{:04x}", icmp->checksum.host()), Weight::plain);
  } else if (ChecksumSum{}.add(transport).folded() != 0xffff) {
    say(text, "csum", "bad", Weight::alarm, fmt::format("0x{:04x}", icmp->checksum.host()));
  }
  if (name != nullptr && name->quotes && rest.size() >= sizeof(Ipv4Header)) {
    text.inner_label = "about";
    text.inner.push_back(describe_ip(rest, nullptr));
    return;
  }
  if (!rest.empty() || missing > 0) say(text, "len", fmt::format("{}", rest.size() + missing));
  say_payload(text, rest);
}

/// `packet` may hold less than the header says (a quotation) or more (Ethernet's padding).
PacketText describe_ip(Bytes packet, const Offload* offload) {
  PacketText text;
  Bytes rest = packet;
  const auto* ip = take<Ipv4Header>(rest);
  if (ip == nullptr || ip->version_ihl / 16 != 4 || ip->header_length() < sizeof(Ipv4Header) ||
      ip->header_length() > packet.size()) {
    text.head = "ip malformed";
    say(text, "data", hex(packet), Weight::alarm);
    return text;
  }
  const std::size_t options = ip->header_length() - sizeof(Ipv4Header);
  const std::size_t total = ip->total_length.host();
  const std::size_t missing = total > packet.size() ? total - packet.size() : 0;
  const bool odd_total = total < ip->header_length();
  if (!odd_total) rest = rest.first(std::min(rest.size(), total - sizeof(Ipv4Header)));
  const Bytes transport = rest.subspan(options);

  TransportSum sum{IpAddress::v4(ip->source), IpAddress::v4(ip->target), ip->protocol,
                   missing == 0 && !ip->more_fragments() && ip->fragment_offset() == 0, offload};
  PacketText upper;  // what the transport says, to stand behind what IP says
  if (ip->fragment_offset() == 0 && ip->protocol == Protocol::tcp) {
    say_tcp(upper, transport, missing, sum);
  } else if (ip->fragment_offset() == 0 && ip->protocol == Protocol::udp) {
    say_udp(upper, transport, missing, sum);
  } else if (ip->fragment_offset() == 0 && ip->protocol == Protocol::icmp) {
    say_icmp(upper, transport, missing, sum);
  } else if (ip->fragment_offset() == 0 && ip->protocol == Protocol::ipip &&
             transport.size() >= sizeof(Ipv4Header)) {
    upper.head = fmt::format("ipip {} > {}", format_as(sum.source), format_as(sum.target));
    upper.inner.push_back(describe_ip(transport, nullptr));
  } else {
    std::string protocol = format_as(ip->protocol);
    std::ranges::transform(protocol, protocol.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
    upper.head = fmt::format("ip {} > {} {}", format_as(sum.source), format_as(sum.target), protocol);
    if (!transport.empty() || missing > 0) say(upper, "len", fmt::format("{}", transport.size() + missing));
    say_payload(upper, transport);
  }

  text.head = std::move(upper.head);
  say_number(text, "ttl", unsigned{ip->ttl}, unsigned{kUsualTtl});
  say_number(text, "tos", unsigned{ip->tos}, 0U, "0x{:02x}");
  say_number(text, "id", ip->id.host(), std::uint16_t{0}, "0x{:04x}");
  if (ip->dont_fragment()) say(text, "df", "");
  if ((ip->fragment.host() & Ipv4Header::kReserved) != 0) say(text, "rf", "");
  if (ip->more_fragments()) say(text, "mf", "", Weight::alarm);
  if (ip->fragment_offset() != 0)
    say(text, "offset", fmt::format("{}", ip->fragment_offset()), Weight::alarm);
  if (options > 0) say(text, "options", hex(rest.first(options)));
  if (odd_total) say(text, "iplen", fmt::format("{}", total), Weight::alarm);
  if (missing > 0) say(text, "quote", fmt::format("{}", packet.size()), Weight::plain);
  if (ChecksumSum{}.add(packet.first(ip->header_length())).folded() != 0xffff)
    say(text, "ipcsum", "bad", Weight::alarm, fmt::format("0x{:04x}", ip->checksum.host()));
  std::ranges::move(upper.fields, std::back_inserter(text.fields));
  text.inner_label = std::move(upper.inner_label);
  text.inner = std::move(upper.inner);
  return text;
}

PacketText describe_arp(Bytes bytes) {
  PacketText text;
  Bytes rest = bytes;
  const auto* arp = take<ArpHeader>(rest);
  if (arp == nullptr || arp->hardware != Be16{1} || arp->protocol != Be16{0x0800} ||
      arp->hardware_length != 6 || arp->protocol_length != 4) {
    text.head = "arp malformed";
    say(text, "data", hex(bytes), Weight::alarm);
    return text;
  }
  const std::string sender = format_as(IpAddress::v4(arp->sender_ip));
  const std::string target = format_as(IpAddress::v4(arp->target_ip));
  if (arp->operation == Be16{ArpHeader::kRequest}) {
    text.head = fmt::format("arp who-has {} tell {}", target, sender);
    say(text, "sha", format_as(arp->sender_mac), Weight::plain);
  } else if (arp->operation == Be16{ArpHeader::kReply}) {
    text.head = fmt::format("arp {} is-at {}", sender, format_as(arp->sender_mac));
    say(text, "to", target);
  } else {
    text.head = fmt::format("arp operation {}", arp->operation.host());
    say(text, "data", hex(bytes), Weight::alarm);
    return text;
  }
  say(text, "tha", format_as(arp->target_mac), Weight::plain);
  return text;
}

void append_line(std::string& line, const PacketText& text, Detail detail) {
  line += text.head;
  for (const PacketText::Field& f : text.fields) {
    if (detail == Detail::brief && (f.weight == Weight::usual || f.weight == Weight::plain)) continue;
    line += ' ';
    line += f.name;
    if (!f.value.empty()) line += '=' + (detail == Detail::full && !f.exact.empty() ? f.exact : f.value);
  }
  for (const PacketText& inner : text.inner) {
    line += ' ' + text.inner_label + '(';
    append_line(line, inner, detail);
    line += ')';
  }
}

}  // namespace

const PacketText::Field* PacketText::find(std::string_view name) const {
  const auto found = std::ranges::find(fields, name, &Field::name);
  return found == fields.end() ? nullptr : &*found;
}

PacketText describe_packet(std::span<const std::byte> packet) {
  return describe_ip(packet, nullptr);
}

PacketText describe_frame(std::span<const std::byte> frame, const Offload& offload) {
  PacketText text;
  Bytes rest = frame;
  const auto* ethernet = take<EthernetHeader>(rest);
  if (ethernet == nullptr) {
    text.head = "ethernet malformed";
    say(text, "data", hex(frame), Weight::alarm);
    return text;
  }
  std::size_t used = rest.size();
  if (ethernet->type == Be16{static_cast<std::uint16_t>(EtherType::ipv4)}) {
    text = describe_ip(rest, &offload);
    if (rest.size() >= sizeof(Ipv4Header))
      used = std::min<std::size_t>(
          used,
          std::max<std::size_t>(header_at<Ipv4Header>(rest, 0).total_length.host(), sizeof(Ipv4Header)));
  } else if (ethernet->type == Be16{static_cast<std::uint16_t>(EtherType::arp)}) {
    text = describe_arp(rest);
    used = std::min(used, sizeof(ArpHeader));
  } else {
    text.head = fmt::format("ethernet 0x{:04x}", ethernet->type.host());
    say(text, "len", fmt::format("{}", rest.size()));
    say_payload(text, rest);
  }
  std::vector<PacketText::Field> link;
  link.push_back({"smac", format_as(ethernet->source), Weight::plain, {}});
  link.push_back({"dmac", format_as(ethernet->target), Weight::plain, {}});
  if (used < rest.size()) link.push_back({"pad", fmt::format("{}", rest.size() - used), Weight::plain, {}});
  text.fields.insert(text.fields.begin(), link.begin(), link.end());
  return text;
}

std::string to_line(const PacketText& text, Detail detail) {
  std::string line;
  append_line(line, text, detail);
  return line;
}

std::string mismatch(const PacketText& expected, const PacketText& actual) {
  if (expected.head != actual.head)
    return fmt::format("expected \"{}\", got \"{}\"", expected.head, actual.head);
  const auto same = [](const PacketText::Field& e, const PacketText::Field& a) {
    return e.value == a.value || (!a.exact.empty() && e.value == a.exact);
  };
  for (const PacketText::Field& e : expected.fields) {
    const PacketText::Field* a = actual.find(e.name);
    if (a == nullptr)
      return fmt::format("expected {}, there is none", e.value.empty() ? e.name : e.name + "=" + e.value);
    if (!same(e, *a)) return fmt::format("expected {}={}, got {}", e.name, e.value, a->value);
  }
  for (const PacketText::Field& a : actual.fields)
    if (a.weight == Weight::alarm && expected.find(a.name) == nullptr)
      return fmt::format("unexpected {}{}{}", a.name, a.value.empty() ? "" : "=", a.value);
  if (expected.inner.size() > actual.inner.size()) return "expected a packet inside, there is none";
  if (expected.inner.size() < actual.inner.size()) return "unexpected packet inside";
  for (std::size_t i = 0; i < expected.inner.size(); ++i) {
    std::string wrong = mismatch(expected.inner[i], actual.inner[i]);
    if (!wrong.empty()) return "inside: " + wrong;
  }
  return {};
}

}  // namespace director
