// Recording: what `director --pcap` wrote, read again, and done again. The core gets the same calls at the same Instants from the same
// beginning, so it does the same, bit for bit; where it doesn't (another version, another policy) the first difference is told.
//
// Read as it is replayed, so that it may be larger than memory. Used by `director replay FILE` and by tests; a capture that isn't a
// recording of ours is a case's (replay.h).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "director/base/result.h"
#include "director/io/pcap_file.h"
#include "director/journal.h"
#include "director/replay.h"

namespace director {

class Recording {
 public:
  /// What comes next: a frame that came or went, or a call of another door.
  using Event = std::variant<CapturedFrame, Call>;

  /// The error names the file and the cure.
  static Result<Recording> open(const std::string& file);

  [[nodiscard]] const Beginning& beginning() const { return beginning_; }
  /// Nothing: that is all there is, also where the director was killed.
  Result<std::optional<Event>> next();

 private:
  Recording(std::string file, PcapReader reader) : file_(std::move(file)), reader_(std::move(reader)) {}

  std::string file_;
  PcapReader reader_;
  Beginning beginning_;
};

class Rerun {
 public:
  /// `policy`: another one than was recorded.
  Rerun(Recording recording, std::optional<Policy> policy);

  /// What was recorded next, done again; nothing: that was all. Times of what was sent are the recording's.
  Result<std::optional<Replay::Outcome>> next();
  /// The first thing that came out otherwise than recorded; nothing so far.
  [[nodiscard]] const std::optional<std::string>& difference() const { return difference_; }

  [[nodiscard]] Replay& replay() { return replay_; }
  [[nodiscard]] std::uint64_t received() const { return received_; }
  [[nodiscard]] std::uint64_t sent() const { return sent_; }

 private:
  Replay::Outcome receive(const CapturedFrame& frame);
  void compare();
  void end();
  void differs(std::uint64_t frame, std::string_view was, std::string_view is);

  Recording recording_;
  Replay replay_;
  std::uint64_t frames_ = 0;  // of the file, as Wireshark numbers them
  std::uint64_t received_ = 0;
  std::uint64_t sent_ = 0;
  std::deque<std::pair<std::uint64_t, CapturedFrame>> expected_;  // recorded as sent, and not sent again yet; with their numbers
  std::deque<CapturedFrame> sent_again_;                          // and the other way round
  std::optional<std::string> difference_;
};

}  // namespace director
