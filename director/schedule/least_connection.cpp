// lc and wlc: the server with the least to do, counting an active connection as 256 inactive ones; wlc divides by the weight.
// Ties go to the first in the list. Source: ip_vs_lc.c, ip_vs_wlc.c.
#include "director/core/scheduler.h"
#include "director/schedule/least_loaded.h"

namespace director {
namespace {

class LeastConnection final : public Scheduler {
 public:
  RealServer* pick(ServerList servers, const FlowKey&, Instant) override {
    RealServer* least = nullptr;
    for (RealServer* s : servers)
      if (s->usable() && (least == nullptr || s->overhead() < least->overhead())) least = s;
    return least;
  }

  [[nodiscard]] std::string standing(const RealServer& s) const override { return fmt::format("{}", s.overhead()); }
};

class WeightedLeastConnection final : public Scheduler {
 public:
  RealServer* pick(ServerList servers, const FlowKey&, Instant) override {
    return least_loaded(servers);
  }

  [[nodiscard]] std::string standing(const RealServer& s) const override { return load_by_weight(s); }
};

}  // namespace

std::unique_ptr<Scheduler> make_least_connection(SchedulerFlags) { return std::make_unique<LeastConnection>(); }
std::unique_ptr<Scheduler> make_weighted_least_connection(SchedulerFlags) {
  return std::make_unique<WeightedLeastConnection>();
}

}  // namespace director
