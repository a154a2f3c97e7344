// rr: one after the other. Source: ip_vs_rr.c.
#include "director/core/scheduler.h"

namespace director {
namespace {

class RoundRobin final : public Scheduler {
 public:
  RealServer* pick(ServerList servers, const FlowKey&, Instant) override {
    const std::size_t n = servers.size();
    const std::size_t start = next_to_look_at(servers);
    for (std::size_t step = 0; step < n; ++step) {
      RealServer* server = servers[(start + step) % n];
      if (!server->usable()) continue;
      last_ = server;
      return server;
    }
    return nullptr;
  }

  /// The cursor steps back, so that the successor's turn isn't lost.
  void server_leaving(ServerList servers, std::size_t position) override {
    if (servers[position] == last_) last_ = position == 0 ? nullptr : servers[position - 1];
  }

 private:
  std::size_t next_to_look_at(ServerList servers) const {
    for (std::size_t i = 0; i < servers.size(); ++i)
      if (servers[i] == last_) return i + 1;
    return 0;
  }

  const RealServer* last_ = nullptr;  // nullptr: before the first
};

}  // namespace

std::unique_ptr<Scheduler> make_round_robin(SchedulerFlags) { return std::make_unique<RoundRobin>(); }

}  // namespace director
