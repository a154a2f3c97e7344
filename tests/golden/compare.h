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
  bool outer_udp_source = false;  ///< the source port of GUE, a keyed hash of the flow, and the UDP checksum if there is one
  bool icmp_timestamp = false;    ///< times of day in timestamp replies
  bool local_flow_label = false;  ///< IPv6 flow label of ICMPv6 messages the director makes itself
  bool outer_flow_label = false;  ///< IPv6 flow label of outer headers
  bool fragment_id = false;       ///< IPv6 fragment ID of what the kernel fragmented
  bool option_timestamp = false;  ///< times of day in IP timestamp options
};

/// Lines, exactly. Empty: equal.
std::string compare_lines(const std::vector<std::string>& expected, const std::vector<std::string>& got);

/// Compares what one step sent.
class FrameComparison {
 public:
  /// `caused_by`: the step's incoming frames. An IP ID that is one of theirs was forwarded, and is compared.
  FrameComparison(const Ignored& ignored, std::vector<std::span<const std::byte>> caused_by)
      : ignored_(ignored), caused_by_(std::move(caused_by)) {}

  /// Empty: equal. Else what differs, in lines of packet text.
  std::string compare(std::span<const CapturedFrame> expected, std::span<const CapturedFrame> got);

 private:
  [[nodiscard]] std::set<std::size_t> ignored_bytes6(std::span<const std::byte> expected) const;
  [[nodiscard]] std::set<std::size_t> ignored_bytes(std::span<const std::byte> expected) const;
  std::string compare_one(std::span<const std::byte> expected, std::span<const std::byte> got);

  Ignored ignored_;
  std::vector<std::span<const std::byte>> caused_by_;
  std::map<std::pair<std::byte, std::byte>, std::pair<std::byte, std::byte>>
      ids_;  // the kernel's outer ID -> ours
};

/// Compares what a whole case sent to other directors: which connections it told of, in which order and how addressed. How they were
/// gathered into datagrams, and when those left, is the kernel's clock's affair (`grouping of connections into datagrams`).
class SyncComparison {
 public:
  /// A frame that is a message of the sync daemon's.
  [[nodiscard]] static bool is_message(std::span<const std::byte> frame);
  void expect(std::span<const std::byte> frame) { take(frame, expected_); }
  void got(std::span<const std::byte> frame) { take(frame, got_); }
  /// Empty: equal.
  [[nodiscard]] std::string compare() const { return compare_lines(expected_, got_); }

 private:
  static void take(std::span<const std::byte> frame, std::vector<std::string>& lines);
  std::vector<std::string> expected_, got_;  // a line for each record
};

/// "ip.ttl": the field that holds the byte at `offset` of a frame.
std::string field_at(std::span<const std::byte> frame, std::size_t offset);

/// Rows of `ipvsadm -Lnc`, blanks squeezed, their expiry apart: equal up to `slack` seconds. Empty: equal.
std::string compare_connections(std::vector<std::string> expected, std::vector<std::string> got, long slack = 1);

/// What a command printed: lines, exactly; but rows of connections in any order, as compare_connections() does. Empty: equal.
std::string compare_output(const std::vector<std::string>& expected, const std::vector<std::string>& got, long slack);

std::vector<std::string> lines_of(std::string_view text);
/// Runs of blanks become one, none at the end.
std::string squeezed(std::string_view line);

}  // namespace director::golden
