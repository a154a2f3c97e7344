// ovf: the server of the highest weight takes connections until it has more active ones than its weight; then the next does.
// UDP connections are never active, so for UDP this is fo. Source: ip_vs_ovf.c.
#include "director/core/scheduler.h"

namespace director {
namespace {

class Overflow final : public Scheduler {
 public:
  RealServer* pick(ServerList servers, const FlowKey&, Instant) override {
    RealServer* highest = nullptr;
    for (RealServer* s : servers) {
      if (!s->usable() || s->active > s->config.weight) continue;
      if (highest == nullptr || s->config.weight > highest->config.weight) highest = s;
    }
    return highest;
  }
};

}  // namespace

std::unique_ptr<Scheduler> make_overflow(SchedulerFlags) { return std::make_unique<Overflow>(); }

}  // namespace director
