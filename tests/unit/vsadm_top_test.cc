// vsadm top without director and terminal: snapshots from real listings, rates between two of them, and what is drawn.
#include <gtest/gtest.h>

#include <algorithm>

#include "director/command.h"
#include "director/vsadm/snapshot.h"
#include "director/vsadm/top_table.h"

namespace director::vsadm {
namespace {

/// A director with two services, as the tool sees it.
class VsadmTopTest : public ::testing::Test {
 protected:
  VsadmTopTest() {
    ask({"vsadm", "-R"},
        "-A -t 10.9.0.100:80 -s rr\n"
        "-a -t 10.9.0.100:80 -r 10.9.1.11:8080 -m -w 1\n"
        "-a -t 10.9.0.100:80 -r 10.9.1.12:8080 -m -w 0\n"
        "-A -u [fd00:10:9::100]:53 -s wlc\n"
        "-a -u [fd00:10:9::100]:53 -r [fd00:10:9:1::11]:53 -m -w 3\n"
        "-A -f 7 -s sh\n");
  }
  std::string ask(std::vector<std::string> words, std::optional<std::string> input = {}) {
    const Answer answer =
        run_command({std::move(words), {{"input", std::move(input)}}}, balancer_, Instant{});
    EXPECT_EQ(answer.exit_code, 0) << answer.err;
    return answer.out;
  }
  Snapshot snapshot() {
    const auto read =
        read_snapshot(ask({"vsadm", "-L", "-n", "--json"}), ask({"vsadm", "reasons", "--json"}));
    EXPECT_TRUE(read) << (read ? "" : read.error().message);
    return *read;
  }
  Service& service(std::size_t i) { return const_cast<Service&>(*balancer_.services()[i]); }
  RealServer& server(std::size_t i, std::size_t k) {  // they are kept last added first
    const auto& servers = service(i).servers;
    return const_cast<RealServer&>(*servers[servers.size() - 1 - k]);
  }

  Balancer balancer_{Balancer::Options{}};
};

std::string joined(const TopTable& table) {
  std::string text;
  for (const std::string& line : table.lines) text += line + "\n";
  return text;
}

TEST_F(VsadmTopTest, NamesAreThoseOfTheCommandLine) {
  const Snapshot seen = snapshot();
  ASSERT_EQ(seen.services.size(), 3U);
  EXPECT_EQ(seen.services[0].option + " " + seen.services[0].name, "-t 10.9.0.100:80");
  EXPECT_EQ(seen.services[1].option + " " + seen.services[1].name, "-u [fd00:10:9::100]:53");
  EXPECT_EQ(seen.services[2].option + " " + seen.services[2].name, "-f 7");
  EXPECT_EQ(seen.services[0].servers[0].name, "10.9.1.11:8080");
  EXPECT_TRUE(seen.services[0].servers[0].usable);
  EXPECT_FALSE(seen.services[0].servers[1].usable);
  EXPECT_EQ(seen.services[1].servers[0].name, "[fd00:10:9:1::11]:53");
}

TEST_F(VsadmTopTest, RatesAreWhatTheTimeBetweenBrought) {
  service(0).traffic.total = {10, 100, 50, 1000, 500};
  balancer_.counters().count(Reason::no_service, 5);
  const Snapshot before = snapshot();
  EXPECT_EQ(before.services[0].rate.in_packets, 0U) << "the director's average: it has none yet";
  service(0).traffic.total = {14, 300, 50, 5000, 500};
  server(1, 0).traffic.total.connections = 3;
  balancer_.counters().count(Reason::no_service, 8);
  const Snapshot now = measured(before, snapshot(), 2s);
  EXPECT_EQ(now.services[0].rate.connections, 2U);
  EXPECT_EQ(now.services[0].rate.in_packets, 100U);
  EXPECT_EQ(now.services[0].rate.out_packets, 0U);
  EXPECT_EQ(now.services[0].rate.in_bytes, 2000U);
  EXPECT_EQ(now.services[1].servers[0].rate.connections, 2U) << "3 in 2 s, rounded";
  const auto drop = std::ranges::find(now.drops, "no_service", &Snapshot::Drop::name);
  ASSERT_NE(drop, now.drops.end());
  EXPECT_EQ(drop->total, 13U);
  EXPECT_EQ(drop->rate, 4U);
}

TEST_F(VsadmTopTest, RowsThatCameWentOrWereZeroedMeasureRight) {
  service(0).traffic.total = {10, 100, 50, 1000, 500};
  const Snapshot before = snapshot();
  ask({"vsadm", "-D", "-u", "[fd00:10:9::100]:53"});
  ask({"vsadm", "-Z"});
  ask({"vsadm", "-A", "-t", "10.9.0.101:80"});
  service(0).traffic.total.connections = 6;
  service(2).traffic.rate.connections = 9;
  const Snapshot now = measured(before, snapshot(), 2s);
  ASSERT_EQ(now.services.size(), 3U);
  EXPECT_EQ(now.services[0].rate.connections, 3U) << "since the zero";
  EXPECT_EQ(now.services[0].rate.in_packets, 0U);
  EXPECT_EQ(now.services[1].name, "10.9.0.101:80");
  EXPECT_EQ(now.services[1].rate.connections, 9U) << "new: the director's average";
  EXPECT_EQ(now.services[2].name, "7");
}

TEST_F(VsadmTopTest, TheTable) {
  server(0, 0).active = 12;
  server(0, 0).inactive = 3;
  service(0).traffic.rate = {4, 120, 100, 1234567, 3456789012};
  server(0, 0).traffic.rate = {4, 120, 100, 1234567, 3456789012};
  balancer_.counters().count(Reason::no_service, 340);
  balancer_.counters().count(Reason::refused_reset, 7);
  balancer_.counters().count(Reason::echo_answered, 99);  // handled, so it isn't shown
  EXPECT_EQ(joined(draw_top(snapshot(), {"2026-11-28 14:03:22", 2s, Column::name, {}, 0})),
            "vsadm top  2026-11-28 14:03:22  every 2s  by name\n"
            "3 services, 3 servers (1 unusable); connections: 12 active, 3 inactive\n"
            "per second: connections 4; in: packets 120, bytes 1234K; out: packets 100, bytes 3456M\n"
            "\n"
            "Dropped, refused           /s       total\n"
            "no_service                  -         340  an address of ours, but no service on that port\n"
            "refused_reset               -           7  refused with a TCP reset\n"
            "\n"
            "Service                  Weight Active  InAct    CPS  InPPS OutPPS  InBPS OutBPS\n"
            "TCP 10.9.0.100:80            rr     12      3      4    120    100  1234K  3456M\n"
            "-> 10.9.1.11:8080             1     12      3      4    120    100  1234K  3456M\n"
            "-> 10.9.1.12:8080             0      0      0      0      0      0      0      0\n"
            "UDP [fd00:10:9::100]:53     wlc      0      0      0      0      0      0      0\n"
            "-> [fd00:10:9:1::11]:53       3      0      0      0      0      0      0      0\n"
            "FWM 7                        sh      0      0      0      0      0      0      0\n");
}

TEST_F(VsadmTopTest, NothingDroppedIsSaid) {
  const std::string text = joined(draw_top(snapshot(), {"", 500ms, Column::name, {}, 0}));
  EXPECT_NE(text.find("every 500ms"), std::string::npos);
  EXPECT_NE(text.find("\nnothing was dropped or refused\n"), std::string::npos);
}

/// The order of the table's first words.
std::vector<std::string> order(const TopTable& table) {
  std::vector<std::string> names;
  for (std::size_t i = table.heading + 1; i < table.lines.size(); ++i) {
    const std::string& line = table.lines[i];
    const std::size_t name = line.find(' ') + 1;
    names.push_back(line.substr(name, line.find(' ', name) - name));
  }
  return names;
}

TEST_F(VsadmTopTest, SortsByAnyColumnTheLargestFirst) {
  service(1).traffic.rate.in_bytes = 10;
  service(0).traffic.rate.in_bytes = 5;
  server(0, 1).traffic.rate.in_bytes = 4;
  server(0, 0).traffic.rate.in_bytes = 1;
  const std::string second = format_as(server(0, 1).config.endpoint);
  const std::string first = format_as(server(0, 0).config.endpoint);
  const std::vector<std::string> expected{
      "[fd00:10:9::100]:53", "[fd00:10:9:1::11]:53", "10.9.0.100:80", second, first, "7"};
  EXPECT_EQ(order(draw_top(snapshot(), {"", 2s, Column::in_bps, {}, 0})), expected);
  EXPECT_EQ(parse_column("inbps"), Column::in_bps);
  EXPECT_EQ(parse_column("outbps"), Column::out_bps);
  EXPECT_FALSE(parse_column("bogus"));
}

TEST_F(VsadmTopTest, DropsAreTheFastestFirstAndInAWindowFew) {
  for (const Reason reason : {Reason::runt, Reason::not_ours, Reason::bad_source, Reason::no_service,
                              Reason::no_server, Reason::too_big})
    balancer_.counters().count(reason, 10);
  const Snapshot before = snapshot();
  balancer_.counters().count(Reason::too_big, 100);
  const TopTable table =
      draw_top(measured(before, snapshot(), 1s), {"", 1s, Column::name, Window{12, 80}, 0});
  ASSERT_EQ(table.lines.size(), 12U);
  EXPECT_EQ(table.lines[5].substr(0, 41), "too_big                   100         110");
  EXPECT_EQ(table.lines[7], "and 3 more: vsadm reasons");
}

TEST_F(VsadmTopTest, FitsItsWindowAndScrollsNoFurtherThanItsRows) {
  TopStyle style{"2026-11-28 14:03:22", 2s, Column::name, Window{10, 60}, 0};
  const TopTable top_rows = draw_top(snapshot(), style);
  EXPECT_EQ(top_rows.lines.size(), 10U);
  for (const std::string& line : top_rows.lines) EXPECT_LE(line.size(), 60U) << line;
  EXPECT_EQ(top_rows.lines[top_rows.heading], "Service                  Weight Active  InAct    CPS  InPPS")
      << "no half columns";
  style.first = 100;
  const TopTable bottom = draw_top(snapshot(), style);
  EXPECT_EQ(bottom.first, 3U) << "six rows, of which three fit";
  EXPECT_EQ(bottom.lines.back().substr(0, 5), "FWM 7");
  style.window = Window{3, 10};
  EXPECT_EQ(draw_top(snapshot(), style).lines.size(), 3U);
}

TEST_F(VsadmTopTest, JsonIsOneLineWithTheSameNumbers) {
  server(0, 0).active = 12;
  balancer_.counters().count(Reason::no_service, 340);
  const std::string first = top_json(snapshot(), "2026-11-28T14:03:22Z", {});
  EXPECT_EQ(std::ranges::count(first, '\n'), 1);
  EXPECT_EQ(first.substr(0, 57), R"({"time":"2026-11-28T14:03:22Z","interval":null,"services")");
  EXPECT_NE(first.find(R"({"service":"TCP 10.9.0.100:80","scheduler":"rr","active":12,)"), std::string::npos)
      << first;
  EXPECT_NE(first.find(R"({"name":"no_service","fate":"dropped","count":340,"rate":null})"),
            std::string::npos)
      << first;
  const std::string later = top_json(measured(snapshot(), snapshot(), 2500ms), "", 2500ms);
  EXPECT_NE(later.find(R"("interval":2.5,)"), std::string::npos);
  EXPECT_NE(later.find(R"("count":340,"rate":0})"), std::string::npos);
}

TEST(VsadmSnapshot, WhatIsNoListingIsRefused) {
  for (const char* text : {"", "[]", "{}", R"({"services": [1]})", R"({"services": [{"protocol": "tcp"}]})"})
    EXPECT_FALSE(read_snapshot(text, "")) << text;
}

}  // namespace
}  // namespace director::vsadm
