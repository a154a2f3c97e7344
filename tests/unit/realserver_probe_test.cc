// "Who has this address?" on the wire: the questions realserver asks and the answers it understands.
#include "director/realserver/neighbour_probe.h"

#include <gtest/gtest.h>

#include <string_view>

#include "director/net/checksum.h"

namespace director::realserver {
namespace {

const MacAddress kOwn = *MacAddress::parse("02:00:00:00:00:0b");
const MacAddress kPeer = *MacAddress::parse("02:00:00:00:00:02");
const IpAddress kOwnIp = *IpAddress::parse("10.9.0.11");
const IpAddress kVip = *IpAddress::parse("10.9.0.100");
const IpAddress kOwnIp6 = *IpAddress::parse("fe80::b");
const IpAddress kVip6 = *IpAddress::parse("fd00:9::a100");

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte b : bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    text += kDigits[std::to_integer<std::size_t>(b) >> 4U];
    text += kDigits[std::to_integer<std::size_t>(b) & 15U];
  }
  return text;
}

TEST(Probe, IsAnArpRequest) {
  EXPECT_EQ(hex(probe_frame(kOwn, kOwnIp, kVip)),
            "ffffffffffff"
            "02000000000b"
            "0806"
            "0001"
            "0800"
            "06"
            "04"
            "0001"
            "02000000000b"
            "0a09000b"
            "000000000000"
            "0a090064");
}

TEST(Probe, IsANeighbourSolicitationWithATrueChecksum) {
  const auto frame = probe_frame(kOwn, kOwnIp6, kVip6);
  const std::string text = hex(frame);
  EXPECT_EQ(text.substr(0, 28),
            "3333ff00a100"
            "02000000000b"
            "86dd");
  EXPECT_EQ(text.substr(28, 16),
            "60000000"
            "0020"
            "3a"
            "ff");
  EXPECT_EQ(text.substr(44, 64),
            "fe80000000000000000000000000000b"
            "ff0200000000000000000001ff00a100");
  EXPECT_EQ(text.substr(108, 4), "8700");
  EXPECT_EQ(text.substr(116),
            "00000000"
            "fd00000900000000000000000000a100"
            "0101"
            "02000000000b");
  const auto message = std::span<const std::byte>{frame}.subspan(54);
  const IpAddress group = *IpAddress::parse("ff02::1:ff00:a100");
  EXPECT_EQ(pseudo_header_sum(kOwnIp6, group, Protocol::icmpv6, message.size()).add(message).field().raw(),
            0);
}

TEST(Probe, FromNowhereNamesNoLinkAddress) {
  const auto frame = probe_frame(kOwn, IpAddress::v6({}), kVip6);
  EXPECT_EQ(frame.size(), 14 + 40 + 24);
}

/// What `from` would send if it had the address: a request turned round.
std::vector<std::byte> arp_reply(const MacAddress& from, const IpAddress& address) {
  auto frame = probe_frame(from, address, kOwnIp);
  header_at<ArpHeader>(std::span<std::byte>{frame}, 14).operation = Be16{ArpHeader::kReply};
  return frame;
}

TEST(Claim, IsWhatAnArpReplySays) {
  EXPECT_EQ(claimed_by(arp_reply(kPeer, kVip), kVip), kPeer);
  EXPECT_EQ(claimed_by(arp_reply(kPeer, kOwnIp), kVip), std::nullopt) << "of another address";
  EXPECT_EQ(claimed_by(probe_frame(kPeer, kOwnIp, kVip), kVip), std::nullopt) << "a question isn't an answer";
}

std::vector<std::byte> advertisement(const MacAddress& from, const IpAddress& address) {
  auto frame = probe_frame(from, address, address);
  const std::span<std::byte> bytes{frame};
  bytes[54] = std::byte{136};
  bytes[78] = std::byte{2};  // target link address
  return frame;
}

TEST(Claim, IsWhatANeighbourAdvertisementSays) {
  EXPECT_EQ(claimed_by(advertisement(kPeer, kVip6), kVip6), kPeer);
  EXPECT_EQ(claimed_by(advertisement(kPeer, kOwnIp6), kVip6), std::nullopt);
  auto routed = advertisement(kPeer, kVip6);
  routed[14 + 7] = std::byte{254};
  EXPECT_EQ(claimed_by(routed, kVip6), std::nullopt) << "came from beyond the link";
}

TEST(Claim, IsNeverReadBeyondTheFrame) {
  for (const auto& whole : {arp_reply(kPeer, kVip), advertisement(kPeer, kVip6)}) {
    for (std::size_t n = 0; n < whole.size(); ++n) {
      const std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
      EXPECT_EQ(claimed_by(cut, kVip), std::nullopt) << n;
      if (n < 78) {
        EXPECT_EQ(claimed_by(cut, kVip6), std::nullopt) << n;
      }
    }
  }
}

}  // namespace
}  // namespace director::realserver
