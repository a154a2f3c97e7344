// Which net.ipv4.conf settings realserver changes, and that it changes no more.
#include "director/realserver/conf_plan.h"

#include <gtest/gtest.h>

namespace director::realserver {
namespace {

using Plan = std::vector<ConfChange>;
const std::vector<std::string> kLinks{"eth0", "eth1"};

std::string text(const Plan& plan) {
  std::string t;
  for (const ConfChange& c : plan) t += c.scope + "=" + std::to_string(c.value) + " ";
  return t;
}

/// The values after the plan, to be asked for what holds then.
ConfValues applied(ConfValues values, const Plan& plan) {
  for (const ConfChange& c : plan) values[c.scope] = c.value;
  return values;
}

TEST(ArpIgnore, IsSetForAllInterfacesAtOnce) {
  const ConfValues fresh{{"all", 0}, {"default", 0}, {"lo", 0}, {"eth0", 0}, {"eth1", 0}};
  EXPECT_EQ(text(plan_arp_ignore(fresh, kLinks, AllScope::writable)), "all=1 ");
}

TEST(ArpIgnore, LeavesWhatKeepsQuietAlready) {
  for (const int value : {1, 2, 8}) {
    EXPECT_EQ(text(plan_arp_ignore({{"all", value}, {"eth0", 0}}, kLinks, AllScope::writable)), "") << value;
  }
}

TEST(ArpIgnore, CorrectsALinkWhoseOwnValueWins) {
  // 3 answers for every address that isn't of scope host; the larger value counts.
  const Plan plan = plan_arp_ignore({{"all", 0}, {"eth0", 3}, {"eth1", 0}}, kLinks, AllScope::writable);
  EXPECT_EQ(text(plan), "all=1 eth0=1 ");
}

TEST(ArpIgnore, IsSetPerLinkWhereAllIsReadOnly) {
  EXPECT_EQ(text(plan_arp_ignore({{"all", 0}, {"eth0", 1}, {"eth1", 0}}, kLinks, AllScope::read_only)),
            "eth1=1 ");
}

TEST(ArpAnnounce, IsTwo) {
  EXPECT_EQ(text(plan_arp_announce({{"all", 1}, {"eth0", 2}}, kLinks, AllScope::writable)), "all=2 ");
  EXPECT_EQ(text(plan_arp_announce({{"all", 2}}, kLinks, AllScope::writable)), "");
  EXPECT_EQ(text(plan_arp_announce({{"all", 0}, {"eth0", 2}}, kLinks, AllScope::read_only)), "eth1=2 ");
}

TEST(RpFilter, IsLeftAloneWhereItIsOff) {
  EXPECT_EQ(text(plan_rp_filter({{"all", 0}, {"eth0", 2}, {"default", 2}}, "vs-tun0")), "");
}

TEST(RpFilter, OffForTheTunnelKeepsItsEffectEverywhereElse) {
  for (const int all : {1, 2}) {
    const ConfValues before{{"all", all}, {"default", 0}, {"lo", 0}, {"eth0", 1}, {"eth1", 2}, {"tunl0", 1}};
    const ConfValues after = applied(before, plan_rp_filter(before, "tunl0"));
    EXPECT_EQ(effective(after, "tunl0"), 0);
    for (const char* other : {"default", "lo", "eth0", "eth1"}) {
      EXPECT_EQ(effective(after, other), effective(before, other)) << other << ", all was " << all;
    }
  }
}

TEST(RpFilter, RaisesTheOthersBeforeAllComesDown) {
  EXPECT_EQ(text(plan_rp_filter({{"all", 1}, {"default", 1}, {"eth0", 0}}, "vs-tun0")), "eth0=1 all=0 ");
}

}  // namespace
}  // namespace director::realserver
