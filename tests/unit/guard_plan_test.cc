// control/guard_plan: which frames the host's own stack must not see.
#include "director/control/guard_plan.h"

#include <gtest/gtest.h>

#include "director/core/balancer.h"
#include "director/rules.h"

namespace director {
namespace {

GuardPlan plan(const char* rules, std::initializer_list<const char*> host) {
  Balancer balancer({.announce = false});
  const auto parsed = parse_rules(rules);
  EXPECT_TRUE(parsed) << parsed.error().in("rules");
  for (const Rule& rule : *parsed) EXPECT_TRUE(balancer.apply(rule.change, Instant{}));
  std::vector<IpAddress> addresses;
  for (const char* text : host) addresses.push_back(*IpAddress::parse(text));
  return plan_guard(balancer.services(), balancer.classes(), addresses);
}

IpAddress address(const char* text) {
  return *IpAddress::parse(text);
}
GuardPlan::Target target(const char* text, Protocol protocol, std::uint16_t port) {
  return {address(text), protocol, Port::of(port)};
}

TEST(GuardPlan, TakesAVirtualAddressAsAWhole) {
  const GuardPlan p = plan(
      "-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g\n"
      "-A -u 10.9.0.100:53 -s rr\n-A -t [fd00::100]:80 -s rr\n",
      {"10.9.0.2", "127.0.0.1", "10.9.0.2"});
  EXPECT_EQ(p.virtual_addresses, (std::vector{address("10.9.0.100"), address("fd00::100")}));
  EXPECT_TRUE(p.served.empty());
  EXPECT_TRUE(p.answering.empty()) << "direct servers answer the client themselves";
  EXPECT_EQ(p.host, (std::vector{address("10.9.0.2"), address("127.0.0.1")}));
}

TEST(GuardPlan, TakesOnlyTheServedPortsOfAnAddressTheHostOwns) {
  const GuardPlan p = plan("-A -t 10.9.0.2:80 -s rr\n-A -u 10.9.0.2:53 -s rr\n", {"10.9.0.2"});
  EXPECT_TRUE(p.virtual_addresses.empty());
  EXPECT_EQ(p.served,
            (std::vector{target("10.9.0.2", Protocol::tcp, 80), target("10.9.0.2", Protocol::udp, 53)}));
}

TEST(GuardPlan, TakesTheAnswersOfMasqueradedServersOnce) {
  const GuardPlan p = plan(
      "-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.1.11:8080 -m\n-a -t 10.9.0.100:80 -r "
      "10.9.1.12:8080 -m\n"
      "-A -t 10.9.0.101:80 -s rr\n-a -t 10.9.0.101:80 -r 10.9.1.11:8080 -m -w 0\n"
      "-a -t 10.9.0.101:80 -r 10.9.2.11:80 -i\n",
      {"10.9.0.2"});
  EXPECT_EQ(p.answering, (std::vector{target("10.9.1.11", Protocol::tcp, 8080),
                                      target("10.9.1.12", Protocol::tcp, 8080)}));
}

TEST(GuardPlan, TakesWhatAClassSaysIsItsOwn) {
  const GuardPlan p = plan(
      "--class 7 tcp dport 80,8000-8001 daddr 10.9.0.100,10.9.0.2,10.8.0.0/16\n-A -f 7 -s rr\n"
      "-a -f 7 -r 10.9.1.11 -m\n-a -f 7 -r 10.9.1.12:8080 -m\n--class 8 udp daddr 10.9.0.200\n",
      {"10.9.0.2"});
  EXPECT_EQ(p.virtual_addresses, (std::vector{address("10.9.0.100")})) << "class 8 has no service";
  EXPECT_EQ(p.served,
            (std::vector{target("10.9.0.2", Protocol::tcp, 80), target("10.9.0.2", Protocol::tcp, 8000),
                         target("10.9.0.2", Protocol::tcp, 8001)}));
  EXPECT_EQ(p.answering,
            (std::vector{target("10.9.1.11", Protocol::tcp, 80), target("10.9.1.11", Protocol::tcp, 8000),
                         target("10.9.1.11", Protocol::tcp, 8001), target("10.9.1.12", Protocol::tcp, 8080)}));
}

TEST(GuardPlan, IsTheSameForTheSameServicesInAnyOrder) {
  EXPECT_EQ(plan("-A -t 10.9.0.100:80\n-A -t 10.9.0.99:80\n", {"10.9.0.2", "10.9.1.2"}),
            plan("-A -t 10.9.0.99:80\n-A -t 10.9.0.100:80\n", {"10.9.1.2", "10.9.0.2"}));
}

}  // namespace
}  // namespace director
