// dh: the destination address decides, through a table of 256 slots dealt out in turn, weights ignored. For caches behind a class
// service: each site's traffic stays with one cache. Source: ip_vs_dh.c.
#include <array>

#include "director/core/scheduler.h"
#include "director/schedule/address_hash.h"

namespace director {
namespace {

class DestinationHashing final : public Scheduler {
 public:
  RealServer* pick(ServerList, const FlowKey& flow, Instant) override {
    RealServer* owner = slots_[*slot_of(flow)];
    return owner != nullptr && owner->usable() ? owner : nullptr;
  }

  void servers_changed(ServerList servers) override {
    slots_.fill(nullptr);
    if (servers.empty()) return;
    for (std::size_t i = 0; i < kHashSlots; ++i) slots_[i] = servers[i % servers.size()];
  }

  [[nodiscard]] std::optional<std::size_t> slot_of(const FlowKey& flow) const override {
    return hash_slot(folded(flow.target.address));
  }

  [[nodiscard]] std::vector<const RealServer*> slots() const override { return {slots_.begin(), slots_.end()}; }

 private:
  std::array<RealServer*, kHashSlots> slots_{};
};

}  // namespace

std::unique_ptr<Scheduler> make_destination_hashing(SchedulerFlags) { return std::make_unique<DestinationHashing>(); }

}  // namespace director
