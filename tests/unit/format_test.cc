// Packet text: what is printed can be built again, and lines say what they mean.
#include <gtest/gtest.h>

#include <random>

#include "director/net/format.h"
#include "director/net/headers.h"

namespace director {
namespace {

const MacAddress kFrom = *MacAddress::parse("02:00:00:00:00:01");
const MacAddress kTo = *MacAddress::parse("02:00:00:00:00:02");

std::vector<std::byte> built(std::string_view line) {
  const auto frame = build_frame(line, kFrom, kTo);
  EXPECT_TRUE(frame) << line << ": " << (frame ? "" : frame.error().message);
  return frame ? frame->bytes : std::vector<std::byte>{};
}

TEST(PacketText, BriefLinePrintsWhatItParsed) {
  for (const char* line : {
           "tcp 203.0.113.5:4000 > 10.9.9.9:80 [S]",
           "tcp 203.0.113.5:4000 > 10.9.9.9:80 [SFRPAUEC] ttl=63 tos=0x10 id=0x1234 df",
           "tcp 10.0.0.1:1 > 10.0.0.2:2 [] csum=bad len=1400",
           "tcp 10.0.0.1:1 > 10.0.0.2:2 [A] csum=partial gso=1448 len=30000",
           "udp 10.9.0.1:4001 > 10.9.0.100:53",
           "udp 10.9.0.1:4001 > 10.9.0.100:53 ttl=1 rf csum=none len=30",
           "udp 10.9.0.1:4001 > 10.9.0.100:53 mf len=1472",
           "udp 10.9.0.1:4001 > 10.9.0.100:53 options=01010100",
           "udp 10.9.0.1:4001 > 10.9.0.100:53 ipcsum=bad ulen=5 len=30",
           "ip 10.9.0.1 > 10.9.0.100 udp id=0x0007 offset=1480 len=20",
           "ip 10.9.0.1 > 10.9.0.100 sctp len=20",
           "ip 10.9.0.1 > 10.9.0.100 99",
           "icmp 10.9.0.1 > 10.9.0.100 echo-request ident=7 seq=1 len=56",
           "icmp 10.9.0.100 > 10.9.0.1 frag-needed mtu=1480 about(udp 10.9.0.1:4001 > 10.9.0.100:53 ttl=63 "
           "df len=1472)",
           "icmp 10.9.0.100 > 10.9.0.1 port-unreachable tos=0xc0 about(tcp 10.9.0.1:4001 > 10.9.0.100:53 "
           "[S])",
           "icmp 10.9.0.1 > 10.9.0.2 redirect gw=10.9.0.3 about(udp 10.9.0.1:4001 > 10.9.0.100:53)",
           "icmp 10.9.0.1 > 10.9.0.2 type13/0 rest=0x00070001 csum=bad len=12",
           "ipip 10.9.0.2 > 10.9.0.11 ttl=63 df (tcp 203.0.113.5:4000 > 10.9.9.9:80 [S] ttl=63 df)",
           "arp who-has 10.9.0.11 tell 10.9.0.2",
           "arp 10.9.0.11 is-at 02:00:00:00:00:11 to=10.9.0.2",
           "ethernet 0x88cc len=46",
       }) {
    const auto frame = build_frame(line, kFrom, kTo);
    ASSERT_TRUE(frame) << line << ": " << frame.error().message;
    EXPECT_EQ(packet_line(frame->bytes, Detail::brief, frame->offload), line);
    const std::string full = packet_line(frame->bytes, Detail::full, frame->offload);
    const auto again = build_frame(full, MacAddress{}, MacAddress{});
    ASSERT_TRUE(again) << full << ": " << again.error().message;
    EXPECT_EQ(again->bytes, frame->bytes) << full;
  }
}

TEST(PacketText, FullLineSaysEveryField) {
  EXPECT_EQ(
      packet_line(
          built(
              "tcp 10.0.0.1:1 > 10.0.0.2:2 [A] seq=5 ack=6 win=7 opts=01010101 csum=0x1234 data=6869 pad=3"),
          Detail::full),
      "tcp 10.0.0.1:1 > 10.0.0.2:2 [A] smac=02:00:00:00:00:01 dmac=02:00:00:00:00:02 pad=3 ttl=64 tos=0x00 "
      "id=0x0000 "
      "seq=5 ack=6 win=7 opts=01010101 csum=0x1234 len=2 data=6869");
}

TEST(PacketText, QuotedPacketMayBeCut) {
  const char* line =
      "icmp 10.9.0.2 > 10.9.0.1 ttl-exceeded about(tcp 10.9.0.1:1 > 10.9.0.2:2 ttl=1 quote=28 seq=9 len=5)";
  const auto frame = built(line);
  EXPECT_EQ(frame.size(), 14U + 20 + 8 + 28);
  EXPECT_EQ(packet_line(frame),
            "icmp 10.9.0.2 > 10.9.0.1 ttl-exceeded about(tcp 10.9.0.1:1 > 10.9.0.2:2 ttl=1 len=5)");
  EXPECT_EQ(built(packet_line(frame, Detail::full)), frame);
}

TEST(PacketText, RefusesWithWhatWasExpected) {
  const auto refusal = [](std::string_view line) {
    const auto frame = build_frame(line, kFrom, kTo);
    return frame ? std::string{"accepted"} : frame.error().message;
  };
  EXPECT_EQ(refusal(""), "packet text: expected a packet such as `tcp 10.0.0.1:4000 > 10.9.0.100:80 [S]`");
  EXPECT_EQ(refusal("tcp 10.0.0.1 > 10.0.0.2:80 [S]"),
            "packet text: \"tcp 10.0.0.1 > 10.0.0.2:80 [S]\": expected `tcp ADDRESS:PORT > ADDRESS:PORT`");
  EXPECT_EQ(refusal("tcp 10.0.0.1:1 > 10.0.0.2:80 [SX]"),
            "packet text, column 30: \"[SX]\": a TCP flag is one of SFRPAUEC, not X");
  EXPECT_EQ(refusal("udp 10.0.0.1:1 > 10.0.0.2:80 ttl=256"),
            "packet text, column 30: ttl=256: expected a number from 0 to 255");
  EXPECT_EQ(refusal("udp 10.0.0.1:1 > 10.0.0.2:80 seq=1"),
            "packet text, column 30: \"seq\" isn't a field of this packet");
  EXPECT_EQ(refusal("udp 10.0.0.1:1 > 10.0.0.2:80 ttl=1 ttl=2"), "packet text, column 36: \"ttl=2\" is said twice");
  EXPECT_EQ(refusal("udp 10.0.0.1:1 > 10.0.0.2:80 (udp 1.1.1.1:1 > 1.1.1.2:2)"),
            "packet text: udp has no packet inside");
  EXPECT_EQ(refusal("ipip 10.0.0.1 > 10.0.0.2 (udp 1.1.1.1:1 > 1.1.1.2:2"),
            "packet text: a \"(\" is never closed");
  EXPECT_EQ(refusal("ipip 10.0.0.1 > 10.0.0.2"),
            "packet text: ipip carries a packet: expected `ipip A > B (PACKET)`");
  EXPECT_EQ(
      refusal("carrots"),
      "packet text: \"carrots\" isn't a kind of packet; expected tcp, udp, icmp, nd, mld, ip, ipip, gre, gue, arp or ethernet");
}

TEST(PacketText, MismatchComparesOnlyWhatIsSaidAndAlarms) {
  const auto wrong = [](std::string_view expected, std::string_view actual) {
    return mismatch(*parse_line(expected), describe_frame(built(actual)));
  };
  EXPECT_EQ(wrong("tcp 1.1.1.1:1 > 1.1.1.2:2 [S]", "tcp 1.1.1.1:1 > 1.1.1.2:2 [S] ttl=3 df len=7"), "");
  EXPECT_EQ(wrong("tcp 1.1.1.1:1 > 1.1.1.2:2 [S] ttl=64", "tcp 1.1.1.1:1 > 1.1.1.2:2 [S]"), "");
  EXPECT_EQ(wrong("tcp 1.1.1.1:1 > 1.1.1.2:2 [S] ttl=63", "tcp 1.1.1.1:1 > 1.1.1.2:2 [S]"),
            "expected ttl=63, got 64");
  EXPECT_EQ(wrong("tcp 1.1.1.1:1 > 1.1.1.2:2 [S] df", "tcp 1.1.1.1:1 > 1.1.1.2:2 [S]"),
            "expected df, there is none");
  EXPECT_EQ(wrong("tcp 1.1.1.1:1 > 1.1.1.2:2 [S]", "tcp 1.1.1.1:1 > 1.1.1.2:2 [S] csum=bad"),
            "unexpected csum=bad");
  EXPECT_EQ(wrong("tcp 1.1.1.1:1 > 1.1.1.2:2 [S] csum=bad", "tcp 1.1.1.1:1 > 1.1.1.2:2 [S] csum=bad"), "");
  EXPECT_EQ(wrong("ipip 1.1.1.1 > 1.1.1.2 (udp 1.1.1.1:1 > 1.1.1.2:2 ttl=63)",
                  "ipip 1.1.1.1 > 1.1.1.2 (udp 1.1.1.1:1 > 1.1.1.2:2)"),
            "inside: expected ttl=63, got 64");
}

// Printing must never read outside the bytes it was given (the sanitizers watch) nor fail.
TEST(PacketText, DescribesAnyBytes) {
  constexpr unsigned kSeed = 20240611;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  const std::vector<std::vector<std::byte>> seeds{
      built("icmp 10.9.0.100 > 10.9.0.1 frag-needed mtu=1480 about(udp 10.9.0.1:4001 > 10.9.0.100:53 ttl=63 "
            "df len=72)"),
      built("ipip 10.9.0.2 > 10.9.0.11 (tcp 203.0.113.5:4000 > 10.9.9.9:80 [S] opts=01010101)"),
      built("arp who-has 10.9.0.11 tell 10.9.0.2"),
      built("tcp 10.0.0.1:1 > 10.0.0.2:2 [A] len=9"),
  };
  for (int round = 0; round < 20000; ++round) {
    auto bytes = seeds[random() % seeds.size()];
    for (unsigned i = random() % 4; i > 0; --i)
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    bytes.resize(random() % (bytes.size() + 1));
    bytes.shrink_to_fit();
    EXPECT_FALSE(packet_line(bytes, Detail::full).empty());
  }
}

}  // namespace
}  // namespace director
