// sh: the client's address decides, through a table of 256 slots that the servers share by weight. The hash is the kernel's, so
// kernel directors beside ours pick the same server. Source: ip_vs_sh.c.
#include <array>

#include "director/core/scheduler.h"
#include "director/schedule/address_hash.h"

namespace director {
namespace {

class SourceHashing final : public Scheduler {
 public:
  explicit SourceHashing(SchedulerFlags flags) : fallback_(flags.flag1), with_port_(flags.flag2) {}

  RealServer* pick(ServerList, const FlowKey& flow, Instant) override {
    const std::size_t slot = *slot_of(flow);
    RealServer* owner = slots_[slot];
    if (owner == nullptr || owner->usable()) return owner;
    if (!fallback_) return nullptr;
    // Once around the table from where the client's slot is shifted by itself, as ip_vs_sh_get_fallback does.
    for (std::size_t offset = 0; offset < kSlots; ++offset) {
      RealServer* other = slots_[((offset + slot) % kSlots + slot) % kSlots];
      if (other->usable()) return other;
    }
    return nullptr;
  }

  /// In list order, each server gets as many slots in a row as its weight, but at least one: one of weight 0 keeps a slot.
  void servers_changed(ServerList servers) override {
    slots_.fill(nullptr);
    if (servers.empty()) return;
    std::size_t at = 0;
    std::uint32_t given = 0;
    for (RealServer*& slot : slots_) {
      slot = servers[at];
      if (++given >= slot->config.weight) {
        at = (at + 1) % servers.size();
        given = 0;
      }
    }
  }

  [[nodiscard]] std::optional<std::size_t> slot_of(const FlowKey& flow) const override {
    return hash_slot(folded(flow.source.address) + (with_port_ ? flow.source.port.host() : 0U));
  }

  [[nodiscard]] std::vector<const RealServer*> slots() const override { return {slots_.begin(), slots_.end()}; }

 private:
  static constexpr std::size_t kSlots = kHashSlots;

  bool fallback_;
  bool with_port_;
  std::array<RealServer*, kSlots> slots_{};
};

}  // namespace

std::unique_ptr<Scheduler> make_source_hashing(SchedulerFlags flags) { return std::make_unique<SourceHashing>(flags); }

}  // namespace director
