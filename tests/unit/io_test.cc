// io/: the --device grammar, the virtio header, batches, the device in memory.
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <span>

#include "director/io/device.h"
#include "director/io/memory_device.h"
#include "director/io/vnet_header.h"
#include "director/net/headers.h"

namespace director {
namespace {

// --- DeviceSpec
// ---------------------------------------------------------------------------------------------------------

TEST(DeviceSpec, ReadsNameKindInterfaceAndSettings) {
  const auto spec = DeviceSpec::parse("front=tap:lb0,bridge=br0,mac=02:00:00:00:00:02,address=10.9.0.2/24");
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->name, "front");
  EXPECT_EQ(spec->kind, "tap");
  EXPECT_EQ(spec->interface, "lb0");
  ASSERT_EQ(spec->settings.size(), 3U);
  EXPECT_EQ(spec->settings[1], std::pair(std::string("mac"), std::string("02:00:00:00:00:02")));
  EXPECT_TRUE(check_device(*spec));
}

TEST(DeviceSpec, IsNamedAfterItsInterfaceUnlessTold) {
  EXPECT_EQ(DeviceSpec::parse("packet:eth0")->name, "eth0");
}

TEST(DeviceSpec, SaysWhatIsWrong) {
  struct {
    const char* text;
    const char* words;
  } const cases[] = {
      {"eth0", "expected [NAME=]KIND:INTERFACE"},
      {"=packet:eth0", "expected [NAME=]KIND:INTERFACE"},
      {"packet:", "can't be the name of an interface"},
      {"packet:a-very-long-interface-name", "can't be the name of an interface"},
      {"packet:eth0/1", "can't be the name of an interface"},
      {"xdp:eth0", "there is no kind \"xdp\", only packet, tap"},
      {"packet:eth0,mtu=1500", "there is no key \"mtu\""},
      {"tap:lb0,bridge", "\"bridge\" is not key=value"},
      {"tap:lb0,", "\"\" is not key=value"},
      {"tap:lb0,colour=red", "there is no such key"},
      {"tap:lb0,mac=01:00:5e:00:00:01", "MAC address of one host"},
      {"tap:lb0,address=10.9.0.2", "with its subnet's length"},
      {"tap:lb0,address=10.9.0.2/33", "with its subnet's length"},
      {"tap:lb0,mtu=9999999", "a number from 68"},
      {"tap:lb0,gateway=10.9.0.1", "none of the addresses is in its subnet"},
      {"tap:lb0,address=10.9.0.2/24,gateway=10.8.0.1", "none of the addresses is in its subnet"},
  };
  for (const auto& c : cases) {
    const auto spec = DeviceSpec::parse(c.text);
    std::string said;
    if (!spec) {
      said = spec.error().message;
    } else if (const auto good = check_device(*spec); !good) {
      said = good.error().message;
    }
    EXPECT_NE(said.find(c.words), std::string::npos) << c.text << " said: " << said;
  }
}

// --- VnetHeader
// ---------------------------------------------------------------------------------------------------------

TEST(VnetHeader, BringsOffloadsThereAndBack) {
  const VnetHeader headers[] = {
      {},
      {VnetHeader::kNeedsChecksum, VnetHeader::kNone, 0, 0, 34, 16},
      {VnetHeader::kNeedsChecksum, VnetHeader::kTcp4, 66, 1448, 34, 16},
      {VnetHeader::kNeedsChecksum, VnetHeader::kTcp6 | VnetHeader::kEcn, 86, 1428, 54, 16},
      {VnetHeader::kNeedsChecksum, VnetHeader::kUdp, 42, 1472, 34, 6},
  };
  for (const VnetHeader& h : headers) {
    const auto offload = to_offload(h, 9000);
    ASSERT_TRUE(offload);
    const VnetHeader back = to_vnet_header(*offload);
    EXPECT_EQ(std::memcmp(&back, &h, sizeof h), 0) << unsigned{h.segment_type};
  }
}

TEST(VnetHeader, RefusesWhatPointsOutsideTheFrame) {
  EXPECT_FALSE(to_offload({VnetHeader::kNeedsChecksum, 0, 0, 0, 50, 16}, 60));
  EXPECT_TRUE(to_offload({VnetHeader::kNeedsChecksum, 0, 0, 0, 42, 16}, 60));
  EXPECT_FALSE(to_offload({VnetHeader::kNeedsChecksum, 0, 0, 0, 65535, 65535}, 60));
  EXPECT_FALSE(to_offload({0, VnetHeader::kTcp4, 100, 1448, 0, 0}, 60));  // headers beyond the frame
  EXPECT_FALSE(to_offload({0, VnetHeader::kTcp4, 54, 0, 0, 0}, 60));      // segments of nothing
  EXPECT_FALSE(to_offload({0, 3, 54, 1448, 0, 0}, 60));                   // UFO
}

TEST(VnetHeader, RemembersThatAChecksumWasVerified) {
  EXPECT_TRUE(to_offload({VnetHeader::kDataValid, 0, 0, 0, 0, 0}, 60)->verified);
  EXPECT_FALSE(to_offload({}, 60)->verified);
}

/// A UDP super-frame of `payload` bytes, 1000 a segment.
std::vector<std::byte> udp_super_frame(std::size_t payload) {
  std::vector<std::byte> bytes(sizeof(EthernetHeader) + sizeof(Ipv4Header) + sizeof(UdpHeader) + payload);
  const std::span<std::byte> all{bytes};
  header_at<EthernetHeader>(all, 0).type = Be16{0x0800};
  auto& ip = header_at<Ipv4Header>(all, 14);
  ip.version_ihl = 0x45;
  ip.protocol = Protocol::udp;
  return bytes;
}

TEST(Segments, CutsWhatADeviceDoesNotTake) {
  auto bytes = udp_super_frame(2500);
  Frame frame;
  frame.storage = bytes;
  frame.length = static_cast<std::uint32_t>(bytes.size());
  frame.offload.segments = Offload::Segments::udp;
  frame.offload.segment_size = 1000;
  std::vector<std::byte> storage(kMaxFrame);
  std::vector<std::uint32_t> lengths;
  EXPECT_TRUE(for_each_segment(frame, storage, [&](const Frame& f) { lengths.push_back(f.length); }));
  EXPECT_EQ(lengths, (std::vector<std::uint32_t>{1042, 1042, 542}));
}

TEST(Segments, SendsNothingOfALie) {
  std::vector<std::byte> storage(kMaxFrame);
  // Too short for its headers; an IPv4 header of 8 bytes; IPv6 with a transport header inside the IP header.
  for (const int kind : {0, 1, 2}) {
    auto bytes = udp_super_frame(kind == 0 ? 0 : 100);
    Frame frame;
    frame.offload.segments = Offload::Segments::udp;
    frame.offload.segment_size = 10;
    if (kind == 1) bytes[14] = std::byte{0x42};
    if (kind == 2) {
      bytes[14] = std::byte{0x60};
      frame.offload.checksum = Offload::Checksum::partial;
      frame.offload.checksum_start = 20;
    }
    frame.storage = bytes;
    frame.length = static_cast<std::uint32_t>(bytes.size());
    int sent = 0;
    EXPECT_FALSE(for_each_segment(frame, storage, [&](const Frame&) { ++sent; })) << kind;
    EXPECT_EQ(sent, 0);
  }
}

// --- FrameBatch and MemoryDevice
// ----------------------------------------------------------------------------------------

TEST(FrameBatch, KeepsFramesInOrderAcrossThoseThatWereNotKept) {
  FrameBatch batch;
  for (std::size_t i = 0; i < 5; ++i) batch.open(i).resize(100 + i);
  batch.keep(1);
  batch.keep(2);
  batch.keep(4);
  ASSERT_EQ(batch.frames().size(), 3U);
  EXPECT_EQ(batch.frames()[0].length, 101U);
  EXPECT_EQ(batch.frames()[1].length, 102U);
  EXPECT_EQ(batch.frames()[2].length, 104U);
  batch.clear();
  std::set<const std::byte*> storages;  // no two slots may share theirs afterwards
  for (std::size_t i = 0; i < FrameBatch::kSize; ++i) storages.insert(batch.open(i).storage.data());
  EXPECT_EQ(storages.size(), FrameBatch::kSize);
}

TEST(MemoryDevice, HandsOverAtMostABatch) {
  Counters counters;
  MemoryDevice device({DeviceId{0}, &counters});
  const std::array<std::byte, 60> bytes{};
  for (int i = 0; i < 70; ++i) device.push(bytes);
  FrameBatch batch;
  device.receive(batch);
  EXPECT_EQ(batch.frames().size(), FrameBatch::kSize);
  batch.clear();
  device.receive(batch);
  EXPECT_EQ(batch.frames().size(), 6U);
  EXPECT_EQ(batch.frames()[0].ingress, DeviceId{0});
}

}  // namespace
}  // namespace director
