// Floods: a full table makes room by what was never answered; drop_entry, drop_packet and secure_tcp as the kernel's.
#include <gtest/gtest.h>


#include "director/core/balancer.h"
#include "director/net/format.h"
#include "director/rules.h"

namespace director {
namespace {

constexpr DeviceId kDevice{0};
const MacAddress kOwn{{2, 0, 0, 0, 0, 2}}, kOther{{2, 0, 0, 0, 0, 1}};

class Defence : public testing::Test {
 protected:
  explicit Defence(Policy policy = Policy::improved, std::size_t most = 1000)
      : balancer_({.policy = policy, .seed = 1, .max_connections = most, .announce = false}) {
    SetDevice device;
    device.device = kDevice;
    device.mac = kOwn;
    device.stack = Stack::own;
    tell(device);
    tell(SetAddresses{kDevice, {*Prefix::parse("10.9.0.2/24")}});
    tell(SetRoutes{{Route{*Prefix::parse("0.0.0.0/0"), kDevice, *IpAddress::parse("10.9.0.1"), 0, 0, {}}}});
    for (const char* a : {"10.9.0.1", "10.9.0.11"}) tell(SetNeighbour{kDevice, *IpAddress::parse(a), kOther, true});
    rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m\n"
          "-A -u 10.9.0.100:53 -s rr\n-a -u 10.9.0.100:53 -r 10.9.0.11:53 -m\n");
  }

  void tell(const Change& change) { ASSERT_TRUE(balancer_.apply(change, now_)); }
  void tune(const char* name, std::int64_t value) { tell(SetTunable{name, value}); }
  void rules(std::string_view text) {
    const auto parsed = parse_rules(text);
    ASSERT_TRUE(parsed) << parsed.error().message;
    for (const Rule& rule : *parsed) tell(rule.change);
  }
  Reason send(const std::string& line) {
    const auto built = build_frame(line, kOther, kOwn);
    EXPECT_TRUE(built) << line;
    std::vector<std::byte> room(kHeadroom + 2048);
    Frame frame = frame_in(room, built->bytes);
    frame.ingress = kDevice;
    const Verdict verdict = balancer_.process(frame, now_);
    balancer_.outbox().clear();
    return verdict.reason;
  }
  static std::string client(unsigned n) { return fmt_client(n); }
  static std::string fmt_client(unsigned n) {
    return "172." + std::to_string(16 + n / 65536) + "." + std::to_string(n / 256 % 256) + "." + std::to_string(n % 256) + ":4000";
  }
  Reason syn(unsigned n) { return send("tcp " + client(n) + " > 10.9.0.100:80 [S]"); }
  Reason ack(unsigned n) { return send("tcp " + client(n) + " > 10.9.0.100:80 [A]"); }
  Reason udp(unsigned n) { return send("udp " + client(n) + " > 10.9.0.100:53 len=20"); }
  std::uint64_t count(Reason r) { return balancer_.counters()[r]; }
  std::size_t in_state(State s) {
    std::size_t n = 0;
    balancer_.for_each_connection(now_, [&](const Balancer::ConnectionRow& row) { n += row.state == s; });
    return n;
  }
  void pass(Duration d) {
    const Instant until = now_ + d;
    while (balancer_.next_deadline() <= until) {
      now_ = std::max(now_, balancer_.next_deadline());
      balancer_.expire(now_);
    }
    now_ = until;
  }

  Balancer balancer_;
  Instant now_{1000s};
};

TEST_F(Defence, LiveConnectionsSurviveAFloodThatFillsTheTable) {
  for (unsigned n = 0; n < 400; ++n) {
    ASSERT_EQ(syn(n), Reason::none);
    ASSERT_EQ(ack(n), Reason::none);
  }
  for (unsigned n = 1000; n < 31000; ++n) ASSERT_EQ(syn(n), Reason::none) << "the flood itself is served";
  EXPECT_EQ(balancer_.connection_count(), 1000U);
  EXPECT_EQ(in_state(State::established), 400U);
  EXPECT_EQ(count(Reason::made_room), 30000U - 600U);
  EXPECT_EQ(count(Reason::table_full), 0U);
  for (unsigned n = 0; n < 400; ++n) EXPECT_EQ(ack(n), Reason::none);
  ASSERT_EQ(syn(50000), Reason::none) << "and so is who comes in between";
  EXPECT_EQ(ack(50000), Reason::none);
  EXPECT_EQ(in_state(State::established), 401U);
}

TEST_F(Defence, SingleDatagramsMakeRoomConversationsDont) {
  for (unsigned n = 0; n < 300; ++n) {
    ASSERT_EQ(udp(n), Reason::none);
    ASSERT_EQ(udp(n), Reason::none);
  }
  for (unsigned n = 1000; n < 6000; ++n) ASSERT_EQ(udp(n), Reason::none);
  std::size_t kept = 0;
  balancer_.for_each_connection(now_, [&](const Balancer::ConnectionRow& row) {
    kept += row.client.address < IpAddress::v4(0xac100000U + 300) ? 1U : 0U;
  });
  EXPECT_EQ(kept, 300U);
}

TEST_F(Defence, ATableFullOfEstablishedConnectionsRefusesInBoundedTime) {
  for (unsigned n = 0; n < 1000; ++n) {
    ASSERT_EQ(syn(n), Reason::none);
    ASSERT_EQ(ack(n), Reason::none);
  }
  EXPECT_EQ(syn(2000), Reason::table_full);
  EXPECT_EQ(in_state(State::established), 1000U);
}

TEST_F(Defence, AFloodFromOnePlaceDoesntTakeItsTemplateAway) {
  rules("-A -t 10.9.0.100:81 -s rr -p 300 -M 255.255.0.0\n-a -t 10.9.0.100:81 -r 10.9.0.11:81 -m\n");
  tune("conn_max", 4);
  for (unsigned n = 0; n < 1000; ++n)
    ASSERT_EQ(send("tcp " + client(n) + " > 10.9.0.100:81 [S]"), Reason::none) << n;
  EXPECT_EQ(balancer_.connection_count(), 4U);
  std::size_t templates = 0;
  balancer_.for_each_connection(now_, [&](const Balancer::ConnectionRow& row) { templates += row.is_template ? 1U : 0U; });
  EXPECT_EQ(templates, 1U);
}

TEST_F(Defence, ConnMaxIsALimitThatCanBeTurned) {
  tune("conn_max", 2);
  EXPECT_EQ(syn(1), Reason::none);
  EXPECT_EQ(ack(1), Reason::none);
  EXPECT_EQ(syn(2), Reason::none);
  EXPECT_EQ(ack(2), Reason::none);
  EXPECT_EQ(syn(3), Reason::table_full);
  tune("conn_max", 0);
  EXPECT_EQ(syn(3), Reason::none);
}

TEST_F(Defence, DropEntryEndsHalfOpenConnectionsAndSomeOfTheQuietOnes) {
  for (unsigned n = 0; n < 100; ++n) ASSERT_EQ(syn(n), Reason::none);
  for (unsigned n = 100; n < 200; ++n) {  // two packets
    ASSERT_EQ(syn(n), Reason::none);
    ASSERT_EQ(ack(n), Reason::none);
  }
  for (unsigned n = 200; n < 300; ++n) {  // ten: they have something to lose
    ASSERT_EQ(syn(n), Reason::none);
    for (int i = 0; i < 9; ++i) ASSERT_EQ(ack(n), Reason::none);
  }
  tune("drop_entry", 3);
  pass(50s);
  EXPECT_EQ(in_state(State::syn_recv), 0U);
  EXPECT_EQ(in_state(State::established), 200U) << "nobody was quiet for a minute yet";
  pass(60s);
  const std::size_t left = in_state(State::established);
  EXPECT_GE(left, 100U) << "of those with two packets every second one goes at each round";
  EXPECT_LT(left, 160U);
  tune("drop_entry", 0);
  pass(60s);
  EXPECT_EQ(in_state(State::established), left);
}

TEST_F(Defence, DropPacketRefusesEveryNthThatWouldBegin) {
  tune("drop_packet", 3);
  tune("am_droprate", 4);
  unsigned refused = 0;
  for (unsigned n = 0; n < 100; ++n) refused += syn(n) == Reason::drop_packet ? 1U : 0U;
  EXPECT_EQ(refused, 25U);
  EXPECT_EQ(ack(1), Reason::none) << "connections are not touched";
}

TEST_F(Defence, TheAutomaticModesTurnWithTheRoomThereIs) {
  tune("amemthresh", 1);  // the smallest: a page
  for (const char* name : {"drop_entry", "drop_packet", "secure_tcp"}) tune(name, 1);
  EXPECT_EQ(balancer_.tunables().drop_packet, 1);
  for (unsigned n = 0; n < 1000; ++n) {
    ASSERT_EQ(syn(n), Reason::none);
    ASSERT_EQ(ack(n), Reason::none);
  }
  pass(1s);
  EXPECT_EQ(balancer_.tunables().drop_entry, 2);
  EXPECT_EQ(balancer_.tunables().drop_packet, 2);
  EXPECT_EQ(balancer_.tunables().secure_tcp, 2);
  EXPECT_EQ(syn(5000), Reason::drop_packet) << "no room at all: every one";
  pass(20min);
  EXPECT_EQ(balancer_.connection_count(), 0U);
  EXPECT_EQ(balancer_.tunables().drop_entry, 1);
  EXPECT_EQ(balancer_.tunables().drop_packet, 1);
  EXPECT_EQ(balancer_.tunables().secure_tcp, 1);
  for (const char* name : {"drop_entry", "drop_packet", "secure_tcp"}) tune(name, 0);
  pass(5s);
  EXPECT_EQ(balancer_.next_deadline(), kNever) << "nothing to watch: an idle director sleeps";
}

class DefenceOfTheKernel : public Defence {
 protected:
  DefenceOfTheKernel() : Defence(Policy::kernel, 10) {}
};

TEST_F(DefenceOfTheKernel, AFullTableIsFull) {
  for (unsigned n = 0; n < 10; ++n) ASSERT_EQ(syn(n), Reason::none);
  EXPECT_EQ(syn(10), Reason::table_full);
}

TEST_F(Defence, EveryKnobOfTheKernelIsThereWithItsEffectOrAReason) {
  for (const char* name :
       {"am_droprate", "amemthresh", "cache_bypass", "conn_lfactor", "conn_max", "conn_reuse_mode", "conntrack", "debug_level",
        "drop_entry", "drop_packet", "est_nice", "expire_nodest_conn", "expire_quiescent_template", "ignore_tunneled",
        "lblc_expiration", "lblcr_expiration", "nat_icmp_send", "pmtu_disc", "run_estimation", "schedule_icmp", "secure_tcp",
        "sloppy_sctp", "sloppy_tcp", "snat_reroute", "svc_lfactor"}) {
    const TunableInfo* knob = find_tunable(name);
    ASSERT_NE(knob, nullptr) << name;
    EXPECT_FALSE(knob->effect.empty()) << name;
    EXPECT_TRUE(knob->least <= knob->initial && knob->initial <= knob->most) << name;
  }
}

}  // namespace
}  // namespace director
