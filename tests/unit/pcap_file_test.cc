// Capture files: what was written is read again; what is no capture is refused in words.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "director/io/pcap_file.h"

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

TEST(PcapFile, RefusesWithWhatWasExpected) {
  const TemporaryFile file;
  const auto refusal = [&](std::string_view bytes) {
    file.fill(bytes);
    const auto frames = read_pcap(file.path());
    return frames ? std::string{"accepted"} : frames.error().message.substr(file.path().size());
  };
  const std::string header{"\xd4\xc3\xb2\xa1\2\0\4\0\0\0\0\0\0\0\0\0\0\0\4\0\1\0\0\0", 24};
  EXPECT_EQ(refusal(header), "accepted");
  EXPECT_EQ(refusal("short"), ": expected a pcap file, which begins with 24 bytes of header");
  EXPECT_EQ(refusal(std::string{"\x0a\x0d\x0d\x0a", 4} + header),
            ": expected a classic pcap file, found magic number 0a0d0d0a (pcapng? convert it with `editcap "
            "-F pcap`)");
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
