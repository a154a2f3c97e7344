// explain: what is said is what was done, and asking does nothing.
#include "director/explain.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "director/command.h"
#include "director/rules.h"

namespace director {
namespace {

constexpr DeviceId kDevice{0};
constexpr MacAddress kDirector{{2, 0, 0, 0, 0, 2}};

class ExplainTest : public testing::Test {
 protected:
  ExplainTest() : balancer_(Balancer::Options{.policy = Policy::improved, .seed = 1, .max_connections = 1000, .announce = false}) {
    SetDevice device;
    device.device = kDevice;
    device.name = "eth0";
    device.mac = kDirector;
    tell(device);
    tell(SetAddresses{kDevice, {*Prefix::parse("10.9.0.2/16")}});
    for (std::uint8_t host : {std::uint8_t{1}, std::uint8_t{11}, std::uint8_t{12}, std::uint8_t{13}})
      tell(SetNeighbour{kDevice, IpAddress::v4(0x0a090000U + host), MacAddress{{2, 0, 0, 0, 0, host}}, true});
  }
  void tell(const Change& change) { ASSERT_TRUE(balancer_.apply(change, now_)); }
  void rules(std::string_view text) {
    const auto lines = parse_rules(text);
    ASSERT_TRUE(lines);
    for (const Rule& rule : *lines) tell(rule.change);
    balancer_.outbox().clear();
  }
  /// Processes the packet.
  Explained after(std::string_view packet) {
    auto explained = explain_text(balancer_, packet, now_);
    EXPECT_TRUE(explained) << packet;
    balancer_.outbox().clear();
    return std::move(*explained);
  }
  static const Explanation::Step& step(const Explained& explained, std::string_view topic) {
    const auto& steps = explained.how.steps;
    const auto found = std::find_if(steps.rbegin(), steps.rend(), [&](const auto& s) { return s.topic == topic; });
    static const Explanation::Step nothing{};
    EXPECT_NE(found, steps.rend()) << "nothing said of " << topic << "\n" << explanation_text(explained, Colour::off);
    return found == steps.rend() ? nothing : *found;
  }
  static std::string rewritten(const Explained& explained, std::string_view field) {
    for (const Explained::Rewrite& r : explained.rewrites)
      if (r.field == field) return r.before + " -> " + r.after;
    return "unchanged";
  }
  Answer ask(std::vector<std::string> argv) { return run_command({std::move(argv), {}}, balancer_, now_); }

  Balancer balancer_;
  Instant now_{std::chrono::hours{1}};
};

constexpr std::string_view kDirect =
    "-A -t 10.9.0.100:80 -s wlc\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.11 -g -w 0\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.12 -g -w 1\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.13 -g -w 1 -x 1\n";

TEST_F(ExplainTest, SaysEveryDecisionInTheOrderItWasTaken) {
  rules(kDirect);
  const Explained one = after("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]");
  std::vector<std::string_view> topics;
  for (const auto& s : one.how.steps) topics.push_back(s.topic);
  EXPECT_EQ(topics, (std::vector<std::string_view>{"packet", "connection", "service", "scheduler", "connection", "state", "forward",
                                                   "hop", "verdict"}));
  EXPECT_EQ(rewritten(one, "dmac"), "02:00:00:00:00:02 -> 02:00:00:00:00:0d");
  EXPECT_EQ(rewritten(one, "target"), "unchanged");
  EXPECT_EQ(rewritten(one, "ttl"), "64 -> 63");
  ASSERT_EQ(one.sent.size(), 1U);
  EXPECT_EQ(one.sent[0].packet, "tcp 10.9.0.1:4000 > 10.9.0.100:80 [S] ttl=63");
}

TEST_F(ExplainTest, SaysOfEachServerWhyItWasTakenOrNot) {
  rules(kDirect);
  (void)after("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]");
  const Explained second = after("tcp 10.9.0.1:4001 > 10.9.0.100:80 [S]");
  const auto& candidates = step(second, "scheduler").candidates;
  ASSERT_EQ(candidates.size(), 3U);
  EXPECT_EQ(candidates[0].why, "overloaded: 1 connections, its upper threshold is 1");
  EXPECT_TRUE(candidates[1].taken);
  EXPECT_EQ(candidates[1].standing, "0/1") << "as it was before it was taken";
  EXPECT_EQ(candidates[2].why, "weight 0: takes nobody new");
}

TEST_F(ExplainTest, NatIsRewrittenThereAndBack) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m\n");
  EXPECT_EQ(rewritten(after("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]"), "target"), "10.9.0.100:80 -> 10.9.0.11:8080");
  const Explained back = after("tcp 10.9.0.11:8080 > 10.9.0.1:4000 [SA]");
  EXPECT_EQ(rewritten(back, "source"), "10.9.0.11:8080 -> 10.9.0.100:80");
  EXPECT_EQ(step(back, "connection").facts[3].second, "reply");
}

TEST_F(ExplainTest, ATunnelsHeaderIsNew) {
  rules("-A -u 10.9.0.100:53 -s rr\n-a -u 10.9.0.100:53 -r 10.9.0.11 -i\n");
  const Explained one = after("udp 10.9.0.1:4000 > 10.9.0.100:53 len=8");
  EXPECT_TRUE(rewritten(one, "outer").starts_with(" -> ipip 10.9.0.2 > 10.9.0.11")) << rewritten(one, "outer");
}

TEST_F(ExplainTest, PersistenceNamesTheTemplate) {
  rules("-A -t 10.9.0.100:80 -s rr -p 60\n-a -t 10.9.0.100:80 -r 10.9.0.11 -g\n-a -t 10.9.0.100:80 -r 10.9.0.12 -g\n");
  const Explained first = after("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]");
  EXPECT_NE(step(first, "persistence").says.find("has no template"), std::string::npos);
  const Explained second = after("tcp 10.9.0.1:4001 > 10.9.0.100:80 [S]");
  EXPECT_NE(step(second, "persistence").says.find("its template leads to 10.9.0.12:80"), std::string::npos);
}

TEST_F(ExplainTest, EverySchedulerHasWordsAndFigures) {
  std::uint16_t port = 4000;
  for (const std::string_view name : scheduler_names()) {
    tell(ClearServices{});
    rules(fmt::format("-A -t 10.9.0.100:80 -s {}\n-a -t 10.9.0.100:80 -r 10.9.0.11 -g -w 99\n-a -t 10.9.0.100:80 -r 10.9.0.12 -g -w 99\n", name));
    const Explained one = after(fmt::format("tcp 10.9.0.1:{} > 10.9.0.100:80 [S]", ++port));
    const auto& said = step(one, "scheduler");
    EXPECT_TRUE(said.says.starts_with(fmt::format("{} takes ", name))) << said.says;
    const auto taken = std::ranges::count_if(said.candidates, [](const auto& c) { return c.taken; });
    EXPECT_EQ(taken, name == "none" ? 0 : 1) << name;
    for (const auto& candidate : said.candidates) EXPECT_FALSE(candidate.why.empty()) << name;
  }
}

TEST_F(ExplainTest, ARefusalIsAnAnswerAndNoRewrite) {
  rules(kDirect);
  const Explained one = after("tcp 10.9.0.1:4000 > 10.9.0.100:81 [S]");
  EXPECT_TRUE(one.rewrites.empty());
  ASSERT_EQ(one.sent.size(), 1U);
  EXPECT_EQ(one.sent[0].packet, "tcp 10.9.0.100:81 > 10.9.0.1:4000 [RA] df");
}

TEST_F(ExplainTest, AskingTheDirectorDoesNothing) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11 -g\n-a -t 10.9.0.100:80 -r 10.9.0.12 -g\n");
  const std::vector<std::string> question{"vsadm", "explain", "--json", "tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]"};
  const Answer first = ask(question);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(ask(question).out, first.out) << "rr would have gone on to the next server";
  EXPECT_EQ(balancer_.outbox().size(), 0U);
  const FlowKey asked{{IpAddress::v4(0x0a090001), Port::of(4000)}, {IpAddress::v4(0x0a090064), Port::of(80)}, Protocol::tcp};
  EXPECT_FALSE(balancer_.find_connection(asked, now_));
  const auto json = nlohmann::json::parse(first.out);
  EXPECT_EQ(json[0]["verdict"]["action"], "transmit");
  EXPECT_EQ(json[0]["steps"][3]["candidates"].size(), 2U);
  EXPECT_EQ(json[0]["sent"][0]["device"], "eth0");
}

TEST_F(ExplainTest, SeveralPacketsAreAConversation) {
  rules(kDirect);
  const Answer answer = ask({"vsadm", "explain", "tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]", "tcp 10.9.0.1:4000 > 10.9.0.100:80 [A]"});
  EXPECT_NE(answer.out.find("SYN_RECV -> ESTABLISHED"), std::string::npos) << answer.out;
}

TEST_F(ExplainTest, NonsenseIsRefusedWithItsColumn) {
  const auto refusal = [&](std::string packet) { return ask({"vsadm", "explain", std::move(packet)}); };
  EXPECT_EQ(refusal("tcp 10.0.0.1:1 > 10.0.0.2:80 [S] ttl=300").err,
            "packet text, column 34: ttl=300: expected a number from 0 to 255\n");
  EXPECT_EQ(refusal("tcp 10.0.0.1:1 > 10.0.0.2:80 [S] ttl=300").exit_code, 2);
  EXPECT_NE(ask({"vsadm", "explain"}).err.find("usage: vsadm explain"), std::string::npos);
}

}  // namespace
}  // namespace director
