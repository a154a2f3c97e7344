// pcap: a header of 24 bytes, then for each frame 16 bytes and the frame. pcapng: blocks, each with its type and length.
#include "director/io/pcap_file.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "director/net/offload_text.h"

namespace director {
namespace {

constexpr std::uint32_t kMicroseconds = 0xa1b2c3d4;
constexpr std::uint32_t kNanoseconds = 0xa1b23c4d;
constexpr std::uint32_t kSectionHeader = 0x0a0d0d0a;  // a palindrome: the same in both byte orders
constexpr std::uint32_t kByteOrder = 0x1a2b3c4d;
constexpr std::uint32_t kInterfaceDescription = 1;
constexpr std::uint32_t kEnhancedPacket = 6;
constexpr std::uint32_t kMostOfBlock = std::uint32_t{16} << 20U;
constexpr std::uint32_t kMostOfNote = std::uint32_t{1} << 30U;  // the routes of the whole Internet
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
        fmt::format("{}: expected a pcap or pcapng file, which begins with at least {} bytes of header", path, kFileHeader));
  const std::span<const std::byte> h{header};
  if (load(h.subspan<0, 4>(), false) == kSectionHeader) {
    reader.is_pcapng_ = true;
    reader.in_.seekg(0);
    return reader;
  }
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
        fmt::format("{}: expected a pcap or pcapng file, found magic number {:08x}", path, load(h.subspan<0, 4>(), true)));
  }
  const std::uint32_t link = reader.word(h.subspan<20, 4>()) & kLinkTypeMask;
  if (link != kEthernet)
    return fail(fmt::format("{}: expected Ethernet frames (link type 1), found {}", path, link));
  return reader;
}

std::uint32_t PcapReader::word(std::span<const std::byte, 4> bytes) const {
  return load(bytes, big_endian_);
}

Result<std::optional<PcapEntry>> PcapReader::next_entry() { return is_pcapng_ ? next_of_pcapng() : next_of_pcap(); }

Result<std::optional<CapturedFrame>> PcapReader::next() {
  for (;;) {
    auto entry = next_entry();
    if (!entry) return Failure{entry.error()};
    if (!*entry) return std::optional<CapturedFrame>{};
    if (auto* frame = std::get_if<CapturedFrame>(&**entry)) return std::optional{std::move(*frame)};
  }
}

Failure<Error> PcapReader::cut_short(std::string_view what) {
  cut_short_ = true;
  return fail(fmt::format("{}: {}", path_, what));
}

Result<std::optional<PcapEntry>> PcapReader::next_of_pcap() {
  std::array<std::byte, kRecordHeader> header{};
  if (!read_exactly(in_, header)) {
    if (in_.gcount() == 0) return std::optional<PcapEntry>{};
    return cut_short(fmt::format("the header of frame {} is cut short", record_));
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
  if (in_.gcount() != captured) return cut_short(fmt::format("frame {} is cut short", record_));
  ++record_;
  return std::optional<PcapEntry>{std::move(frame)};
}

// --- pcapng ---------------------------------------------------------------------------------------------------------

std::uint16_t PcapReader::half(std::span<const std::byte> bytes) const {
  const auto first = std::to_integer<std::uint16_t>(bytes[big_endian_ ? 0 : 1]);
  return static_cast<std::uint16_t>(first << 8U | std::to_integer<std::uint16_t>(bytes[big_endian_ ? 1 : 0]));
}

template <typename Visit>
void PcapReader::for_each_option(std::span<const std::byte> options, Visit visit) const {
  while (options.size() >= 4) {
    const std::uint16_t code = half(options);
    const std::size_t length = half(options.subspan(2));
    if (code == 0 || length > options.size() - 4) return;
    visit(code, options.subspan(4, length));
    options = options.subspan(std::min(options.size(), 4 + (length + 3) / 4 * 4));
  }
}

Result<void> PcapReader::begin_section(std::span<const std::byte, 4> byte_order) {
  for (const bool big : {false, true}) {
    if (load(byte_order, big) != kByteOrder) continue;
    big_endian_ = big;
    interfaces_.clear();
    return {};
  }
  return fail(fmt::format("{}: a section of pcapng without its byte order", path_));
}

void PcapReader::describe_interface(std::span<const std::byte> body) {
  constexpr std::uint16_t kResolution = 9;
  Interface interface;
  interface.is_ethernet = body.size() >= 8 && half(body) == kEthernet;
  for_each_option(body.subspan(std::min<std::size_t>(body.size(), 8)), [&](std::uint16_t code, std::span<const std::byte> value) {
    if (code != kResolution || value.size() != 1) return;
    const auto exponent = std::to_integer<unsigned>(value[0]);
    std::uint64_t ticks = 1;
    if ((exponent & 0x80U) != 0) ticks <<= std::min(exponent & 0x7fU, 63U);
    else for (unsigned i = 0; i < std::min(exponent, 18U); ++i) ticks *= 10;
    interface.ticks_per_second = ticks;
  });
  interfaces_.push_back(interface);
}

Result<CapturedFrame> PcapReader::enhanced_packet(std::span<const std::byte> body) const {
  constexpr std::size_t kFixed = 20;
  constexpr std::uint16_t kComment = 1;
  constexpr std::uint16_t kFlags = 2;
  const auto bad = [&](std::string_view what) { return fail(fmt::format("{}: frame {}: {}", path_, record_, what)); };
  if (body.size() < kFixed) return bad("its block is cut short");
  CapturedFrame frame;
  frame.interface = word(body.subspan<0, 4>());
  if (frame.interface >= interfaces_.size()) return bad("of an interface nobody described");
  const Interface& interface = interfaces_[frame.interface];
  if (!interface.is_ethernet) return bad("expected Ethernet frames (link type 1)");
  const std::uint64_t ticks = std::uint64_t{word(body.subspan<4, 4>())} << 32U | word(body.subspan<8, 4>());
  const std::uint64_t rest = ticks % interface.ticks_per_second;
  constexpr std::uint64_t kNano = 1'000'000'000;
  const std::uint64_t nanoseconds = interface.ticks_per_second <= kNano ? rest * kNano / interface.ticks_per_second
                                                                        : rest / (interface.ticks_per_second / kNano);
  frame.time = std::chrono::seconds{ticks / interface.ticks_per_second} + Duration{static_cast<Duration::rep>(nanoseconds)};
  const std::size_t captured = word(body.subspan<12, 4>());
  frame.wire_length = word(body.subspan<16, 4>());
  if (captured > body.size() - kFixed) return bad("its block is cut short");
  const auto bytes = body.subspan(kFixed, captured);
  frame.bytes.assign(bytes.begin(), bytes.end());
  for_each_option(body.subspan(std::min(body.size(), kFixed + (captured + 3) / 4 * 4)), [&](std::uint16_t code, std::span<const std::byte> value) {
    if (code == kComment) frame.comment.assign(reinterpret_cast<const char*>(value.data()), value.size());
    if (code != kFlags || value.size() != 4) return;
    const std::uint32_t direction = word(value.first<4>()) & 3U;
    if (direction == 1) frame.direction = CapturedFrame::Direction::inbound;
    if (direction == 2) frame.direction = CapturedFrame::Direction::outbound;
  });
  frame.offload = offload_in(frame.comment);
  return frame;
}

/// Blocks of other kinds are passed over.
Result<std::optional<PcapEntry>> PcapReader::next_of_pcapng() {
  for (;;) {
    std::array<std::byte, 12> head{};  // the type, the length, and of a section header the byte order
    in_.read(reinterpret_cast<char*>(head.data()), head.size());
    if (in_.gcount() == 0) return std::optional<PcapEntry>{};
    const std::span<const std::byte> h{head};
    const auto ends_here = [&] { return cut_short(fmt::format("cut short behind frame {}", record_)); };
    if (in_.gcount() != static_cast<std::streamsize>(head.size())) return ends_here();
    if (load(h.subspan<0, 4>(), false) == kSectionHeader)
      if (const auto begun = begin_section(h.subspan<8, 4>()); !begun) return Failure{begun.error()};
    const std::uint32_t type = word(h.subspan<0, 4>());
    const std::uint32_t length = word(h.subspan<4, 4>());
    if (length < head.size() || length % 4 != 0 || length > (type == kPcapNote ? kMostOfNote : kMostOfBlock))
      return fail(fmt::format("{}: behind frame {} a block claims {} bytes", path_, record_, length));
    // The body begins with the last four bytes of what was read, and ends before the length, which is said again.
    std::vector<std::byte> body(head.begin() + 8, head.end());
    body.resize(length - 8);
    in_.read(reinterpret_cast<char*>(body.data() + 4), static_cast<std::streamsize>(length - head.size()));
    if (in_.gcount() != static_cast<std::streamsize>(length - head.size())) return ends_here();
    body.resize(body.size() - 4);
    if (type == kInterfaceDescription) describe_interface(body);
    if (type == kPcapNote)
      return std::optional<PcapEntry>{std::in_place, std::in_place_type<std::string>, reinterpret_cast<const char*>(body.data()), body.size()};
    if (type != kEnhancedPacket) continue;
    auto frame = enhanced_packet(body);
    if (!frame) return Failure{frame.error()};
    ++record_;
    return std::optional<PcapEntry>{std::move(*frame)};
  }
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
