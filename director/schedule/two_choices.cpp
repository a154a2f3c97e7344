// twos: two servers drawn by weight, the one with less to do wins: nearly as even as wlc without the herd all looking at the same
// "least". Source: ip_vs_twos.c; Mitzenmacher, "The power of two choices" (1996).
#include "director/core/scheduler.h"
#include "director/schedule/least_loaded.h"

namespace director {
namespace {

class TwoChoices final : public Scheduler {
 public:
  RealServer* pick(ServerList servers, const FlowKey&, Instant) override {
    std::uint64_t sum = 0;
    for (const RealServer* s : servers)
      if (s->usable()) sum += s->config.weight;
    if (sum == 0) return nullptr;
    RealServer* one = draw(servers, sum);
    RealServer* other = draw(servers, sum);
    return other->config.weight * one->overhead() > one->config.weight * other->overhead() ? other : one;
  }

  [[nodiscard]] std::string standing(const RealServer& s) const override { return load_by_weight(s); }

 private:
  RealServer* draw(ServerList servers, std::uint64_t sum) {
    auto left = static_cast<std::int64_t>(next() % (sum + 1));  // 0..sum, both included
    for (RealServer* s : servers) {
      if (!s->usable()) continue;
      left -= s->config.weight;
      if (left <= 0) return s;
    }
    return nullptr;  // never: the weights add up to sum
  }

  std::uint64_t next() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }

  std::uint64_t state_ = 0;
};

}  // namespace

std::unique_ptr<Scheduler> make_two_choices(SchedulerFlags) { return std::make_unique<TwoChoices>(); }

}  // namespace director
