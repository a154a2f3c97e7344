// The parts of the director, in the order they need each other.
#include "director/daemon.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <csignal>

#include "director/base/startup_error.h"
#include "director/command.h"
#include "director/io/clock.h"
#include "director/journal.h"
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
      watch_(balancer_),
      control_(config.control, [this](std::string_view request, const CommandSocket::Peer& peer, Instant now) {
        collect_carried(now);  // counters are asked for
        std::vector<Change> done;
        std::string answer = serve_command(request, balancer_, now, &done);
        report_changes(done, {{"by", "vsadm"}, {"user", peer.user}, {"process", peer.process}});
        return answer;
      }) {
  listen_to_http();
  start_recording();
  open_devices();
  loop_.emplace(balancer_, devices_, recorder_ ? &*recorder_ : nullptr);
  for (const SetTunable& knob : config_.tunables) tell(knob, clock::now());
  open_kernel_path();
  follow_network();
  // All of the rules or none of them, and the guard is up before the first announcement leaves.
  const auto rules = plan_first_rules(balancer_, config_.rules);
  if (const auto done = apply_all(balancer_, rules, clock::now()); !done)
    throw StartupError(ExitCode::configuration, done.error().message);
  guard_host();
  listen_to_neighbours();
  listen_to_vsadm();
  mirror_proc();
  serve_http();
  loop_->on_settled([this](Instant) { join_sync_group(); });
  loop_->on_settled([this](Instant) { guard_host(); });
  loop_->on_settled([this](Instant) { listen_to_neighbours(); });
  if (recorder_) loop_->on_settled([this](Instant) { recorder_->flush(); });
  loop_->wake_at([this] { return watch_.next_deadline(); });
  loop_->on_settled([this](Instant now) {
    for (const Event& event : watch_.due(now)) report(event);
  });
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

/// Before the core is told anything: a replay begins where it began.
void Daemon::start_recording() {
  if (config_.pcap.empty()) return;
  Beginning beginning{DIRECTOR_VERSION, {}, {}, balancer_.options()};
  for (const DeviceSpec& spec : config_.devices) beginning.devices.push_back(spec.name);
  recorder_.emplace(config_.pcap, beginning.devices);
  beginning.wall_offset = recorder_->wall_offset();
  recorder_->note(journal_line(beginning));
  balancer_.listen([this](const Change* change, Instant now) { recorder_->note(journal_line(change, now)); });
}

void Daemon::open_devices() {
  for (const DeviceSpec& spec : config_.devices) {
    const DeviceId id{static_cast<std::uint32_t>(devices_.size())};
    devices_.push_back(make_device(spec, {id, &balancer_.counters()}));
    const auto facts = devices_.back()->configuration();
    for (const Change& fact : facts) tell(fact, clock::now());
    if (facts.empty()) watched_.push_back({id, spec.interface});
    for (Route& route : devices_.back()->routes()) routes_.push_back(std::move(route));
  }
  tell(SetRoutes{routes_}, clock::now());
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
        if (kernel_path_) kernel_path_->link_changed(id, up ? index : 0, KernelPath::Entry::interface);
        if (guard_) guard_->link_changed(config_.devices[id.index].interface, index);
      });
  netlink_->start(clock::now());
  loop_->watch(netlink_->descriptor(), [this](Instant now) { netlink_->ready(now); });
  loop_->wake_at([this] { return netlink_->next_deadline(); });
  loop_->on_settled([this](Instant now) { netlink_->due(now); });
}

/// A recording wants every frame, so it and shortcuts exclude each other.
void Daemon::open_kernel_path() {
  if (config_.accelerate == Accelerate::off || recorder_) return;
  auto opened = KernelPath::open();
  if (!opened) {
    log::info("big flows walk through the director", {{"reason", opened.error().message}});
    return;
  }
  kernel_path_ = std::move(*opened);
  for (const Netlink::Watched& w : watched_)
    if (!devices_[w.device.index]->filter(kernel_path_->socket_filter())) {
      kernel_path_.reset();  // it would forward everything twice
      return;
    }
  balancer_.offer_shortcuts();
  loop_->on_settled([this](Instant now) {
    for (std::uint32_t i = 0; i < devices_.size(); ++i)
      if (const unsigned index = devices_[i]->own_interface(); index != 0)
        kernel_path_->link_changed(DeviceId{i}, index, KernelPath::Entry::tap);
    if (!balancer_.shortcut_news().empty())  // taken out first: what is told may be news again
      kernel_path_->follow(std::exchange(balancer_.shortcut_news(), {}), carried(now));
    if (kernel_path_->next_deadline() <= now) kernel_path_->collect(now, carried(now));
  });
  loop_->wake_at([this] { return kernel_path_->next_deadline(); });
}

/// What hears of carried packets.
KernelPath::Tell Daemon::carried(Instant now) {
  return [this, now](const Carried& c) { tell(c, now); };
}

void Daemon::collect_carried(Instant now) {
  if (kernel_path_) kernel_path_->collect_all(now, carried(now));
}

/// Follows the services and the host's addresses.
void Daemon::guard_host() {
  if (!guard_) return;
  const std::pair seen{balancer_.generation(), netlink_->generation()};
  if (guarded_ == seen) return;
  guarded_ = seen;
  if (const auto done = guard_->apply(plan_guard(balancer_.services(), balancer_.classes(), netlink_->host_addresses())); !done)
    log::error("the host's own stack may interfere", {{"reason", done.error().message}});
}

/// Follows the services: solicitations for IPv6 virtual addresses shall get through the network cards.
void Daemon::listen_to_neighbours() {
  if (listening_ == balancer_.generation()) return;
  listening_ = balancer_.generation();
  std::vector<MacAddress> groups;
  for (const IpAddress& vip : balancer_.virtual_addresses())
    if (!vip.is_v4()) groups.push_back(group_mac(solicited_node(vip)));
  if (!groups.empty()) groups.push_back(group_mac(kAllNodes));  // news of neighbours, queries for listeners
  std::ranges::sort(groups);
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
  for (const auto& device : devices_) device->listen_to(groups);
}

void Daemon::listen_to_vsadm() {
  loop_->watch(control_.descriptor(), [this](Instant now) { control_.ready(now); });
  loop_->wake_at([this] { return control_.next_deadline(); });
  loop_->on_settled([this](Instant now) { control_.due(now); });
}

void Daemon::mirror_proc() {
  if (config_.proc_dir.empty()) return;
  mirror_.emplace(config_.proc_dir, balancer_, clock::now());
  loop_->wake_at([this] { return mirror_->next_deadline(); });
  loop_->on_settled([this](Instant now) { mirror_->due(now); });
}

void Daemon::listen_to_http() {
  if (!config_.http) return;
  http_.emplace(*config_.http, [this](const HttpRequest& request, Instant now) {
    collect_carried(now);  // counters are asked for
    return site_->answer(request, now);
  });
}

void Daemon::serve_http() {
  if (!http_) return;
  site_.emplace(balancer_, loop_->statistics(), DIRECTOR_VERSION, clock::now());
  loop_->watch(http_->descriptor(), [this](Instant now) { http_->ready(now); });
  loop_->wake_at([this] { return std::min(http_->next_deadline(), site_->next_deadline()); });
  loop_->on_settled([this](Instant now) {
    http_->due(now);
    site_->due(now);
  });
  log::info("http", {{"url", fmt::format("http://{}/", format_as(*config_.http))}});
}

/// A backup's group on a host's interface: the host joins it, so that the frames come at all. A tap has no filter to be opened.
void Daemon::join_sync_group() {
  if (joined_ == balancer_.generation()) return;
  joined_ = balancer_.generation();
  const auto& backup = balancer_.sync_daemon(SyncRole::backup);
  const bool filtered = backup && std::ranges::any_of(watched_, [&](const Netlink::Watched& w) { return w.device == backup->device; });
  if (!filtered) return sync_group_.reset();
  if (sync_group_) return;
  auto joined = MulticastMembership::join(backup->settings.interface, *backup->settings.group);
  if (joined)
    sync_group_ = std::move(*joined);
  else
    log::error("messages of other directors may not arrive", {{"reason", joined.error().message}});
}

void Daemon::catch_signals() {
  loop_->on_signal(SIGHUP, [this](Instant now) { reload_rules_file(balancer_, config_.rules, now); });
  for (const int signal : {SIGTERM, SIGINT}) loop_->on_signal(signal, [this](Instant) { loop_->stop(); });
  std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace director
