// events: changes in words, and what the watch says of a balancer, second by second.
#include "director/events.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "director/command.h"

namespace director {
namespace {

std::string text_of_event(const Event& event) {
  return log::line(log::Format::logfmt, "", event.level, event.message, std::span{event.fields})
      .substr(6);  // "level="
}

class EventsTest : public ::testing::Test {
 protected:
  EventsTest() {
    did("-A -t 10.9.0.100:80 -s rr");
    did("-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m -x 10");
    did("-a -t 10.9.0.100:80 -r 10.9.0.12:80 -m");
  }
  /// What the changes of a command line are called.
  std::string did(std::string_view line) {
    Request request{{"vsadm"}, {}};
    for (std::string_view rest = line; !rest.empty();) {
      request.argv.emplace_back(rest.substr(0, rest.find(' ')));
      rest.remove_prefix(std::min(request.argv.back().size() + 1, rest.size()));
    }
    std::vector<Change> changes;
    EXPECT_EQ(run_command(request, balancer_, now_, &changes).exit_code, 0) << line;
    std::string text;
    for (const Change& change : changes) text += text_of_event(event_of(change).value()) + "\n";
    return text;
  }
  /// What the watch says after so long.
  std::string after(Duration time) {
    now_ += time;
    std::string text;
    for (const Event& event : watch_.due(now_)) text += text_of_event(event) + "\n";
    return text;
  }
  RealServer& server(std::size_t i) { return const_cast<RealServer&>(*balancer_.services()[0]->servers[i]); }
  void count(Reason reason, std::uint64_t frames = 1) { balancer_.counters().count(reason, frames); }

  Balancer balancer_{Balancer::Options{}};
  Watch watch_{balancer_};
  Instant now_{};
};

TEST_F(EventsTest, ChangesHaveNamesAndTheirCommandLine) {
  EXPECT_EQ(did("-e -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 0"),
            "info msg=\"server changed\" service=\"TCP 10.9.0.100:80\" server=10.9.0.11:80 weight=0 "
            "change=\"-e -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 0\"\n");
  EXPECT_EQ(did("-d -t 10.9.0.100:80 -r 10.9.0.11:80"),
            "info msg=\"server removed\" service=\"TCP 10.9.0.100:80\" server=10.9.0.11:80 "
            "change=\"-d -t 10.9.0.100:80 -r 10.9.0.11:80\"\n");
  EXPECT_EQ(did("-A -f 7"), "info msg=\"service added\" service=\"FWM 7\" change=\"-A -f 7 -s wlc\"\n");
  EXPECT_EQ(did("--class 7 tcp dport 80"),
            "info msg=\"classes changed\" change=\"--class 7 tcp dport 80\"\n");
  EXPECT_EQ(did("tune sloppy_tcp=1"),
            "info msg=\"knob set\" knob=sloppy_tcp value=1 change=\"tune sloppy_tcp=1\"\n");
  EXPECT_EQ(did("-C"), "info msg=\"all services removed\" change=-C\n");
  EXPECT_EQ(did("-L -n"), "") << "a look is no change";
  EXPECT_FALSE(event_of(SetRoutes{}));
}

TEST_F(EventsTest, RefusedChangesAreNone) {
  std::vector<Change> changes;
  EXPECT_EQ(run_command({{"vsadm", "-D", "-t", "10.9.0.1:80"}, {}}, balancer_, now_, &changes).exit_code,
            255);
  EXPECT_TRUE(changes.empty());
}

TEST_F(EventsTest, NothingHappensNothingIsToldAndNobodyIsWoken) {
  EXPECT_EQ(after(0s), "");
  EXPECT_EQ(after(5s), "");
  EXPECT_EQ(watch_.next_deadline(), kNever);
  count(Reason::not_ip);
  EXPECT_EQ(after(0s), "") << "harmless";
  count(Reason::not_ip);
  EXPECT_EQ(after(10ms), "");
  EXPECT_EQ(watch_.next_deadline(), now_ - 10ms + Watch::kEvery) << "not looked at yet";
}

TEST_F(EventsTest, AServiceLosesItsLastServerAndGetsOneAgain) {
  EXPECT_EQ(after(0s), "");
  did("-e -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 0");
  EXPECT_EQ(after(1s), "") << "there is another";
  did("-d -t 10.9.0.100:80 -r 10.9.0.12:80");
  EXPECT_EQ(after(1s),
            "warning msg=\"service has no usable server\" service=\"TCP 10.9.0.100:80\" servers=1\n");
  EXPECT_EQ(after(60s), "") << "once";
  did("-e -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 1");
  EXPECT_EQ(after(1s),
            "info msg=\"service has a usable server again\" service=\"TCP 10.9.0.100:80\" servers=1\n");
  did("-A -u 10.9.0.100:53");
  EXPECT_EQ(after(10s), "") << "a service that never had a server is being made";
}

TEST_F(EventsTest, WhatFlutters) {
  EXPECT_EQ(after(0s), "");
  server(1).active = 10;
  server(1).overloaded = true;
  count(Reason::none);
  EXPECT_EQ(after(1s),
            "warning msg=\"server is full\" service=\"TCP 10.9.0.100:80\" server=10.9.0.11:80 connections=10 "
            "most=10\n");
  for (int i = 0; i < 8; ++i) {
    server(1).overloaded = !server(1).overloaded;
    count(Reason::none);
    EXPECT_EQ(after(1s), "") << "told once, and then not for a while";
  }
  server(1).overloaded = false;
  server(1).active = 3;
  count(Reason::none);
  EXPECT_EQ(after(1s), "");
  EXPECT_EQ(watch_.next_deadline(), now_ + Watch::kEvery) << "though nothing may happen any more";
  EXPECT_EQ(after(1s),
            "info msg=\"server takes connections again\" service=\"TCP 10.9.0.100:80\" server=10.9.0.11:80 "
            "connections=3 most=10\n")
      << "what is true by then";
  EXPECT_EQ(watch_.next_deadline(), kNever);
}

TEST_F(EventsTest, LossesAreToldWithTheirNumberNotOneByOne) {
  EXPECT_EQ(after(0s), "");
  count(Reason::table_full, 3);
  count(Reason::runt, 1000);
  EXPECT_EQ(after(1s),
            "warning msg=\"losses\" reason=table_full frames=3 text=\"the connection table is full\"\n");
  for (int i = 0; i < 9; ++i) {
    count(Reason::table_full, 5);
    EXPECT_EQ(after(1s), "");
  }
  EXPECT_EQ(after(1s),
            "warning msg=\"losses\" reason=table_full frames=45 text=\"the connection table is full\"\n");
  EXPECT_EQ(after(20s), "");
}

TEST_F(EventsTest, DefencesTurnThemselvesOnAndOff) {
  did("tune drop_entry=1 amemthresh=1");
  EXPECT_EQ(after(0s), "");
  did("tune amemthresh=2147483647");  // more than there can be
  now_ += 2s;
  (void)balancer_.expire(now_);
  EXPECT_EQ(after(0s), "warning msg=\"defence is on\" knob=drop_entry\n");
  did("tune amemthresh=1");
  now_ += 2s;
  (void)balancer_.expire(now_);
  EXPECT_EQ(after(10s), "info msg=\"defence is off\" knob=drop_entry\n");
}

TEST_F(EventsTest, AServersNeighbourIsLostAndFound) {
  const DeviceId front{0};
  const auto tell = [&](const Change& change) { EXPECT_TRUE(balancer_.apply(change, now_)); };
  tell(SetDevice{front, "front", {{2, 0, 0, 0, 0, 2}}, 1500, true, Stack::own});
  tell(SetAddresses{front, {{*IpAddress::parse("10.9.0.2"), 24}}});
  EXPECT_EQ(after(0s), "");
  // The way to the server is found out with its first packet; here it is set as that would.
  const RouteTo* route = const_cast<Network&>(balancer_.network()).route(*IpAddress::parse("10.9.0.11"));
  ASSERT_TRUE(route);
  server(1).way = *route;
  server(1).way_generation = balancer_.network().generation();
  Hop& hop = const_cast<Hop&>(balancer_.network().hop(route->hop));
  hop.state = Hop::State::failed;
  count(Reason::neighbour_failed);
  EXPECT_EQ(after(1s),
            "warning msg=\"neighbour lost\" neighbour=10.9.0.11 device=front server=10.9.0.11:80\n"
            "warning msg=\"losses\" reason=neighbour_failed frames=1 text=\"the next hop's MAC address could "
            "not be found\"\n");
  hop.state = Hop::State::asking;
  count(Reason::none);
  EXPECT_EQ(after(10s), "") << "neither";
  hop.state = Hop::State::reachable;
  count(Reason::arp_learnt);
  EXPECT_EQ(after(1s), "info msg=\"neighbour found\" neighbour=10.9.0.11 device=front server=10.9.0.11:80\n");
}

}  // namespace
}  // namespace director
