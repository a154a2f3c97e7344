// Capture files: reading and writing classic pcap with Ethernet frames, in micro- and nanoseconds.
//
// Not pcapng, and no device: `director replay`, `director explain` and the tests use it.
// Source: draft-ietf-opsawg-pcap; the magic number tells byte order and resolution.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "director/base/result.h"
#include "director/base/time.h"

namespace director {

struct CapturedFrame {
  Duration time{};               ///< since the file's epoch, which a capture case chooses freely
  std::vector<std::byte> bytes;  ///< from the Ethernet header on, without a frame check sequence
  std::size_t wire_length = 0;   ///< more than bytes.size() if the capture was cut short

  friend bool operator==(const CapturedFrame&, const CapturedFrame&) = default;
};

class PcapReader {
 public:
  /// The error names the file and what was expected of it.
  static Result<PcapReader> open(const std::string& path);

  /// The next frame; nothing at the end of the file.
  Result<std::optional<CapturedFrame>> next();

 private:
  PcapReader() = default;
  [[nodiscard]] std::uint32_t word(std::span<const std::byte, 4> bytes) const;

  std::string path_;
  std::ifstream in_;
  std::uint64_t record_ = 0;  // number of the next one, for messages
  bool big_endian_ = false;
  bool nanoseconds_ = false;
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
