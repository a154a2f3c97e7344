// realserver's coalesce(): what a director cut is whole again, and what doesn't belong together stays apart.
#include "director/realserver/coalesce.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "director/net/checksum.h"
#include "director/net/headers.h"
#include "director/net/ip_header.h"
#include "own_frame.h"

namespace director::realserver {
namespace {

/// A packet in storage of its own, which begins at its IP header as decapsulate() leaves it.
struct Packet : OwnFrame {
  [[nodiscard]] std::vector<std::byte> bytes() const { return {frame.bytes().begin(), frame.bytes().end()}; }
};
using Packets = std::vector<std::unique_ptr<Packet>>;

struct Shape {
  Family family = Family::ipv4;
  std::uint16_t client_port = 4000;
  std::size_t payload = 10'000;
  std::uint16_t segment = 1448;
  std::size_t options = 12;  // of TCP
  std::uint8_t flags = TcpHeader::kAck | TcpHeader::kPsh;
};

/// A super-frame as a sender's kernel describes it.
void write_super_frame(Packet& p, const Shape& shape, std::mt19937& random) {
  const bool v4 = shape.family == Family::ipv4;
  const IpAddress client = *IpAddress::parse(v4 ? "203.0.113.5" : "2001:db8::5");
  const IpAddress vip = *IpAddress::parse(v4 ? "10.9.0.100" : "fd00:9::100");
  const std::size_t transport = ip_header_size(shape.family);
  const std::size_t start = transport + sizeof(TcpHeader) + shape.options;
  p.frame.resize(start + shape.payload);
  const auto bytes = p.frame.bytes();
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  write_ip_header(bytes, 0, {client, vip}, {Protocol::tcp, 63, 0, true, 7});
  auto& tcp = header_at<TcpHeader>(bytes, transport);
  tcp.source = Port::of(shape.client_port);
  tcp.target = Port::of(80);
  tcp.offset = static_cast<std::uint8_t>((sizeof(TcpHeader) + shape.options) / 4 << 4U);
  tcp.flags = shape.flags;
  tcp.urgent = {};
  tcp.checksum = Be16::from_raw(pseudo_header_sum(client, vip, Protocol::tcp, bytes.size() - transport).folded());
  Offload& o = p.frame.offload;
  o.checksum = Offload::Checksum::partial;
  o.checksum_start = static_cast<std::uint16_t>(transport);
  o.checksum_offset = offsetof(TcpHeader, checksum);
  o.segments = v4 ? Offload::Segments::tcp4 : Offload::Segments::tcp6;
  o.segment_size = shape.segment;
  o.header_length = static_cast<std::uint16_t>(start);
}

/// What the director makes of it.
Packets cut(const Packet& whole) {
  Packets segments;
  const Offload& o = whole.frame.offload;
  for (std::size_t i = 0; i < segment_count(whole.frame, o.header_length); ++i) {
    segments.push_back(std::make_unique<Packet>());
    cut_segment(whole.frame, 0, o.checksum_start, i, segments.back()->frame);
  }
  return segments;
}

struct Joined {
  std::vector<Frame*> frames;
  std::vector<std::uint16_t> stands_for;
};
Joined join(const std::vector<Packet*>& packets) {
  Joined j;
  for (Packet* p : packets) j.frames.push_back(&p->frame);
  j.stands_for.resize(packets.size());
  const std::size_t left = coalesce(j.frames, j.stands_for);
  j.frames.resize(left);
  j.stands_for.resize(left);
  return j;
}
std::vector<Packet*> all_of(const Packets& packets) {
  std::vector<Packet*> all;
  for (const auto& p : packets) all.push_back(p.get());
  return all;
}

class Coalesce : public testing::Test {
 protected:
  std::uint32_t seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  testing::ScopedTrace trace_{__FILE__, __LINE__, testing::Message() << "seed " << seed_};
};

TEST_F(Coalesce, PropertyWhatWasCutIsWholeAgain) {
  for (int round = 0; round < 100; ++round) {
    const auto shape = [&](std::uint16_t port) {
      Shape s;
      s.family = random_() % 2 != 0 ? Family::ipv4 : Family::ipv6;
      s.client_port = port;
      s.payload = 2 + random_() % 60'000;
      s.segment = static_cast<std::uint16_t>(1 + random_() % std::min<std::size_t>(s.payload - 1, 4000));
      s.options = random_() % 11 * 4;
      s.flags = static_cast<std::uint8_t>(TcpHeader::kAck | (random_() % 2 != 0 ? TcpHeader::kPsh : 0));
      if (s.payload / s.segment > 30) s.segment = static_cast<std::uint16_t>(s.payload / 30 + 1);
      return s;
    };
    Packet one, other;
    write_super_frame(one, shape(4000), random_);
    write_super_frame(other, shape(4001), random_);
    const Packets of_one = cut(one), of_other = cut(other);
    // Two connections, their packets in each other's way.
    std::vector<Packet*> mixed;
    for (std::size_t a = 0, b = 0; a < of_one.size() || b < of_other.size();) {
      const bool take_one = b == of_other.size() || (a < of_one.size() && random_() % 2 != 0);
      mixed.push_back(take_one ? of_one[a++].get() : of_other[b++].get());
    }
    const Packet& first = mixed.front() == of_one.front().get() ? one : other;
    const Packet& second = &first == &one ? other : one;
    const Joined j = join(mixed);
    ASSERT_EQ(j.frames.size(), 2U);
    EXPECT_EQ(j.stands_for[0] + j.stands_for[1], mixed.size());
    for (const auto& [frame, whole] : {std::pair{j.frames[0], &first}, {j.frames[1], &second}}) {
      ASSERT_TRUE(std::ranges::equal(frame->bytes(), whole->frame.bytes()));
      EXPECT_EQ(frame->offload.segments, whole->frame.offload.segments);
      EXPECT_EQ(frame->offload.segment_size, whole->frame.offload.segment_size);
      EXPECT_EQ(frame->offload.header_length, whole->frame.offload.header_length);
      EXPECT_EQ(frame->offload.checksum, Offload::Checksum::partial);
      EXPECT_EQ(frame->offload.checksum_start, whole->frame.offload.checksum_start);
      EXPECT_EQ(frame->offload.checksum_offset, whole->frame.offload.checksum_offset);
    }
  }
}

/// Finishes what a test has done to a segment.
void seal(Frame& frame) {
  const std::size_t transport = sizeof(Ipv4Header);
  fill_ip_checksum(frame.bytes(), 0, Family::ipv4);
  auto& tcp = header_at<TcpHeader>(frame.bytes(), transport);
  tcp.checksum = {};
  tcp.checksum = pseudo_header_sum(address_at(frame.bytes(), 0, Family::ipv4, AddressEnd::source),
                                   address_at(frame.bytes(), 0, Family::ipv4, AddressEnd::target), Protocol::tcp, frame.length - transport)
                     .add(frame.bytes().subspan(transport))
                     .field();
}

TEST_F(Coalesce, OfTwoSegmentsThatDifferNoneIsTouched) {
  const std::pair<const char*, std::function<void(Frame&)>> differences[] = {
      {"sequence", [](Frame& f) { header_at<TcpHeader>(f.bytes(), 20).sequence = Be32{1}; seal(f); }},
      {"acknowledgement", [](Frame& f) { header_at<TcpHeader>(f.bytes(), 20).acknowledgement = Be32{1}; seal(f); }},
      {"window", [](Frame& f) { auto& w = header_at<TcpHeader>(f.bytes(), 20).window; w = Be16{static_cast<std::uint16_t>(w.host() ^ 1U)}; seal(f); }},
      {"option", [](Frame& f) { f.bytes()[41] ^= std::byte{1}; seal(f); }},
      {"FIN", [](Frame& f) { header_at<TcpHeader>(f.bytes(), 20).flags |= TcpHeader::kFin; seal(f); }},
      {"URG", [](Frame& f) { header_at<TcpHeader>(f.bytes(), 20).flags |= TcpHeader::kUrg; seal(f); }},
      {"CWR", [](Frame& f) { header_at<TcpHeader>(f.bytes(), 20).flags |= TcpHeader::kCwr; seal(f); }},
      {"TTL", [](Frame& f) { header_at<Ipv4Header>(f.bytes(), 0).ttl = 1; seal(f); }},
      {"ECN", [](Frame& f) { header_at<Ipv4Header>(f.bytes(), 0).tos = 3; seal(f); }},
      {"checksum", [](Frame& f) { f.bytes()[60] ^= std::byte{1}; }},
      {"fragment", [](Frame& f) { header_at<Ipv4Header>(f.bytes(), 0).fragment = Be16{Ipv4Header::kMoreFragments}; seal(f); }},
  };
  for (const auto& [what, change] : differences) {
    Packet whole;
    write_super_frame(whole, {.payload = 2000, .segment = 1000}, random_);
    for (const std::size_t changed : {0U, 1U}) {
      const Packets segments = cut(whole);
      change(segments[changed]->frame);
      const auto before = std::pair{segments[0]->bytes(), segments[1]->bytes()};
      const Joined j = join(all_of(segments));
      ASSERT_EQ(j.frames.size(), 2U) << what;
      EXPECT_EQ(j.stands_for, (std::vector<std::uint16_t>{1, 1}));
      EXPECT_EQ((std::pair{segments[0]->bytes(), segments[1]->bytes()}), before) << what;
      EXPECT_EQ(segments[0]->frame.offload.segments, Offload::Segments::none);
    }
  }
}

/// A hole stays one: what comes behind it must not overtake what came late.
TEST_F(Coalesce, TheOrderStays) {
  Packet whole;
  write_super_frame(whole, {.payload = 5000, .segment = 1000, .flags = TcpHeader::kAck}, random_);
  const Packets s = cut(whole);
  const Joined j = join({s[0].get(), s[2].get(), s[1].get(), s[3].get(), s[4].get()});
  ASSERT_EQ(j.frames.size(), 4U);
  EXPECT_EQ(j.frames[0], &s[0]->frame);
  EXPECT_EQ(j.frames[1], &s[2]->frame);
  EXPECT_EQ(j.frames[2], &s[1]->frame);
  EXPECT_EQ(j.frames[3], &s[3]->frame);
  EXPECT_EQ(j.stands_for, (std::vector<std::uint16_t>{1, 1, 1, 2}));
}

TEST_F(Coalesce, AShortSegmentOrPshIsTheLast) {
  Packet whole;
  write_super_frame(whole, {.payload = 4000, .segment = 1000, .flags = TcpHeader::kAck}, random_);
  {
    const Packets s = cut(whole);
    header_at<TcpHeader>(s[1]->frame.bytes(), 20).flags |= TcpHeader::kPsh;
    seal(s[1]->frame);
    EXPECT_EQ(join(all_of(s)).stands_for, (std::vector<std::uint16_t>{2, 2}));
  }
  Packet smaller;
  write_super_frame(smaller, {.payload = 2500, .segment = 1000, .flags = TcpHeader::kAck}, random_);
  Packets s = cut(smaller);
  s.push_back(std::make_unique<Packet>());
  std::ranges::copy(s[1]->frame.bytes(), s[3]->frame.storage.begin() + s[3]->frame.start);
  s[3]->frame.resize(s[1]->frame.length);
  auto& tcp = header_at<TcpHeader>(s[3]->frame.bytes(), 20);
  tcp.sequence = Be32{static_cast<std::uint32_t>(header_at<TcpHeader>(s[0]->frame.bytes(), 20).sequence.host() + 2500)};
  seal(s[3]->frame);
  EXPECT_EQ(join(all_of(s)).stands_for, (std::vector<std::uint16_t>{3, 1})) << "it is in sequence, but behind a short one";
}

TEST_F(Coalesce, ALongerSegmentBeginsAnew) {
  Packet whole;
  write_super_frame(whole, {.payload = 3000, .segment = 1000}, random_);
  const Packets s = cut(whole);
  // The first one loses its first half: what follows is in sequence, and longer.
  constexpr std::size_t kPayload = sizeof(Ipv4Header) + sizeof(TcpHeader) + 12;
  Frame& first = s[0]->frame;
  std::copy_n(first.bytes().begin() + kPayload + 500, 500, first.bytes().begin() + kPayload);
  first.resize(first.length - 500);
  set_ip_length(first.bytes(), 0, Family::ipv4);
  auto& tcp = header_at<TcpHeader>(first.bytes(), sizeof(Ipv4Header));
  tcp.sequence = Be32{tcp.sequence.host() + 500};
  seal(first);
  EXPECT_EQ(join(all_of(s)).stands_for, (std::vector<std::uint16_t>{1, 2}));
}

TEST_F(Coalesce, OthersPassBetweenThem) {
  Packet whole, lone;
  write_super_frame(whole, {.payload = 3000, .segment = 1000}, random_);
  lone.frame.resize(28);
  write_ip_header(lone.frame.bytes(), 0, {*IpAddress::parse("203.0.113.5"), *IpAddress::parse("10.9.0.100")}, {Protocol::udp, 63, 0, true, 1});
  const auto before = lone.bytes();
  const Packets s = cut(whole);
  const Joined j = join({s[0].get(), &lone, s[1].get(), s[2].get()});
  EXPECT_EQ(j.stands_for, (std::vector<std::uint16_t>{3, 1}));
  EXPECT_EQ(lone.bytes(), before);
}

}  // namespace
}  // namespace director::realserver
