// doctor: each mistake is made, and found; a healthy set-up has none.
#include "director/diagnose.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "director/command.h"
#include "director/explain.h"
#include "director/rules.h"

namespace director {
namespace {

constexpr DeviceId kDevice{0};

class DiagnoseTest : public testing::Test {
 protected:
  DiagnoseTest() : balancer_(Balancer::Options{.policy = Policy::improved, .seed = 1, .max_connections = 1000, .announce = false}) {
    SetDevice device;
    device.device = kDevice;
    device.name = "eth0";
    device.mac = MacAddress{{2, 0, 0, 0, 0, 2}};
    tell(device);
    tell(SetAddresses{kDevice, {*Prefix::parse("10.9.0.2/24")}});
    for (std::uint8_t host : {std::uint8_t{1}, std::uint8_t{11}, std::uint8_t{254}})
      tell(SetNeighbour{kDevice, IpAddress::v4(0x0a090000U + host), MacAddress{{2, 0, 0, 0, 0, host}}, true});
  }
  void tell(const Change& change) { ASSERT_TRUE(balancer_.apply(change, now_)); }
  void rules(std::string_view text) {
    const auto lines = parse_rules(text);
    ASSERT_TRUE(lines);
    for (const Rule& rule : *lines) tell(rule.change);
  }
  void send(std::string_view packet) {
    ASSERT_TRUE(explain_text(balancer_, packet, now_)) << packet;
    balancer_.outbox().clear();
  }
  void syns(int n) {
    for (int i = 0; i < n; ++i) send(fmt::format("tcp 10.9.0.1:{} > 10.9.0.100:80 [S]", 4000 + i));
  }
  std::string said() { return findings_text(diagnose(balancer_, now_)); }
  void pass(Duration time) {
    const Instant end = now_ + time;
    while (balancer_.next_deadline() <= end) {
      now_ = std::max(now_, balancer_.next_deadline());
      balancer_.expire(now_);
      balancer_.outbox().clear();
    }
    now_ = end;
  }

  Balancer balancer_;
  Instant now_{std::chrono::hours{1}};
};

TEST_F(DiagnoseTest, HealthyTrafficIsNoFinding) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11 -g\n");
  syns(10);
  send("tcp 10.9.0.1:4000 > 10.9.0.100:80 [A]");
  EXPECT_TRUE(diagnose(balancer_, now_).empty()) << said();
  const Answer answer = run_command({{"vsadm", "doctor"}, {}}, balancer_, now_);
  EXPECT_EQ(answer.exit_code, 0);
  EXPECT_EQ(answer.out.find("nothing looks wrong"), 0U);
}

TEST_F(DiagnoseTest, AServiceThatCanServeNobody) {
  rules("-A -t 10.9.0.100:80 -s rr\n");
  EXPECT_NE(said().find("TCP 10.9.0.100:80: has no real server"), std::string::npos) << said();
  rules("-a -t 10.9.0.100:80 -r 10.9.0.11 -g -w 0\n");
  EXPECT_NE(said().find("none of its real servers takes connections"), std::string::npos) << said();
  EXPECT_EQ(run_command({{"vsadm", "doctor", "--json"}, {}}, balancer_, now_).exit_code, 1);
}

TEST_F(DiagnoseTest, AServerThatNeverAnswers) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11 -m\n");
  syns(4);
  EXPECT_NE(said().find("10.9.0.11:80 of TCP 10.9.0.100:80: 4 connections wait in SYN_RECV"), std::string::npos) << said();
  EXPECT_NE(said().find("default route"), std::string::npos) << said();
}

TEST_F(DiagnoseTest, AnswersThatGoPastTheDirector) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11 -m\n");
  syns(4);
  for (int i = 0; i < 8; ++i) send(fmt::format("tcp 10.9.0.1:{} > 10.9.0.100:80 [A]", 4000 + i % 4));
  EXPECT_NE(said().find("went there by NAT and none came back"), std::string::npos) << said();
}

TEST_F(DiagnoseTest, AServerWithoutNeighbour) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.13 -g\n");
  syns(1);
  pass(std::chrono::seconds{4});
  EXPECT_NE(said().find("doesn't answer ARP or ND on eth0"), std::string::npos) << said();
}

TEST_F(DiagnoseTest, AServerWithoutRoute) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.8.0.13 -m\n");
  EXPECT_NE(said().find("no route leads there"), std::string::npos) << said();
}

TEST_F(DiagnoseTest, DirectRoutingThroughARouter) {
  Route route;
  route.destination = *Prefix::parse("10.8.0.0/24");
  route.device = kDevice;
  route.via = IpAddress::parse("10.9.0.254");
  tell(SetRoutes{{route}});
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.8.0.13 -g\n");
  syns(1);
  EXPECT_NE(said().find("is behind a router"), std::string::npos) << said();
}

TEST_F(DiagnoseTest, ATunnelThatIsTooNarrow) {
  rules("-A -u 10.9.0.100:53 -s rr\n-a -u 10.9.0.100:53 -r 10.9.0.11 -i\n");
  send("udp 10.9.0.1:4000 > 10.9.0.100:53 len=1472 df");
  EXPECT_NE(said().find("larger than the 1480 bytes the tunnel leaves of the way's 1500"), std::string::npos) << said();
}

TEST_F(DiagnoseTest, SomebodyElseHasTheVip) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11 -g\n");
  send("tcp 10.9.0.100:80 > 10.9.0.1:4000 [SA]");
  EXPECT_NE(said().find("is the VIP configured on another host"), std::string::npos) << said();
}

}  // namespace
}  // namespace director
