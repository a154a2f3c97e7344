// From bytes to packet text. Doubts every length itself: it has to print what parse_packet() refuses.
#include "director/net/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "director/net/checksum.h"
#include "director/net/frame.h"
#include "director/net/headers.h"
#include "director/net/text_words.h"
#include "director/net/tunnel_header.h"

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

void say_icmp_checksum(PacketText& text, Be16 field, Bytes transport, const TransportSum& sum) {
  ChecksumSum pseudo;
  if (sum.protocol == Protocol::icmpv6)
    pseudo = pseudo_header_sum(sum.source, sum.target, sum.protocol, transport.size());
  if (!sum.whole) {
    say(text, "csum", fmt::format("0x{:04x}", field.host()), Weight::plain);
  } else if (pseudo.add(transport).folded() != 0xffff) {
    say(text, "csum", "bad", Weight::alarm, fmt::format("0x{:04x}", field.host()));
  }
}

/// The options of a neighbour discovery message: the usual one by name, others as they are.
void say_neighbour_options(PacketText& text, Bytes options, std::uint8_t usual) {
  if (options.empty()) return;
  const bool plain = options.size() == sizeof(LinkAddressOption) &&
                     header_at<LinkAddressOption>(options, 0).type == usual &&
                     header_at<LinkAddressOption>(options, 0).length == 1;
  if (!plain) return say(text, "ndopts", hex(options));
  say(text, usual == LinkAddressOption::kSource ? "slla" : "tlla", format_as(header_at<LinkAddressOption>(options, 0).mac));
}

/// Neighbour discovery and listener messages. False: it is something else.
bool say_link_message(PacketText& text, Bytes transport, const TransportSum& sum) {
  const auto& icmp = header_at<IcmpHeader>(transport, 0);
  const std::string ends = format_as(sum.source) + " > " + format_as(sum.target);
  if (icmp.code != 0) return false;
  if (icmp.type == Icmpv6::kListenerReport2) {
    constexpr std::size_t kRecord = 20;
    const Bytes records = transport.subspan(sizeof(IcmpHeader));
    if (records.empty() || records.size() != icmp.word1.host() * kRecord) return false;
    std::string groups;
    for (std::size_t at = 0; at < records.size(); at += kRecord) {
      if (records[at] != records[0] || header_at<Be16>(records, at + 2) != Be16{}) return false;
      groups += (at > 0 ? "," : "") + format_as(IpAddress::v6(header_at<std::array<std::uint8_t, 16>>(records, at + 4)));
    }
    text.head = fmt::format("mld {} report", ends);
    say(text, "groups", groups);
    say(text, "record", fmt::format("{}", std::to_integer<unsigned>(records[0])));
    say_icmp_checksum(text, icmp.checksum, transport, sum);
    return true;
  }
  if (transport.size() < sizeof(NeighbourHeader)) return false;
  const auto& nd = header_at<NeighbourHeader>(transport, 0);
  const IpAddress about = IpAddress::v6(nd.target);
  const Bytes options = transport.subspan(sizeof(NeighbourHeader));
  switch (nd.type) {
    case Icmpv6::kNeighbourSolicitation:
      text.head = fmt::format("nd {} who-has {}", ends, format_as(about));
      say_neighbour_options(text, options, LinkAddressOption::kSource);
      break;
    case Icmpv6::kNeighbourAdvertisement:
      text.head = fmt::format("nd {} has {}", ends, format_as(about));
      say_neighbour_options(text, options, LinkAddressOption::kTarget);
      if ((nd.flags.host() & NeighbourHeader::kRouter) != 0) say(text, "router", "", Weight::alarm);
      if ((nd.flags.host() & NeighbourHeader::kSolicited) != 0) say(text, "solicited", "", Weight::alarm);
      if ((nd.flags.host() & NeighbourHeader::kOverride) != 0) say(text, "override", "", Weight::alarm);
      break;
    case Icmpv6::kListenerQuery:
    case Icmpv6::kListenerReport: {
      const bool query = nd.type == Icmpv6::kListenerQuery;
      text.head = fmt::format("mld {} {}", ends, query ? "query" : "report");
      if (!query || options.empty()) say(text, "v1", "");
      if (!about.is_unspecified()) say(text, "group", format_as(about));
      break;
    }
    default: return false;
  }
  say_icmp_checksum(text, nd.checksum, transport, sum);
  return true;
}

void say_icmp(PacketText& text, Bytes transport, std::size_t missing, const TransportSum& sum) {
  Bytes rest = transport;
  const auto* icmp = take<IcmpHeader>(rest);
  if (icmp == nullptr) return cut_short(text, "icmp", sum, transport);
  const Family family = sum.source.family();
  if (family == Family::ipv6 && say_link_message(text, transport, sum)) return;
  const IcmpName* name = icmp_name(family, icmp->type, icmp->code);
  text.head = fmt::format(
      "icmp {} > {} {}", format_as(sum.source), format_as(sum.target),
      name != nullptr ? std::string{name->name} : fmt::format("type{}/{}", icmp->type, icmp->code));
  const IcmpRest kind = name != nullptr ? name->rest : IcmpRest::other;
  if (kind == IcmpRest::echo) {
    say(text, "ident", fmt::format("{}", icmp->word0.host()));
    say(text, "seq", fmt::format("{}", icmp->word1.host()));
  } else if (kind == IcmpRest::mtu && (icmp->word0 == Be16{} || family == Family::ipv6)) {
    say(text, "mtu", fmt::format("{}", std::uint32_t{icmp->word0.host()} << 16U | icmp->word1.host()));
  } else if (kind == IcmpRest::gateway) {
    say(text, "gw", format_as(IpAddress::v4(std::uint32_t{icmp->word0.host()} << 16U | icmp->word1.host())));
  } else if (icmp->word0 != Be16{} || icmp->word1 != Be16{}) {
    say(text, "rest", fmt::format("0x{:04x}{:04x}", icmp->word0.host(), icmp->word1.host()));
  }
  say_icmp_checksum(text, icmp->checksum, transport, sum);
  if (name != nullptr && name->quotes && rest.size() >= sizeof(Ipv4Header)) {
    text.inner_label = "about";
    text.inner.push_back(describe_ip(rest, nullptr));
    return;
  }
  if (!rest.empty() || missing > 0) say(text, "len", fmt::format("{}", rest.size() + missing));
  say_payload(text, rest);
}

/// The checksum of a GRE or UDP header in front of a tunnelled packet: any of the three says something.
void say_tunnel_checksum(PacketText& text, Be16 field, bool there, const ChecksumSum& pseudo, Bytes bytes, bool whole) {
  const bool right = there && ChecksumSum{pseudo}.add(bytes).folded() == 0xffff;
  if (!there) {
    say(text, "csum", "none");
  } else if (whole) {
    say(text, "csum", right ? "ok" : "bad", right ? Weight::notable : Weight::alarm, fmt::format("0x{:04x}", field.host()));
  } else {
    say(text, "csum", fmt::format("0x{:04x}", field.host()), Weight::plain);
  }
}

/// GRE, and GUE at its well-known port, with a packet inside. False: it is something else.
bool say_tunnel(PacketText& text, Bytes transport, const TransportSum& sum) {
  const bool gue = sum.protocol == Protocol::udp;
  const auto header = gue ? read_gue_header(transport) : read_gre_header(transport);
  if (!header || transport.size() < header->length + sizeof(Ipv4Header)) return false;
  const std::string ends = format_as(sum.source) + " > " + format_as(sum.target);
  if (gue) {
    const auto& udp = header_at<UdpHeader>(transport, 0);
    if (udp.target != kUsualGuePort) return false;
    text.head = "gue " + ends;
    say(text, "sport", fmt::format("{}", udp.source.host()), Weight::plain);
    const ChecksumSum pseudo = pseudo_header_sum(sum.source, sum.target, sum.protocol, transport.size());
    say_tunnel_checksum(text, udp.checksum, header->has_checksum, pseudo, transport, sum.whole);
    if (const auto& remote = header->remote_checksum)
      say(text, "remote", fmt::format("{}+{}", remote->start, remote->field - remote->start), Weight::alarm);
  } else {
    text.head = "gre " + ends;
    const Be16 field = header->has_checksum ? header_at<Be16>(transport, sizeof(GreHeader)) : Be16{};
    say_tunnel_checksum(text, field, header->has_checksum, {}, transport, sum.whole);
  }
  text.inner.push_back(describe_ip(transport.subspan(header->length), nullptr));
  return true;
}

/// What an IP header says of what is behind it.
struct Behind {
  TransportSum sum;
  Bytes transport;
  std::size_t missing = 0;  // bytes that the header promises and a quotation doesn't have
  bool first = true;        // not a later fragment
};

std::optional<Behind> say_ipv4(PacketText& text, Bytes packet, const Offload* offload) {
  Bytes rest = packet;
  const auto* ip = take<Ipv4Header>(rest);
  if (ip == nullptr || ip->header_length() < sizeof(Ipv4Header) || ip->header_length() > packet.size()) return {};
  const std::size_t options = ip->header_length() - sizeof(Ipv4Header);
  const std::size_t total = ip->total_length.host();
  const std::size_t missing = total > packet.size() ? total - packet.size() : 0;
  const bool odd_total = total < ip->header_length();
  if (!odd_total) rest = rest.first(std::min(rest.size(), total - sizeof(Ipv4Header)));
  const bool first = ip->fragment_offset() == 0;
  say_number(text, "ttl", unsigned{ip->ttl}, unsigned{kUsualTtl});
  say_number(text, "tos", unsigned{ip->tos}, 0U, "0x{:02x}");
  say_number(text, "id", ip->id.host(), std::uint16_t{0}, "0x{:04x}");
  if (ip->dont_fragment()) say(text, "df", "");
  if ((ip->fragment.host() & Ipv4Header::kReserved) != 0) say(text, "rf", "");
  if (ip->more_fragments()) say(text, "mf", "", Weight::alarm);
  if (!first) say(text, "offset", fmt::format("{}", ip->fragment_offset()), Weight::alarm);
  if (options > 0) say(text, "options", hex(rest.first(options)));
  if (odd_total) say(text, "iplen", fmt::format("{}", total), Weight::alarm);
  if (missing > 0) say(text, "quote", fmt::format("{}", packet.size()), Weight::plain);
  if (ChecksumSum{}.add(packet.first(ip->header_length())).folded() != 0xffff)
    say(text, "ipcsum", "bad", Weight::alarm, fmt::format("0x{:04x}", ip->checksum.host()));
  return Behind{{IpAddress::v4(ip->source), IpAddress::v4(ip->target), ip->protocol,
                 missing == 0 && !ip->more_fragments() && first, offload},
                rest.subspan(options), missing, first};
}

/// The extension headers in front of the transport, as ext= and fext=; `packet` and `at` go behind them, `protocol` becomes what is there.
struct Extensions {
  std::string before, behind;  // of the fragment header
  const Ipv6Fragment* fragment = nullptr;
  Protocol protocol{};
  std::size_t end = sizeof(Ipv6Header);
};

Extensions list_extensions(Bytes packet, Protocol first) {
  Extensions list;
  list.protocol = first;
  for (;;) {
    const bool fragment = list.protocol == Ipv6Extension::kFragment && list.fragment == nullptr;
    const bool other = list.protocol == Ipv6Extension::kHopByHop || list.protocol == Ipv6Extension::kRouting ||
                       list.protocol == Ipv6Extension::kAuthentication ||
                       list.protocol == Ipv6Extension::kDestinationOptions;
    constexpr std::size_t kLeast = 8;
    if ((!fragment && !other) || list.end + kLeast > packet.size()) return list;
    const auto& header = header_at<Ipv6Extension>(packet, list.end);
    const std::size_t unit = list.protocol == Ipv6Extension::kAuthentication ? 4 : 8;
    const std::size_t length = fragment ? sizeof(Ipv6Fragment) : kLeast + header.length * unit;
    if (list.end + length > packet.size()) return list;
    if (fragment) {
      list.fragment = &header_at<Ipv6Fragment>(packet, list.end);
    } else {
      std::string& to = list.fragment == nullptr ? list.before : list.behind;
      to += fmt::format("{}{}/{}", to.empty() ? "" : ",", static_cast<unsigned>(list.protocol),
                        hex(packet.subspan(list.end + 1, length - 1)));
    }
    list.protocol = header.next_header;
    list.end += length;
    if (fragment && list.fragment->fragment_offset() != 0) return list;
  }
}

std::optional<Behind> say_ipv6(PacketText& text, Bytes packet, const Offload* offload) {
  if (packet.size() < sizeof(Ipv6Header)) return {};
  const auto& ip = header_at<Ipv6Header>(packet, 0);
  const std::size_t total = sizeof(Ipv6Header) + ip.payload_length.host();
  const std::size_t missing = total > packet.size() ? total - packet.size() : 0;
  const Extensions ext = list_extensions(packet.first(std::min(packet.size(), total)), ip.next_header);
  const Bytes transport = packet.first(std::min(packet.size(), total)).subspan(ext.end);
  const bool more = ext.fragment != nullptr && ext.fragment->more_fragments();
  const bool first = ext.fragment == nullptr || ext.fragment->fragment_offset() == 0;
  const auto type = first && !transport.empty() ? std::to_integer<std::uint8_t>(transport[0]) : std::uint8_t{0};
  const std::uint8_t usual = usual_ttl(ext.protocol, type);
  say_number(text, "ttl", unsigned{ip.hop_limit}, unsigned{usual});
  say_number(text, "tos", unsigned{ip.traffic_class()}, 0U, "0x{:02x}");
  say_number(text, "flow", ip.flow_label(), std::uint32_t{0}, "0x{:05x}");
  const bool listeners = usual == 1;
  if (listeners && ext.before.empty()) say(text, "noext", "");
  if (!ext.before.empty())
    say(text, "ext", ext.before, listeners && ext.before == kRouterAlertText ? Weight::usual : Weight::alarm);
  if (ext.fragment != nullptr) {
    say(text, "id", fmt::format("0x{:08x}", ext.fragment->id.host()), Weight::notable);
    if (more) say(text, "mf", "", Weight::alarm);
    if (!first) say(text, "offset", fmt::format("{}", ext.fragment->fragment_offset()), Weight::alarm);
    if (!more && first) say(text, "atomic", "", Weight::alarm);
  }
  if (!ext.behind.empty()) say(text, "fext", ext.behind, Weight::alarm);
  if (missing > 0) say(text, "quote", fmt::format("{}", packet.size()), Weight::plain);
  return Behind{{IpAddress::v6(ip.source), IpAddress::v6(ip.target), ext.protocol, missing == 0 && !more && first, offload},
                transport, missing, first};
}

void say_upper(PacketText& text, const Behind& ip) {
  const TransportSum& sum = ip.sum;
  const bool icmp = sum.protocol == (sum.source.is_v4() ? Protocol::icmp : Protocol::icmpv6);
  const bool packet_inside = sum.protocol == Protocol::ipip || sum.protocol == Protocol::ipv6;
  if (ip.first && sum.protocol == Protocol::tcp) return say_tcp(text, ip.transport, ip.missing, sum);
  if (ip.first && (sum.protocol == Protocol::udp || sum.protocol == Protocol::gre) && say_tunnel(text, ip.transport, sum))
    return;
  if (ip.first && sum.protocol == Protocol::udp) return say_udp(text, ip.transport, ip.missing, sum);
  if (ip.first && icmp) return say_icmp(text, ip.transport, ip.missing, sum);
  if (ip.first && packet_inside && ip.transport.size() >= sizeof(Ipv4Header)) {
    text.head = fmt::format("ipip {} > {}", format_as(sum.source), format_as(sum.target));
    text.inner.push_back(describe_ip(ip.transport, nullptr));
    return;
  }
  std::string protocol = format_as(sum.protocol);
  std::ranges::transform(protocol, protocol.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  text.head = fmt::format("ip {} > {} {}", format_as(sum.source), format_as(sum.target), protocol);
  if (!ip.transport.empty() || ip.missing > 0) say(text, "len", fmt::format("{}", ip.transport.size() + ip.missing));
  say_payload(text, ip.transport);
}

/// `packet` may hold less than the header says (a quotation) or more (Ethernet's padding).
PacketText describe_ip(Bytes packet, const Offload* offload) {
  PacketText text;
  const unsigned version = packet.empty() ? 0 : std::to_integer<unsigned>(packet[0]) >> 4U;
  const auto behind = version == 4   ? say_ipv4(text, packet, offload)
                      : version == 6 ? say_ipv6(text, packet, offload)
                                     : std::nullopt;
  if (!behind) {
    text.head = "ip malformed";
    say(text, "data", hex(packet), Weight::alarm);
    return text;
  }
  PacketText upper;  // what the transport says, to stand behind what IP says
  say_upper(upper, *behind);
  text.head = std::move(upper.head);
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

namespace {

/// In a tunnel, what a partial checksum covers is what it will be: finished in a copy, and said where it is.
PacketText describe_tunnelled_partial(Bytes frame, const Offload& offload) {
  std::vector<std::byte> copy(frame.begin(), frame.end());
  Frame whole;
  whole.storage = copy;
  whole.resize(copy.size());
  whole.offload = offload;
  finish_checksum(whole);
  PacketText text = describe_frame(copy);
  // Finishing it may have changed the very bytes that made it look like a tunnel.
  PacketText& inner = text.inner.empty() ? text : text.inner.front();
  if (inner.find("csum") == nullptr) say(inner, "csum", "partial", Weight::alarm);
  return text;
}

}  // namespace

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
    const bool partial = offload.checksum == Offload::Checksum::partial &&
                         offload.checksum_start + std::size_t{offload.checksum_offset} + sizeof(Be16) <= frame.size();
    if (partial && !text.inner.empty() && text.inner_label.empty()) return describe_tunnelled_partial(frame, offload);
    if (rest.size() >= sizeof(Ipv4Header))
      used = std::min<std::size_t>(
          used,
          std::max<std::size_t>(header_at<Ipv4Header>(rest, 0).total_length.host(), sizeof(Ipv4Header)));
  } else if (ethernet->type == Be16{static_cast<std::uint16_t>(EtherType::ipv6)}) {
    text = describe_ip(rest, &offload);
    if (rest.size() >= sizeof(Ipv6Header))
      used = std::min<std::size_t>(used, sizeof(Ipv6Header) + header_at<Ipv6Header>(rest, 0).payload_length.host());
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
