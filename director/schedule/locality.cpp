// lblc and lblcr: a destination stays with the server that last served it, while that is not overloaded. For cache clusters, with a
// class service. lblcr keeps a set of servers per destination and lets it shrink again. Source: ip_vs_lblc.c, ip_vs_lblcr.c.
#include <algorithm>
#include <unordered_map>
#include <vector>

#include "director/core/scheduler.h"
#include "director/schedule/address_hash.h"
#include "director/schedule/least_loaded.h"

namespace director {
namespace {

constexpr std::size_t kMostEntries = 16384;      // 16 for each of 1024 buckets
constexpr Duration kIdleWhenFull = 6min;         // ENTRY_TIMEOUT

/// Busier than its weight allows, while somebody else is less than half busy.
bool overloaded(const RealServer& server, ServerList servers) {
  if (server.active <= server.config.weight) return false;
  return std::any_of(servers.begin(), servers.end(), [](const RealServer* s) {
    return std::uint64_t{s->active} * 2 < s->config.weight;
  });
}

/// A cache of destinations with what is known of each, bounded by size and age.
template <typename Known>
class Destinations {
 public:
  struct Entry {
    Known known;
    Instant used;
  };

  Entry* find(const IpAddress& a, Instant now) {
    const auto it = entries_.find(a);
    if (it == entries_.end() || now - it->second.used > forgotten_after) return nullptr;
    it->second.used = now;
    return &it->second;
  }
  void put(const IpAddress& a, Known known, Instant now) {
    if (entries_.size() >= kMostEntries) make_room(now);
    entries_[a] = {std::move(known), now};
  }
  Duration forgotten_after = 24h;

  template <typename Function>
  void erase_if(Function function) {
    for (auto it = entries_.begin(); it != entries_.end();) it = function(it->second.known) ? entries_.erase(it) : ++it;
  }

 private:
  void make_room(Instant now) {
    std::erase_if(entries_, [&](const auto& entry) { return now - entry.second.used > kIdleWhenFull; });
    if (entries_.size() >= kMostEntries) entries_.erase(entries_.begin());
  }

  std::unordered_map<IpAddress, Entry, AddressHash> entries_;
};

class Locality final : public Scheduler {
 public:
  RealServer* pick(ServerList servers, const FlowKey& flow, Instant now) override {
    const IpAddress& to = flow.target.address;
    if (auto* entry = cache_.find(to, now)) {
      RealServer* last = entry->known;
      if (last->config.weight > 0 && !overloaded(*last, servers)) return last;
    }
    RealServer* least = least_loaded(servers);
    if (least != nullptr) cache_.put(to, least, now);
    return least;
  }

  [[nodiscard]] std::string standing(const RealServer& s) const override { return load_by_weight(s); }

  void tuned(const Tunables& t, ServerList) override { cache_.forgotten_after = std::chrono::seconds{t.lblc_expiration}; }

  void server_leaving(ServerList servers, std::size_t position) override {
    cache_.erase_if([&](const RealServer* s) { return s == servers[position]; });
  }

 private:
  Destinations<RealServer*> cache_;
};

class ReplicatedLocality final : public Scheduler {
 public:
  RealServer* pick(ServerList servers, const FlowKey& flow, Instant now) override {
    const IpAddress& to = flow.target.address;
    auto* entry = cache_.find(to, now);
    if (entry == nullptr) {
      RealServer* least = least_loaded(servers);
      if (least != nullptr) cache_.put(to, {{least}, now}, now);
      return least;
    }
    Set& set = entry->known;
    RealServer* best = least_loaded(set.servers);
    if (set.servers.size() > 1 && now - set.changed > cache_.forgotten_after) drop_most_loaded(set, now);
    if (best != nullptr && !overloaded(*best, servers)) return best;
    RealServer* least = least_loaded(servers);
    if (least != nullptr && std::find(set.servers.begin(), set.servers.end(), least) == set.servers.end()) {
      set.servers.insert(set.servers.begin(), least);
      set.changed = now;
    }
    return least;
  }

  [[nodiscard]] std::string standing(const RealServer& s) const override { return load_by_weight(s); }

  void tuned(const Tunables& t, ServerList) override { cache_.forgotten_after = std::chrono::seconds{t.lblcr_expiration}; }

  void server_leaving(ServerList servers, std::size_t position) override {
    cache_.erase_if([&](Set& set) {
      std::erase(set.servers, servers[position]);
      return set.servers.empty();
    });
  }

 private:
  struct Set {
    std::vector<RealServer*> servers;  // last added first
    Instant changed;
  };

  static void drop_most_loaded(Set& set, Instant now) {
    auto most = set.servers.end();
    for (auto s = set.servers.begin(); s != set.servers.end(); ++s) {
      if ((*s)->config.weight == 0) continue;
      if (most == set.servers.end() ||
          (*most)->overhead() * (*s)->config.weight < (*s)->overhead() * (*most)->config.weight)
        most = s;
    }
    if (most == set.servers.end()) return;
    set.servers.erase(most);
    set.changed = now;
  }

  Destinations<Set> cache_;
};

}  // namespace

std::unique_ptr<Scheduler> make_locality(SchedulerFlags) { return std::make_unique<Locality>(); }
std::unique_ptr<Scheduler> make_replicated_locality(SchedulerFlags) { return std::make_unique<ReplicatedLocality>(); }

}  // namespace director
