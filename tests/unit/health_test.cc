// Health checks: what is asked by each method, which answers count, when a server goes and comes back. core/health.h.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <map>

#include "director/core/balancer.h"
#include "director/net/format.h"
#include "director/rules.h"

namespace director {
namespace {

constexpr DeviceId kDevice{0};
const MacAddress kOwn{{2, 0, 0, 0, 0, 2}}, kServer{{2, 0, 0, 0, 0, 11}};

TEST(HealthCheckText, IsReadAndWritten) {
  for (const char* good : {"tcp", "tcp:8080", "http:/", "http:/health?x=1", "http:8080/health"}) {
    const auto check = parse_check(good);
    ASSERT_TRUE(check) << good;
    EXPECT_EQ(check_text(*check), good);
  }
  for (const char* bad : {"", "udp", "tcp:", "tcp:0", "tcp:70000", "tcp:80/", "tcp/", "http", "http:", "http:health", "http:80", "http:/a b", "https:/"})
    EXPECT_FALSE(parse_check(bad)) << bad;
  EXPECT_FALSE(parse_check("http:/" + std::string(256, 'x')));
}

TEST(HealthCheckText, FollowsItsRule) {
  const std::string line = "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g -w 1 --check http:/health --inter 2s --fall 3 --rise 2";
  const auto rules = parse_rules(line);
  ASSERT_TRUE(rules) << rules.error().message;
  EXPECT_EQ(command_text(rules->front().change), line);
  const auto* added = std::get_if<AddServer>(&rules->front().change);
  ASSERT_NE(added, nullptr);
  EXPECT_EQ(rule_text(added->service, added->config, Extras::restorable), "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g -w 1")
      << "ipvsadm reads what is saved for it";
}

class HealthTest : public testing::Test {
 protected:
  HealthTest() : balancer_({.policy = Policy::improved, .seed = 1, .announce = false}) {
    SetDevice device;
    device.device = kDevice;
    device.mac = kOwn;
    device.stack = Stack::own;
    tell(device);
    tell(SetAddresses{kDevice, {*Prefix::parse("10.9.0.2/24"), *Prefix::parse("fd00::2/64")}});
    for (const char* a : {"10.9.0.1", "10.9.0.11", "10.9.0.12", "fd00::11"}) tell(SetNeighbour{kDevice, *IpAddress::parse(a), kServer, true});
  }

  void tell(const Change& change) { ASSERT_TRUE(balancer_.apply(change, now_)); }
  void rules(std::string_view text) {
    const auto parsed = parse_rules(text);
    ASSERT_TRUE(parsed) << parsed.error().message;
    for (const Rule& rule : *parsed) tell(rule.change);
  }
  Verdict send(const std::string& line) {
    const auto built = build_frame(line, kServer, kOwn);
    EXPECT_TRUE(built) << line;
    std::vector<std::byte> room(kHeadroom + 2048);
    Frame frame = frame_in(room, built->bytes);
    frame.ingress = kDevice;
    return balancer_.process(frame, now_);
  }
  /// What the director has sent of its own since it was asked last.
  std::vector<std::string> sent() {
    std::vector<std::string> lines;
    for (std::size_t i = 0; i < balancer_.outbox().size(); ++i)
      if (balancer_.outbox()[i].egress) lines.push_back(packet_line(balancer_.outbox()[i].frame.bytes(), Detail::full, {}));
    balancer_.outbox().clear();
    return lines;
  }
  /// The clock until the next check is asked, and the question.
  std::string next_question() {
    for (int i = 0; i < 100 && balancer_.next_deadline() != kNever; ++i) {
      now_ = std::max(now_, balancer_.next_deadline());
      balancer_.expire(now_);
      if (const auto lines = sent(); !lines.empty()) return lines.front();
    }
    return "nothing";
  }
  static std::string word(const std::string& line, const std::string& name) {
    const std::size_t at = line.find(name + "=");
    return at == line.npos ? "" : line.substr(at + name.size() + 1, line.find_first_of(" )", at) - at - name.size() - 1);
  }
  static std::uint32_t number(const std::string& line, const std::string& name) {
    return static_cast<std::uint32_t>(std::stoul(word(line, name)));
  }
  /// "10.9.0.2:61000", who has asked.
  static std::string asker(const std::string& question) { return question.substr(4, question.find(" > ") - 4); }
  std::string answer(const std::string& question, const std::string& from, const std::string& flags, std::uint32_t sequence) {
    return "tcp " + from + " > " + asker(question) + " [" + flags + "] seq=" + std::to_string(sequence) +
           " ack=" + std::to_string(number(question, "seq") + 1);
  }
  const RealServer& server(std::size_t i = 0) { return *balancer_.services().front()->servers[i]; }

  Balancer balancer_;
  Instant now_{1000s};
  int number_ = 0;
};

TEST_F(HealthTest, AsksAMasqueradedServerAtItsOwnPort) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m --check tcp\n");
  const std::string question = next_question();
  EXPECT_EQ(question.substr(0, 41), "tcp 10.9.0.2:61000 > 10.9.0.11:8080 [S] s") << question;
  EXPECT_EQ(send(answer(question, "10.9.0.11:8080", "SA", 7)).reason, Reason::check_answered);
  const auto then = sent();
  ASSERT_EQ(then.size(), 1U);
  EXPECT_NE(then[0].find("[RA]"), std::string::npos) << "not kept open: " << then[0];
  EXPECT_EQ(server().health->says, "accepts connections");
  EXPECT_EQ(server().health->passes, 1U);
}

TEST_F(HealthTest, AsksOthersAtTheVirtualAddressByTheirWay) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g --check tcp\n");
  EXPECT_EQ(next_question().substr(0, 39), "tcp 10.9.0.2:61000 > 10.9.0.100:80 [S] ");
  tell(ClearServices{});
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -i --check tcp:8080\n");
  const std::string tunnelled = next_question();
  EXPECT_NE(tunnelled.find("ipip 10.9.0.2 > 10.9.0.11"), std::string::npos) << tunnelled;
  EXPECT_NE(tunnelled.find("> 10.9.0.100:8080 [S]"), std::string::npos) << tunnelled;
  tell(ClearServices{});
  rules("-A -t [fd00::100]:80 -s rr\n-a -t [fd00::100]:80 -r 10.9.0.11 -i --check tcp\n");
  const std::string mixed = next_question();
  EXPECT_NE(mixed.find("[fd00::2]:"), std::string::npos) << "an address of the virtual one's family: " << mixed;
}

TEST_F(HealthTest, HttpNeedsAGoodStatus) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g --check http:/ready --fall 1 --rise 1\n");
  const auto ask = [&](const std::string& payload) {
    const std::string syn = next_question();
    EXPECT_EQ(send(answer(syn, "10.9.0.100:80", "SA", 99)).reason, Reason::check_answered);
    const auto get = sent();
    EXPECT_EQ(get.size(), 1U);
    const std::uint32_t length = number(get.at(0), "len");
    EXPECT_EQ(send("tcp 10.9.0.100:80 > " + asker(syn) + " [PA] seq=100 ack=" + std::to_string(number(syn, "seq") + 1 + length) +
                   " data=" + payload).reason, Reason::check_answered);
    const auto end = sent();
    EXPECT_EQ(end.size(), 1U);
    EXPECT_NE(end.at(0).find("[RA]"), std::string::npos);
  };
  const auto hex = [](std::string_view text) {
    std::string bytes;
    for (const char c : text) bytes += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return bytes;
  };
  ask(hex("HTTP/1.1 503 Busy\r\n\r\n"));
  EXPECT_EQ(server().health->says, "answers 503");
  EXPECT_TRUE(server().failed());
  ask(hex("HTTP/1.1 302 Elsewhere\r\n\r\n"));
  EXPECT_FALSE(server().failed());
  ask(hex("SSH-2.0-whatever\r\n"));
  EXPECT_EQ(server().health->says, "answers no HTTP");
  EXPECT_TRUE(server().failed());
}

TEST_F(HealthTest, FailuresInARowTakeAServerOutAndAnswersBringItBack) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.12:80 -m\n"
        "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m --check tcp --inter 1s --fall 3 --rise 2\n");
  /// How many connections the checked server has got, after four more.
  const auto picks_of_four = [&] {
    for (int i = 0; i < 4; ++i)
      EXPECT_EQ(send(fmt::format("tcp 10.9.0.1:{} > 10.9.0.100:80 [S]", 4000 + number_++)).reason, Reason::none);
    return server().traffic.total.connections;
  };
  EXPECT_EQ(picks_of_four(), 2U);
  (void)next_question();
  EXPECT_FALSE(server().failed());
  for (int i = 0; i < 2; ++i) (void)next_question();  // two went unanswered
  EXPECT_FALSE(server().failed());
  EXPECT_EQ(send(answer(next_question(), "10.9.0.11:80", "RA", 0)).reason, Reason::check_answered);  // and before it the third
  EXPECT_TRUE(server().failed());
  EXPECT_FALSE(server().usable());
  EXPECT_EQ(server().health->says, "refuses connections");
  EXPECT_EQ(picks_of_four(), 2U) << "nobody new";
  EXPECT_EQ(balancer_.health_turns(), 1U);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(server().failed());
    EXPECT_EQ(send(answer(next_question(), "10.9.0.11:80", "SA", 5)).reason, Reason::check_answered);
    sent();
  }
  EXPECT_FALSE(server().failed());
  EXPECT_EQ(picks_of_four(), 4U);
}

TEST_F(HealthTest, AnswersOfOthersDontCount) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m --check tcp\n");
  const std::string question = next_question();
  EXPECT_NE(send(answer(question, "10.9.0.12:80", "SA", 1)).reason, Reason::check_answered) << "somebody else";
  (void)send("tcp 10.9.0.11:80 > " + asker(question) + " [SA] seq=1 ack=12345");
  EXPECT_EQ(server().health->passes, 0U) << "of another time";
  sent();
  EXPECT_EQ(send(answer(question, "10.9.0.11:80", "SA", 1) + " csum=bad").reason, Reason::bad_transport);
  EXPECT_EQ(server().health->passes, 0U);
  const Verdict late = send(answer(question, "10.9.0.11:80", "SA", 1));
  EXPECT_EQ(late.reason, Reason::check_answered);
  EXPECT_EQ(server().health->passes, 1U);
  EXPECT_NE(send(answer(question, "10.9.0.11:80", "SA", 1)).reason, Reason::check_answered) << "it has ended";
}

TEST_F(HealthTest, AServerThatGoesIsAskedNoMore) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m --check tcp --fall 1\n");
  const std::string question = next_question();
  const ServiceKey key = balancer_.services().front()->key();
  tell(DeleteServer{key, server().config.endpoint});
  EXPECT_NE(send(answer(question, "10.9.0.11:80", "SA", 1)).reason, Reason::check_answered);
  sent();
  rules("-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m\n");
  EXPECT_FALSE(server().health);
  EXPECT_EQ(next_question(), "nothing");
}

TEST_F(HealthTest, WithoutItsCheckAFailedServerIsBack) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.99:80 -m --check tcp --fall 1\n");
  (void)next_question();  // ARP, which nobody answers
  (void)next_question();
  for (int i = 0; i < 10 && !server().failed(); ++i) (void)next_question();
  ASSERT_TRUE(server().failed());
  ServerConfig config = server().config;
  config.check.reset();
  tell(EditServer{balancer_.services().front()->key(), config});
  EXPECT_TRUE(server().usable());
}

TEST_F(HealthTest, WhereTheDirectorHasNoAddressItSaysSo) {
  tell(SetAddresses{kDevice, {}});
  tell(SetRoutes{{Route{*Prefix::parse("0.0.0.0/0"), kDevice, {}, 0, 0, {}}}});
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m --check tcp --fall 1\n");
  now_ += 10s;
  balancer_.expire(now_);
  EXPECT_EQ(server().health->says, "the director has no address to ask from");
}

TEST_F(HealthTest, PropertyManyServersAreAskedEvenly) {
  constexpr int kServers = 500;
  std::string text = "-A -t 10.9.0.100:80 -s mh\n";
  for (int i = 0; i < kServers; ++i)
    text += fmt::format("-a -t 10.9.0.100:80 -r 10.9.0.11:{} -m --check tcp --inter 1s\n", 1000 + i);
  rules(text);
  std::map<std::int64_t, int> in_tenth;
  const Instant end = now_ + 3s;
  while (balancer_.next_deadline() < end) {
    now_ = std::max(now_, balancer_.next_deadline());
    balancer_.expire(now_);
    for (const std::string& line : sent())
      if (line.find("[S]") != line.npos) ++in_tenth[now_.time_since_epoch() / 100ms];
  }
  int all = 0;
  for (const auto& [tenth, count] : in_tenth) {
    all += count;
    EXPECT_LT(count, kServers / 4) << "in a tenth of the interval";
  }
  EXPECT_EQ(all, kServers * 3);
}

TEST_F(HealthTest, WithoutChecksNothingIsDue) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m\n");
  EXPECT_EQ(balancer_.next_deadline(), kNever);
}

}  // namespace
}  // namespace director
