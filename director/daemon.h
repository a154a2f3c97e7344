// Daemon: the director of one configuration. Builds the parts and joins them; knows all of them, decides nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "director/control/command_socket.h"
#include "director/control/kernel_guard.h"
#include "director/control/netlink.h"
#include "director/core/balancer.h"
#include "director/io/device.h"
#include "director/io/event_loop.h"
#include "director/io/recorder.h"
#include "director/options.h"

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
  void open_devices();
  void follow_network();
  void guard_host();
  void listen_to_vsadm();
  void catch_signals();

  const Config& config_;
  Balancer balancer_;
  CommandSocket control_;  // before the devices: a second director must be refused before it touches any
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<Netlink::Watched> watched_;  // devices whose facts the kernel tells
  std::vector<Route> routes_;              // of the others
  std::optional<Recorder> recorder_;
  std::optional<EventLoop> loop_;
  std::optional<KernelGuard> guard_;
  std::optional<Netlink> netlink_;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> guarded_;  // generations the guard knows
};

}  // namespace director
