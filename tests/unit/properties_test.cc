// What must hold for every packet: translation there and back is the identity, checksums are true however they came in, nothing
// leaves that wasn't whole. Random packets; the seed is printed.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "director/core/balancer.h"
#include "director/net/checksum.h"
#include "own_frame.h"

namespace director {
namespace {

const MacAddress kClientMac = *MacAddress::parse("02:00:00:00:00:01");
const MacAddress kOwnMac = *MacAddress::parse("02:00:00:00:00:02");
const MacAddress kServerMac = *MacAddress::parse("02:00:00:00:00:11");
const IpAddress kClient = *IpAddress::parse("10.9.0.1");
const IpAddress kVip = *IpAddress::parse("10.9.0.100");
const IpAddress kServer = *IpAddress::parse("10.9.0.11");
constexpr Instant kNow{1000s};

/// A director with one service per protocol, tcp and udp port 80, and one server at port 8080 (its own port for -g and -i).
std::unique_ptr<Balancer> director_with(Method method, std::uint32_t mtu = 1500) {
  auto balancer = std::make_unique<Balancer>(Balancer::Options{Policy::improved, 7, 100'000, false});
  const auto tell = [&](const Change& c) { ASSERT_TRUE(balancer->apply(c, kNow)); };
  tell(SetDevice{DeviceId{0}, "eth0", kOwnMac, mtu, true, Stack::own});
  tell(SetAddresses{DeviceId{0}, {*Prefix::parse("10.9.0.2/24")}});
  tell(SetNeighbour{DeviceId{0}, kClient, kClientMac, true});
  tell(SetNeighbour{DeviceId{0}, kServer, kServerMac, true});
  for (const Protocol p : {Protocol::tcp, Protocol::udp}) {
    const ServiceKey key{p, {kVip, Port::of(80)}, 0};
    tell(AddService{{key, "rr", {}, {}, 0, Be32{0xffffffffU}, false, {}, {}}});
    ServerConfig server;
    server.endpoint = {kServer, Port::of(method == Method::masq ? 8080 : 80)};
    server.method = method;
    tell(AddServer{key, server});
  }
  return balancer;
}

/// How a sender left the transport checksum.
enum class Sum { full, partial, none };

struct Packet : OwnFrame {
  static constexpr std::size_t kNetwork = sizeof(EthernetHeader);
  static constexpr std::size_t kTransport = kNetwork + sizeof(Ipv4Header);

  void write(Protocol protocol, const Endpoint& from, const Endpoint& to, std::uint8_t flags,
             std::span<const std::byte> payload, Sum sum, bool dont_fragment, const MacAddress& mac) {
    const std::size_t l4 = protocol == Protocol::tcp ? sizeof(TcpHeader) : sizeof(UdpHeader);
    frame.resize(kTransport + l4 + payload.size());
    const auto b = frame.bytes();
    std::memset(b.data(), 0, kTransport + l4);
    header_at<EthernetHeader>(b, 0) = {kOwnMac, mac, Be16{0x0800}};
    auto& ip = header_at<Ipv4Header>(b, kNetwork);
    ip.version_ihl = 0x45;
    ip.total_length = Be16{static_cast<std::uint16_t>(frame.length - kNetwork)};
    ip.id = Be16{4711};
    ip.fragment = Be16{dont_fragment ? Ipv4Header::kDontFragment : std::uint16_t{0}};
    ip.ttl = 64;
    ip.protocol = protocol;
    ip.source = from.address.v4_wire();
    ip.target = to.address.v4_wire();
    ip.checksum = ChecksumSum{}.add(b.subspan(kNetwork, sizeof(Ipv4Header))).field();
    if (!payload.empty()) std::memcpy(b.data() + kTransport + l4, payload.data(), payload.size());
    std::size_t field = 0;
    if (protocol == Protocol::tcp) {
      auto& h = header_at<TcpHeader>(b, kTransport);
      h = {from.port, to.port, Be32{1000}, Be32{2000}, 5U << 4U, flags, Be16{1024}, Be16{0}, Be16{0}};
      field = offsetof(TcpHeader, checksum);
    } else {
      header_at<UdpHeader>(b, kTransport) = {from.port, to.port,
                                             Be16{static_cast<std::uint16_t>(l4 + payload.size())}, Be16{0}};
      field = offsetof(UdpHeader, checksum);
    }
    auto& checksum = header_at<Be16>(b, kTransport + field);
    ChecksumSum s = pseudo_header_sum(from.address, to.address, protocol, l4 + payload.size());
    if (sum == Sum::partial) {
      checksum = Be16::from_raw(s.folded());
      frame.offload.checksum = Offload::Checksum::partial;
      frame.offload.checksum_start = kTransport;
      frame.offload.checksum_offset = static_cast<std::uint16_t>(field);
    } else if (sum == Sum::full) {
      checksum = s.add(b.subspan(kTransport)).field();
      if (protocol == Protocol::udp && checksum == Be16{0}) checksum = Be16{0xffff};
    }
  }
};

/// The transport checksum as a receiver would judge it: 0xffff is right; a UDP checksum of 0 is right as well.
bool checksums_hold(Frame& frame) {
  finish_checksum(frame);
  const auto b = frame.bytes();
  const auto& ip = header_at<Ipv4Header>(b, Packet::kNetwork);
  const std::size_t header = ip.header_length();
  if (ChecksumSum{}.add(b.subspan(Packet::kNetwork, header)).folded() != 0xffff) return false;
  if (ip.total_length.host() != frame.length - Packet::kNetwork) return false;
  if (ip.protocol == Protocol::udp && header_at<UdpHeader>(b, Packet::kNetwork + header).checksum == Be16{0}) return true;
  return pseudo_header_sum(IpAddress::v4(ip.source), IpAddress::v4(ip.target), ip.protocol,
                           frame.length - Packet::kNetwork - header)
             .add(b.subspan(Packet::kNetwork + header))
             .folded() == 0xffff;
}

class Properties : public testing::Test {
 protected:
  const unsigned seed = std::random_device{}();
  std::mt19937 random{seed};
  testing::ScopedTrace trace{__FILE__, __LINE__, "seed " + std::to_string(seed)};

  std::vector<std::byte> bytes(std::size_t n) {
    std::vector<std::byte> all(n);
    for (std::byte& b : all) b = static_cast<std::byte>(random());
    return all;
  }
  Endpoint any_client() {
    return {kClient, Port::of(static_cast<std::uint16_t>(1024 + random() % 60000))};
  }
};

TEST_F(Properties, NatThereAndBackRestoresWhatTheClientSees) {
  const auto balancer = director_with(Method::masq);
  for (int i = 0; i < 2000; ++i) {
    const Protocol protocol = i % 2 == 0 ? Protocol::tcp : Protocol::udp;
    const Sum sum = static_cast<Sum>(random() % (protocol == Protocol::udp ? 3 : 2));
    const Endpoint client = any_client();
    const auto payload = bytes(random() % 1400);
    Packet there;
    there.write(protocol, client, {kVip, Port::of(80)}, TcpHeader::kSyn, payload, sum, true, kClientMac);
    const Verdict request = balancer->process(there.frame, kNow);
    ASSERT_EQ(request.action, Action::transmit) << name_of(request.reason);
    ASSERT_TRUE(checksums_hold(there.frame));
    const auto& to = header_at<Ipv4Header>(there.frame.bytes(), Packet::kNetwork);
    ASSERT_EQ(IpAddress::v4(to.target), kServer);
    ASSERT_EQ(header_at<PortsHeader>(there.frame.bytes(), Packet::kTransport).target, Port::of(8080));
    if (sum == Sum::none) {
      ASSERT_EQ(header_at<UdpHeader>(there.frame.bytes(), Packet::kTransport).checksum, Be16{0});
    }

    Packet back;
    back.write(protocol, {kServer, Port::of(8080)}, client, TcpHeader::kSyn | TcpHeader::kAck, payload, sum, true,
               kServerMac);
    Packet expected;  // what the client would have got from a server at the VIP itself
    expected.write(protocol, {kVip, Port::of(80)}, client, TcpHeader::kSyn | TcpHeader::kAck, payload, sum, true,
                   kOwnMac);
    ASSERT_EQ(balancer->process(back.frame, kNow).action, Action::transmit);
    ASSERT_TRUE(checksums_hold(back.frame));
    finish_checksum(expected.frame);
    ASSERT_EQ(back.frame.length, expected.frame.length);
    ASSERT_EQ(std::memcmp(back.frame.bytes().data() + Packet::kTransport,
                          expected.frame.bytes().data() + Packet::kTransport, back.frame.length - Packet::kTransport),
              0);
    balancer->outbox().clear();
  }
}

TEST_F(Properties, WrongChecksumsStayWrong) {
  const auto balancer = director_with(Method::masq);
  for (int i = 0; i < 500; ++i) {
    Packet p;
    p.write(Protocol::tcp, any_client(), {kVip, Port::of(80)}, TcpHeader::kSyn, bytes(100), Sum::full, true, kClientMac);
    auto& field = header_at<TcpHeader>(p.frame.bytes(), Packet::kTransport).checksum;
    field = Be16{static_cast<std::uint16_t>(field.host() + 1 + random() % 65533)};
    if (checksums_hold(p.frame)) continue;  // 0 and 0xffff are the same sum
    ASSERT_EQ(balancer->process(p.frame, kNow).action, Action::transmit);
    ASSERT_FALSE(checksums_hold(p.frame)) << "damage must stay visible to the receiver";
  }
}

TEST_F(Properties, SuperFramesPassNatAndDirectWhole) {
  for (const Method method : {Method::masq, Method::direct}) {
    const auto balancer = director_with(method);
    Packet p;
    const auto payload = bytes(20000);
    p.write(Protocol::tcp, any_client(), {kVip, Port::of(80)}, TcpHeader::kSyn, payload, Sum::partial, true, kClientMac);
    p.frame.offload.segments = Offload::Segments::tcp4;
    p.frame.offload.segment_size = 1460;
    const std::uint32_t length = p.frame.length;
    ASSERT_EQ(balancer->process(p.frame, kNow).action, Action::transmit);
    EXPECT_EQ(p.frame.length, length);
    EXPECT_EQ(p.frame.offload.segment_size, 1460);
    EXPECT_EQ(balancer->traffic().total.in_packets, 14U) << "counted as what goes over the wire";
    EXPECT_EQ(balancer->traffic().total.in_bytes, 20000U + 14 * 40);
    EXPECT_TRUE(checksums_hold(p.frame)) << "true once finished";
  }
}

TEST_F(Properties, TunnelCutsSuperFramesIntoTrueSegments) {
  for (int i = 0; i < 200; ++i) {
    const auto balancer = director_with(Method::tunnel);
    const bool udp = random() % 2 != 0;
    const auto size = static_cast<std::uint16_t>(500 + random() % 900);
    const auto payload = bytes(size + 1 + random() % 40000);
    Packet p;
    p.write(udp ? Protocol::udp : Protocol::tcp, any_client(), {kVip, Port::of(80)},
            TcpHeader::kSyn | TcpHeader::kPsh | TcpHeader::kFin, payload, Sum::partial, true, kClientMac);
    p.frame.offload.segments = udp ? Offload::Segments::udp : Offload::Segments::tcp4;
    p.frame.offload.segment_size = size;
    const Verdict verdict = balancer->process(p.frame, kNow);
    ASSERT_EQ(verdict.reason, Reason::segmented);
    std::vector<std::byte> together;
    Outbox& out = balancer->outbox();
    ASSERT_EQ(out.size(), (payload.size() + size - 1) / size);
    for (std::size_t n = 0; n < out.size(); ++n) {
      ASSERT_TRUE(out[n].egress);
      Frame& piece = out[n].frame;
      ASSERT_LE(piece.length, 14U + 1500U);
      const auto& outer = header_at<Ipv4Header>(piece.bytes(), Packet::kNetwork);
      ASSERT_EQ(outer.protocol, Protocol::ipip);
      ASSERT_TRUE(outer.dont_fragment());
      piece.pull(sizeof(Ipv4Header));  // the inner packet, where an Ethernet header would end
      header_at<EthernetHeader>(piece.bytes(), 0).type = Be16{0x0800};
      ASSERT_TRUE(checksums_hold(piece)) << "segment " << n;
      const std::size_t l4 = udp ? sizeof(UdpHeader) : sizeof(TcpHeader);
      if (!udp) {
        const auto& tcp = header_at<TcpHeader>(piece.bytes(), Packet::kTransport);
        ASSERT_EQ(tcp.sequence.host(), 1000U + together.size());
        ASSERT_EQ((tcp.flags & TcpHeader::kFin) != 0, n + 1 == out.size());
      }
      const auto data = piece.bytes().subspan(Packet::kTransport + l4);
      together.insert(together.end(), data.begin(), data.end());
    }
    ASSERT_EQ(together, payload);
  }
}

TEST_F(Properties, FragmentsAddUpToThePacket) {
  for (const Method method : {Method::masq, Method::direct, Method::tunnel}) {
    for (int i = 0; i < 50; ++i) {
      const auto balancer = director_with(method, static_cast<std::uint32_t>(600 + random() % 400));
      const auto payload = bytes(1000 + random() % 8000);
      Packet p;
      p.write(Protocol::udp, any_client(), {kVip, Port::of(80)}, 0, payload, i % 2 == 0 ? Sum::partial : Sum::full, false,
              kClientMac);
      ASSERT_EQ(balancer->process(p.frame, kNow).reason, Reason::fragmented);
      std::vector<std::byte> together;
      Outbox& out = balancer->outbox();
      for (std::size_t n = 0; n < out.size(); ++n) {
        ASSERT_TRUE(out[n].egress);
        const auto b = out[n].frame.bytes();
        const auto& ip = header_at<Ipv4Header>(b, Packet::kNetwork);
        ASSERT_EQ(ip.fragment_offset(), together.size());
        ASSERT_EQ(ip.more_fragments(), n + 1 < out.size());
        ASSERT_EQ(ChecksumSum{}.add(b.subspan(Packet::kNetwork, sizeof(Ipv4Header))).folded(), 0xffff);
        const auto data = b.subspan(Packet::kTransport);
        together.insert(together.end(), data.begin(), data.end());
      }
      const std::size_t inner = method == Method::tunnel ? sizeof(Ipv4Header) : 0;
      ASSERT_EQ(together.size(), inner + sizeof(UdpHeader) + payload.size());
      ASSERT_EQ(std::memcmp(together.data() + inner + sizeof(UdpHeader), payload.data(), payload.size()), 0);
    }
  }
}

/// A length of 0 means more than 64 KiB in Linux (BIG TCP), and such frames are longer than kMaxFrame.
TEST_F(Properties, ALengthOfZeroIsNotSentOn) {
  for (const Method method : {Method::masq, Method::direct, Method::tunnel}) {
    const auto balancer = director_with(method);
    Packet p;
    p.write(Protocol::tcp, any_client(), {kVip, Port::of(80)}, TcpHeader::kSyn, bytes(50), Sum::partial, true, kClientMac);
    p.frame.offload.segments = Offload::Segments::tcp4;
    p.frame.offload.segment_size = 20;
    auto& ip = header_at<Ipv4Header>(p.frame.bytes(), Packet::kNetwork);
    ip.total_length = Be16{0};
    ip.checksum = Be16{0};
    ip.checksum = ChecksumSum{}.add(p.frame.bytes().subspan(Packet::kNetwork, sizeof(Ipv4Header))).field();
    const Verdict verdict = balancer->process(p.frame, kNow);
    ASSERT_NE(verdict.action, Action::transmit);
    ASSERT_EQ(verdict.reason, Reason::bad_total_length);
  }
}

/// Damaged frames: whatever is sent on is whole, and nothing reads outside (the sanitizer build watches).
TEST_F(Properties, NothingBrokenIsSentOn) {
  for (const Method method : {Method::masq, Method::direct, Method::tunnel}) {
    const auto balancer = director_with(method);
    for (int i = 0; i < 20000; ++i) {
      Packet p;
      p.write(random() % 2 != 0 ? Protocol::tcp : Protocol::udp, any_client(), {kVip, Port::of(80)},
              static_cast<std::uint8_t>(random()), bytes(random() % 64), static_cast<Sum>(random() % 2), true, kClientMac);
      const auto b = p.frame.bytes();
      for (unsigned n = random() % 4; n > 0; --n) b[12 + random() % (b.size() - 12)] = static_cast<std::byte>(random());
      if (random() % 2 != 0) {  // with a header checksum that holds, damage gets further
        auto& ip = header_at<Ipv4Header>(b, Packet::kNetwork);
        ip.checksum = Be16{0};
        ip.checksum = ChecksumSum{}.add(b.subspan(Packet::kNetwork, sizeof(Ipv4Header))).field();
      }
      if (random() % 4 == 0) p.frame.resize(random() % (p.frame.length + 1));
      if (random() % 8 == 0) {
        p.frame.offload.segments = static_cast<Offload::Segments>(random() % 4);
        p.frame.offload.segment_size = static_cast<std::uint16_t>(random() % 100);
      }
      PacketView plain;
      const bool is_plain = read_plain(p.frame, plain);
      if (const auto view = parse_packet(p.frame); is_plain) {
        ASSERT_TRUE(view);
        ASSERT_EQ(plain.flow, view->flow);
      }
      const Verdict verdict = balancer->process(p.frame, kNow);
      if (verdict.action == Action::transmit) {
        const auto sent = p.frame.bytes();
        ASSERT_GE(sent.size(), Packet::kTransport);
        const auto& ip = header_at<Ipv4Header>(sent, Packet::kNetwork);
        ASSERT_EQ(ip.total_length.host(), sent.size() - Packet::kNetwork);
        ASSERT_EQ(ChecksumSum{}.add(sent.subspan(Packet::kNetwork, ip.header_length())).folded(), 0xffff);
      }
      balancer->outbox().clear();
    }
  }
}

/// In a table too large for the caches: the same connections, whether somebody looked ahead or not.
TEST_F(Properties, LookingAheadChangesNothing) {
  const auto balancer = director_with(Method::masq);
  std::vector<Packet> packets(64);
  std::vector<Frame> batch(packets.size());
  const auto client = [](std::size_t n) {
    return Endpoint{IpAddress::v4(0x0a090000U + 110 + static_cast<std::uint32_t>(n % 100)), Port::of(static_cast<std::uint16_t>(1024 + n))};
  };
  constexpr std::size_t kFlows = 10'000;
  for (std::size_t round = 0; round < 2; ++round) {
    for (std::size_t first = 0; first < kFlows; first += packets.size()) {
      for (std::size_t i = 0; i < packets.size(); ++i) {
        Packet& p = packets[i];
        p.frame.start = kHeadroom;
        const std::uint8_t flags = round == 0 ? TcpHeader::kSyn : TcpHeader::kAck;
        p.write(Protocol::tcp, client(first + i), {kVip, Port::of(80)}, flags, {}, Sum::full, true, kClientMac);
        batch[i] = p.frame;
      }
      const auto seen = balancer->look_ahead(batch);
      ASSERT_EQ(seen.size(), batch.size());
      for (std::size_t i = 0; i < batch.size(); ++i) {
        ASSERT_TRUE(seen[i].plain);
        const Verdict verdict = round == 0 ? balancer->process(batch[i], kNow) : balancer->process(batch[i], seen[i], kNow);
        ASSERT_EQ(verdict.reason, Reason::none);
      }
      balancer->outbox().clear();
    }
    ASSERT_EQ(balancer->connection_count(), kFlows - kFlows % packets.size() + packets.size());
  }
}

}  // namespace
}  // namespace director
