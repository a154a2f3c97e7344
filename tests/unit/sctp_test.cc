// SCTP: its checksum, whole and by difference, its chunks, its states, and NAT over it.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "director/core/balancer.h"
#include "director/core/sctp_state.h"
#include "director/forward/sctp_nat.h"
#include "director/rules.h"

namespace director {
namespace {

using Bytes = std::vector<std::byte>;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span{text}); }

TEST(Crc32c, IsTheOneOfTheRfc) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283U);  // the check value of every catalogue of CRCs
  const std::vector<std::byte> zeros(32);                 // RFC 3720, B.4
  EXPECT_EQ(crc32c(zeros), 0x8a9136aaU);
}

TEST(Crc32c, PropertyAChangeIsWorkedOutFromWhatChanged) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 2000; ++i) {
    Bytes before(1 + random() % 3000);
    for (std::byte& b : before) b = static_cast<std::byte>(random());
    Bytes after = before;
    const std::size_t at = random() % before.size(), length = 1 + random() % (before.size() - at);
    Bytes difference(length);
    for (std::size_t k = 0; k < length; ++k) {
      difference[k] = static_cast<std::byte>(random());
      after[at + k] ^= difference[k];
    }
    ASSERT_EQ(crc32c(after), crc32c(before) ^ crc32c_change(difference, before.size() - at - length));
  }
}

TEST(SctpEvent, IsTheFirstChunksOrTheAbortBehindACookie) {
  const auto event = [](std::initializer_list<int> raw) {
    Bytes chunks;
    for (const int b : raw) chunks.push_back(static_cast<std::byte>(b));
    return sctp_event(chunks);
  };
  EXPECT_EQ(event({1, 0, 0, 20}), SctpEvent::init);
  EXPECT_EQ(event({3, 0, 0, 16}), SctpEvent::data) << "SACK";
  EXPECT_EQ(event({99, 0, 0, 4}), SctpEvent::data) << "unknown";
  EXPECT_EQ(event({14, 0, 0, 4}), SctpEvent::shutdown_complete);
  EXPECT_EQ(event({1, 0, 0}), std::nullopt) << "cut off";
  EXPECT_EQ(event({10, 0, 0, 5, 1, 0, 0, 0, 6, 0, 0, 4}), SctpEvent::abort);
  EXPECT_EQ(event({10, 0, 0, 5, 1, 0, 0, 0, 0, 0, 0, 16}), SctpEvent::cookie_echo);
  EXPECT_EQ(event({10, 0, 0, 0, 6, 0, 0, 4}), SctpEvent::cookie_echo) << "a length that can't be";
  EXPECT_EQ(event({11, 0, 255, 255, 6, 0, 0, 4}), SctpEvent::cookie_ack) << "a length beyond the end";
  EXPECT_EQ(event({0, 0, 0, 4, 6, 0, 0, 4}), SctpEvent::data) << "only behind a cookie";
}

TEST(SctpState, FollowsAnAssociationFromEitherSide) {
  struct Step {
    Direction direction;
    SctpEvent event;
    const char* state;
  };
  const auto play = [](Visibility visibility, std::initializer_list<Step> steps) {
    State state = State::none;
    for (const Step& step : steps) {
      state = next_sctp_state(state, step.event, step.direction, visibility);
      EXPECT_EQ(name_of(state), step.state);
    }
  };
  using enum Direction;
  using enum SctpEvent;
  play(Visibility::both, {{request, init, "INIT1"}, {request, init, "INIT"}, {reply, init_ack, "C-SENT"},
                          {request, cookie_echo, "C-REPLIED"}, {reply, cookie_ack, "ESTABLISHED"}, {request, data, "ESTABLISHED"},
                          {reply, shutdown, "S-SENT"}, {request, shutdown_ack, "CLOSED"}});
  play(Visibility::both, {{reply, init, "C-WAIT"}, {request, init_ack, "COOKIE"}, {reply, cookie_echo, "C-ECHOED"},
                          {request, cookie_ack, "ESTABLISHED"}, {request, SctpEvent::abort, "CLOSED"}});
  play(Visibility::both, {{request, init, "INIT1"}, {reply, SctpEvent::abort, "REJECTED"}});
  play(Visibility::input_only, {{request, init, "INIT1"}, {request, cookie_echo, "ESTABLISHED"}, {request, shutdown, "S-RECEIVED"},
                                {request, shutdown_complete, "CLOSED"}});
}

/// An SCTP packet in a frame, its checksum true.
Bytes packet(std::uint16_t from, std::uint16_t to, std::span<const std::byte> chunks) {
  Bytes bytes(14 + 20 + 12 + chunks.size());
  header_at<EthernetHeader>(std::span{bytes}, 0).type = Be16{0x0800};
  auto& ip = header_at<Ipv4Header>(std::span{bytes}, 14);
  ip.version_ihl = 0x45;
  ip.total_length = Be16{static_cast<std::uint16_t>(bytes.size() - 14)};
  ip.ttl = 64;
  ip.protocol = Protocol::sctp;
  ip.source = IpAddress::parse("203.0.113.5")->v4_wire();
  ip.target = IpAddress::parse("10.9.9.9")->v4_wire();
  ip.checksum = ChecksumSum{}.add(std::span{bytes}.subspan(14, 20)).field();
  auto& sctp = header_at<SctpHeader>(std::span{bytes}, 34);
  sctp.source = Port::of(from);
  sctp.target = Port::of(to);
  std::ranges::copy(chunks, bytes.begin() + 46);
  const auto transport = std::span{bytes}.subspan(34);
  store_sctp_checksum(transport, true_sctp_checksum(transport));
  return bytes;
}

Frame frame_of(Bytes& bytes) {
  Frame frame;
  frame.storage = bytes;
  frame.resize(bytes.size());
  return frame;
}

TEST(SctpNat, PropertyThereAndBackIsTheClientsPacketAndDamageStaysDamage) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 500; ++i) {
    Bytes chunks(4 + random() % 1400);
    for (std::byte& b : chunks) b = static_cast<std::byte>(random());
    const auto port = static_cast<std::uint16_t>(random());
    Bytes bytes = packet(4000, port, chunks);
    const bool damaged = random() % 2 == 0;
    if (damaged) bytes[46 + random() % chunks.size()] ^= std::byte{1};
    const Bytes sent = bytes;
    Frame frame = frame_of(bytes);
    const PacketView view = *parse_packet(frame);
    const Endpoint vip = view.flow.target;
    const Endpoint real{*IpAddress::parse("10.9.0.11"), Port::of(static_cast<std::uint16_t>(random()))};
    ASSERT_EQ(apply_to_sctp(Nat{NatEnd::target, vip, real}, frame, view), Reason::none);
    const auto transport = std::span{bytes}.subspan(34);
    EXPECT_EQ(stored_sctp_checksum(transport) == true_sctp_checksum(transport), !damaged);
    const PacketView there = *parse_packet(frame);
    EXPECT_EQ(there.flow.target, real);
    ASSERT_EQ(apply_to_sctp(Nat{NatEnd::target, real, vip}, frame, there), Reason::none);
    EXPECT_EQ(bytes, sent);
  }
}

TEST(SctpNat, TheKernelsWayComputesTheChecksumAnewWhenThePortChanges) {
  Bytes bytes = packet(4000, 9, Bytes(16));
  bytes[50] ^= std::byte{1};
  Frame frame = frame_of(bytes);
  const PacketView view = *parse_packet(frame);
  const auto transport = std::span{bytes}.subspan(34);
  const Endpoint same{*IpAddress::parse("10.9.0.11"), Port::of(9)}, other{same.address, Port::of(10)};
  ASSERT_EQ(apply_to_sctp(Nat{NatEnd::target, view.flow.target, same, ZeroChecksum::filled}, frame, view), Reason::none);
  EXPECT_NE(stored_sctp_checksum(transport), true_sctp_checksum(transport));
  ASSERT_EQ(apply_to_sctp(Nat{NatEnd::target, same, other, ZeroChecksum::filled}, frame, *parse_packet(frame)), Reason::none);
  EXPECT_EQ(stored_sctp_checksum(transport), true_sctp_checksum(transport));
}

TEST(SctpNat, APartialChecksumIsFinishedAndAFragmentKeepsItsPort) {
  Bytes bytes = packet(4000, 9, Bytes(16));
  const Bytes whole = bytes;
  Frame frame = frame_of(bytes);
  frame.offload.checksum = Offload::Checksum::partial;
  frame.offload.checksum_start = 34;
  frame.offload.checksum_offset = 8;
  store_sctp_checksum(std::span{bytes}.subspan(34), 0);
  PacketView view = *parse_packet(frame);
  finish_sctp_checksum(frame, view);
  EXPECT_EQ(bytes, whole);
  EXPECT_EQ(frame.offload.checksum, Offload::Checksum::complete);
  view.fragment = true;
  const Endpoint other{*IpAddress::parse("10.9.0.11"), Port::of(10)};
  EXPECT_EQ(apply_to_sctp(Nat{NatEnd::target, view.flow.target, other}, frame, view), Reason::sctp_fragment);
  frame.offload.checksum = Offload::Checksum::partial;
  frame.offload.checksum_offset = 16;
  EXPECT_FALSE(parse_packet(frame)) << "not where SCTP has its checksum";
}

}  // namespace
}  // namespace director
