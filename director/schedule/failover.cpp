// fo: everything to the usable server of the highest weight; the next one takes over when it goes. Source: ip_vs_fo.c.
#include "director/core/scheduler.h"

namespace director {
namespace {

class Failover final : public Scheduler {
 public:
  RealServer* pick(ServerList servers, const FlowKey&, Instant) override {
    RealServer* highest = nullptr;
    for (RealServer* s : servers)
      if (s->usable() && (highest == nullptr || s->config.weight > highest->config.weight)) highest = s;
    return highest;
  }
};

}  // namespace

std::unique_ptr<Scheduler> make_failover(SchedulerFlags) { return std::make_unique<Failover>(); }

}  // namespace director
