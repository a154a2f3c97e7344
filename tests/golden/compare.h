// Comparing frames and listings with what the kernel's IPVS sent and printed: byte for byte, but for what a case says to ignore.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "director/io/pcap_file.h"

namespace director::golden {

/// What a case's `ignore` lists, as far as frames are concerned (README of the golden captures).
struct Ignored {
  bool local_ip_id = false;       ///< IP ID of ICMP messages the director makes itself
  bool outer_ip_id = false;       ///< IP ID of outer headers without DF; pieces of one packet still share one
  bool icmp_timestamp = false;    ///< times of day in timestamp replies
  bool option_timestamp = false;  ///< times of day in IP timestamp options
};

/// Compares what one step sent.
class FrameComparison {
 public:
  /// `caused_by`: the step's incoming frames. An IP ID that is one of theirs was forwarded, and is compared.
  FrameComparison(const Ignored& ignored, std::vector<std::span<const std::byte>> caused_by)
      : ignored_(ignored), caused_by_(std::move(caused_by)) {}

  /// Empty: equal. Else what differs, in lines of packet text.
  std::string compare(std::span<const CapturedFrame> expected, std::span<const CapturedFrame> got);

 private:
  [[nodiscard]] std::set<std::size_t> ignored_bytes(std::span<const std::byte> expected) const;
  std::string compare_one(std::span<const std::byte> expected, std::span<const std::byte> got);

  Ignored ignored_;
  std::vector<std::span<const std::byte>> caused_by_;
  std::map<std::pair<std::byte, std::byte>, std::pair<std::byte, std::byte>>
      ids_;  // the kernel's outer ID -> ours
};

/// "ip.ttl": the field that holds the byte at `offset` of a frame.
std::string field_at(std::span<const std::byte> frame, std::size_t offset);

/// Rows of `ipvsadm -Lnc`, blanks squeezed, their expiry apart: equal up to a second. Empty: equal.
std::string compare_connections(std::vector<std::string> expected, std::vector<std::string> got);

/// Lines, exactly. Empty: equal.
std::string compare_lines(const std::vector<std::string>& expected, const std::vector<std::string>& got);

std::vector<std::string> lines_of(std::string_view text);
/// Runs of blanks become one, none at the end.
std::string squeezed(std::string_view line);

}  // namespace director::golden
