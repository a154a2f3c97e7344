// The connection table against the plainest model there is, and its promises of growth and time.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "director/core/connection.h"

namespace director {
namespace {

Instant at(Duration d) { return Instant{d}; }

FlowKey client(std::uint32_t n) {
  return {{IpAddress::v4(0x0a000000U + (n >> 8U)), Port::of(static_cast<std::uint16_t>(1024 + (n & 0xffU)))},
          {IpAddress::v4(0x0a090064U), Port::of(80)},
          Protocol::tcp};
}
const Endpoint kReal{IpAddress::v4(0x0a09000bU), Port::of(8080)};

RecipeKey key(std::uint32_t n, Method method, const Endpoint& real = kReal) {
  return {Protocol::tcp, method, ZeroChecksum::stays, client(n).target, real, RealId{0}};
}
Connection* open(ConnectionTable& table, std::uint32_t n, Instant deadline) {
  return table.open(client(n).source, key(n, Method::direct), deadline);
}

TEST(ConnectionTable, FindsANatConnectionByEitherDirection) {
  ConnectionTable table(1, 100);
  Connection* c = table.open(client(1).source, key(1, Method::masq), at(60s));
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(table.find(client(1)).connection, c);
  EXPECT_EQ(table.find(client(1)).direction, Direction::request);
  EXPECT_EQ(table.find(table.reply_flow(*c)).connection, c);
  EXPECT_EQ(table.find(table.reply_flow(*c)).direction, Direction::reply);
  EXPECT_FALSE(table.find(client(1).reversed()));
  table.close(*c);
  EXPECT_FALSE(table.find(client(1)));
  EXPECT_FALSE(table.find({kReal, client(1).source, Protocol::tcp}));
}

TEST(ConnectionTable, FindsOthersByTheClientAlone) {
  ConnectionTable table(1, 100);
  Connection* c = open(table, 1, at(60s));
  EXPECT_FALSE(table.find(table.reply_flow(*c)));
}

TEST(ConnectionTable, APlaceFoundAheadFindsWhateverHasBecomeOfTheTable) {
  ConnectionTable table(1, 100000);
  constexpr std::uint32_t kClients = 20000;  // more than there are buckets at first: many share one
  const auto method = [](std::uint32_t n) { return n % 2 == 0 ? Method::masq : Method::direct; };
  std::vector<Connection*> all;
  for (std::uint32_t n = 0; n < kClients; ++n) all.push_back(table.open(client(n).source, key(n, method(n)), at(60s)));
  std::size_t met = 0;  // at the place that was found out
  struct Ahead {
    FlowKey flow;
    std::uint32_t hash;
    ConnectionTable::Place place;
  };
  std::vector<Ahead> ahead;
  for (std::uint32_t n = 0; n < kClients; ++n)
    for (const FlowKey& flow : {client(n), table.reply_flow(*all[n])}) {
      const std::uint32_t hash = table.hash_of(flow);
      const ConnectionTable::Place first = table.fetch_first(hash);
      const ConnectionTable::Place place = table.fetch_next(flow, first);
      ahead.push_back({flow, hash, place});
      const auto found = table.find(flow, hash, place);
      ASSERT_EQ(found.connection, table.find(flow).connection);
      ASSERT_EQ(found.direction, table.find(flow).direction);
      if (found && place / 2 == table.id_of(*found.connection).index) ++met;
    }
  EXPECT_GT(met, kClients) << "most stand first or second";

  for (std::uint32_t n = 0; n < kClients; n += 2) table.close(*all[n]);
  for (std::uint32_t n = 0; n < kClients; n += 4)  // others take the rows, filed by other methods
    table.open(client(kClients + n).source, key(n, Method::direct), at(60s));
  for (const Ahead& a : ahead) {
    ASSERT_EQ(table.find(a.flow, a.hash, a.place).connection, table.find(a.flow).connection);
    if (a.place == ConnectionTable::kNowhere) continue;
    ASSERT_EQ(table.find(a.flow, a.hash, a.place ^ 2U).connection, table.find(a.flow).connection) << "somebody else's";
  }
}

TEST(ConnectionTable, RefusesMoreThanItMayHold) {
  ConnectionTable table(1, 2);
  EXPECT_NE(open(table, 1, at(1s)), nullptr);
  EXPECT_NE(open(table, 2, at(1s)), nullptr);
  EXPECT_EQ(open(table, 3, at(1s)), nullptr);
}

TEST(ConnectionTable, YoungConnectionsAreMetInTurnAndWhoTakesAPlaceComesLast) {
  ConnectionTable table(1, 1000);
  std::vector<Connection*> all;
  for (std::uint32_t n = 0; n < 200; ++n) all.push_back(open(table, n, at(1s)));
  for (std::uint32_t n = 0; n < 200; ++n)
    if (n % 3 != 0) table.grow_up(*all[n]);
  for (std::uint32_t round = 0; round < 3; ++round)
    for (std::uint32_t n = 0; n < 200; n += 3) {
      Connection* young = table.next_young();
      ASSERT_EQ(young, all[n]);
      table.close(*young);
      ASSERT_EQ(open(table, n, at(1s)), all[n]) << "the row is used again at once";
    }
  for (Connection* c : all) table.grow_up(*c);
  EXPECT_EQ(table.next_young(), nullptr);
}

TEST(ConnectionTable, EndsWhatIsDueAndNotBefore) {
  ConnectionTable table(1, 100);
  Connection* c = open(table, 1, at(10s));
  const auto ignore = [](const Connection&) { return Ending::due; };
  EXPECT_EQ(table.expire(at(9900ms), 100, ignore), 0U);
  table.set_deadline(*c, at(20s));  // a packet came: the old slot only moves it on
  EXPECT_EQ(table.expire(at(15s), 100, ignore), 0U);
  EXPECT_EQ(table.size(), 1U);
  table.set_deadline(*c, at(16s));  // a shorter time-out counts at once
  EXPECT_LE(table.next_deadline(), at(16s + ConnectionTable::kSlot));
  EXPECT_EQ(table.expire(at(16s + ConnectionTable::kSlot), 100, ignore), 1U);
  EXPECT_EQ(table.size(), 0U);
  EXPECT_EQ(table.next_deadline(), kNever);
}

TEST(ConnectionTable, KeepsTimeoutsLongerThanTheWheel) {
  ConnectionTable table(1, 100);
  (void)open(table, 1, at(3h));
  std::size_t wakes = 0;
  std::size_t ended = 0;
  while (ended == 0 && wakes < 100) {
    const Instant next = table.next_deadline();
    ASSERT_NE(next, kNever);
    ended += table.expire(next, 100, [](const Connection&) { return Ending::due; });
    EXPECT_TRUE(ended == 0 || next >= at(3h));
    ++wakes;
  }
  EXPECT_EQ(ended, 1U);
  EXPECT_LT(wakes, 20U) << "an idle table wakes nobody";
}

TEST(ConnectionTable, SpreadsAHerdOfDeadlinesOverCalls) {
  ConnectionTable table(1, 10000);
  for (std::uint32_t i = 0; i < 1000; ++i) (void)open(table, i, at(1s));
  EXPECT_EQ(table.expire(at(2s), 300, [](const Connection&) { return Ending::due; }), 300U);
  EXPECT_LE(table.next_deadline(), at(2s)) << "there is more to do at once";
  std::size_t ended = 300;
  while (table.size() > 0) ended += table.expire(at(2s), 300, [](const Connection&) { return Ending::due; });
  EXPECT_EQ(ended, 1000U);
}

/// Random opens, touches, closes and ticks, beside a std::map.
TEST(ConnectionTable, AgreesWithAMap) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  ConnectionTable table(seed, 1'000'000);
  struct Model {
    Connection* connection;
    Instant deadline;
  };
  std::map<std::uint32_t, Model> model;
  Instant now = at(1000s);
  const auto until = [&] { return now + std::chrono::milliseconds(random() % 100'000); };
  for (int step = 0; step < 200'000; ++step) {
    const auto n = static_cast<std::uint32_t>(random() % 20'000);
    const auto known = model.find(n);
    switch (random() % 8) {
      case 0: case 1: case 2: case 3:
        if (known == model.end()) {
          const Instant deadline = until();
          const Endpoint real{kReal.address, Port::of(static_cast<std::uint16_t>(1 + n % 3))};
          const Method method = n % 2 == 0 ? Method::masq : Method::direct;
          model[n] = {table.open(client(n).source, key(n, method, real), deadline), deadline};
        } else {
          known->second.deadline = until();
          table.set_deadline(*known->second.connection, known->second.deadline);
        }
        break;
      case 4:
        if (known != model.end()) {
          table.close(*known->second.connection);
          model.erase(known);
        }
        break;
      case 5: {
        now += std::chrono::milliseconds(random() % 50);
        table.expire(now, 1'000'000, [&](const Connection& c) {
          EXPECT_LE(table.deadline(c), now);
          const auto n_of = (static_cast<std::uint32_t>(c.client.address.v4_wire().host() & 0xffffffU) << 8U) +
                            c.client.port.host() - 1024U;
          EXPECT_EQ(model.erase(n_of), 1U);
          return Ending::due;
        });
        break;
      }
      default: {
        const auto found = table.find(client(n));
        ASSERT_EQ(found.connection, known == model.end() ? nullptr : known->second.connection);
        if (found) {
          EXPECT_EQ(table.find(table.reply_flow(*found.connection)).connection,
                    n % 2 == 0 ? found.connection : nullptr);
        }
      }
    }
    ASSERT_EQ(table.size(), model.size());
  }
  for (const auto& [n, m] : model) {
    EXPECT_EQ(table.find(client(n)).connection, m.connection);
    EXPECT_GT(m.deadline + ConnectionTable::kSlot, now - 50ms) << "should have ended";
  }
}

TEST(ConnectionTable, GrowsByOneBucketAtATime) {
  ConnectionTable table(1, 1'000'000);
  std::size_t before = table.bucket_count();
  EXPECT_EQ(before, 4096U);
  for (std::uint32_t i = 0; i < 50'000; ++i) {
    (void)open(table, i, at(60s));
    EXPECT_LE(table.bucket_count() - before, 1U);
    before = table.bucket_count();
  }
  EXPECT_GE(table.bucket_count(), 50'000U);
}

}  // namespace
}  // namespace director
