// Sync messages: the kernel's bytes there and back, and nonsense from the wire.
#include "director/core/sync.h"

#include <gtest/gtest.h>

#include <cstring>

namespace director {
namespace {

std::vector<std::byte> bytes_of(std::string_view hex) {
  std::vector<std::byte> bytes;
  const auto digit = [](char c) { return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10); };
  std::string digits;
  for (const char c : hex)
    if (c != ' ') digits += c;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(digit(digits[i]) * 16 + digit(digits[i + 1])));
  return bytes;
}

/// A message of Linux 6.1: a masqueraded TCP connection and a UDP one.
constexpr std::string_view kFromKernel =
    "0007005002010000"
    "00060024 00000000 0001d2f1 00500050 00000000 00000384 0a090001 0a090064 0a09000c"
    "00110024 00000100 0000d2f2 00350035 00000000 0000012c 0a090001 0a090064 0a09000b";

SyncRecord record_of(std::string_view client, std::string_view service, std::string_view real) {
  SyncRecord record;
  record.flow = {{*IpAddress::parse(client), Port::of(4000)}, {*IpAddress::parse(service), Port::of(80)}, Protocol::tcp};
  record.real = {*IpAddress::parse(real), Port::of(8080)};
  record.flags = sync_flag::kNoOutput | 3;
  record.state = 1;
  record.timeout = 900s;
  return record;
}

TEST(SyncMessages, ReadWhatTheKernelSends) {
  const SyncReading reading = read_sync_message(bytes_of(kFromKernel));
  ASSERT_TRUE(reading.whole);
  EXPECT_EQ(reading.sync_id, 7);
  ASSERT_EQ(reading.records.size(), 2U);
  EXPECT_EQ(format_as(reading.records[0].flow.source), "10.9.0.1:54001");
  EXPECT_EQ(format_as(reading.records[0].real), "10.9.0.12:80");
  EXPECT_EQ(state_of_sync(Protocol::tcp, reading.records[0].state), State::established);
  EXPECT_EQ(reading.records[1].timeout, Duration{300s});
  EXPECT_EQ(state_of_sync(Protocol::udp, reading.records[1].state), State::udp);
}

TEST(SyncMessages, AreWrittenAsTheKernelDoes) {
  SyncMessage message{7};
  for (const SyncRecord& record : read_sync_message(bytes_of(kFromKernel)).records) EXPECT_TRUE(message.add(record, 1472));
  const auto expected = bytes_of(kFromKernel);
  EXPECT_TRUE(std::ranges::equal(message.bytes(), expected));
}

TEST(SyncMessages, AFullOneTakesNoMoreButTheFirstAlwaysFits) {
  SyncMessage message{1};
  const SyncRecord record = record_of("10.9.0.1", "10.9.0.100", "10.9.0.11");
  EXPECT_TRUE(message.add(record, 10));
  EXPECT_FALSE(message.add(record, 79));
  EXPECT_TRUE(message.add(record, 80));
  EXPECT_EQ(message.bytes().size(), 80U);
}

TEST(SyncMessages, CarryIpv6AndEnginesAndAlignRecords) {
  SyncMessage message{0};
  SyncRecord call = record_of("fd00::1", "fd00::100", "fd00::11");
  call.flags |= sync_flag::kTemplate;
  call.engine = "sip";
  call.engine_data = "a-call@somewhere";
  EXPECT_TRUE(message.add(call, 1472));
  EXPECT_TRUE(message.add(record_of("fd00::2", "fd00::100", "fd00::12"), 1472));
  const SyncReading reading = read_sync_message(message.bytes());
  ASSERT_TRUE(reading.whole);
  ASSERT_EQ(reading.records.size(), 2U);
  EXPECT_EQ(reading.records[0].engine_data, "a-call@somewhere");
  EXPECT_EQ(reading.records[0].engine, "sip");
  EXPECT_TRUE(reading.records[0].is_template());
  EXPECT_EQ(format_as(reading.records[1].flow.source), "[fd00::2]:4000");
}

TEST(SyncMessages, OfVersion0AreRead) {
  const SyncReading reading = read_sync_message(
      bytes_of("0105001c 00 06 0fa0 0050 1f90 0a090001 0a090064 0a09000b 0000 0001"));
  ASSERT_TRUE(reading.whole);
  ASSERT_EQ(reading.records.size(), 1U);
  EXPECT_EQ(format_as(reading.records[0].real), "10.9.0.11:8080");
  EXPECT_EQ(reading.records[0].timeout, Duration{});
}

TEST(SyncMessages, CutAnywhereAreReadToTheCutAndNoFurther) {
  const auto whole = bytes_of(kFromKernel);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    auto cut = std::vector<std::byte>(whole.begin(), whole.begin() + static_cast<long>(length));
    EXPECT_FALSE(read_sync_message(cut).whole) << length;  // its length field says more
    if (length < 8) continue;
    cut[2] = std::byte{0};
    cut[3] = static_cast<std::byte>(length);
    const SyncReading reading = read_sync_message(cut);
    EXPECT_FALSE(reading.whole) << length;
    EXPECT_EQ(reading.records.size(), length < 44 ? 0U : 1U) << length;
  }
}

TEST(SyncMessages, EveryByteMayBeWrong) {
  const auto whole = bytes_of(kFromKernel);
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (const unsigned value : {0U, 1U, 0x7fU, 0xffU}) {
      auto wrong = whole;
      wrong[at] = static_cast<std::byte>(value);
      EXPECT_LE(read_sync_message(wrong).records.size(), 3U);  // and no read outside: the sanitizers watch
    }
}

TEST(SyncMessages, StatesHaveTheKernelsNumbers) {
  EXPECT_EQ(sync_state(State::fin_wait), 4);
  EXPECT_EQ(sync_state(State::close_wait), 7);
  EXPECT_EQ(sync_state(State::udp), 0);
  EXPECT_EQ(state_of_sync(Protocol::tcp, 11), std::nullopt);
  EXPECT_EQ(state_of_sync(Protocol::udp, 1), std::nullopt);
  EXPECT_EQ(state_of_sync(Protocol::icmp, 0), std::nullopt);
}

}  // namespace
}  // namespace director
