// net/: addresses as text, checksums whole and by difference.
#include <gtest/gtest.h>

#include "director/net/address.h"
#include "director/net/checksum.h"

namespace director {
namespace {

TEST(IpAddress, PrintsWhatItParsed) {
  for (const char* text : {"0.0.0.0", "10.9.0.100", "255.255.255.255", "::", "::1", "2001:db8::80", "fd00:9::2",
                           "1:2:3:4:5:6:7:8", "2001:db8:0:1:1:1:1:1", "fe80::"}) {
    const auto a = IpAddress::parse(text);
    ASSERT_TRUE(a) << text;
    EXPECT_EQ(format_as(*a), text);
  }
}

TEST(IpAddress, RefusesWhatIsNone) {
  for (const char* text : {"", "10.9.0", "10.9.0.256", "10.9.0.1.2", "10.9.0.01", " 10.9.0.1", "1:2:3:4:5:6:7", ":::", "1::2::3",
                           "12345::", "1:2:3:4:5:6:7:8:9", "::1:", "g::"})
    EXPECT_FALSE(IpAddress::parse(text)) << text;
}

TEST(Prefix, ContainsItsHosts) {
  const auto p = *Prefix::parse("10.9.0.2/24");
  EXPECT_TRUE(p.contains(*IpAddress::parse("10.9.0.255")));
  EXPECT_FALSE(p.contains(*IpAddress::parse("10.9.1.0")));
  EXPECT_FALSE(p.contains(*IpAddress::parse("2001:db8::1")));
  EXPECT_EQ(format_as(p.network()), "10.9.0.0");
  EXPECT_EQ(format_as(p.broadcast()), "10.9.0.255");
  EXPECT_TRUE(Prefix::parse("0.0.0.0/0")->contains(*IpAddress::parse("203.0.113.9")));
  EXPECT_TRUE(Prefix::parse("fd00:9::/64")->contains(*IpAddress::parse("fd00:9::abcd")));
  EXPECT_FALSE(Prefix::parse("10.9.0.0/33"));
}

TEST(Checksum, DifferenceEqualsRecomputation) {
  std::array<std::byte, 20> packet{};
  for (std::size_t i = 0; i < packet.size(); ++i) packet[i] = static_cast<std::byte>(i * 37 + 11);
  const Be16 before = ChecksumSum{}.add(packet).field();
  ChecksumSum difference;
  const Be16 old = std::bit_cast<Be16>(std::array{packet[4], packet[5]});
  difference.replace(old, Be16{0xbeef});
  packet[4] = std::byte{0xbe};
  packet[5] = std::byte{0xef};
  EXPECT_EQ(ChecksumDelta{difference}.applied_to(before), ChecksumSum{}.add(packet).field());
}

}  // namespace
}  // namespace director
