// Classic pcap: a header of 24 bytes, then for each frame 16 bytes and the frame.
#include "director/io/pcap_file.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

namespace director {
namespace {

constexpr std::uint32_t kMicroseconds = 0xa1b2c3d4;
constexpr std::uint32_t kNanoseconds = 0xa1b23c4d;
constexpr std::uint32_t kEthernet = 1;               // LINKTYPE_ETHERNET
constexpr std::uint32_t kLinkTypeMask = 0x03ffffff;  // above it: length of the frame check sequence
constexpr std::uint32_t kMostCaptured = 262144;      // MAXIMUM_SNAPLEN of libpcap
constexpr std::size_t kFileHeader = 24;
constexpr std::size_t kRecordHeader = 16;

std::uint32_t load(std::span<const std::byte, 4> b, bool big_endian) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value = value << 8U | std::to_integer<std::uint32_t>(b[big_endian ? i : 3 - i]);
  return value;
}

template <std::size_t N>
bool read_exactly(std::ifstream& in, std::array<std::byte, N>& into) {
  in.read(reinterpret_cast<char*>(into.data()), N);
  return in.gcount() == N;
}

/// Little-endian, whatever the machine: the same capture is the same file everywhere.
void put(std::ofstream& out, std::initializer_list<std::uint32_t> words) {
  for (const std::uint32_t w : words)
    for (unsigned shift = 0; shift < 32; shift += 8) out.put(static_cast<char>(w >> shift & 0xffU));
}

}  // namespace

Result<PcapReader> PcapReader::open(const std::string& path) {
  PcapReader reader;
  reader.path_ = path;
  reader.in_.open(path, std::ios::binary);
  if (!reader.in_) return fail(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  std::array<std::byte, kFileHeader> header{};
  if (!read_exactly(reader.in_, header))
    return fail(
        fmt::format("{}: expected a pcap file, which begins with {} bytes of header", path, kFileHeader));
  const std::span<const std::byte> h{header};
  bool known = false;
  for (const bool big : {false, true})
    for (const std::uint32_t magic : {kMicroseconds, kNanoseconds})
      if (load(h.subspan<0, 4>(), big) == magic) {
        known = true;
        reader.big_endian_ = big;
        reader.nanoseconds_ = magic == kNanoseconds;
      }
  if (!known) {
    return fail(
        fmt::format("{}: expected a classic pcap file, found magic number {:08x} "
                    "(pcapng? convert it with `editcap -F pcap`)",
                    path, load(h.subspan<0, 4>(), true)));
  }
  const std::uint32_t link = reader.word(h.subspan<20, 4>()) & kLinkTypeMask;
  if (link != kEthernet)
    return fail(fmt::format("{}: expected Ethernet frames (link type 1), found {}", path, link));
  return reader;
}

std::uint32_t PcapReader::word(std::span<const std::byte, 4> bytes) const {
  return load(bytes, big_endian_);
}

Result<std::optional<CapturedFrame>> PcapReader::next() {
  std::array<std::byte, kRecordHeader> header{};
  if (!read_exactly(in_, header)) {
    if (in_.gcount() == 0) return std::optional<CapturedFrame>{};
    return fail(fmt::format("{}: the header of frame {} is cut short", path_, record_));
  }
  const std::span<const std::byte> h{header};
  const std::uint32_t captured = word(h.subspan<8, 4>());
  if (captured > kMostCaptured)
    return fail(fmt::format("{}: frame {} claims {} bytes, expected at most {}", path_, record_, captured,
                            kMostCaptured));
  CapturedFrame frame;
  const std::uint32_t fraction = word(h.subspan<4, 4>());
  frame.time = std::chrono::seconds{word(h.subspan<0, 4>())} +
               (nanoseconds_ ? Duration{fraction} : Duration{std::chrono::microseconds{fraction}});
  frame.wire_length = word(h.subspan<12, 4>());
  frame.bytes.resize(captured);
  in_.read(reinterpret_cast<char*>(frame.bytes.data()), captured);
  if (in_.gcount() != captured) return fail(fmt::format("{}: frame {} is cut short", path_, record_));
  ++record_;
  return std::optional{std::move(frame)};
}

Result<std::vector<CapturedFrame>> read_pcap(const std::string& path) {
  auto reader = PcapReader::open(path);
  if (!reader) return Failure{reader.error()};
  std::vector<CapturedFrame> frames;
  for (;;) {
    auto frame = reader->next();
    if (!frame) return Failure{frame.error()};
    if (!*frame) return frames;
    frames.push_back(std::move(**frame));
  }
}

Result<PcapWriter> PcapWriter::create(const std::string& path, Resolution resolution) {
  PcapWriter writer;
  writer.path_ = path;
  writer.resolution_ = resolution;
  writer.out_.open(path, std::ios::binary | std::ios::trunc);
  if (!writer.out_) return fail(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
  constexpr std::uint32_t kVersion = 4U << 16U | 2U;  // 2.4, as two 16-bit numbers
  put(writer.out_, {resolution == Resolution::microseconds ? kMicroseconds : kNanoseconds, kVersion, 0, 0,
                    kMostCaptured, kEthernet});
  return writer;
}

void PcapWriter::write(Duration time, std::span<const std::byte> frame) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const auto rest = static_cast<std::uint32_t>((time - seconds).count());
  const auto length = static_cast<std::uint32_t>(frame.size());
  put(out_, {static_cast<std::uint32_t>(seconds.count()),
             resolution_ == Resolution::microseconds ? rest / 1000 : rest, length, length});
  out_.write(reinterpret_cast<const char*>(frame.data()), static_cast<std::streamsize>(frame.size()));
}

Result<void> PcapWriter::close() {
  out_.close();
  if (!out_) return fail(fmt::format("{}: could not be written to the end: {}", path_, std::strerror(errno)));
  return {};
}

}  // namespace director
