// listing: the tables as ipvsadm 1.31 printed them (tests/golden/admin holds more, with traffic).
#include "director/listing.h"

#include <gtest/gtest.h>

#include "director/rules.h"

namespace director {
namespace {

/// A balancer with these rules, and what listings ask of it.
class Listing : public ::testing::Test {
 protected:
  void rules(const char* text) {
    const auto parsed = parse_rules(text);
    ASSERT_TRUE(parsed) << parsed.error().in("rules");
    for (const Rule& rule : *parsed) {
      const auto done = balancer_.apply(rule.change, Instant{});
      ASSERT_TRUE(done) << rule.line << ": " << text_of(done.error());
    }
  }
  std::string list(View view, Numbers numbers = Numbers::short_, Order order = Order::sorted) {
    Lookups none;
    return list_services(balancer_.services(), 4096, {view, Addresses::numeric, numbers, order}, none);
  }
  /// For counters that only traffic changes: tests of columns write them.
  RealServer& server(std::size_t service, std::size_t position) {
    return *const_cast<Service*>(balancer_.services().at(service))->servers.at(position);
  }

  Balancer balancer_{Balancer::Options{}};
};

constexpr const char* kShop =
    "-A -t 10.9.0.100:443 -s wlc -p 100 -M 255.255.255.0\n"
    "-A -t 10.9.0.100:80 -s rr\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.13:80 -m -w 13\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m -w 2147483647 -x 2147483647 -y 2147483646\n"
    "-a -t 10.9.0.100:80 -r 200.100.100.100 -g\n"
    "-a -t 10.9.0.100:80 -r 9.1.1.1 -i\n"
    "-A -u 10.9.0.100:53 -s lc\n"
    "-A -t 200.9.0.100:80 -s rr\n";

TEST_F(Listing, PlainIsSortedAsIpvsadmSorts) {
  rules(kShop);
  EXPECT_EQ(list(View::plain),
            "IP Virtual Server version 1.2.1 (size=4096)\n"
            "Prot LocalAddress:Port Scheduler Flags\n"
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
            "TCP  200.9.0.100:80 rr\n"
            "TCP  10.9.0.100:80 rr\n"
            "  -> 200.100.100.100:80           Route   1      0          0         \n"
            "  -> 9.1.1.1:80                   Tunnel  1      0          0         \n"
            "  -> 10.9.0.11:8080               Masq    2147483647 0          0         \n"
            "  -> 10.9.0.13:80                 Masq    13     0          0         \n"
            "TCP  10.9.0.100:443 wlc persistent 100 mask 255.255.255.0\n"
            "UDP  10.9.0.100:53 lc\n");
}

TEST_F(Listing, UnsortedIsAsAddedAndServersBackwards) {
  rules(
      "-A -t 10.9.0.100:80 -s rr\n-A -t 10.9.0.1:80 -s rr\n"
      "-a -t 10.9.0.1:80 -r 10.9.0.11 -m\n-a -t 10.9.0.1:80 -r 10.9.0.12 -m\n");
  EXPECT_EQ(list(View::plain, Numbers::short_, Order::as_kept),
            "IP Virtual Server version 1.2.1 (size=4096)\n"
            "Prot LocalAddress:Port Scheduler Flags\n"
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
            "TCP  10.9.0.100:80 rr\n"
            "TCP  10.9.0.1:80 rr\n"
            "  -> 10.9.0.12:80                 Masq    1      0          0         \n"
            "  -> 10.9.0.11:80                 Masq    1      0          0         \n");
}

TEST_F(Listing, CountersTakeASuffixAndExactOnesDoNot) {
  rules("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11 -m\n");
  RealServer& real = server(0, 0);
  real.traffic.total = {99'999'999, 100'000'000, 1'000'000'000, 100'000'000'000, 100'000'000'000'000};
  real.traffic.rate = {1, 2, 3, 123'456'789, 5};
  EXPECT_EQ(list(View::stats),
            "IP Virtual Server version 1.2.1 (size=4096)\n"
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n"
            "  -> RemoteAddress:Port\n"
            "TCP  10.9.0.100:80                       0        0        0        0        0\n"
            "  -> 10.9.0.11:80                 99999999  100000K    1000M     100G     100T\n");
  EXPECT_NE(list(View::stats, Numbers::exact)
                .find("  -> 10.9.0.11:80                 99999999 100000000 1000000000 "
                      "100000000000 100000000000000\n"),
            std::string::npos);
  EXPECT_EQ(list(View::rate),
            "IP Virtual Server version 1.2.1 (size=4096)\n"
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n"
            "  -> RemoteAddress:Port\n"
            "TCP  10.9.0.100:80                       0        0        0        0        0\n"
            "  -> 10.9.0.11:80                        1        2        3  123456K        5\n");
}

TEST_F(Listing, OtherColumns) {
  rules(
      "-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11 -m -w 5 -x 100 -y 50\n"
      "-a -t 10.9.0.100:80 -r 10.9.0.12 -i --tun-type gue --tun-port 6080 --tun-remcsum\n");
  server(0, 1).active = 7;
  server(0, 1).inactive = 12;
  EXPECT_EQ(list(View::thresholds),
            "IP Virtual Server version 1.2.1 (size=4096)\n"
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n"
            "  -> RemoteAddress:Port\n"
            "TCP  10.9.0.100:80 rr\n"
            "  -> 10.9.0.11:80                 100        50         7          12        \n"
            "  -> 10.9.0.12:80                 0          0          0          0         \n");
  EXPECT_EQ(list(View::persistent_connections),
            "IP Virtual Server version 1.2.1 (size=4096)\n"
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n"
            "  -> RemoteAddress:Port\n"
            "TCP  10.9.0.100:80 rr\n"
            "  -> 10.9.0.11:80                 5         0           7          12        \n"
            "  -> 10.9.0.12:80                 1         0           0          0         \n");
  EXPECT_EQ(list(View::tunnels),
            "IP Virtual Server version 1.2.1 (size=4096)\n"
            "Prot LocalAddress:Port Scheduler Flags\n"
            "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
            "TCP  10.9.0.100:80 rr\n"
            "  -> 10.9.0.11:80                 Masq    n/a           5      7          12        \n"
            "  -> 10.9.0.12:80                 Tunnel  gue:6080:r+c  1      0          0         \n");
}

TEST_F(Listing, OneServiceHasNoFirstLine) {
  rules("-A -t 10.9.0.100:80 -s rr\n");
  Lookups none;
  EXPECT_EQ(list_service(*balancer_.services()[0], {}, none).substr(0, 5), "Prot ");
}

TEST_F(Listing, NamesComeFromTheAsker) {
  rules(
      "-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m\n-A -f 7 -s rr\n-a -f 7 -r "
      "10.9.0.12:80 -m\n"
      "-A -t [fd00:9::100]:80 -s rr\n");
  Lookups first{Lookups::Answers{}};
  (void)list_services(balancer_.services(), 1, {}, first);
  EXPECT_EQ(first.missing(), (std::vector<std::string>{"name 10.9.0.100", "service 80/tcp", "name 10.9.0.11",
                                                       "service 8080/tcp", "name 10.9.0.12"}))
      << "ports of a class have no names, nor have IPv6 addresses: as in ipvsadm";
  Lookups known{{{"name 10.9.0.100", "a-very-long-name-of-a-virtual-service.example"},
                 {"service 80/tcp", "http"},
                 {"name 10.9.0.11", "web-server-number-eleven.example"},
                 {"service 8080/tcp", std::nullopt},
                 {"name 10.9.0.12", std::nullopt}}};
  EXPECT_EQ(list_services(balancer_.services(), 1, {}, known),
            "IP Virtual Server version 1.2.1 (size=1)\n"
            "Prot LocalAddress:Port Scheduler Flags\n"
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
            "TCP  a-very-long-name-of-a-virtua rr\n"
            "  -> web-server-number-eleven.exa Masq    1      0          0         \n"
            "TCP  [fd00:9::100]:http rr\n"
            "FWM  7 rr\n"
            "  -> 10.9.0.12:80                 Masq    1      0          0         \n");
  EXPECT_EQ(save_rules(balancer_.services(), balancer_.classes(), balancer_.timeouts(), {}, known).substr(0, 66),
            "-A -t a-very-long-name-of-a-virtual-service.example:http -s rr\n-a ");
}

TEST_F(Listing, SavedRulesAreReadBackTheSame) {
  rules(kShop);
  Lookups none;
  const Save extended{Addresses::numeric, Extras::included};
  const std::string plain =
      save_rules(balancer_.services(), balancer_.classes(), balancer_.timeouts(), {Addresses::numeric, Extras::left_out}, none);
  EXPECT_EQ(plain.find("-x"), std::string::npos) << "ipvsadm doesn't save thresholds";
  const Save restorable{Addresses::numeric, Extras::restorable};
  const auto saved_by_default = [&] {
    return save_rules(balancer_.services(), balancer_.classes(), balancer_.timeouts(), restorable, none);
  };
  EXPECT_NE(saved_by_default().find(" -x 2147483647 -y 2147483646\n"), std::string::npos);
  EXPECT_EQ(saved_by_default().find("--set"), std::string::npos) << "the default's time-outs go without saying";
  EXPECT_TRUE(balancer_.apply(SetTimeouts{100s, {}, {}}, Instant{}));
  EXPECT_EQ(saved_by_default().substr(0, 18), "--set 100 120 300\n");
  EXPECT_TRUE(balancer_.apply(SetTimeouts{900s, {}, {}}, Instant{}));
  const std::string saved = save_rules(balancer_.services(), balancer_.classes(), balancer_.timeouts(), extended, none);
  EXPECT_EQ(saved.substr(0, 18), "--set 900 120 300\n");
  EXPECT_NE(saved.find("-w 2147483647 -x 2147483647 -y 2147483646\n"), std::string::npos);

  const auto again = parse_rules(saved);
  ASSERT_TRUE(again) << again.error().in("saved");
  Balancer other{Balancer::Options{}};
  for (const Rule& rule : *again) ASSERT_TRUE(other.apply(rule.change, Instant{}));
  EXPECT_EQ(save_rules(other.services(), other.classes(), other.timeouts(), extended, none), saved);
}

TEST_F(Listing, TimeoutsReasonsAndKnobs) {
  EXPECT_EQ(list_timeouts(balancer_.timeouts()), "Timeout (tcp tcpfin udp): 900 120 300\n");
  EXPECT_EQ(list_reasons(balancer_.counters()), "");
  balancer_.counters().count(Reason::runt, 3);
  EXPECT_EQ(list_reasons(balancer_.counters()),
            "           3 runt                     shorter than its headers say\n");
  EXPECT_NE(list_tunables(balancer_.tunables()).find("conn_reuse_mode = 1\n"), std::string::npos);
}

TEST_F(Listing, NoConnections) {
  Lookups none;
  EXPECT_EQ(
      list_connections(balancer_, Instant{}, {}, none),
      "IPVS connection entries\npro expire state       source             virtual            destination\n");
  EXPECT_EQ(list_connections(balancer_, Instant{}, {View::persistent_connections, {}, {}, {}}, none),
            "IPVS connection entries\n"
            "pro expire state       source             virtual            destination        pe name         "
            " pe_data\n");
}

}  // namespace
}  // namespace director
