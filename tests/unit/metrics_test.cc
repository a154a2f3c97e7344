// http/metrics and http/census: the text of /metrics, and the count of connections by state behind it.
#include "director/http/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "director/fate.h"
#include "director/net/format.h"
#include "director/rules.h"

namespace director {
namespace {

constexpr MacAddress kClientMac{{2, 0, 0, 0, 0, 1}};
constexpr MacAddress kDirectorMac{{2, 0, 0, 0, 0, 2}};

class MetricsTest : public ::testing::Test {
 protected:
  MetricsTest() : balancer_({.seed = 1, .announce = false}) {
    loop_.devices.resize(1);
    tell(SetDevice{DeviceId{0}, "eth0", kDirectorMac, 1500, true, Stack::own});
    tell(SetAddresses{DeviceId{0}, {*Prefix::parse("10.9.0.2/24"), *Prefix::parse("fd00:9::2/64")}});
    for (const char* server : {"10.9.0.1", "10.9.0.11", "10.9.0.12", "fd00:9::11"})
      tell(SetNeighbour{DeviceId{0}, *IpAddress::parse(server), kClientMac, true});
  }
  void rules(const char* text) {
    const auto parsed = parse_rules(text);
    ASSERT_TRUE(parsed) << parsed.error().in("rules");
    for (const Rule& rule : *parsed) tell(rule.change);
  }
  void tell(const Change& change) { ASSERT_TRUE(balancer_.apply(change, Instant{})); }
  void packet(const std::string& line) {
    const auto built = build_frame(line, kClientMac, kDirectorMac);
    ASSERT_TRUE(built) << built.error().message;
    storage_.resize(kHeadroom + kMaxFrame);
    Frame frame = frame_in(storage_, built->bytes);
    frame.ingress = DeviceId{0};
    (void)balancer_.process(frame, Instant{});
    balancer_.outbox().clear();
  }
  std::string text() {
    ConnectionCensus census{balancer_};
    auto snapshot = take_snapshot(balancer_, loop_, census.ask(Instant{}));
    snapshot.version = "1.2.3";
    return metrics_text(std::move(snapshot));
  }
  /// The lines of one family, with its HELP and TYPE.
  std::string family(const std::string& name) {
    std::istringstream in{text()};
    std::string lines;
    for (std::string line; std::getline(in, line);) {
      std::string what = line.starts_with("# ") ? line.substr(7) : line;
      what = what.substr(0, what.find_first_of(" {"));
      if (what == name) lines += line + "\n";
    }
    return lines;
  }

  Balancer balancer_;
  LoopStatistics loop_;
  std::vector<std::byte> storage_;
};

TEST_F(MetricsTest, ServersAreLabelledAsNodeExporterDoes) {
  rules(
      "-A -t 10.9.0.100:80 -s rr\n"
      "-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m -w 7\n"
      "-A -u [fd00:9::100]:53 -s rr\n"
      "-a -u [fd00:9::100]:53 -r [fd00:9::11]:53 -g\n"
      "-A -f 7 -s rr\n"
      "-a -f 7 -r 10.9.0.12:0 -g\n");
  EXPECT_EQ(family("node_ipvs_backend_weight"),
            "# HELP node_ipvs_backend_weight The current backend weight by local and remote address.\n"
            "# TYPE node_ipvs_backend_weight gauge\n"
            "node_ipvs_backend_weight{local_address=\"10.9.0.100\",local_mark=\"\",local_port=\"80\",proto=\"TCP\","
            "remote_address=\"10.9.0.11\",remote_port=\"8080\"} 7\n"
            "node_ipvs_backend_weight{local_address=\"fd00:9::100\",local_mark=\"\",local_port=\"53\",proto=\"UDP\","
            "remote_address=\"fd00:9::11\",remote_port=\"53\"} 1\n"
            "node_ipvs_backend_weight{local_address=\"\",local_mark=\"00000007\",local_port=\"0\",proto=\"FWM\","
            "remote_address=\"10.9.0.12\",remote_port=\"0\"} 1\n");
}

TEST_F(MetricsTest, CountsTrafficAndConnectionsByState) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m\n-a -t 10.9.0.100:80 -r 10.9.0.12:80 -m -w 0\n");
  packet("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]");
  packet("tcp 10.9.0.1:4001 > 10.9.0.100:80 [S]");
  packet("tcp 10.9.0.11:8080 > 10.9.0.1:4001 [SA]");
  packet("tcp 10.9.0.1:4001 > 10.9.0.100:80 [A]");
  EXPECT_NE(text().find("\nnode_ipvs_connections_total 2\n"), std::string::npos);
  EXPECT_NE(text().find("\nnode_ipvs_incoming_packets_total 3\n"), std::string::npos);
  EXPECT_NE(family("director_connections").find("{protocol=\"TCP\",state=\"SYN_RECV\"} 1\n"), std::string::npos);
  EXPECT_NE(family("director_connections").find("{protocol=\"TCP\",state=\"ESTABLISHED\"} 1\n"), std::string::npos);
  EXPECT_NE(family("director_connections").find("{protocol=\"UDP\",state=\"UDP\"} 0\n"), std::string::npos) << "there, though 0";
  EXPECT_NE(family("director_service_outgoing_packets_total").find("{service=\"TCP 10.9.0.100:80\"} 1\n"), std::string::npos);
  EXPECT_NE(family("director_server_usable").find("server=\"10.9.0.12:80\",method=\"masq\"} 0\n"), std::string::npos);
  EXPECT_NE(family("director_server_connections_total").find("server=\"10.9.0.11:8080\",method=\"masq\"} 2\n"), std::string::npos);
}

TEST_F(MetricsTest, EveryReasonIsInOneFamilyAndNoneIsADrop) {
  balancer_.counters().count(Reason::runt, 3);
  balancer_.counters().count(Reason::refused_reset, 2);
  EXPECT_NE(family("director_packets_dropped_total").find("{reason=\"runt\"} 3\n"), std::string::npos);
  EXPECT_NE(family("director_packets_refused_total").find("{reason=\"refused_reset\"} 2\n"), std::string::npos);
  EXPECT_EQ(family("director_packets_dropped_total").find("\"none\""), std::string::npos);
  const std::string all = text();
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const std::string label = "{reason=\"" + std::string{name_of(static_cast<Reason>(i))} + "\"}";
    const std::size_t at = all.find(label);
    ASSERT_NE(at, std::string::npos) << label;
    EXPECT_EQ(all.find(label, at + 1), std::string::npos) << label;
  }
}

TEST_F(MetricsTest, HistogramsAreCumulativeAndInBaseUnits) {
  loop_.turns.observe(20'000);
  loop_.turns.observe(20'001);
  loop_.turns.observe(3'000'000'000);
  loop_.devices[0].received.observe(64);
  const std::string turns = family("director_loop_turn_seconds_bucket");
  EXPECT_NE(turns.find("{le=\"1e-05\"} 0\n"), std::string::npos) << turns;
  EXPECT_NE(turns.find("{le=\"2e-05\"} 1\n"), std::string::npos) << "a bound belongs to its bucket";
  EXPECT_NE(turns.find("{le=\"0.1\"} 2\n"), std::string::npos);
  EXPECT_NE(turns.find("{le=\"+Inf\"} 3\n"), std::string::npos);
  EXPECT_EQ(family("director_loop_turn_seconds_count"), "director_loop_turn_seconds_count 3\n");
  EXPECT_EQ(family("director_loop_turn_seconds_sum"), "director_loop_turn_seconds_sum 3.000040001\n");
  EXPECT_NE(text().find("director_receive_batch_frames_bucket{device=\"eth0\",le=\"32\"} 0\n"
                        "director_receive_batch_frames_bucket{device=\"eth0\",le=\"64\"} 1\n"),
            std::string::npos);
}

TEST_F(MetricsTest, LabelsAreEscaped) {
  tell(SetDevice{DeviceId{0}, "a\"b\\c\nd", kDirectorMac, 1500, true, Stack::own});
  EXPECT_NE(text().find("director_device_up{device=\"a\\\"b\\\\c\\nd\"} 1\n"), std::string::npos);
}

TEST_F(MetricsTest, EachFamilyIsOneGroupWithHelpAndType) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m\n-A -t 10.9.0.100:81 -s rr\n");
  std::istringstream in{text()};
  std::set<std::string> begun;
  std::string present;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("# HELP ")) {
      present = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_TRUE(begun.insert(present).second) << present << " comes twice";
      ASSERT_TRUE(std::getline(in, line));
      EXPECT_TRUE(line.starts_with("# TYPE " + present + " ")) << line;
    } else {
      EXPECT_TRUE(line.starts_with(present)) << line << " is not of " << present;
    }
  }
  EXPECT_GT(begun.size(), 40U);
}

TEST_F(MetricsTest, PortionsAreTheSameText) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m\n-a -t 10.9.0.100:80 -r 10.9.0.12:80 -m\n");
  ConnectionCensus census{balancer_};
  const auto snapshot = take_snapshot(balancer_, loop_, census.ask(Instant{}));
  MetricsText writer{snapshot};
  std::string all;
  for (bool more = true; more;) {
    std::string portion;
    more = writer.write_some(portion, 1);
    all += portion;
  }
  EXPECT_EQ(all, metrics_text(snapshot));
}

TEST_F(MetricsTest, ABigTableIsCountedInPortions) {
  rules("-A -u 10.9.0.100:53 -s rr\n-a -u 10.9.0.100:53 -r 10.9.0.11:53 -g\n");
  constexpr std::size_t kMany = ConnectionCensus::kPortion + 1;
  for (std::size_t i = 0; i < kMany; ++i) packet("udp 10.9.0.1:" + std::to_string(1024 + i) + " > 10.9.0.100:53 len=1");
  ASSERT_EQ(balancer_.connection_count(), kMany);
  const auto counted = [](const ConnectionCounts& c) {
    return c.by_state[ConnectionCounts::udp][static_cast<std::size_t>(State::udp)];
  };
  ConnectionCensus census{balancer_};
  EXPECT_EQ(counted(census.ask(Instant{})), 0U) << "not finished yet";
  EXPECT_EQ(census.next_deadline(), Instant{} + ConnectionCensus::kBetween);
  census.due(Instant{});
  EXPECT_NE(census.next_deadline(), kNever) << "not before its time";
  census.due(census.next_deadline());
  EXPECT_EQ(census.next_deadline(), kNever) << "no wake-ups while nobody asks";
  EXPECT_EQ(counted(census.ask(Instant{})), kMany);
}

}  // namespace
}  // namespace director
