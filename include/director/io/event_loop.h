// EventLoop: one epoll, one thread. Carries frames between devices and the core and wakes the parts that
// wait.
//
// Decides nothing: a frame's fate is the core's Verdict. The clock is read once per wake-up (and once at its end, for
// the statistics). Sleeps until a
// descriptor is ready or the earliest deadline comes; an idle director does not wake at all.
//
// The way of a batch: receive up to 64 frames of one device, process each, note each for its egress device in
// order (frames the core made go right behind the frame that caused them, so that no flow is reordered), one
// transmit per egress.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "director/core/balancer.h"
#include "director/io/device.h"
#include "director/io/loop_statistics.h"
#include "director/io/unique_fd.h"

namespace director {

class Recorder;

class EventLoop {
 public:
  using Handler = std::function<void(Instant)>;

  /// REQUIRES: all outlive the loop; a device's DeviceId is its index. `recorder` may be nullptr.
  EventLoop(Balancer& balancer, std::span<const std::unique_ptr<Device>> devices, Recorder* recorder);

  /// Calls `ready` whenever `descriptor` is readable. For the control parts, each of which has one
  /// descriptor.
  void watch(int descriptor, Handler ready);
  /// Calls `caught` for this signal from now on, instead of what it would do.
  void on_signal(int signal, Handler caught);
  /// Calls `settled` at the end of every wake-up, when all that was ready has been dealt with.
  void on_settled(Handler settled) { settled_.push_back(std::move(settled)); }
  /// Asks for a wake-up (and so for on_settled) at the time `deadline` says; kNever is none.
  void wake_at(std::function<Instant()> deadline) { deadlines_.push_back(std::move(deadline)); }

  /// Until stop().
  void run();
  /// Waits once and deals with what is ready.
  void run_once();
  void stop() { stopped_ = true; }
  /// Transmits what the core made outside of a batch: after changes applied before the loop runs.
  void flush(Instant now);

  [[nodiscard]] const LoopStatistics& statistics() const { return statistics_; }

 private:
  /// What an epoll event belongs to.
  enum class EventKind : std::uint32_t { device, part, signal, timer };
  struct EventRef {
    EventKind kind;
    std::uint32_t index;
  };

  void add(int descriptor, EventRef ref);
  void serve_device(std::uint32_t index, Instant now);
  void serve_signals(Instant now);
  void note(Frame& frame, DeviceId egress, Reason reason, Instant now);
  void note_outbox(Instant now);
  void transmit_noted();
  void arm_timer();
  void timer_rang();

  Balancer& balancer_;
  std::span<const std::unique_ptr<Device>> devices_;
  Recorder* recorder_;
  UniqueFd epoll_;
  UniqueFd timer_;
  UniqueFd signals_;
  std::vector<Handler> parts_;
  std::vector<std::pair<int, Handler>> signal_handlers_;
  std::vector<Handler> settled_;
  std::vector<std::function<Instant()>> deadlines_;
  FrameBatch batch_;
  std::vector<std::vector<Frame*>> to_send_;  // by egress device
  std::size_t noted_ = 0;                     // entries of the outbox already in to_send_
  Instant armed_ = kNever;
  LoopStatistics statistics_;
  bool stopped_ = false;
};

}  // namespace director
