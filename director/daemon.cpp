// The parts of the director, in the order they need each other.
#include "director/daemon.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <csignal>

#include "director/base/startup_error.h"
#include "director/command.h"
#include "director/io/clock.h"
#include "director/log.h"
#include "director/plan.h"
#include "director/privileges.h"
#include "director/report.h"
#include "director/rules_file.h"

namespace director {
namespace {

Balancer::Options core_options(const Config& config) {
  Balancer::Options options;
  options.policy = config.policy;
  if (getrandom(&options.seed, sizeof options.seed, 0) != static_cast<ssize_t>(sizeof options.seed))
    throw StartupError(ExitCode::failed,
                       "the kernel gives no random numbers (getrandom), which hashes need as a secret");
  return options;
}

}  // namespace

Daemon::Daemon(const Config& config)
    : config_(config),
      balancer_(core_options(config)),
      control_(config.control, [this](std::string_view request, Instant now) {
        return serve_command(request, balancer_, now);
      }) {
  open_devices();
  loop_.emplace(balancer_, devices_, recorder_ ? &*recorder_ : nullptr);
  for (const SetTunable& knob : config_.tunables) tell(knob, clock::now());
  follow_network();
  // All of the rules or none of them, and the guard is up before the first announcement leaves.
  const auto rules = plan_first_rules(balancer_, config_.rules);
  if (const auto done = apply_all(balancer_, rules, clock::now()); !done)
    throw StartupError(ExitCode::configuration, done.error().message);
  guard_host();
  listen_to_vsadm();
  loop_->on_settled([this](Instant) { guard_host(); });
  if (recorder_) loop_->on_settled([this](Instant) { recorder_->flush(); });
  catch_signals();
  drop_privileges();
}

void Daemon::run() {
  report_start(config_.devices, devices_, balancer_);
  loop_->flush(clock::now());
  loop_->run();
  report_stop(balancer_);
}

/// Facts about the network and knobs that were checked before aren't refused.
void Daemon::tell(const Change& change, Instant now) {
  (void)balancer_.apply(change, now);
}

void Daemon::open_devices() {
  std::vector<std::string> names;
  for (const DeviceSpec& spec : config_.devices) {
    const DeviceId id{static_cast<std::uint32_t>(devices_.size())};
    devices_.push_back(make_device(spec, {id, &balancer_.counters()}));
    names.push_back(spec.name);
    const auto facts = devices_.back()->configuration();
    for (const Change& fact : facts) tell(fact, clock::now());
    if (facts.empty()) watched_.push_back({id, spec.interface});
    for (Route& route : devices_.back()->routes()) routes_.push_back(std::move(route));
  }
  tell(SetRoutes{routes_}, clock::now());
  if (!config_.pcap.empty()) recorder_.emplace(config_.pcap, names);
}

/// Packet devices belong to a kernel: it knows the network, and it must be kept from answering for us.
void Daemon::follow_network() {
  if (watched_.empty()) return;
  if (config_.guard == Guard::on) {
    std::vector<std::string> interfaces;
    for (const Netlink::Watched& w : watched_) interfaces.push_back(w.interface);
    guard_.emplace(interfaces);
  }
  netlink_.emplace(
      watched_, routes_, [this](const Change& fact, Instant now) { tell(fact, now); },
      [this](DeviceId id, unsigned index, bool up) {
        devices_[id.index]->link_changed(index, up);
        if (guard_) guard_->link_changed(config_.devices[id.index].interface, index);
      });
  netlink_->start(clock::now());
  loop_->watch(netlink_->descriptor(), [this](Instant now) { netlink_->ready(now); });
  loop_->wake_at([this] { return netlink_->next_deadline(); });
  loop_->on_settled([this](Instant now) { netlink_->due(now); });
}

/// Follows the services and the host's addresses.
void Daemon::guard_host() {
  if (!guard_) return;
  const std::pair seen{balancer_.generation(), netlink_->generation()};
  if (guarded_ == seen) return;
  guarded_ = seen;
  if (const auto done = guard_->apply(plan_guard(balancer_.services(), netlink_->host_addresses())); !done)
    log::error("the host's own stack may interfere", {{"reason", done.error().message}});
}

void Daemon::listen_to_vsadm() {
  loop_->watch(control_.descriptor(), [this](Instant now) { control_.ready(now); });
  loop_->wake_at([this] { return control_.next_deadline(); });
  loop_->on_settled([this](Instant now) { control_.due(now); });
}

void Daemon::catch_signals() {
  loop_->on_signal(SIGHUP, [this](Instant now) { reload_rules_file(balancer_, config_.rules, now); });
  for (const int signal : {SIGTERM, SIGINT}) loop_->on_signal(signal, [this](Instant) { loop_->stop(); });
  std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace director
