// none: picks nobody. Connections come only from persistence or from another director (ip_vs_ctl.c, scheduler "none").
#include "director/core/scheduler.h"

namespace director {
namespace {

class Nobody final : public Scheduler {
 public:
  RealServer* pick(ServerList, const FlowKey&, Instant) override { return nullptr; }
};

}  // namespace

std::unique_ptr<Scheduler> make_nobody(SchedulerFlags) { return std::make_unique<Nobody>(); }

}  // namespace director
