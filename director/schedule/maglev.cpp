// mh: Maglev hashing. Each server has its own permutation of the slots (4093 by default) and in its turn takes the next free one, as many
// at a time as its weight says; so shares are exact to a slot, and when a server goes few others move. The kernel's hash, keys and sizes:
// kernel directors beside ours pick the same server.
// Source: ip_vs_mh.c; linux/siphash.h (hsiphash on 64-bit machines is SipHash-1-3); Eisenbud et al., "Maglev" (NSDI 2016).
#include <array>
#include <bit>
#include <numeric>
#include <utility>
#include <vector>

#include "director/core/scheduler.h"
#include "director/schedule/address_hash.h"

namespace director {
namespace {

constexpr std::int64_t kLeastIndex = 8;  // IP_VS_MH_TAB_INDEX
constexpr std::array<std::uint32_t, 10> kPrimes{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071};
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
    for (std::uint32_t offset = 0; offset < size_; ++offset) {
      RealServer* other = table_[hash(client, kFirstKey, (offset + slot) % size_) % size_];
      if (other->usable()) return other;
    }
    return nullptr;
  }

  void tuned(const Tunables& tunables, ServerList servers) override {
    const std::uint32_t size = size_of(tunables.mh_tab_index);
    if (size == size_) return;
    size_ = size;
    servers_changed(servers);
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
    const int weight_bits = static_cast<int>(std::bit_width(size_)) / 2;  // IP_VS_MH_TAB_BITS: half the index
    const int shift = std::max(static_cast<int>(std::bit_width(most / divisor)) - weight_bits, 0);
    std::vector<Turn> turns;
    for (RealServer* s : servers) {
      if (s->last_weight == 0) continue;
      const Endpoint& e = s->config.endpoint;
      turns.push_back({s, hash(e, kFirstKey) % size_, hash(e, kSecondKey) % (size_ - 1) + 1,
                       std::max((s->last_weight / divisor) >> shift, 1U)});
    }
    table_.assign(size_, nullptr);
    std::vector<std::uint8_t> taken(size_);  // beside the table, as it stays in a nearer cache
    std::vector<std::uint32_t> free;  // the last slots, when they are few
    for (std::uint32_t filled = 0; filled < size_;) {
      for (Turn& t : turns) {
        for (std::uint32_t n = 0; n < t.turns && filled < size_; ++n, ++filled) {
          if (size_ - filled > kFew) {
            while (taken[t.at] != 0) t.at = t.at + t.skip >= size_ ? t.at + t.skip - size_ : t.at + t.skip;
          } else {
            if (free.empty())
              for (std::uint32_t slot = 0; slot < size_; ++slot)
                if (taken[slot] == 0) free.push_back(slot);
            t.at = take_next(free, t.at, t.skip);
          }
          taken[t.at] = 1;
          table_[t.at] = t.server;
        }
      }
    }
  }

  [[nodiscard]] std::optional<std::size_t> slot_of(const FlowKey& flow) const override {
    return hash(key_of(flow), kFirstKey) % size_;
  }

  [[nodiscard]] std::vector<const RealServer*> slots() const override { return {table_.begin(), table_.end()}; }

 private:
  // A server walks past all taken slots to the last free ones, and half of all its steps are for the last hundred. So those are solved
  // for instead: slot = at + steps * skip modulo the size, which is a prime.
  static constexpr std::uint32_t kFew = 128;

  /// Takes the free slot that a server at `at` comes by first.
  std::uint32_t take_next(std::vector<std::uint32_t>& free, std::uint32_t at, std::uint32_t skip) const {
    const std::uint64_t inverse = power(skip, size_ - 2);  // Fermat
    std::size_t next = 0;
    std::uint64_t fewest = size_;
    for (std::size_t i = 0; i < free.size(); ++i) {
      const std::uint64_t steps = (free[i] + size_ - at) * inverse % size_;
      if (steps < fewest) next = i;
      fewest = std::min(fewest, steps);
    }
    const std::uint32_t slot = std::exchange(free[next], free.back());
    free.pop_back();
    return slot;
  }
  [[nodiscard]] std::uint64_t power(std::uint64_t base, std::uint32_t exponent) const {
    std::uint64_t result = 1;
    for (; exponent != 0; exponent >>= 1U, base = base * base % size_)
      if ((exponent & 1U) != 0) result = result * base % size_;
    return result;
  }
  [[nodiscard]] Endpoint key_of(const FlowKey& flow) const {
    return {flow.source.address, with_port_ ? flow.source.port : Port{}};
  }

  [[nodiscard]] static std::uint32_t size_of(std::int64_t index) { return kPrimes.at(static_cast<std::size_t>(index - kLeastIndex)); }

  bool fallback_;
  bool with_port_;
  std::uint32_t size_ = size_of(Tunables{}.mh_tab_index);
  std::vector<RealServer*> table_;  // empty: no server ever had a weight
};

}  // namespace

std::unique_ptr<Scheduler> make_maglev(SchedulerFlags flags) { return std::make_unique<Maglev>(flags); }

}  // namespace director
