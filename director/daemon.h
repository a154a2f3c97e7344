// Daemon: the director of one configuration. Builds the parts and joins them; knows all of them, decides nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "director/control/command_socket.h"
#include "director/control/kernel_guard.h"
#include "director/control/kernel_path.h"
#include "director/control/netlink.h"
#include "director/core/balancer.h"
#include "director/events.h"
#include "director/http/server.h"
#include "director/http/site.h"
#include "director/io/device.h"
#include "director/io/event_loop.h"
#include "director/io/multicast.h"
#include "director/io/recorder.h"
#include "director/options.h"
#include "director/proc_mirror.h"

namespace director {

class Daemon {
 public:
  /// Opens everything and gives up the privileges that aren't needed any more. Throws StartupError.
  /// REQUIRES: the configuration outlives the daemon.
  explicit Daemon(const Config& config);
  /// Until SIGTERM or SIGINT.
  void run();

 private:
  void tell(const Change& change, Instant now);
  void start_recording();
  void open_devices();
  void follow_network();
  void guard_host();
  void listen_to_neighbours();
  void open_kernel_path();
  KernelPath::Tell carried(Instant now);
  void collect_carried(Instant now);
  void listen_to_vsadm();
  void mirror_proc();
  void listen_to_http();
  void serve_http();
  void join_sync_group();
  void catch_signals();

  const Config& config_;
  Balancer balancer_;
  Watch watch_;
  CommandSocket control_;  // before the devices: a second director must be refused before it touches any
  std::optional<HttpServer> http_;  // likewise
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<Netlink::Watched> watched_;  // devices whose facts the kernel tells
  std::vector<Route> routes_;              // of the others
  std::optional<Recorder> recorder_;
  std::optional<EventLoop> loop_;
  std::optional<KernelGuard> guard_;
  std::optional<Netlink> netlink_;
  std::optional<ProcMirror> mirror_;
  std::optional<Site> site_;
  std::optional<MulticastMembership> sync_group_;  // while the backup sync daemon runs
  std::optional<std::uint64_t> joined_;             // the balancer's generation then
  std::unique_ptr<KernelPath> kernel_path_;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> guarded_;  // generations the guard knows
  std::optional<std::uint64_t> listening_;          // the generation whose groups the devices listen to
};

}  // namespace director
