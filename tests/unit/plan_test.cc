// plan: reloads touch what differs and nothing else; the copy they are worked out on judges as the balancer does.
#include "director/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace director {
namespace {

std::vector<Rule> rules(const std::string& text) {
  auto parsed = parse_rules(text);
  EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().in("rules"));
  return parsed ? *parsed : std::vector<Rule>{};
}

class Reload : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const Rule& rule : rules(kBefore)) ASSERT_TRUE(balancer_.apply(rule.change, Instant{}));
  }
  /// The changes of a reload, a line each.
  std::string planned(const std::string& text) {
    const auto changes = plan_reload(balancer_, rules(text));
    if (!changes) return changes.error().in("rules");
    std::string lines;
    for (const Change& change : *changes) lines += command_text(change) + "\n";
    return lines;
  }

  static constexpr const char* kBefore =
      "-A -t 10.9.0.100:80 -s rr\n"
      "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m\n"
      "-a -t 10.9.0.100:80 -r 10.9.0.12:80 -m\n"
      "-A -u 10.9.0.100:53 -s rr\n"
      "-a -u 10.9.0.100:53 -r 10.9.0.11:53 -m\n";
  Balancer balancer_{Balancer::Options{}};
};

TEST_F(Reload, TheSameFileChangesNothing) {
  EXPECT_EQ(planned(kBefore), "");
}

TEST_F(Reload, OnlyWhatDiffersIsChanged) {
  EXPECT_EQ(planned("-A -t 10.9.0.100:80 -s rr\n"
                    "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 0\n"  // quiesced
                    "-a -t 10.9.0.100:80 -r 10.9.0.13:80 -m\n"       // instead of .12
                    "-A -u 10.9.0.100:53 -s wrr\n"                   // another scheduler, the server stays
                    "-a -u 10.9.0.100:53 -r 10.9.0.11:53 -m\n"
                    "-A -t 10.9.0.100:443 -s rr\n"
                    "--set 10 0 0\n"),
            "-d -t 10.9.0.100:80 -r 10.9.0.12:80\n"
            "-e -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 0\n"
            "-a -t 10.9.0.100:80 -r 10.9.0.13:80 -m -w 1\n"
            "-E -u 10.9.0.100:53 -s wrr\n"
            "-A -t 10.9.0.100:443 -s rr\n"
            "--set 10 0 0\n");
}

TEST(Problems, AreAllTold) {
  const auto told = [](std::string_view text) {
    std::string lines;
    for (const RulesError& problem : problems_in(text)) lines += problem.in("f") + "\n";
    return lines;
  };
  EXPECT_EQ(told(""), "");
  EXPECT_EQ(told("-A -t 10.9.0.100:80 -s rr\n\n# fine\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g"), "");
  const std::string unreadable = told("-D -t 10.9.0.100:80\n-A -t 10.9.0.100:80\n\n  -a -t 10.9.0.100:81 -r 10.9.0.11:80 -w many\n-Q");
  EXPECT_EQ(std::count(unreadable.begin(), unreadable.end(), '\n'), 3) << unreadable << "(nothing of the service on line 4)";
  EXPECT_EQ(unreadable.find("f:1:1: -D has no place in a rules file"), 0U) << unreadable;
  EXPECT_NE(unreadable.find("\nf:4:"), std::string::npos) << unreadable;
  EXPECT_NE(unreadable.find("\nf:5:1: "), std::string::npos) << unreadable;
  EXPECT_EQ(told("-a -t 10.9.0.100:81 -r 10.9.0.11:80\n-A -t 10.9.0.100:80\n -A -t 10.9.0.100:80\n"),
            "f:1:1: Service not defined\nf:3:2: Service already exists\n");
}

TEST_F(Reload, AnEmptyFileRemovesAll) {
  EXPECT_EQ(planned(""), "-D -t 10.9.0.100:80\n-D -u 10.9.0.100:53\n");
}

TEST_F(Reload, ALineThatCannotBeIsNamedAndNothingIsPlanned) {
  EXPECT_EQ(planned("-A -t 10.9.0.100:80 -s rr\n\n  -A -t 10.9.0.100:80 -s lc\n"),
            "rules:3:3: Service already exists");
  EXPECT_EQ(planned("-A -t 10.9.0.100:80 -s bogus\n"),
            "rules:1:1: Scheduler or persistence engine not found");
  EXPECT_EQ(planned("-a -t 10.9.0.100:80 -r 10.9.0.11 -m\n"), "rules:1:1: Service not defined");
  EXPECT_EQ(planned("-A -t 10.9.0.1:80\n-a -t 10.9.0.1:80 -r 10.9.0.11 -m -x 5 -y 9\n"),
            "rules:2:1: Numerical result out of range");
  EXPECT_EQ(
      planned("-A -t 10.9.0.1:80\n-a -t 10.9.0.1:80 -r 10.9.0.11 -m\n-a -t 10.9.0.1:80 -r 10.9.0.11 -m\n"),
      "rules:3:1: Destination already exists");
}

TEST_F(Reload, CountersOfWhatStaysLiveOn) {
  const Service* const service = balancer_.services()[0];
  const_cast<Service*>(service)->servers[0]->traffic.total.in_packets = 42;
  const auto changes = plan_reload(balancer_, rules("-A -t 10.9.0.100:80 -s wlc\n"
                                                    "-a -t 10.9.0.100:80 -r 10.9.0.12:80 -m -w 9\n"));
  ASSERT_TRUE(changes);
  ASSERT_TRUE(apply_all(balancer_, *changes, Instant{}));
  ASSERT_EQ(balancer_.services().size(), 1U);
  EXPECT_EQ(balancer_.services()[0], service);
  ASSERT_EQ(service->servers.size(), 1U);
  EXPECT_EQ(service->servers[0]->config.weight, 9U);
  EXPECT_EQ(service->servers[0]->traffic.total.in_packets, 42U);
}

/// Some change out of a small world, so that clashes are frequent.
Change some_change(std::mt19937& random) {
  const auto pick = [&](unsigned n) { return static_cast<std::uint32_t>(random() % n); };
  ServiceConfig service;
  service.key.endpoint = {IpAddress::v4(0x0a090064), Port::of(static_cast<std::uint16_t>(80 + pick(3)))};
  service.key.protocol = pick(2) == 0 ? Protocol::tcp : Protocol::udp;
  service.scheduler = std::array{"rr", "wlc", "sh", "bogus"}[pick(4)];
  ServerConfig server;
  server.endpoint = {pick(9) == 0 ? IpAddress{} : IpAddress::v4(0x0a09000b + pick(3)),
                     service.key.endpoint.port};
  server.method = Method::masq;
  server.weight = pick(3);
  server.upper_threshold = pick(3);
  server.lower_threshold = pick(3);
  switch (pick(8)) {
    case 0:
      return AddService{service};
    case 1:
      return EditService{service};
    case 2:
      return pick(5) == 0 ? Change{ClearServices{}} : Change{DeleteService{service.key}};
    case 3:
      return DeleteServer{service.key, server.endpoint};
    case 4:
      return EditServer{service.key, server};
    case 5:
      return ZeroCounters{service.key};
    default:
      return AddServer{service.key, server};
  }
}

TEST(Table, JudgesAsTheBalancerAndDifferencesLeadThere) {
  std::mt19937 random{7};  // NOLINT: the same world every time
  Balancer balancer{Balancer::Options{}};
  Balancer follower{Balancer::Options{}};
  Table table;
  for (int i = 0; i < 5000; ++i) {
    const Change change = some_change(random);
    const auto really = balancer.apply(change, Instant{});
    const auto on_paper = apply(table, change);
    ASSERT_EQ(static_cast<bool>(really), static_cast<bool>(on_paper)) << command_text(change);
    if (!really) {
      ASSERT_EQ(really.error(), on_paper.error()) << command_text(change);
    }
    if (i % 50 != 0) continue;
    const auto way = difference(table_of(follower), table);
    ASSERT_TRUE(apply_all(follower, way, Instant{}));
    EXPECT_TRUE(difference(table_of(follower), table_of(balancer)).empty());
    EXPECT_TRUE(difference(table_of(balancer), table).empty());
  }
}

}  // namespace
}  // namespace director
