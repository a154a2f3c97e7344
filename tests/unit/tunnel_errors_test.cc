// Routers on the way to a real server complain about the director's outer packets: whatever the tunnel and whichever families are inside
// and outside, the client is told about its own packet, in its own family, and what was learnt holds for the next one.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "director/core/balancer.h"
#include "director/forward/tunnel.h"
#include "director/net/checksum.h"
#include "director/net/headers.h"
#include "own_frame.h"

namespace director {
namespace {

constexpr Instant kNow{1000s};
constexpr std::size_t kEthernet = sizeof(EthernetHeader);
const MacAddress kOwnMac = *MacAddress::parse("02:00:00:00:00:02");
const MacAddress kClientMac = *MacAddress::parse("02:00:00:00:00:01");
const MacAddress kServerMac = *MacAddress::parse("02:00:00:00:00:11");

IpAddress address(Family family, const char* v4, const char* v6) {
  return *IpAddress::parse(family == Family::ipv4 ? v4 : v6);
}

using Packet = OwnFrame;

std::size_t header_size(const IpAddress& a) { return a.is_v4() ? sizeof(Ipv4Header) : sizeof(Ipv6Header); }

/// Ethernet and IP in front of `payload` bytes that are already behind them.
void write_headers(Frame& frame, const MacAddress& from, const IpAddress& source, const IpAddress& target, Protocol protocol,
                   std::size_t payload) {
  frame.resize(kEthernet + header_size(source) + payload);
  const auto bytes = frame.bytes();
  const EtherType type = source.is_v4() ? EtherType::ipv4 : EtherType::ipv6;
  header_at<EthernetHeader>(bytes, 0) = {kOwnMac, from, Be16{static_cast<std::uint16_t>(type)}};
  if (!source.is_v4()) {
    header_at<Ipv6Header>(bytes, kEthernet) = {Be32{0x60000000U}, Be16{static_cast<std::uint16_t>(payload)}, protocol, 64,
                                               source.bytes(), target.bytes()};
    return;
  }
  Ipv4Header ip{};
  ip.version_ihl = 0x45;
  ip.total_length = Be16{static_cast<std::uint16_t>(sizeof ip + payload)};
  ip.fragment = Be16{Ipv4Header::kDontFragment};
  ip.ttl = 64;
  ip.protocol = protocol;
  ip.source = source.v4_wire();
  ip.target = target.v4_wire();
  header_at<Ipv4Header>(bytes, kEthernet) = ip;
  header_at<Ipv4Header>(bytes, kEthernet).checksum = ChecksumSum{}.add(bytes.subspan(kEthernet, sizeof ip)).field();
}

using Case = std::tuple<Family, Family, TunnelType, TunnelChecksum>;

class TunnelErrors : public testing::TestWithParam<Case> {
 protected:
  const Family inner = std::get<0>(GetParam());
  const Family outer = std::get<1>(GetParam());
  const IpAddress client = address(inner, "10.9.0.1", "fd00:9::1");
  const IpAddress vip = address(inner, "10.9.0.100", "fd00:9::100");
  const IpAddress remote = address(outer, "10.9.0.11", "fd00:9::11");
  const IpAddress own = address(outer, "10.9.0.2", "fd00:9::2");
  const IpAddress router = address(outer, "10.9.0.50", "fd00:9::50");
  ServerConfig server;
  Balancer balancer{Balancer::Options{Policy::improved, 7, 1000, false}};

  void SetUp() override {
    const auto tell = [&](const Change& c) { ASSERT_TRUE(balancer.apply(c, kNow)); };
    tell(SetDevice{DeviceId{0}, "eth0", kOwnMac, 1500, true, Stack::own});
    tell(SetAddresses{DeviceId{0}, {*Prefix::parse("10.9.0.2/24"), *Prefix::parse("fd00:9::2/64")}});
    tell(SetNeighbour{DeviceId{0}, client, kClientMac, true});
    tell(SetNeighbour{DeviceId{0}, remote, kServerMac, true});
    const ServiceKey key{Protocol::tcp, {vip, Port::of(80)}, 0};
    ServiceConfig service;
    service.key = key;
    service.scheduler = "rr";
    tell(AddService{service});
    server.endpoint = {remote, Port::of(80)};
    server.method = Method::tunnel;
    server.tunnel_type = std::get<2>(GetParam());
    server.tunnel_checksum = std::get<3>(GetParam());
    server.tunnel_port = Port::of(server.tunnel_type == TunnelType::gue ? 6080 : 0);
    tell(AddServer{key, server});
  }

  /// A segment of the client's, `length` bytes of IP packet. Its fate.
  Verdict send(Packet& packet, std::size_t length, std::uint8_t flags) {
    const std::size_t l4 = length - header_size(client);
    packet.frame.resize(kEthernet + length);
    const std::size_t at = kEthernet + header_size(client);
    std::fill(packet.frame.bytes().begin(), packet.frame.bytes().end(), std::byte{0x5a});
    header_at<TcpHeader>(packet.frame.bytes(), at) = {Port::of(4000), Port::of(80), Be32{1}, Be32{2}, 5U << 4U, flags,
                                                      Be16{100},      Be16{0},      Be16{0}};
    header_at<TcpHeader>(packet.frame.bytes(), at).checksum =
        pseudo_header_sum(client, vip, Protocol::tcp, l4).add(packet.frame.bytes().subspan(at)).field();
    write_headers(packet.frame, kClientMac, client, vip, Protocol::tcp, l4);
    return balancer.process(packet.frame, kNow);
  }

  /// The router's word about an outer packet that was sent.
  Verdict complain(Packet& packet, const Frame& about, std::uint8_t type, std::uint8_t code, std::uint32_t word,
                   std::uint16_t checksum_error = 0) {
    const auto quoted = about.bytes().subspan(kEthernet, std::min<std::size_t>(about.length - kEthernet, 500));
    const std::size_t at = kEthernet + header_size(router);
    packet.frame.resize(at + sizeof(IcmpHeader) + quoted.size());
    const auto bytes = packet.frame.bytes();
    header_at<IcmpHeader>(bytes, at) = {type, code, Be16{}, Be16{static_cast<std::uint16_t>(word >> 16U)},
                                        Be16{static_cast<std::uint16_t>(word)}};
    std::memcpy(bytes.data() + at + sizeof(IcmpHeader), quoted.data(), quoted.size());
    const Protocol protocol = outer == Family::ipv4 ? Protocol::icmp : Protocol::icmpv6;
    ChecksumSum sum;
    if (outer == Family::ipv6) sum = pseudo_header_sum(router, own, protocol, sizeof(IcmpHeader) + quoted.size());
    const Be16 right = sum.add(bytes.subspan(at)).field();
    header_at<IcmpHeader>(bytes, at).checksum = Be16{static_cast<std::uint16_t>(right.host() ^ checksum_error)};
    write_headers(packet.frame, kServerMac, router, own, protocol, sizeof(IcmpHeader) + quoted.size());
    return balancer.process(packet.frame, kNow);
  }

  struct Told {
    IpAddress from, to;
    std::uint8_t type = 0, code = 0;
    std::uint32_t word = 0;
    IpAddress quoted_source;
  };
  /// What the client reads in an ICMP error.
  Told read(const Frame& frame) const {
    const auto bytes = frame.bytes();
    const std::size_t at = kEthernet + header_size(client);
    const auto& icmp = header_at<IcmpHeader>(bytes, at);
    Told told;
    told.type = icmp.type;
    told.code = icmp.code;
    told.word = std::uint32_t{icmp.word0.host()} << 16U | icmp.word1.host();
    if (inner == Family::ipv4) {
      const auto& ip = header_at<Ipv4Header>(bytes, kEthernet);
      EXPECT_EQ(ip.protocol, Protocol::icmp);
      told.from = IpAddress::v4(ip.source);
      told.to = IpAddress::v4(ip.target);
      told.quoted_source = IpAddress::v4(header_at<Ipv4Header>(bytes, at + sizeof icmp).source);
      EXPECT_EQ(ChecksumSum{}.add(bytes.subspan(at)).folded(), 0xffff);
    } else {
      const auto& ip = header_at<Ipv6Header>(bytes, kEthernet);
      EXPECT_EQ(ip.next_header, Protocol::icmpv6);
      told.from = IpAddress::v6(ip.source);
      told.to = IpAddress::v6(ip.target);
      told.quoted_source = IpAddress::v6(header_at<Ipv6Header>(bytes, at + sizeof icmp).source);
      EXPECT_EQ(pseudo_header_sum(told.from, told.to, Protocol::icmpv6, bytes.size() - at).add(bytes.subspan(at)).folded(),
                0xffff);
    }
    return told;
  }

  [[nodiscard]] std::pair<std::uint8_t, std::uint8_t> too_big(Family family) const {
    return family == Family::ipv4 ? std::pair<std::uint8_t, std::uint8_t>{3, 4} : std::pair<std::uint8_t, std::uint8_t>{2, 0};
  }
};

TEST_P(TunnelErrors, TooBigIsLearntAndToldLessTheOverhead) {
  Packet packet;
  ASSERT_EQ(send(packet, 100, TcpHeader::kSyn).action, Action::transmit);
  Packet large;
  ASSERT_EQ(send(large, 1400, TcpHeader::kAck).action, Action::transmit);
  Packet error;
  const auto [type, code] = too_big(outer);
  const Verdict verdict = complain(error, large.frame, type, code, 1380);
  const auto overhead = static_cast<std::uint32_t>(tunnel_overhead({{}, server, true}, {}));
  ASSERT_EQ(verdict.action, Action::transmit) << name_of(verdict.reason);
  const Told told = read(error.frame);
  EXPECT_EQ(told.from, vip);
  EXPECT_EQ(told.to, client);
  EXPECT_EQ(std::pair(told.type, told.code), too_big(inner));
  EXPECT_EQ(told.word, 1380 - overhead);
  EXPECT_EQ(told.quoted_source, client);

  Packet next;
  EXPECT_EQ(send(next, 1380 - overhead, TcpHeader::kAck).reason, Reason::none) << "what fits goes through";
  Packet beyond;
  EXPECT_EQ(send(beyond, 1381 - overhead, TcpHeader::kAck).reason, Reason::too_big);
  EXPECT_EQ(read(beyond.frame).word, 1380 - overhead);
}

TEST_P(TunnelErrors, UnreachableIsToldInTheClientsFamily) {
  Packet packet;
  ASSERT_EQ(send(packet, 100, TcpHeader::kSyn).action, Action::transmit);
  Packet error;
  // "No such port", as a real server without a decapsulator says.
  const bool v4 = outer == Family::ipv4;
  const Verdict verdict = complain(error, packet.frame, v4 ? 3 : 1, v4 ? 3 : 4, 0);
  ASSERT_EQ(verdict.action, Action::transmit) << name_of(verdict.reason);
  const Told told = read(error.frame);
  EXPECT_EQ(told.from, vip);
  EXPECT_EQ(told.to, client);
  EXPECT_EQ(told.type, inner == Family::ipv4 ? 3 : 1);
  EXPECT_EQ(told.code, inner == Family::ipv4 ? 3 : 4);
}

TEST_P(TunnelErrors, AWrongChecksumIsNotBelieved) {
  Packet packet;
  ASSERT_EQ(send(packet, 100, TcpHeader::kSyn).action, Action::transmit);
  Packet error;
  const auto [type, code] = too_big(outer);
  EXPECT_EQ(complain(error, packet.frame, type, code, 1300, 0x0100).reason, Reason::bad_icmp_checksum);
  Packet next;
  EXPECT_EQ(send(next, 1400, TcpHeader::kAck).action, Action::transmit) << "nothing was learnt";
}

/// IPv6 senders go no lower than 1280 (RFC 8200, 5): on a path too narrow for that the outer packet is cut (RFC 4213, 3.2.1).
class NarrowTunnels : public TunnelErrors {};

TEST_P(NarrowTunnels, CarryIpv6InFragments) {
  Packet packet;
  ASSERT_EQ(send(packet, 1280, TcpHeader::kSyn).action, Action::transmit);
  Packet error;
  const auto [type, code] = too_big(outer);
  ASSERT_EQ(complain(error, packet.frame, type, code, 1280).action, Action::transmit);
  EXPECT_EQ(read(error.frame).word, 1280U);
  balancer.outbox().clear();
  Packet next;
  EXPECT_EQ(send(next, 1280, TcpHeader::kAck).reason, Reason::fragmented);
  EXPECT_EQ(balancer.outbox().size(), 2U);
  Packet beyond;
  EXPECT_EQ(send(beyond, 1281, TcpHeader::kAck).reason, Reason::too_big);
  EXPECT_EQ(read(beyond.frame).word, 1280U);
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto& [inner, outer, type, checksum] = info.param;
  constexpr std::array kTypes{"ipip", "gue", "gre"};
  return fmt::format("{}_in_{}_{}{}", static_cast<int>(inner), static_cast<int>(outer),
                     kTypes.at(static_cast<std::size_t>(type)), checksum == TunnelChecksum::on ? "_csum" : "");
}

INSTANTIATE_TEST_SUITE_P(All, TunnelErrors,
                         testing::Combine(testing::Values(Family::ipv4, Family::ipv6),
                                          testing::Values(Family::ipv4, Family::ipv6),
                                          testing::Values(TunnelType::ipip, TunnelType::gre, TunnelType::gue),
                                          testing::Values(TunnelChecksum::none, TunnelChecksum::on)),
                         case_name);
INSTANTIATE_TEST_SUITE_P(All, NarrowTunnels,
                         testing::Combine(testing::Values(Family::ipv6), testing::Values(Family::ipv4, Family::ipv6),
                                          testing::Values(TunnelType::ipip, TunnelType::gre, TunnelType::gue),
                                          testing::Values(TunnelChecksum::none, TunnelChecksum::on)),
                         case_name);

}  // namespace
}  // namespace director
