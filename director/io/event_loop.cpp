// The loop, in the order a wake-up goes through it.
#include "director/io/event_loop.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>

#include "director/io/clock.h"
#include "director/io/recorder.h"

namespace director {
namespace {

int checked(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

}  // namespace

EventLoop::EventLoop(Balancer& balancer, std::span<const std::unique_ptr<Device>> devices, Recorder* recorder)
    : balancer_(balancer),
      devices_(devices),
      recorder_(recorder),
      epoll_(checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      timer_(checked(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create")),
      to_send_(devices.size()) {
  statistics_.devices.resize(devices.size());
  add(timer_.get(), {EventKind::timer, 0});
  for (std::uint32_t i = 0; i < devices_.size(); ++i) add(devices_[i]->descriptor(), {EventKind::device, i});
}

void EventLoop::add(int descriptor, EventRef ref) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = std::bit_cast<std::uint64_t>(ref);
  checked(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event), "epoll_ctl");
}

void EventLoop::watch(int descriptor, Handler ready) {
  add(descriptor, {EventKind::part, static_cast<std::uint32_t>(parts_.size())});
  parts_.push_back(std::move(ready));
}

void EventLoop::on_signal(int signal, Handler caught) {
  signal_handlers_.emplace_back(signal, std::move(caught));
  sigset_t set;
  sigemptyset(&set);
  for (const auto& [number, handler] : signal_handlers_) sigaddset(&set, number);
  checked(sigprocmask(SIG_BLOCK, &set, nullptr), "sigprocmask");
  const bool first = !signals_;
  const int fd = checked(signalfd(signals_.get(), &set, SFD_NONBLOCK | SFD_CLOEXEC), "signalfd");
  if (!first) return;  // the same descriptor, with one more signal
  signals_ = UniqueFd{fd};
  add(fd, {EventKind::signal, 0});
}

void EventLoop::run() {
  while (!stopped_) run_once();
}

void EventLoop::run_once() {
  arm_timer();
  std::array<epoll_event, 64> events;
  const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
  if (count < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "epoll_wait");
  const Instant now = clock::now();

  for (int i = 0; i < count; ++i) {
    const auto ref = std::bit_cast<EventRef>(std::uint64_t{events[static_cast<std::size_t>(i)].data.u64});
    switch (ref.kind) {
      case EventKind::device:
        serve_device(ref.index, now);
        break;
      case EventKind::part:
        parts_[ref.index](now);
        break;
      case EventKind::signal:
        serve_signals(now);
        break;
      case EventKind::timer:
        timer_rang();
        break;
    }
    note_outbox(now);  // what a change made the core send leaves before the answer to a frame that came later
  }
  if (balancer_.next_deadline() <= now) balancer_.expire(now);
  for (const Handler& settled : settled_) settled(now);
  flush(now);
  statistics_.turns.observe(static_cast<std::uint64_t>((clock::now() - now).count()));
}

/// One timer for every deadline. It is set again only for an earlier one: connections put theirs off with
/// every packet, and a timer that comes too early costs one empty wake-up instead of a system call per batch.
void EventLoop::arm_timer() {
  Instant next = balancer_.next_deadline();
  for (const auto& deadline : deadlines_) next = std::min(next, deadline());
  if (next >= armed_) return;
  armed_ = next;
  const auto since_boot = std::max(next.time_since_epoch(), Duration{1});  // 0 would disarm
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since_boot);
  itimerspec when{};
  when.it_value = {seconds.count(), (since_boot - seconds).count()};
  checked(timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr), "timerfd_settime");
}

/// What was due is done at the end of the wake-up.
void EventLoop::timer_rang() {
  std::uint64_t times = 0;
  if (read(timer_.get(), &times, sizeof times) == static_cast<ssize_t>(sizeof times)) armed_ = kNever;
}

void EventLoop::serve_signals(Instant now) {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    for (const auto& [signal, handler] : signal_handlers_)
      if (static_cast<std::uint32_t>(signal) == info.ssi_signo) handler(now);
  }
}

// --- frames
// -----------------------------------------------------------------------------------------------------------

void EventLoop::serve_device(std::uint32_t index, Instant now) {
  batch_.clear();
  devices_[index]->receive(batch_);
  if (const std::size_t frames = batch_.frames().size(); frames != 0) statistics_.devices[index].received.observe(frames);
  const auto seen = balancer_.look_ahead(batch_.frames());
  for (std::size_t i = 0; i < seen.size(); ++i) {
    Frame& frame = batch_.frames()[i];
    if (recorder_ != nullptr) recorder_->received(frame, now);
    const Verdict verdict = balancer_.process(frame, seen[i], now);
    if (recorder_ != nullptr) recorder_->decided(verdict);
    if (verdict.action == Action::transmit) note(frame, verdict.egress, verdict.reason, now);
    note_outbox(now);
  }
  transmit_noted();
}

void EventLoop::flush(Instant now) {
  note_outbox(now);
  transmit_noted();
}

void EventLoop::note(Frame& frame, DeviceId egress, Reason reason, Instant now) {
  if (recorder_ != nullptr) recorder_->sent(frame, egress, reason, now);
  to_send_[egress.index].push_back(&frame);
}

void EventLoop::note_outbox(Instant now) {
  Outbox& outbox = balancer_.outbox();
  for (; noted_ < outbox.size(); ++noted_)
    if (Outbox::Entry& made = outbox[noted_]; made.egress) note(made.frame, made.egress, Reason::none, now);
}

void EventLoop::transmit_noted() {
  for (std::size_t i = 0; i < to_send_.size(); ++i) {
    if (to_send_[i].empty()) continue;
    devices_[i]->transmit(to_send_[i]);
    statistics_.devices[i].sent.observe(to_send_[i].size());
    to_send_[i].clear();
  }
  balancer_.outbox().clear();
  noted_ = 0;
}

}  // namespace director
