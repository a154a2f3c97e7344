// realserver's decapsulation: what comes through, what is dropped and why, and that offload state moves with
// the packet.
#include "director/realserver/decapsulate.h"

#include <gtest/gtest.h>

#include <vector>

#include "director/net/checksum.h"
#include "director/net/headers.h"

namespace director::realserver {
namespace {

const IpAddress kDirector = *IpAddress::parse("10.9.0.2");
const IpAddress kReal = *IpAddress::parse("10.9.0.11");
const IpAddress kClient = *IpAddress::parse("203.0.113.5");
const IpAddress kVip = *IpAddress::parse("10.9.0.100");
const IpAddress kClient6 = *IpAddress::parse("2001:db8::5");
const IpAddress kVip6 = *IpAddress::parse("fd00:9::100");
using Kind = TunnelEnd::Kind;
const IpAddress kDirector6 = *IpAddress::parse("fd00:9::2");
const IpAddress kReal6 = *IpAddress::parse("fd00:9::11");
const Admission kAdmission{AddressSet{{kReal, kReal6, kVip, kVip6}},
                           AddressSet{{kVip, kVip6}},
                           {{Kind::ipip, {}}, {Kind::sit, {}}, {Kind::gre, {}}, {Kind::gue, kGuePort}}};

using Bytes = std::vector<std::byte>;

void seal_v4(std::span<std::byte> packet) {
  auto& ip = header_at<Ipv4Header>(packet, 0);
  ip.checksum = {};
  ip.checksum = ChecksumSum{}.add(packet.first(ip.header_length())).field();
}

Bytes ipv4(const IpAddress& source, const IpAddress& target, Protocol protocol, const Bytes& payload,
           Ecn ecn = {}) {
  Bytes packet(sizeof(Ipv4Header) + payload.size());
  std::copy(payload.begin(), payload.end(), packet.begin() + sizeof(Ipv4Header));
  header_at<Ipv4Header>(std::span{packet}, 0) = {
      0x45,
      static_cast<std::uint8_t>(0x28U | static_cast<unsigned>(ecn)),
      Be16{static_cast<std::uint16_t>(packet.size())},
      {},
      Be16{Ipv4Header::kDontFragment},
      63,
      protocol,
      {},
      source.v4_wire(),
      target.v4_wire()};
  seal_v4(packet);
  return packet;
}

Bytes ipv6(const IpAddress& source, const IpAddress& target, Protocol protocol, const Bytes& payload,
           Ecn ecn = {}) {
  Bytes packet(sizeof(Ipv6Header) + payload.size());
  std::copy(payload.begin(), payload.end(), packet.begin() + sizeof(Ipv6Header));
  header_at<Ipv6Header>(std::span{packet}, 0) = {
      Be32{0x60000000U | static_cast<unsigned>(ecn) << 20U | 0x12345U},
      Be16{static_cast<std::uint16_t>(payload.size())},
      protocol,
      63,
      source.bytes(),
      target.bytes()};
  return packet;
}

Bytes tcp_segment(std::size_t data) {
  Bytes segment(sizeof(TcpHeader) + data, std::byte{0x5a});
  header_at<TcpHeader>(std::span{segment}, 0) = {Port::of(4000), Port::of(80), {}, {}, 0x50,
                                                 0x18,           {},           {}, {}};
  return segment;
}

Bytes inner4(Ecn ecn = {}, std::size_t data = 100) {
  return ipv4(kClient, kVip, Protocol::tcp, tcp_segment(data), ecn);
}
Bytes tunnelled(const Bytes& inner, Ecn ecn = {}, Protocol protocol = Protocol::ipip) {
  return ipv4(kDirector, kReal, protocol, inner, ecn);
}

/// A frame in a roomy buffer, as a device would hand it over.
struct Received {
  explicit Received(const Bytes& packet) : storage(packet.size() + 64) {
    std::copy(packet.begin(), packet.end(), storage.begin() + 14);
    frame.storage = storage;
    frame.start = 14;
    frame.length = static_cast<std::uint32_t>(packet.size());
  }
  Fate open() { return decapsulate(frame, kAdmission); }
  [[nodiscard]] Bytes bytes() const { return {frame.bytes().begin(), frame.bytes().end()}; }

  Bytes storage;
  Frame frame;
};

TEST(Decapsulate, GivesTheInnerPacketByteForByte) {
  Received received(tunnelled(inner4()));
  EXPECT_EQ(received.open(), Fate::delivered);
  EXPECT_EQ(received.bytes(), inner4());
}

TEST(Decapsulate, GivesAnIpv6PacketFromProtocol41) {
  const Bytes inner = ipv6(kClient6, kVip6, Protocol::tcp, tcp_segment(10));
  Received received(tunnelled(inner, {}, Protocol::ipv6));
  EXPECT_EQ(received.open(), Fate::delivered);
  EXPECT_EQ(received.bytes(), inner);
}

TEST(Decapsulate, TakesEthernetPaddingAndTrailingBytesOff) {
  Bytes inner = ipv4(kClient, kVip, Protocol::udp, Bytes(1));
  const Bytes expected = inner;
  inner.resize(inner.size() + 3);  // inside the outer packet, beyond the inner
  Bytes outer = tunnelled(inner);
  outer.resize(outer.size() + 7);  // beyond the outer packet
  Received received(outer);
  EXPECT_EQ(received.open(), Fate::delivered);
  EXPECT_EQ(received.bytes(), expected);
}

TEST(Decapsulate, SkipsOuterOptions) {
  const Bytes inner = inner4();
  Bytes outer(24);
  header_at<Ipv4Header>(std::span{outer}, 0) =
      header_at<Ipv4Header>(std::span<const std::byte>{tunnelled(inner)}, 0);
  auto& ip = header_at<Ipv4Header>(std::span{outer}, 0);
  ip.version_ihl = 0x46;
  ip.total_length = Be16{static_cast<std::uint16_t>(24 + inner.size())};
  outer.insert(outer.end(), inner.begin(), inner.end());
  seal_v4(outer);
  Received received(outer);
  EXPECT_EQ(received.open(), Fate::delivered);
  EXPECT_EQ(received.bytes(), inner);
}

TEST(Decapsulate, DropsWithAReason) {
  const Bytes good = tunnelled(inner4());
  const auto changed = [&](auto change) {
    Bytes packet = good;
    change(packet, header_at<Ipv4Header>(std::span{packet}, 0),
           header_at<Ipv4Header>(std::span{packet}, sizeof(Ipv4Header)));
    return packet;
  };
  const auto sealed = [&](auto change) {
    return changed([&](Bytes& packet, Ipv4Header& outer, Ipv4Header& inner) {
      change(outer, inner);
      seal_v4(packet);
    });
  };
  const struct {
    const char* what;
    Bytes packet;
    Fate fate;
  } cases[]{
      {"empty", {}, Fate::outer_malformed},
      {"cut inside the outer header", Bytes(good.begin(), good.begin() + 19), Fate::outer_malformed},
      {"cut inside the inner packet", Bytes(good.begin(), good.end() - 1), Fate::outer_malformed},
      {"version 5", sealed([](auto& o, auto&) { o.version_ihl = 0x55; }), Fate::outer_malformed},
      {"header length 16", sealed([](auto& o, auto&) { o.version_ihl = 0x44; }), Fate::outer_malformed},
      {"header length beyond the packet", changed([](Bytes& p, auto& o, auto&) {
         o.version_ihl = 0x4f;
         o.total_length = Be16{40};
         p.resize(40);
       }),
       Fate::outer_malformed},
      {"total length below the header", sealed([](auto& o, auto&) { o.total_length = Be16{19}; }),
       Fate::outer_malformed},
      {"wrong checksum", changed([](Bytes&, auto& o, auto&) { o.ttl = 1; }), Fate::outer_checksum},
      {"first fragment", sealed([](auto& o, auto&) { o.fragment = Be16{Ipv4Header::kMoreFragments}; }),
       Fate::outer_fragment},
      {"later fragment", sealed([](auto& o, auto&) { o.fragment = Be16{185}; }), Fate::outer_fragment},
      {"from a group", ipv4(*IpAddress::parse("224.0.0.9"), kReal, Protocol::ipip, inner4()),
       Fate::outer_source},
      {"from nowhere", ipv4(IpAddress{}, kReal, Protocol::ipip, inner4()), Fate::outer_source},
      {"to another host", ipv4(kDirector, *IpAddress::parse("10.9.0.12"), Protocol::ipip, inner4()),
       Fate::not_ours},
      {"UDP", tunnelled(inner4(), {}, Protocol::udp), Fate::not_a_tunnel},
      {"no inner packet", tunnelled({}), Fate::inner_malformed},
      {"half an inner header", tunnelled(Bytes(10, std::byte{0x45})), Fate::inner_malformed},
      {"inner of the other family", tunnelled(inner4(), {}, Protocol::ipv6), Fate::inner_malformed},
      {"inner longer than its payload", sealed([](auto&, auto& i) { i.total_length = Be16{141}; }),
       Fate::inner_malformed},
      {"inner header length 0", sealed([](auto&, auto& i) { i.version_ihl = 0x40; }), Fate::inner_malformed},
      {"inner to this host, but no VIP", tunnelled(ipv4(kClient, kReal, Protocol::tcp, tcp_segment(0))),
       Fate::not_a_vip},
      {"inner to the world",
       tunnelled(ipv4(kClient, *IpAddress::parse("8.8.8.8"), Protocol::tcp, tcp_segment(0))),
       Fate::not_a_vip},
      {"IPv6 inner to the IPv4 VIP's mapped form",
       tunnelled(ipv6(kClient6, kVip, Protocol::tcp, tcp_segment(0)), {}, Protocol::ipv6),
       Fate::inner_malformed},
      {"IPv6 inner longer than its payload",
       tunnelled(
           [] {
             Bytes inner = ipv6(kClient6, kVip6, Protocol::tcp, tcp_segment(0));
             inner.pop_back();
             return inner;
           }(),
           {}, Protocol::ipv6),
       Fate::inner_malformed},
  };
  for (const auto& c : cases) EXPECT_EQ(Received(c.packet).open(), c.fate) << c.what;
}

TEST(Decapsulate, NeverReadsOutsideWhateverTheBytesAre) {
  // Every prefix, and every single byte set to extremes: any fate will do, the sanitizers watch the reads.
  const Bytes good = tunnelled(inner4({}, 20));
  for (std::size_t n = 0; n <= good.size(); ++n) {
    const Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n));
    Frame frame;
    Bytes exact = cut;
    frame.storage = exact;
    frame.length = static_cast<std::uint32_t>(n);
    EXPECT_EQ(decapsulate(frame, kAdmission) == Fate::delivered, n == good.size());
  }
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const auto value : {std::byte{0}, std::byte{0x7f}, std::byte{0xff}}) {
      Bytes packet = good;
      packet[i] = value;
      seal_v4(std::span{packet}.first(std::max<std::size_t>(20, std::min<std::size_t>(60, packet.size()))));
      Frame frame;
      frame.storage = packet;
      frame.length = static_cast<std::uint32_t>(packet.size());
      frame.offload = {.checksum = Offload::Checksum::partial,
                       .segments = Offload::Segments::tcp4,
                       .segment_size = 10,
                       .checksum_start = 40,
                       .checksum_offset = 16};
      if (decapsulate(frame, kAdmission) == Fate::delivered) {
        EXPECT_LE(frame.start + frame.length, packet.size());
      }
    }
  }
}

// --- congestion marks
// ---------------------------------------------------------------------------------------

TEST(DecapsulatedEcn, IsFigure4OfRfc6040) {
  constexpr auto none = Ecn::not_capable;
  constexpr auto ect0 = Ecn::ect0;
  constexpr auto ect1 = Ecn::ect1;
  constexpr auto ce = Ecn::congestion;
  const struct {
    Ecn inner, outer;
    std::optional<Ecn> expected;
  } figure[]{
      {none, none, none}, {none, ect0, none}, {none, ect1, none}, {none, ce, {}},  //
      {ect0, none, ect0}, {ect0, ect0, ect0}, {ect0, ect1, ect1}, {ect0, ce, ce},  //
      {ect1, none, ect1}, {ect1, ect0, ect1}, {ect1, ect1, ect1}, {ect1, ce, ce},  //
      {ce, none, ce},     {ce, ect0, ce},     {ce, ect1, ce},     {ce, ce, ce},
  };
  for (const auto& row : figure) {
    EXPECT_EQ(decapsulated_ecn(row.outer, row.inner), row.expected)
        << "inner " << static_cast<int>(row.inner) << ", outer " << static_cast<int>(row.outer);
  }
}

TEST(Decapsulate, CarriesACongestionMarkInsideAndKeepsTheHeaderChecksumTrue) {
  Received received(tunnelled(inner4(Ecn::ect0), Ecn::congestion));
  ASSERT_EQ(received.open(), Fate::delivered);
  EXPECT_EQ(received.bytes(), inner4(Ecn::congestion));

  Received six(tunnelled(ipv6(kClient6, kVip6, Protocol::tcp, tcp_segment(0), Ecn::ect1), Ecn::congestion,
                         Protocol::ipv6));
  ASSERT_EQ(six.open(), Fate::delivered);
  EXPECT_EQ(six.bytes(), ipv6(kClient6, kVip6, Protocol::tcp, tcp_segment(0), Ecn::congestion));
}

TEST(Decapsulate, DropsACongestionMarkThatCannotBeCarried) {
  EXPECT_EQ(Received(tunnelled(inner4(), Ecn::congestion)).open(), Fate::congestion_lost);
}

// --- offload state
// ------------------------------------------------------------------------------------------

constexpr std::uint16_t kOuter = sizeof(Ipv4Header);

TEST(Decapsulate, MovesAPartialChecksumWithThePacket) {
  Received received(tunnelled(inner4()));
  received.frame.offload = {.checksum = Offload::Checksum::partial,
                            .checksum_start = kOuter + sizeof(Ipv4Header),
                            .checksum_offset = 16};
  ASSERT_EQ(received.open(), Fate::delivered);
  EXPECT_EQ(received.frame.offload.checksum, Offload::Checksum::partial);
  EXPECT_EQ(received.frame.offload.checksum_start, sizeof(Ipv4Header));
  EXPECT_EQ(received.frame.offload.checksum_offset, 16);
}

TEST(Decapsulate, MovesASuperFrameWithThePacket) {
  Received received(tunnelled(inner4({}, 30000)));
  received.frame.offload = {.checksum = Offload::Checksum::partial,
                            .segments = Offload::Segments::tcp4,
                            .segment_size = 1440,
                            .header_length = 1494,  // as GRO has it: the first segment's whole length
                            .checksum_start = kOuter + sizeof(Ipv4Header),
                            .checksum_offset = 16};
  ASSERT_EQ(received.open(), Fate::delivered);
  EXPECT_EQ(received.frame.offload.segments, Offload::Segments::tcp4);
  EXPECT_EQ(received.frame.offload.segment_size, 1440);
  EXPECT_EQ(received.frame.offload.header_length, sizeof(Ipv4Header) + sizeof(TcpHeader));
}

TEST(Decapsulate, DropsAnOffloadThatIsNotAboutTheInnerPacket) {
  using Checksum = Offload::Checksum;
  using Segments = Offload::Segments;
  constexpr std::uint16_t kTcp = kOuter + sizeof(Ipv4Header);
  const struct {
    const char* what;
    Offload offload;
  } cases[]{
      {"a checksum of the outer packet",
       {.checksum = Checksum::partial, .checksum_start = 0, .checksum_offset = 10}},
      {"one that starts in the inner IP header",
       {.checksum = Checksum::partial, .checksum_start = kOuter + 10}},
      {"one beyond the packet",
       {.checksum = Checksum::partial, .checksum_start = kTcp, .checksum_offset = 2000}},
      {"IPv6 segments of an IPv4 packet",
       {.checksum = Checksum::partial,
        .segments = Segments::tcp6,
        .segment_size = 10,
        .checksum_start = kTcp}},
      {"segments of no size",
       {.checksum = Checksum::partial, .segments = Segments::tcp4, .checksum_start = kTcp}},
      {"segments with a complete checksum", {.segments = Segments::tcp4, .segment_size = 10}},
  };
  for (const auto& c : cases) {
    Received received(tunnelled(inner4()));
    received.frame.offload = c.offload;
    EXPECT_EQ(received.open(), Fate::bad_offload) << c.what;
  }
}

// --- GRE and GUE ---------------------------------------------------------------------------------------------

Bytes concat(Bytes head, const Bytes& rest) {
  head.insert(head.end(), rest.begin(), rest.end());
  return head;
}
Bytes words(std::initializer_list<unsigned> values) {
  Bytes bytes;
  for (const unsigned v : values) {
    bytes.push_back(static_cast<std::byte>(v >> 8U));
    bytes.push_back(static_cast<std::byte>(v));
  }
  return bytes;
}
Bytes gre(const Bytes& header, const Bytes& inner) { return tunnelled(concat(header, inner), {}, Protocol::gre); }
/// Behind ports 40000 and `port`, with a right length and without checksum.
Bytes gue(const Bytes& header, const Bytes& inner, unsigned port = 6080) {
  const auto length = static_cast<unsigned>(8 + header.size() + inner.size());
  return tunnelled(concat(words({40000, port, length, 0}), concat(header, inner)), {}, Protocol::udp);
}

TEST(Decapsulate, OpensWhatItsEndsSayAndNothingElse) {
  const Bytes inner = inner4();
  EXPECT_EQ(Received(gre(words({0x0000, 0x0800}), inner)).open(), Fate::delivered);
  EXPECT_EQ(Received(gue(words({0x0004, 0}), inner)).open(), Fate::delivered);
  Admission bare = kAdmission;
  bare.ends = {{Kind::ipip, {}}};
  Received received(gre(words({0x0000, 0x0800}), inner));
  EXPECT_EQ(decapsulate(received.frame, bare), Fate::not_a_tunnel);
  Received other(gue(words({0x0004, 0}), inner, 6081));
  EXPECT_EQ(other.open(), Fate::not_a_tunnel);
}

TEST(Decapsulate, RefusesTunnelHeadersItDoesNotUnderstand) {
  const Bytes inner = inner4();
  const struct {
    const char* what;
    Bytes packet;
    Fate fate;
  } cases[]{
      {"GRE with a key", gre(words({0x2000, 0x0800, 0, 1}), inner), Fate::tunnel_malformed},
      {"GRE version 1", gre(words({0x0001, 0x0800}), inner), Fate::tunnel_malformed},
      {"GRE with Ethernet inside", gre(words({0x0000, 0x6558}), inner), Fate::tunnel_malformed},
      {"half a GRE header", gre(words({0x0000}), {}), Fate::tunnel_malformed},
      {"GRE cut before its checksum", gre(words({0x8000, 0x0800}), {}), Fate::tunnel_malformed},
      {"GRE, wrong checksum", gre(words({0x8000, 0x0800, 0x1234, 0}), inner), Fate::tunnel_checksum},
      {"GRE, the other family", gre(words({0x0000, 0x86dd}), inner), Fate::inner_malformed},
      {"GUE variant 1", gue(words({0x4004, 0}), inner), Fate::tunnel_malformed},
      {"GUE control message", gue(words({0x2004, 0}), inner), Fate::tunnel_malformed},
      {"GUE with TCP inside", gue(words({0x0006, 0}), inner), Fate::tunnel_malformed},
      {"GUE, unknown flag", gue(words({0x0104, 0x8000, 0, 0}), inner), Fate::tunnel_malformed},
      {"GUE, options beyond the packet", gue(words({0x1f04, 0}), words({1, 2})), Fate::tunnel_malformed},
      {"GUE, private flags without room", gue(words({0x0004, 1}), inner), Fate::tunnel_malformed},
      {"GUE, unknown private flag", gue(words({0x0204, 1, 0x4000, 0, 0, 0}), inner), Fate::tunnel_malformed},
      {"GUE, a checksum left for before the inner packet's transport", gue(words({0x0204, 1, 0x8000, 0, 10, 12}), inner),
       Fate::bad_offload},
      {"GUE, a checksum left for beyond the packet", gue(words({0x0204, 1, 0x8000, 0, 20, 2000}), inner), Fate::bad_offload},
      {"GUE, a checksum field before its start", gue(words({0x0204, 1, 0x8000, 0, 20, 10}), inner), Fate::tunnel_malformed},
      {"no whole UDP header", tunnelled(words({40000, 6080}), {}, Protocol::udp), Fate::not_a_tunnel},
  };
  for (const auto& c : cases) EXPECT_EQ(Received(c.packet).open(), c.fate) << c.what;
}

TEST(Decapsulate, OptionsOfGueThatSayNothingAreSkipped) {
  Received received(gue(words({0x0204, 0, 1, 2, 3, 4}), inner4()));
  EXPECT_EQ(received.open(), Fate::delivered);
  EXPECT_EQ(received.bytes(), inner4());
}

TEST(Decapsulate, ATunnelChecksumThatNobodyComputedIsNotVerified) {
  Bytes packet = gue(words({0x0004, 0}), inner4());
  packet[sizeof(Ipv4Header) + 6] = std::byte{0x12};  // the pseudo-header's sum, say
  Received wrong(packet);
  EXPECT_EQ(wrong.open(), Fate::tunnel_checksum);
  Received received(packet);
  received.frame.offload = {.checksum = Offload::Checksum::partial, .checksum_start = kOuter, .checksum_offset = 6};
  ASSERT_EQ(received.open(), Fate::delivered);
  EXPECT_EQ(received.frame.offload.checksum, Offload::Checksum::complete);
  EXPECT_EQ(received.bytes(), inner4());
}

TEST(Decapsulate, OpensTunnelsThatCameByIpv6) {
  const Bytes six = ipv6(kClient6, kVip6, Protocol::tcp, tcp_segment(10));
  Received bare(ipv6(kDirector6, kReal6, Protocol::ipip, inner4()));
  EXPECT_EQ(bare.open(), Fate::delivered);
  EXPECT_EQ(bare.bytes(), inner4());
  Received in_gre(ipv6(kDirector6, kReal6, Protocol::gre, concat(words({0, 0x86dd}), six)));
  EXPECT_EQ(in_gre.open(), Fate::delivered);
  EXPECT_EQ(in_gre.bytes(), six);
  EXPECT_EQ(Received(ipv6(kDirector6, kReal6, Protocol{44}, Bytes(40))).open(), Fate::outer_fragment);
  EXPECT_EQ(Received(ipv6(kDirector6, kVip6, Protocol::ipv6, six)).open(), Fate::delivered) << "own, as VIPs are on lo";
  EXPECT_EQ(Received(ipv6(kDirector6, kClient6, Protocol::ipv6, six)).open(), Fate::not_ours);
}

TEST(TunnelEnds, AreReadAsTheyAreWritten) {
  for (const char* text : {"ipip", "sit", "gre", "gue:6080", "gue:1"}) {
    const auto end = parse_tunnel_end(text);
    ASSERT_TRUE(end) << text;
    EXPECT_EQ(format_as(*end), text);
  }
  for (const char* text : {"", "ip", "gue", "gue:", "gue:0", "gue:65536", "gue:1x", "gre:1", "10.9.0.1"}) EXPECT_FALSE(parse_tunnel_end(text)) << text;
}

TEST(Fates, EachHasItsPlaceInTheList) {
  for (std::size_t i = 0; i < kFates.size(); ++i) EXPECT_EQ(static_cast<std::size_t>(kFates[i].fate), i);
}

}  // namespace
}  // namespace director::realserver
