// realserver's ledger: what was changed is remembered, and undone when nobody needs it any more, last change
// first.
#include "director/realserver/ledger.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace director::realserver {
namespace {

const IpAddress kVip = *IpAddress::parse("10.9.0.100");
const IpAddress kOther = *IpAddress::parse("10.9.0.101");
const IpAddress kVip6 = *IpAddress::parse("fd00::100");
const Need kAny{Need::While::any, {}};
const Need kTun{Need::While::tun, {}};

Need of(const IpAddress& vip) {
  return {Need::While::vip, vip};
}

Ledger example() {
  Ledger ledger;
  ledger.name_space = "12 0f3c1c5e";
  ledger.services = {{Mode::dr, kVip}, {Mode::tun, kVip}, {Mode::tun, kVip6, {{}, {TunnelEnd::Kind::gue, kGuePort}}}};
  ledger.changes = {
      {kAny, Change::Kind::sysctl, "net.ipv4.conf.all.arp_ignore", "0", "1"},
      {of(kVip), Change::Kind::address, "10.9.0.100/32@lo", "absent", "present"},
      {kTun, Change::Kind::sysctl, "net.ipv4.conf.eth0/10.rp_filter", "0", "1"},
      {kTun, Change::Kind::link, "tunl0", "down", "up"},
      {of(kVip6), Change::Kind::address, "fd00::100/128@lo", "absent", "present"},
  };
  return ledger;
}

TEST(Ledger, ReadsWhatItWrote) {
  const Ledger written = example();
  const auto read = read_ledger(write_ledger(written));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->name_space, written.name_space);
  EXPECT_EQ(read->services, written.services);
  EXPECT_EQ(read->changes, written.changes);
}

TEST(Ledger, NamesTheLineItCannotRead) {
  for (const char* text : {"serves up 10.9.0.1", "serves dr 10.9.0", "changed any sysctl a 0",
                           "changed never sysctl a 0 1", "changed any wish a 0 1", "namespace 1", "hello"}) {
    const auto read = read_ledger(std::string{"# a comment\n\n"} + text + "\n");
    ASSERT_FALSE(read) << text;
    EXPECT_TRUE(read.error().message.starts_with("line 3: ")) << read.error().message;
    EXPECT_NE(read.error().message.find(text), std::string::npos);
  }
}

/// What would be undone, in order, once these services are gone.
std::vector<std::string> undone_without(std::vector<Service> gone) {
  Ledger ledger = example();
  std::erase_if(ledger.services,
                [&](const Service& s) { return std::ranges::any_of(gone, [&](const Service& g) { return g.same(s); }); });
  std::vector<std::string> undone;
  while (const auto at = ledger.latest_unneeded()) {
    undone.push_back(ledger.changes[*at].what);
    ledger.changes.erase(ledger.changes.begin() + static_cast<std::ptrdiff_t>(*at));
  }
  return undone;
}

TEST(Ledger, KeepsWhatAnotherServiceNeeds) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(undone_without({}), Names{});
  EXPECT_EQ(undone_without({{Mode::dr, kVip}}), Names{}) << "tun still needs address and sysctl";
  EXPECT_EQ(undone_without({{Mode::tun, kVip6}}), Names{"fd00::100/128@lo"});
  EXPECT_EQ(undone_without({{Mode::tun, kVip}, {Mode::tun, kVip6}}),
            (Names{"fd00::100/128@lo", "tunl0", "net.ipv4.conf.eth0/10.rp_filter"}));
  EXPECT_EQ(undone_without({{Mode::dr, kOther}}), Names{}) << "never served";
}

TEST(Ledger, UndoesEverythingLastFirstWhenNothingIsServed) {
  EXPECT_EQ(undone_without({{Mode::dr, kVip}, {Mode::tun, kVip}, {Mode::tun, kVip6}}),
            (std::vector<std::string>{"fd00::100/128@lo", "tunl0", "net.ipv4.conf.eth0/10.rp_filter",
                                      "10.9.0.100/32@lo", "net.ipv4.conf.all.arp_ignore"}));
}

TEST(Change, PrintsAsOldAndNew) {
  EXPECT_EQ(format_as(example().changes[0]), "net.ipv4.conf.all.arp_ignore: 0 -> 1");
  EXPECT_EQ(format_as(example().changes[1]), "10.9.0.100/32 on lo: absent -> present");
}

}  // namespace
}  // namespace director::realserver
