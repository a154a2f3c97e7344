// sed and nq: the server that would be done soonest, (active + 1) / weight; nq takes an idle one at once, so that nobody waits in
// a queue while somebody is idle. Source: ip_vs_sed.c, ip_vs_nq.c.
#include <fmt/format.h>

#include "director/core/scheduler.h"

namespace director {
namespace {

enum class Idle { wait_their_turn, come_first };

class ShortestExpectedDelay final : public Scheduler {
 public:
  explicit ShortestExpectedDelay(Idle idle) : idle_(idle) {}

  RealServer* pick(ServerList servers, const FlowKey&, Instant) override {
    RealServer* soonest = nullptr;
    for (RealServer* s : servers) {
      if (!s->usable()) continue;
      if (idle_ == Idle::come_first && s->active == 0) return s;
      if (soonest == nullptr || after(*soonest) * s->config.weight > after(*s) * soonest->config.weight) soonest = s;
    }
    return soonest;
  }

  [[nodiscard]] std::string standing(const RealServer& s) const override { return fmt::format("{}/{}", after(s), s.config.weight); }

 private:
  static std::uint64_t after(const RealServer& s) { return std::uint64_t{s.active} + 1; }

  Idle idle_;
};

}  // namespace

std::unique_ptr<Scheduler> make_shortest_expected_delay(SchedulerFlags) {
  return std::make_unique<ShortestExpectedDelay>(Idle::wait_their_turn);
}
std::unique_ptr<Scheduler> make_never_queue(SchedulerFlags) {
  return std::make_unique<ShortestExpectedDelay>(Idle::come_first);
}

}  // namespace director
