// The mirror of /proc/net/ip_vs*: what exporters read, to the column.
#include "director/proc_listing.h"

#include <gtest/gtest.h>

#include "director/rules.h"

namespace director {
namespace {

class ProcListing : public testing::Test {
 protected:
  ProcListing() {
    const auto rules = parse_rules(
        "-A -t 10.9.0.100:80 -s sh\n"
        "-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m -w 3\n"
        "-a -t 10.9.0.100:80 -r 10.9.0.12:80 -i\n"
        "-A -t 10.9.0.100:443 -s rr -p 360 -M 255.255.255.0\n"
        "-A -u 10.9.0.100:53 -s rr -o\n"
        "-A -t [fd00:9::100]:80 -s rr -p 30 -M 64\n"
        "-a -t [fd00:9::100]:80 -r [fd00:9::11]:80 -g\n"
        "-A -f 7 -s wlc -p 10\n");
    EXPECT_TRUE(rules);
    for (const Rule& rule : *rules) EXPECT_TRUE(balancer_.apply(rule.change, Instant{}));
  }

  Balancer balancer_{Balancer::Options{.policy = Policy::kernel, .seed = 1, .max_connections = 100, .announce = false}};
};

TEST_F(ProcListing, ServicesAsTheKernelWritesThem) {
  EXPECT_EQ(proc_text("ip_vs", balancer_, Instant{}),
            "IP Virtual Server version 1.2.1 (size=4096)\n"
            "Prot LocalAddress:Port Scheduler Flags\n"
            "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
            "TCP  0A090064:0050 sh  \n"
            "  -> 0A09000C:0050      Tunnel  1      0          0         \n"
            "  -> 0A09000B:1F90      Masq    3      0          0         \n"
            "TCP  0A090064:01BB rr  persistent 36000 FFFFFF00\n"
            "UDP  0A090064:0035 rr ops  \n"
            "TCP  [fd00:0009:0000:0000:0000:0000:0000:0100]:0050 rr persistent 3000 40000000\n"
            "  -> [fd00:0009:0000:0000:0000:0000:0000:0011]:0050      Route   1      0          0         \n"
            "FWM  00000007 wlc persistent 1000 FFFFFFFF\n");
}

TEST_F(ProcListing, EveryFileHasATextAndOthersHaveNone) {
  for (const std::string_view file : proc_files()) EXPECT_FALSE(proc_text(file, balancer_, Instant{})->empty()) << file;
  EXPECT_EQ(proc_text("ip_vs_nothing", balancer_, Instant{}), std::nullopt);
}

TEST_F(ProcListing, CountersAreHexadecimal) {
  EXPECT_EQ(proc_text("ip_vs_stats_percpu", balancer_, Instant{}),
            "       Total Incoming Outgoing         Incoming         Outgoing\n"
            "CPU    Conns  Packets  Packets            Bytes            Bytes\n"
            "  0        0        0        0                0                0\n"
            "  ~        0        0        0                0                0\n\n"
            "     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n"
            "           0        0        0                0                0\n");
}

}  // namespace
}  // namespace director
