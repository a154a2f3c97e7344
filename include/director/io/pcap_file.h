// Capture files of Ethernet frames: reading pcap and pcapng, writing pcap. `director --pcap` writes pcapng (recorder.h), with notes
// between the frames.
//
// No device: `director replay`, `director explain` and the tests use it.
// Source: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; the first number tells which, the byte order, and pcap's resolution.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "director/base/result.h"
#include "director/base/time.h"
#include "director/net/offload.h"

namespace director {

struct CapturedFrame {
  Duration time{};               ///< since the file's epoch, which a capture case chooses freely
  std::vector<std::byte> bytes;  ///< from the Ethernet header on, without a frame check sequence
  std::size_t wire_length = 0;   ///< more than bytes.size() if the capture was cut short
  enum class Direction : std::uint8_t { unknown, inbound, outbound };
  Direction direction = Direction::unknown;  ///< as pcapng may say
  Offload offload = {};                      ///< as the comment of a recording of ours says
  std::string comment = {};                  ///< of pcapng
  std::uint32_t interface = 0;               ///< of pcapng, in the order of their descriptions

  /// The frame and its time; not what only one format says.
  friend bool operator==(const CapturedFrame& a, const CapturedFrame& b) {
    return a.time == b.time && a.bytes == b.bytes && a.wire_length == b.wire_length;
  }
};

/// A frame, or a note of a recording of ours.
using PcapEntry = std::variant<CapturedFrame, std::string>;

/// A note's block of pcapng. Of the types left to local use (draft-ietf-opsawg-pcapng, 10.1), which other programs pass over.
inline constexpr std::uint32_t kPcapNote = 0xd1ec7042;

class PcapReader {
 public:
  /// The error names the file and what was expected of it.
  static Result<PcapReader> open(const std::string& path);

  /// The next frame; nothing at the end of the file.
  Result<std::optional<CapturedFrame>> next();
  /// The same with the notes.
  Result<std::optional<PcapEntry>> next_entry();
  /// The error was that the file ends inside of something: its writer was stopped, all before it is good.
  [[nodiscard]] bool was_cut_short() const { return cut_short_; }

 private:
  PcapReader() = default;
  struct Interface {
    bool is_ethernet = false;
    std::uint64_t ticks_per_second = 1'000'000;
  };
  [[nodiscard]] std::uint32_t word(std::span<const std::byte, 4> bytes) const;
  [[nodiscard]] std::uint16_t half(std::span<const std::byte> bytes) const;
  Result<std::optional<PcapEntry>> next_of_pcap();
  Result<std::optional<PcapEntry>> next_of_pcapng();
  [[nodiscard]] Failure<Error> cut_short(std::string_view what);
  Result<void> begin_section(std::span<const std::byte, 4> byte_order);
  void describe_interface(std::span<const std::byte> body);
  Result<CapturedFrame> enhanced_packet(std::span<const std::byte> body) const;
  template <typename Visit>
  void for_each_option(std::span<const std::byte> options, Visit visit) const;

  std::string path_;
  std::ifstream in_;
  std::uint64_t record_ = 0;  // number of the next one, for messages
  bool big_endian_ = false;
  bool nanoseconds_ = false;
  bool is_pcapng_ = false;
  bool cut_short_ = false;
  std::vector<Interface> interfaces_;  // of the section, pcapng
};

/// All frames of a file.
Result<std::vector<CapturedFrame>> read_pcap(const std::string& path);

class PcapWriter {
 public:
  enum class Resolution : std::uint8_t { microseconds, nanoseconds };

  static Result<PcapWriter> create(const std::string& path, Resolution resolution = Resolution::microseconds);

  void write(Duration time, std::span<const std::byte> frame);
  /// Everything is in the file, or why not.
  Result<void> close();

 private:
  PcapWriter() = default;

  std::string path_;
  std::ofstream out_;
  Resolution resolution_ = Resolution::microseconds;
};

}  // namespace director
