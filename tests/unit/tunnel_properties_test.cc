// What must hold for every tunnel: what goes in comes out, byte for byte and with its offload state, whatever the types, families and
// checksums; a wire that turns a bit is noticed where there is a checksum. Random packets; the seed is printed.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "director/forward/tunnel.h"
#include "director/net/checksum.h"
#include "director/net/headers.h"
#include "director/realserver/decapsulate.h"

namespace director {
namespace {

using realserver::Admission;
using realserver::Fate;
using realserver::TunnelEnd;
using Bytes = std::vector<std::byte>;

constexpr std::size_t kEthernet = sizeof(EthernetHeader);

struct Ends {
  IpAddress client, vip, local, remote;
};
Ends ends_of(Family inner, Family outer) {
  const auto a = [](const char* text) { return *IpAddress::parse(text); };
  const bool in4 = inner == Family::ipv4;
  const bool out4 = outer == Family::ipv4;
  return {a(in4 ? "203.0.113.5" : "2001:db8::5"), a(in4 ? "10.9.0.100" : "fd00:9::100"), a(out4 ? "10.9.0.2" : "fd00:9::2"),
          a(out4 ? "10.9.0.11" : "fd00:9::11")};
}

Admission admission() {
  const auto a = [](const char* text) { return *IpAddress::parse(text); };
  using Kind = TunnelEnd::Kind;
  return {realserver::AddressSet{{a("10.9.0.11"), a("fd00:9::11")}},
          realserver::AddressSet{{a("10.9.0.100"), a("fd00:9::100")}},
          {{Kind::ipip, {}}, {Kind::sit, {}}, {Kind::gre, {}}, {Kind::gue, Port::of(6080)}}};
}

class TunnelProperties : public testing::Test {
 protected:
  const unsigned seed = std::random_device{}();
  std::mt19937 random{seed};
  testing::ScopedTrace trace{__FILE__, __LINE__, "seed " + std::to_string(seed)};

  std::size_t below(std::size_t n) { return random() % n; }
  bool coin() { return below(2) == 0; }

  /// A TCP or UDP packet in `frame`, behind an Ethernet header.
  PacketView write_inner(Frame& frame, const Ends& ends, bool partial) {
    const bool v4 = ends.vip.is_v4();
    const bool tcp = coin();
    const Protocol protocol = tcp ? Protocol::tcp : Protocol::udp;
    const std::size_t ip_header = v4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header);
    const std::size_t l4 = (tcp ? sizeof(TcpHeader) : sizeof(UdpHeader)) + 1 + below(1400);
    frame.offload = {};
    frame.resize(kEthernet + ip_header + l4);
    const auto bytes = frame.bytes();
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    const auto ttl = static_cast<std::uint8_t>(1 + below(255));
    if (v4) {
      auto& ip = header_at<Ipv4Header>(bytes, kEthernet);
      ip.version_ihl = 0x45;
      ip.total_length = Be16{static_cast<std::uint16_t>(ip_header + l4)};
      ip.fragment = Be16{coin() ? Ipv4Header::kDontFragment : std::uint16_t{0}};
      ip.ttl = ttl;
      ip.protocol = protocol;
      ip.source = ends.client.v4_wire();
      ip.target = ends.vip.v4_wire();
      ip.checksum = Be16{};
      ip.checksum = ChecksumSum{}.add(bytes.subspan(kEthernet, ip_header)).field();
    } else {
      header_at<Ipv6Header>(bytes, kEthernet) = {Be32{0x60000000U | static_cast<std::uint32_t>(random() & 0x0fffffffU)},
                                                 Be16{static_cast<std::uint16_t>(l4)},
                                                 protocol,
                                                 ttl,
                                                 ends.client.bytes(),
                                                 ends.vip.bytes()};
    }
    const std::size_t transport = kEthernet + ip_header;
    const std::size_t offset = tcp ? offsetof(TcpHeader, checksum) : offsetof(UdpHeader, checksum);
    Be16& field = header_at<Be16>(bytes, transport + offset);
    field = Be16{};
    ChecksumSum sum = pseudo_header_sum(ends.client, ends.vip, protocol, l4);
    if (partial) {
      field = Be16::from_raw(sum.folded());
      frame.offload.checksum = Offload::Checksum::partial;
      frame.offload.checksum_start = static_cast<std::uint16_t>(transport);
      frame.offload.checksum_offset = static_cast<std::uint16_t>(offset);
    } else {
      field = sum.add(bytes.subspan(transport)).field();
    }
    PacketView view;
    view.family = ends.vip.family();
    view.network = kEthernet;
    view.transport = static_cast<std::uint32_t>(transport);
    view.ip_length = static_cast<std::uint32_t>(ip_header + l4);
    return view;
  }

  /// Any tunnel ipvsadm can name.
  OuterHeaders any_outer(const Ends& ends) {
    OuterHeaders outer;
    outer.ends = {ends.local, ends.remote};
    outer.type = static_cast<TunnelType>(below(3));
    outer.checksum = outer.type == TunnelType::ipip ? TunnelChecksum::none
                                                    : static_cast<TunnelChecksum>(below(outer.type == TunnelType::gre ? 2 : 3));
    outer.target_port = Port::of(6080);
    outer.copy_df = coin();
    return outer;
  }
  /// encapsulate() with any port and ID.
  Reason put_in(Frame& frame, const PacketView& view, const OuterHeaders& outer) {
    return encapsulate(frame, view, outer, Port::of(static_cast<std::uint16_t>(random())), static_cast<std::uint16_t>(random()));
  }
};

struct Storage {
  Bytes bytes = Bytes(kHeadroom + 2048);
  Frame frame;
  Storage() {
    frame.storage = bytes;
    frame.start = kHeadroom;
  }
  Storage(const Storage& other) : bytes(other.bytes), frame(other.frame) { frame.storage = bytes; }
  Storage& operator=(const Storage&) = delete;
};

Bytes copy_of(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

TEST_F(TunnelProperties, WhatGoesInComesOut) {
  const Admission here = admission();
  for (int i = 0; i < 5000; ++i) {
    const Family inner = coin() ? Family::ipv4 : Family::ipv6;
    const Ends ends = ends_of(inner, coin() ? Family::ipv4 : Family::ipv6);
    Storage packet;
    const PacketView view = write_inner(packet.frame, ends, coin());
    const Bytes before = copy_of(packet.frame.bytes().subspan(kEthernet));
    const Offload offload = packet.frame.offload;
    const OuterHeaders outer = any_outer(ends);
    const std::size_t overhead = tunnel_overhead(outer, offload);

    ASSERT_EQ(put_in(packet.frame, view, outer), Reason::none);
    ASSERT_EQ(packet.frame.length, kEthernet + overhead + before.size());

    // On a wire every checksum is finished, and the tunnel's notices a byte that changed.
    Storage wire{packet};
    finish_checksum(wire.frame);
    wire.frame.offload = {};
    Storage broken{wire};
    wire.frame.pull(kEthernet);
    ASSERT_EQ(decapsulate(wire.frame, here), Fate::delivered);
    finish_checksum(wire.frame);
    Storage finished;
    finished.frame.resize(before.size());
    std::memcpy(finished.frame.bytes().data(), before.data(), before.size());
    finished.frame.offload = offload;
    if (offload.checksum == Offload::Checksum::partial)
      finished.frame.offload.checksum_start = static_cast<std::uint16_t>(offload.checksum_start - kEthernet);
    finish_checksum(finished.frame);
    ASSERT_EQ(copy_of(wire.frame.bytes()), copy_of(finished.frame.bytes()));
    broken.frame.pull(kEthernet);
    broken.frame.bytes()[broken.frame.length - 1] ^= static_cast<std::byte>(1 + below(255));
    ASSERT_EQ(decapsulate(broken.frame, here),
              outer.checksum == TunnelChecksum::none ? Fate::delivered : Fate::tunnel_checksum);

    // Between hosts of one machine nothing was finished, and nothing is lost either.
    packet.frame.pull(kEthernet);
    ASSERT_EQ(decapsulate(packet.frame, here), Fate::delivered);
    ASSERT_EQ(copy_of(packet.frame.bytes()), before);
    ASSERT_EQ(packet.frame.offload.checksum, offload.checksum);
    if (offload.checksum == Offload::Checksum::partial) {
      ASSERT_EQ(packet.frame.offload.checksum_start + kEthernet, offload.checksum_start);
      ASSERT_EQ(packet.frame.offload.checksum_offset, offload.checksum_offset);
    }
  }
}

TEST_F(TunnelProperties, ADamagedTunnelPacketIsNeverReadBeyondItsEnd) {
  const Admission here = admission();
  for (int i = 0; i < 5000; ++i) {
    const Ends ends = ends_of(coin() ? Family::ipv4 : Family::ipv6, coin() ? Family::ipv4 : Family::ipv6);
    Storage packet;
    const PacketView view = write_inner(packet.frame, ends, coin());
    ASSERT_EQ(put_in(packet.frame, view, any_outer(ends)), Reason::none);
    packet.frame.pull(kEthernet);
    for (std::size_t n = below(4); n > 0; --n) packet.frame.bytes()[below(std::min<std::size_t>(packet.frame.length, 80))] = static_cast<std::byte>(random());
    Bytes exact = copy_of(packet.frame.bytes().first(coin() ? packet.frame.length : below(packet.frame.length)));
    Frame frame;  // in a buffer of its own, so that the sanitizers see every byte too far
    frame.storage = exact;
    frame.length = static_cast<std::uint32_t>(exact.size());
    frame.offload = packet.frame.offload;
    if (decapsulate(frame, here) == Fate::delivered) {
      ASSERT_LE(frame.start + frame.length, exact.size());
    }
  }
}

TEST(WireSum, IsThatOfTheFinishedFrameAtOddOffsetsToo) {
  for (const std::uint16_t start : {std::uint16_t{20}, std::uint16_t{21}}) {
    Storage packet;
    packet.frame.resize(80);
    for (std::size_t i = 0; i < 80; ++i) packet.frame.bytes()[i] = static_cast<std::byte>(i * 37 + 5);
    packet.frame.offload.checksum = Offload::Checksum::partial;
    packet.frame.offload.checksum_start = start;
    packet.frame.offload.checksum_offset = 6;
    const std::uint16_t before = wire_sum(packet.frame, 4).folded();
    finish_checksum(packet.frame);
    EXPECT_EQ(before % 0xffff, ChecksumSum{}.add(packet.frame.bytes().subspan(4)).folded() % 0xffff) << start;
  }
}

}  // namespace
}  // namespace director
