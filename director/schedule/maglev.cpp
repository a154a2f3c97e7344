// mh: Maglev hashing. Each server has its own permutation of 4093 slots and in its turn takes the next free one, as many at a time
// as its weight says; so shares are exact to a slot, and when a server goes few others move. The kernel's hash and keys: kernel
// directors beside ours pick the same server.
// Source: ip_vs_mh.c; linux/siphash.h (hsiphash on 64-bit machines is SipHash-1-3); Eisenbud et al., "Maglev" (NSDI 2016).
#include <bit>
#include <numeric>
#include <vector>

#include "director/core/scheduler.h"
#include "director/schedule/address_hash.h"

namespace director {
namespace {

constexpr std::uint32_t kTable = 4093;     // a prime, IP_VS_MH_TAB_SIZE for the default index 12
constexpr int kWeightBits = 6;             // IP_VS_MH_TAB_BITS
constexpr std::uint64_t kFirstKey = 2654435761U;   // generate_hash_secret: both halves of each key are alike
constexpr std::uint64_t kSecondKey = 2654446892U;

/// SipHash-1-3 of one 32-bit word (siphash.c, hsiphash_1u32).
std::uint32_t hsiphash(std::uint32_t word, std::uint64_t key) {
  std::uint64_t v0 = 0x736f6d6570736575U ^ key;
  std::uint64_t v1 = 0x646f72616e646f6dU ^ key;
  std::uint64_t v2 = 0x6c7967656e657261U ^ key;
  std::uint64_t v3 = 0x7465646279746573U ^ key;
  const auto round = [&] {
    v0 += v1; v1 = std::rotl(v1, 13); v1 ^= v0; v0 = std::rotl(v0, 32);
    v2 += v3; v3 = std::rotl(v3, 16); v3 ^= v2;
    v0 += v3; v3 = std::rotl(v3, 21); v3 ^= v0;
    v2 += v1; v1 = std::rotl(v1, 17); v1 ^= v2; v2 = std::rotl(v2, 32);
  };
  const std::uint64_t block = (std::uint64_t{4} << 56U) | word;
  v3 ^= block;
  round();
  v0 ^= block;
  v2 ^= 0xff;
  round();
  round();
  round();
  return static_cast<std::uint32_t>(v0 ^ v1 ^ v2 ^ v3);
}

std::uint32_t hash(const Endpoint& who, std::uint64_t key, std::uint32_t offset = 0) {
  return hsiphash(offset + who.port.host() + folded(who.address), key);
}

class Maglev final : public Scheduler {
 public:
  explicit Maglev(SchedulerFlags flags) : fallback_(flags.flag1), with_port_(flags.flag2) {}

  RealServer* pick(ServerList, const FlowKey& flow, Instant) override {
    if (table_.empty()) return nullptr;
    const Endpoint client = key_of(flow);
    const auto slot = static_cast<std::uint32_t>(*slot_of(flow));
    if (table_[slot]->usable()) return table_[slot];
    if (!fallback_) return nullptr;
    for (std::uint32_t offset = 0; offset < kTable; ++offset) {
      RealServer* other = table_[hash(client, kFirstKey, (offset + slot) % kTable) % kTable];
      if (other->usable()) return other;
    }
    return nullptr;
  }

  /// Shares go by the last weight that was not 0: a server that is quiesced keeps its slots, so nobody else's clients move.
  void servers_changed(ServerList servers) override {
    struct Turn {
      RealServer* server;
      std::uint32_t at, skip, turns;
    };
    std::uint32_t divisor = 0;
    std::uint32_t most = 0;
    for (const RealServer* s : servers) {
      divisor = std::gcd(divisor, s->last_weight);
      most = std::max(most, s->last_weight);
    }
    table_.clear();
    if (divisor == 0) return;
    const int shift = std::max(static_cast<int>(std::bit_width(most / divisor)) - kWeightBits, 0);
    std::vector<Turn> turns;
    for (RealServer* s : servers) {
      if (s->last_weight == 0) continue;
      const Endpoint& e = s->config.endpoint;
      turns.push_back({s, hash(e, kFirstKey) % kTable, hash(e, kSecondKey) % (kTable - 1) + 1,
                       std::max((s->last_weight / divisor) >> shift, 1U)});
    }
    table_.assign(kTable, nullptr);
    for (std::uint32_t filled = 0; filled < kTable;) {
      for (Turn& t : turns) {
        for (std::uint32_t n = 0; n < t.turns && filled < kTable; ++n, ++filled) {
          while (table_[t.at] != nullptr) t.at = t.at + t.skip >= kTable ? t.at + t.skip - kTable : t.at + t.skip;
          table_[t.at] = t.server;
        }
      }
    }
  }

  [[nodiscard]] std::optional<std::size_t> slot_of(const FlowKey& flow) const override {
    return hash(key_of(flow), kFirstKey) % kTable;
  }

  [[nodiscard]] std::vector<const RealServer*> slots() const override { return {table_.begin(), table_.end()}; }

 private:
  [[nodiscard]] Endpoint key_of(const FlowKey& flow) const {
    return {flow.source.address, with_port_ ? flow.source.port : Port{}};
  }

  bool fallback_;
  bool with_port_;
  std::vector<RealServer*> table_;  // empty: no server ever had a weight
};

}  // namespace

std::unique_ptr<Scheduler> make_maglev(SchedulerFlags flags) { return std::make_unique<Maglev>(flags); }

}  // namespace director
