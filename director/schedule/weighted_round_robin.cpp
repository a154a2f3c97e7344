// wrr: rounds at falling levels. At level L everyone whose weight is at least L gets a turn; then the level falls by the weights'
// greatest common divisor, from the greatest weight down, and starts again. So 3:1 gives A A A B. Source: ip_vs_wrr.c.
#include <algorithm>
#include <numeric>

#include "director/core/scheduler.h"

namespace director {
namespace {

class WeightedRoundRobin final : public Scheduler {
 public:
  RealServer* pick(ServerList servers, const FlowKey&, Instant) override {
    if (std::none_of(servers.begin(), servers.end(), [](const RealServer* s) { return s->usable(); })) return nullptr;
    for (;;) {  // ends: some server is usable, and the level comes down to 1 sooner or later
      for (; position_ < servers.size(); ++position_) {
        RealServer* server = servers[position_];
        if (server->usable() && server->config.weight >= level_) {
          ++position_;
          return server;
        }
      }
      position_ = 0;
      level_ = level_ > step_ ? level_ - step_ : top_;
    }
  }

  void servers_changed(ServerList servers) override {
    std::uint32_t divisor = 0;
    std::uint32_t most = 0;
    for (const RealServer* s : servers) {
      divisor = std::gcd(divisor, s->config.weight);
      most = std::max(most, s->config.weight);
    }
    position_ = 0;
    step_ = std::max(divisor, 1U);
    top_ = most >= step_ ? most - (step_ - 1) : 0;  // the lowest number the same servers reach as with `most`
    if (level_ > top_ || level_ == 0)
      level_ = top_;
    else if (step_ > 1)
      level_ = level_ / step_ * step_ + 1;
  }

 private:
  std::size_t position_ = 0;  // in the list: the next to look at
  std::uint32_t level_ = 0;
  std::uint32_t step_ = 1;
  std::uint32_t top_ = 0;
};

}  // namespace

std::unique_ptr<Scheduler> make_weighted_round_robin(SchedulerFlags) { return std::make_unique<WeightedRoundRobin>(); }

}  // namespace director
