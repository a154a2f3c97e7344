// Recorder: --pcap FILE, everything the director receives and sends as pcapng, each frame with its fate as a
// comment that Wireshark shows as a column. Between them stand notes, which Wireshark passes over: what the core was told
// (journal.h), so that the recording can be replayed.
//
// Not a wrapper around a Device: the comment is the core's verdict, which no device knows. The loop tells it.
// Frames are written as they are in memory: a partial checksum stays partial and a super-frame whole, and the
// comment says so, in words a replay understands (offload_text.h). Source: draft-ietf-opsawg-pcapng.
#pragma once

#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "director/base/time.h"
#include "director/core/verdict.h"
#include "director/net/frame.h"

namespace director {

class Recorder {
 public:
  /// Creates FILE; `device_names` in the order of DeviceId. Throws StartupError.
  Recorder(const std::string& file, const std::vector<std::string>& device_names);

  /// A frame as it came, before the core rewrites it. REQUIRES: decided() follows.
  void received(const Frame& frame, Instant now);
  void decided(const Verdict& verdict);
  void sent(const Frame& frame, DeviceId egress, Reason reason, Instant now);
  /// Anything that isn't a frame, in its place among them.
  void note(std::string_view text);
  /// What time stamps have beyond an Instant.
  [[nodiscard]] Duration wall_offset() const { return wall_offset_; }
  /// Puts what is buffered into the file: when the loop is about to sleep, so that a reader sees whole
  /// blocks.
  void flush();

 private:
  struct Closer {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  enum class Direction : std::uint32_t { inbound = 1, outbound = 2 };  // epb_flags, bits 0 and 1

  void begin_packet(const Frame& frame, DeviceId device, Instant now);
  void end_packet(const std::string& comment, Direction direction);
  void put(const void* data, std::size_t size);
  template <typename T>
  void put(T value) {
    put(&value, sizeof value);
  }
  void put_option(std::uint16_t code, const void* data, std::size_t size);
  void begin_block(std::uint32_t type);
  void end_block();

  std::unique_ptr<std::FILE, Closer> file_;
  std::string name_;
  std::vector<std::string> devices_;
  Duration wall_offset_;
  std::vector<std::byte> block_;  // the one being written
  std::string offload_;           // of the frame in block_, in words
};

}  // namespace director
