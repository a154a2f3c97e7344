// Schedulers by their properties: what Maglev promises, what twos and none do. Exact picks are held by the captures in tests/golden.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <random>

#include "director/core/scheduler.h"
#include "director/core/service.h"

namespace director {
namespace {

/// Real servers 10.9.1.1, 10.9.1.2, ... of one service, and who gets which client.
class Pool {
 public:
  Pool(std::string_view scheduler, const std::vector<std::uint32_t>& weights, SchedulerFlags flags = {})
      : scheduler_(make_scheduler(scheduler, flags)) {
    for (std::size_t i = 0; i < weights.size(); ++i) {
      auto server = std::make_unique<RealServer>();
      server->service = &service_;
      server->config.endpoint = {IpAddress::v4(0x0a090101U + static_cast<std::uint32_t>(i)), Port::of(80)};
      server->config.weight = server->last_weight = weights[i];
      list_.insert(list_.begin(), server.get());
      servers_.push_back(std::move(server));
      scheduler_->server_added(list_, *list_.front());
    }
    scheduler_->servers_changed(list_);
  }

  RealServer* pick(std::uint32_t client) {
    return scheduler_->pick(list_, {{IpAddress::v4(client), Port::of(4000)}, {IpAddress::v4(0x0a090064U), Port::of(80)}, Protocol::tcp},
                            Instant{});
  }
  /// For each of `count` clients, the index of its server.
  std::vector<std::size_t> picks(std::uint32_t first, std::size_t count) {
    std::vector<std::size_t> chosen;
    for (std::size_t i = 0; i < count; ++i)
      chosen.push_back(index_of(pick(first + static_cast<std::uint32_t>(i) * 2654435761U)));
    return chosen;
  }
  std::size_t index_of(const RealServer* s) const {
    for (std::size_t i = 0; i < servers_.size(); ++i)
      if (servers_[i].get() == s) return i;
    return servers_.size();
  }
  RealServer& operator[](std::size_t i) { return *servers_[i]; }
  void remove(std::size_t i) {
    const auto at = std::ranges::find(list_, servers_[i].get());
    scheduler_->server_leaving(list_, static_cast<std::size_t>(at - list_.begin()));
    list_.erase(at);
    scheduler_->servers_changed(list_);
  }
  void changed() { scheduler_->servers_changed(list_); }
  void tune(const Tunables& tunables) { scheduler_->tuned(tunables, list_); }
  [[nodiscard]] std::vector<const RealServer*> slots() const { return scheduler_->slots(); }

 private:
  Service service_;  // servers ask only whether they have one
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::unique_ptr<RealServer>> servers_;
  std::vector<RealServer*> list_;
};

constexpr std::size_t kClients = 200'000;

std::vector<double> shares(const std::vector<std::size_t>& picks, std::size_t servers) {
  std::vector<double> share(servers);
  for (const std::size_t p : picks) share.at(p) += 1.0 / static_cast<double>(picks.size());
  return share;
}

/// Random clients scatter: five standard deviations of a share, and the table's own grain of a few slots.
double tolerance(double share, double slots) {
  return 5 * std::sqrt(share * (1 - share) / kClients) + slots / 4093;
}

TEST(Maglev, PropertySharesAreEqualToASlot) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  for (const std::size_t servers : {2U, 3U, 10U, 100U}) {
    Pool pool("mh", std::vector<std::uint32_t>(servers, 1));
    // The grain: which clients fall into a slot is as random as the clients.
    const double even = 1.0 / static_cast<double>(servers);
    const auto share = shares(pool.picks(seed, kClients), servers);
    const auto [least, most] = std::ranges::minmax(share);
    EXPECT_NEAR(least, even, tolerance(even, 1)) << servers << " servers";
    EXPECT_NEAR(most, even, tolerance(even, 1)) << servers << " servers";
  }
}

TEST(Maglev, PropertySharesFollowWeights) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  const std::vector<std::uint32_t> weights{1, 2, 3, 10, 24};
  const double total = 40;
  Pool pool("mh", weights);
  const auto share = shares(pool.picks(seed, kClients), weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double wanted = weights[i] / total;  // laps of 40 slots: the last one is not whole
    EXPECT_NEAR(share[i], wanted, tolerance(wanted, 24)) << "weight " << weights[i];
  }
}

TEST(Maglev, PropertyFewMoveWhenOneOfAHundredLeaves) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  Pool pool("mh", std::vector<std::uint32_t>(100, 1));
  const auto before = pool.picks(seed, kClients);
  const std::size_t gone = seed % 100;
  pool.remove(gone);
  const auto after = pool.picks(seed, kClients);
  std::size_t moved = 0, orphans = 0;
  for (std::size_t i = 0; i < kClients; ++i) {
    if (before[i] == gone) {
      ++orphans;
      EXPECT_NE(after[i], gone);
    } else {
      moved += before[i] != after[i];
    }
  }
  const double disturbed = static_cast<double>(moved) / kClients;
  std::printf("seed %u: %.2f %% had to move, %.2f %% of the others did\n", seed, 100.0 * static_cast<double>(orphans) / kClients, 100 * disturbed);
  EXPECT_NEAR(static_cast<double>(orphans) / kClients, 0.01, tolerance(0.01, 1));
  EXPECT_LT(disturbed, 0.05) << "a modulo would move 99 %";
}

TEST(Maglev, ALargerTableIsEvenForAThousandServers) {
  Pool pool("mh", std::vector<std::uint32_t>(1000, 1));
  const auto most_and_least = [&] {
    std::map<const RealServer*, std::size_t> share;
    for (const RealServer* s : pool.slots()) ++share[s];
    EXPECT_EQ(share.size(), 1000U);
    std::pair<std::size_t, std::size_t> range{SIZE_MAX, 0};
    for (const auto& [server, slots] : share) range = {std::min(range.first, slots), std::max(range.second, slots)};
    return range;
  };
  EXPECT_EQ(pool.slots().size(), 4093U);
  EXPECT_EQ(most_and_least(), (std::pair<std::size_t, std::size_t>{4, 5}));  // a quarter more than others
  Tunables tunables;
  tunables.mh_tab_index = 16;
  pool.tune(tunables);  // at once
  EXPECT_EQ(pool.slots().size(), 65521U);
  EXPECT_EQ(most_and_least(), (std::pair<std::size_t, std::size_t>{65, 66}));
  for (std::uint32_t client = 1; client < 1000; ++client) ASSERT_NE(pool.pick(client), nullptr);
}

/// The last slots are solved for; these are the tables that walking to them gave.
TEST(Maglev, TheLastSlotsGoWhereAWalkWouldEnd) {
  const auto digest = [](std::int64_t index, std::size_t servers) {
    Pool pool("mh", std::vector<std::uint32_t>(servers, 1));
    Tunables tunables;
    tunables.mh_tab_index = index;
    pool.tune(tunables);
    std::uint64_t sum = 0;
    for (const RealServer* owner : pool.slots()) sum = sum * 1'000'003 + pool.index_of(owner);
    return sum;
  };
  EXPECT_EQ(digest(8, 3), 6465216042150401830U);
  EXPECT_EQ(digest(8, 250), 68629977209150422U);
  EXPECT_EQ(digest(12, 7), 2291888419807237700U);
  EXPECT_EQ(digest(12, 1000), 2379688288156771917U);
  EXPECT_EQ(digest(13, 100), 17797231984933119760U);
}

TEST(Maglev, AQuiescedServerMovesNobodyElse) {
  Pool pool("mh", std::vector<std::uint32_t>(10, 3), {.flag1 = true});
  const auto before = pool.picks(1, kClients);
  pool[4].config.weight = 0;
  pool.changed();
  const auto after = pool.picks(1, kClients);
  for (std::size_t i = 0; i < kClients; ++i) {
    if (before[i] == 4) {
      EXPECT_NE(after[i], 4U);
    } else {
      ASSERT_EQ(after[i], before[i]);
    }
  }
}

TEST(TwoChoices, PropertyTheBusyGetLess) {
  Pool pool("twos", {1, 1, 1, 1});
  for (std::size_t i = 0; i < 4; ++i) pool[i].active = static_cast<std::uint32_t>(10 * i);
  const auto share = shares(pool.picks(7, 20'000), 4);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_GT(share[i], share[i + 1]) << "server " << i << " has less to do";
  EXPECT_GT(share[3], 0.01) << "but nobody is left out: both choices may fall on it";
}

TEST(TwoChoices, NobodyWithoutWeightIsChosen) {
  Pool pool("twos", {0, 5, 0});
  for (const std::size_t p : pool.picks(7, 1000)) ASSERT_EQ(p, 1U);
  pool[1].config.weight = 0;
  EXPECT_EQ(pool.pick(7), nullptr);
}

TEST(None, ChoosesNobody) {
  Pool pool("none", {1, 1});
  EXPECT_EQ(pool.pick(7), nullptr);
}

TEST(Schedulers, EveryNameMakesOneThatServesOrRefuses) {
  for (const std::string_view name : scheduler_names()) {
    Pool pool(name, {2, 1});
    const RealServer* first = pool.pick(7);
    EXPECT_EQ(first == nullptr, name == "none") << name;
    Pool nobody(name, {0, 0});
    EXPECT_EQ(nobody.pick(7), nullptr) << name;
  }
}

}  // namespace
}  // namespace director
