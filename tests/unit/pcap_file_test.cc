// Capture files: what was written is read again; what is no capture is refused in words.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "director/io/pcap_file.h"
#include "director/io/recorder.h"

namespace director {
namespace {

/// A file that goes away with the test.
class TemporaryFile {
 public:
  TemporaryFile()
      : path_(testing::TempDir() + "pcap_file_test." + std::to_string(getpid()) + "." +
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {}
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  void fill(std::string_view bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }

 private:
  std::string path_;
};

TEST(PcapFile, ReadsWhatItWrote) {
  for (const auto resolution : {PcapWriter::Resolution::microseconds, PcapWriter::Resolution::nanoseconds}) {
    const TemporaryFile file;
    const Duration time =
        1700000000s + (resolution == PcapWriter::Resolution::microseconds ? Duration{123456us} : 123456789ns);
    std::vector<std::byte> first(60, std::byte{7});
    std::vector<std::byte> second(1514, std::byte{9});
    auto writer = PcapWriter::create(file.path(), resolution);
    ASSERT_TRUE(writer);
    writer->write(time, first);
    writer->write(time + 1s, second);
    ASSERT_TRUE(writer->close());
    const auto frames = read_pcap(file.path());
    ASSERT_TRUE(frames) << frames.error().message;
    ASSERT_EQ(frames->size(), 2U);
    EXPECT_EQ((*frames)[0], (CapturedFrame{time, first, 60}));
    EXPECT_EQ((*frames)[1], (CapturedFrame{time + 1s, second, 1514}));
  }
}

TEST(PcapFile, ReadsEitherByteOrder) {
  const TemporaryFile file;
  file.fill(
      {"\xa1\xb2\xc3\xd4\0\2\0\4\0\0\0\0\0\0\0\0\0\4\0\0\0\0\0\1"
       "\0\0\0\5\0\0\0\6\0\0\0\2\0\0\0\7hi",
       24 + 16 + 2});
  const auto frames = read_pcap(file.path());
  ASSERT_TRUE(frames) << frames.error().message;
  ASSERT_EQ(frames->size(), 1U);
  EXPECT_EQ((*frames)[0], (CapturedFrame{5s + 6us, {std::byte{'h'}, std::byte{'i'}}, 7}));
}

TEST(PcapFile, ReadsARecording) {
  const TemporaryFile file;
  std::vector<std::byte> room(kHeadroom + 64, std::byte{5});
  Frame frame;
  frame.storage = room;
  frame.start = kHeadroom;
  frame.resize(61);  // not a multiple of four
  frame.ingress = DeviceId{1};
  frame.offload.checksum = Offload::Checksum::partial;
  frame.offload.checksum_start = 34;
  frame.offload.checksum_offset = 16;
  frame.offload.segments = Offload::Segments::tcp6;
  frame.offload.segment_size = 1428;
  frame.offload.header_length = 74;
  {
    Recorder recorder(file.path(), {"front", "back"});
    recorder.received(frame, Instant{1s});
    recorder.decided(Verdict::transmit(DeviceId{0}));
    recorder.sent(frame, DeviceId{0}, Reason::none, Instant{1s + 5ns});
  }
  const auto frames = read_pcap(file.path());
  ASSERT_TRUE(frames) << frames.error().message;
  ASSERT_EQ(frames->size(), 2U);
  EXPECT_EQ((*frames)[0].direction, CapturedFrame::Direction::inbound);
  EXPECT_EQ((*frames)[0].interface, 1U);
  const Offload& offload = (*frames)[0].offload;
  EXPECT_EQ(offload.checksum, Offload::Checksum::partial);
  EXPECT_EQ(offload.checksum_start + offload.checksum_offset, 34 + 16);
  EXPECT_EQ(offload.segments, Offload::Segments::tcp6);
  EXPECT_EQ(offload.segment_size, 1428);
  EXPECT_EQ(offload.header_length, 74);
  EXPECT_EQ((*frames)[0].bytes, std::vector<std::byte>(room.begin() + kHeadroom, room.begin() + kHeadroom + 61));
  EXPECT_EQ((*frames)[1].direction, CapturedFrame::Direction::outbound);
  EXPECT_EQ((*frames)[1].interface, 0U);
  EXPECT_EQ((*frames)[1].time - (*frames)[0].time, 5ns);
}

/// Of another machine: big-endian, microseconds since nobody says otherwise, and a block of a kind we don't know.
TEST(PcapFile, ReadsPcapngOfEitherByteOrder) {
  const TemporaryFile file;
  std::string bytes{"\x0a\x0d\x0d\x0a\0\0\0\x1c\x1a\x2b\x3c\x4d\0\1\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x1c", 28};
  bytes += std::string{"\0\0\0\1\0\0\0\x14\0\1\0\0\0\0\0\0\0\0\0\x14", 20};
  bytes += std::string{"\0\0\0\x63\0\0\0\x0c\0\0\0\x0c", 12};
  bytes += std::string{"\0\0\0\6\0\0\0\x24\0\0\0\0\0\0\0\0\0\x0f\x42\x43\0\0\0\2\0\0\0\7", 28} + std::string{"hi\0\0\0\0\0\x24", 8};
  file.fill(bytes);
  const auto frames = read_pcap(file.path());
  ASSERT_TRUE(frames) << frames.error().message;
  ASSERT_EQ(frames->size(), 1U);
  EXPECT_EQ((*frames)[0].time, 1s + 3us);
  EXPECT_EQ((*frames)[0].bytes, (std::vector<std::byte>{std::byte{'h'}, std::byte{'i'}}));
  EXPECT_EQ((*frames)[0].wire_length, 7U);
}

TEST(PcapFile, RefusesPcapngThatLies) {
  const TemporaryFile file;
  const std::string section{"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\1\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0", 28};
  const auto refusal = [&](const std::string& bytes) {
    file.fill(section + bytes);
    const auto frames = read_pcap(file.path());
    return frames ? std::string{"accepted"} : frames.error().message.substr(file.path().size());
  };
  EXPECT_EQ(refusal(""), "accepted");
  EXPECT_EQ(refusal("cut"), ": cut short behind frame 0");
  EXPECT_EQ(refusal(std::string{"\6\0\0\0\xff\xff\xff\x7f\0\0\0\0", 12}), ": behind frame 0 a block claims 2147483647 bytes");
  const std::string packet{"\6\0\0\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0", 32};
  EXPECT_EQ(refusal(packet), ": frame 0: of an interface nobody described");
  const std::string interface{"\1\0\0\0\x14\0\0\0\1\0\0\0\0\0\0\0\x14\0\0\0", 20};
  EXPECT_EQ(refusal(interface + packet), "accepted");
  std::string longer = packet;
  longer[20] = '\x7f';
  EXPECT_EQ(refusal(interface + longer), ": frame 0: its block is cut short");
}

TEST(PcapFile, RefusesWithWhatWasExpected) {
  const TemporaryFile file;
  const auto refusal = [&](std::string_view bytes) {
    file.fill(bytes);
    const auto frames = read_pcap(file.path());
    return frames ? std::string{"accepted"} : frames.error().message.substr(file.path().size());
  };
  const std::string header{"\xd4\xc3\xb2\xa1\2\0\4\0\0\0\0\0\0\0\0\0\0\0\4\0\1\0\0\0", 24};
  EXPECT_EQ(refusal(header), "accepted");
  EXPECT_EQ(refusal("short"), ": expected a pcap or pcapng file, which begins with at least 24 bytes of header");
  EXPECT_EQ(refusal("carrots and potatoes, in a row"), ": expected a pcap or pcapng file, found magic number 63617272");
  EXPECT_EQ(refusal(header.substr(0, 20) + std::string{"\x71\0\0\0", 4}),
            ": expected Ethernet frames (link type 1), found 113");
  EXPECT_EQ(refusal(header + "cut"), ": the header of frame 0 is cut short");
  EXPECT_EQ(refusal(header + std::string{"\0\0\0\0\0\0\0\0\4\0\0\0\4\0\0\0ab", 18}),
            ": frame 0 is cut short");
  EXPECT_EQ(refusal(header + std::string{"\0\0\0\0\0\0\0\0\0\0\0\x7f\4\0\0\0", 16}),
            ": frame 0 claims 2130706432 bytes, expected at most 262144");
  EXPECT_EQ(read_pcap("/nonexistent/in.pcap").error().message,
            "/nonexistent/in.pcap: cannot be read: No such file or directory");
}

}  // namespace
}  // namespace director
