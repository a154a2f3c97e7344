// Replay: a capture case run through the core, without a socket or a device, with the capture's clock.
//
// A capture case is a folder: `rules`, `case.json`, `in.pcap` (pcapng does too) and perhaps `steps.json`. load_case() reads it, Replay feeds the
// core step by step and hands back what the director would have sent. Used by `director replay`, by the golden tests and for
// recordings (recording.h), which need no case. Not a judge: whether the output is right is for those who ask.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

#include "director/base/result.h"
#include "director/core/balancer.h"
#include "director/io/pcap_file.h"
#include "director/journal.h"
#include "director/net/packet.h"

namespace director {

// --- a case ---------------------------------------------------------------------------------------------------------

/// The next frames of in.pcap arrive.
struct FrameStep {
  std::vector<std::size_t> frames;  ///< indexes in CaptureCase::frames
  std::string note;
  bool state_wanted = false;  ///< the capture noted the connection's state after this frame
};
/// A command line, as typed: `ipvsadm -d -t ...`, `ipvsadm -Sn | ipvsadm -R`, `cat /proc/net/ip_vs`.
struct AdminStep {
  std::string command;
};
/// A kernel knob is turned.
struct SysctlStep {
  SetTunable change;
};
/// Nothing arrives for a while: where the captured director sent something meanwhile, until it has been silent for so long.
struct SleepStep {
  Duration duration{};
  bool until_silent = false;
};
/// `ipvsadm -Lnc` or `ipvsadm -Ln`, rows only.
struct ListStep {
  enum class What : std::uint8_t { connections, services };
  What what = What::services;
};
using Step = std::variant<FrameStep, AdminStep, SysctlStep, SleepStep, ListStep>;

struct CaptureCase {
  std::string folder;
  std::string description;
  bool from_kernel = false;   ///< the kernel's IPVS made it: its policy is meant
  std::vector<Change> setup;  ///< network, knobs, time-outs, services, in the order to apply them
  std::vector<CapturedFrame> frames;
  std::vector<std::uint32_t> marks;  ///< of each frame, as it arrives; 0: none
  std::vector<Step> steps;            ///< without steps.json: a FrameStep for every frame
  std::vector<std::string> warnings;  ///< what the case says and a replay can't do
};

/// The error names the file and what was expected in it.
Result<CaptureCase> load_case(const std::string& folder);

// --- running it -----------------------------------------------------------------------------------------------------

class Replay {
 public:
  /// What came of a step.
  struct Outcome {
    std::vector<CapturedFrame> sent;  ///< in order, with the time of what caused them
    std::string text;                 ///< an admin or list step's output, refusals behind it
    int exit_code = 0;                ///< an admin step's
    std::optional<Verdict> verdict = {};  ///< of the frame that was received, with receive()
  };

  explicit Replay(const CaptureCase& capture, Policy policy);
  /// Of a recording: nothing is known but what it tells, call by call. `epoch`: its time at Instant 0.
  Replay(const Balancer::Options& options, Duration epoch);

  /// Applies the case's setup. The error says which change was refused and why.
  Result<void> start();
  Outcome run(const Step& step);
  /// A recording's calls, at their own time.
  Outcome run(const Call& call);
  Outcome receive(const CapturedFrame& frame);

  /// What ipvsadm would print now: `words` are those behind the program's name.
  Outcome command(std::span<const std::string> words) { return command("ipvsadm", words, {}); }
  /// Whether an admin step's command line means something here.
  [[nodiscard]] static bool knows(std::string_view command_line);
  [[nodiscard]] Balancer& balancer() { return balancer_; }
  [[nodiscard]] Instant now() const { return now_; }
  /// The same as the capture counts it.
  [[nodiscard]] Duration time() const { return now_.time_since_epoch() + epoch_; }
  /// `client:port -> real server` of every new flow so far, `-` for none; where the case noted states, `note state timeout`.
  [[nodiscard]] const std::vector<std::string>& decisions() const { return decisions_; }

 private:
  Outcome type(std::string_view command_line);
  Outcome type_one(std::string_view command_line, const std::string& input);
  Outcome command(std::string_view program, std::span<const std::string> words, const std::string& input);
  void advance_to(Instant time, Outcome& outcome);
  void receive(const FrameStep& step, const CapturedFrame& captured, DeviceId ingress, std::uint32_t mark, Outcome& outcome);
  void collect(Outcome& outcome);
  void note_decision(const PacketView& view, std::uint32_t mark);
  void note_state(const FrameStep& step, const PacketView& view);

  const CaptureCase* capture_ = nullptr;  // none: a recording
  Balancer balancer_;
  Duration epoch_;
  Instant now_{};
  std::vector<std::byte> buffer_;
  std::vector<std::string> decisions_;
  std::set<std::tuple<Endpoint, Endpoint, Protocol>> decided_;  // flows that have their line
  bool states_wanted_ = false;                                  // decisions() says states instead
};

}  // namespace director
