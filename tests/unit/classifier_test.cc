// Classes of packets: their text and what they match; SIP's Call-IDs and persistence's masks.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "director/class_text.h"
#include "director/core/persistence.h"
#include "director/rules.h"

namespace director {
namespace {

Endpoint endpoint(const char* address, std::uint16_t port) { return {*IpAddress::parse(address), Port::of(port)}; }

Result<ClassRule, BadClass> parse(std::string_view text) { return parse_class(7, split_rule(text).words); }

TEST(ClassText, SaysWhatItWasToldInOneForm) {
  const auto printed = [](std::string_view text) { return format_as(*parse(text)); };
  EXPECT_EQ(printed(""), "7 any");
  EXPECT_EQ(printed("-6"), "7 any -6");
  EXPECT_EQ(printed("daddr 10.9.0.100 tcp dport 80,443,8000-8099"), "7 tcp dport 80,443,8000-8099 daddr 10.9.0.100");
  EXPECT_EQ(printed("udp saddr 10.9.1.7/24,10.9.2.1-10.9.2.9 sport 5060"), "7 udp sport 5060 saddr 10.9.1.0/24,10.9.2.1-10.9.2.9");
  EXPECT_EQ(printed("sctp daddr fd00::1,fd01::/64"), "7 sctp daddr fd00::1,fd01::/64 -6");
  EXPECT_EQ(printed("daddr 10.9.0.0-10.9.0.255"), "7 any daddr 10.9.0.0/24");
}

TEST(ClassText, SaysWhatIsWrongAndWhere) {
  struct Case {
    const char* text;
    std::size_t word;
  };
  for (const Case& bad : {Case{"icmp", 0}, Case{"tcp udp", 1}, Case{"dport", 1}, Case{"dport 80,", 1}, Case{"dport 65536", 1},
                          Case{"dport 90-80", 1}, Case{"daddr 10.9.0.300", 1}, Case{"daddr 10.9.0.1,fd00::1", 1},
                          Case{"daddr 10.9.0.1 daddr 10.9.0.2", 2}, Case{"daddr 10.9.0.9-10.9.0.1", 1},
                          Case{"daddr 10.9.0.1 -6", 2}, Case{"-6 saddr 10.9.0.1", 2}}) {
    const auto rule = parse(bad.text);
    ASSERT_FALSE(rule) << bad.text;
    EXPECT_EQ(rule.error().word, bad.word) << bad.text << ": " << rule.error().message;
  }
}

TEST(ClassText, PropertyWhatIsPrintedIsReadBackTheSame) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 2000; ++i) {
    ClassRule rule;
    rule.mark = 7;
    rule.family = random() % 2 == 0 ? Family::ipv4 : Family::ipv6;
    if (random() % 2 == 0) rule.protocol = random() % 2 == 0 ? Protocol::tcp : Protocol::udp;
    const auto address = [&] {
      if (rule.family == Family::ipv4) return IpAddress::v4(static_cast<std::uint32_t>(random()));
      std::array<std::uint8_t, 16> bytes{0xfd};
      for (std::size_t at = 1; at < 16; ++at) bytes[at] = static_cast<std::uint8_t>(random());
      return IpAddress::v6(bytes);
    };
    const auto addresses = [&](std::vector<AddressRange>& into) {
      for (auto n = random() % 3; n > 0; --n) {
        const IpAddress a = address(), b = address();
        const Prefix p{a, static_cast<std::uint8_t>(random() % 33)};
        const auto kind = random() % 3;
        into.push_back(kind == 0 ? AddressRange{a, a}
                       : kind == 1 ? AddressRange{p.network(), p.broadcast()}
                                   : AddressRange{std::min(a, b), std::max(a, b)});
      }
    };
    const auto ports = [&](std::vector<PortRange>& into) {
      for (auto n = random() % 3; n > 0; --n) {
        const auto a = static_cast<std::uint16_t>(random()), b = static_cast<std::uint16_t>(random());
        into.push_back(random() % 2 == 0 ? PortRange{a, a} : PortRange{std::min(a, b), std::max(a, b)});
      }
    };
    addresses(rule.targets);
    addresses(rule.sources);
    ports(rule.target_ports);
    ports(rule.source_ports);
    const std::string text = format_as(rule);
    const auto again = parse(text.substr(2));
    ASSERT_TRUE(again) << text << ": " << again.error().message;
    EXPECT_EQ(*again, rule) << text;
  }
}

TEST(Classifier, TheFirstRuleThatMatchesDecides) {
  Classifier classes;
  std::vector<ClassRule> rules;
  std::uint32_t mark = 1;
  for (const char* text : {"tcp dport 80 daddr 10.9.0.100 saddr 10.9.1.0/24", "tcp dport 80-90", "any daddr 10.9.0.100", "-6 udp"}) {
    rules.push_back(*parse(text));
    rules.back().mark = mark++;
  }
  classes.set(rules);
  const auto class_of = [&](const char* from, const char* to, std::uint16_t port, Protocol protocol) {
    return classes.classify({endpoint(from, 4000), endpoint(to, port), protocol});
  };
  EXPECT_EQ(class_of("10.9.1.5", "10.9.0.100", 80, Protocol::tcp), 1U);
  EXPECT_EQ(class_of("10.9.2.5", "10.9.0.100", 80, Protocol::tcp), 2U);
  EXPECT_EQ(class_of("10.9.2.5", "10.9.0.101", 90, Protocol::tcp), 2U);
  EXPECT_EQ(class_of("10.9.1.5", "10.9.0.100", 91, Protocol::sctp), 3U);
  EXPECT_EQ(class_of("10.9.1.5", "10.9.0.101", 91, Protocol::tcp), 0U);
  EXPECT_EQ(class_of("10.9.1.5", "10.9.0.100", 0, Protocol::icmp), 0U) << "only what has ports";
  EXPECT_EQ(class_of("fd00::1", "fd00::2", 53, Protocol::udp), 4U);
  EXPECT_EQ(classes.addresses_of(1, Family::ipv4), (std::vector{*IpAddress::parse("10.9.0.100")}));
  EXPECT_TRUE(classes.addresses_of(2, Family::ipv4).empty());
  EXPECT_TRUE(classes.aims_at(*IpAddress::parse("172.16.0.1"))) << "a rule without daddr aims at all";
}

TEST(Persistence, MasksNeedNotBeContiguousInIpv4) {
  ServiceConfig service;
  service.netmask = Be32{0xff00ff0fU};
  EXPECT_EQ(masked_client(service, *IpAddress::parse("10.9.8.123")), *IpAddress::parse("10.0.8.11"));
  service.netmask_length = 60;
  EXPECT_EQ(masked_client(service, *IpAddress::parse("fd00:9:0:ff::5")), *IpAddress::parse("fd00:9:0:f0::"));
  service.netmask_length = 0;
  EXPECT_EQ(masked_client(service, *IpAddress::parse("fd00:9::5")), *IpAddress::parse("fd00:9::5"));
}

TEST(Persistence, AClassIsSpelledAsAnAddress) {
  EXPECT_EQ(format_as(mark_as_address(7, Family::ipv4)), "0.0.0.7");
  EXPECT_EQ(format_as(mark_as_address(7, Family::ipv6)), "0:7::");
}

TEST(SipCallId, IsTheValueOfItsHeader) {
  struct Case {
    const char* message;
    const char* call_id;  // nullptr: none
  };
  for (const Case& one : {
           Case{"INVITE sip:b@b SIP/2.0\r\nCall-ID: a84b4c76e66710@pc33.atlanta.com\r\n\r\n", "a84b4c76e66710@pc33.atlanta.com"},
           Case{"INVITE sip:b@b SIP/2.0\nvia: x\ncall-id \t:  a84\n", "a84"},
           Case{"INVITE sip:b@b SIP/2.0\ri:a84@x\r", "a84@x"},
           Case{"INVITE sip:b@b SIP/2.0\r\nidentity: x\r\ni : y\r\n", "y"},
           Case{"Call-ID: a84\r\n\r\n", nullptr},  // the first line is the request
           Case{"INVITE sip:b@b SIP/2.0\r\n Call-ID: a84\r\n", nullptr},  // a continuation
           Case{"INVITE sip:b@b SIP/2.0\r\nCall-ID: a84", nullptr},  // cut off
           Case{"INVITE sip:b@b SIP/2.0\r\nCall-ID: @x\r\n", nullptr},
           Case{"INVITE sip:b@b SIP/2.0\r\nCall-ID: a84@\r\n", nullptr},
           Case{"INVITE sip:b@b SIP/2.0\r\nCall-ID a84\r\n", nullptr},
           Case{"", nullptr},
       }) {
    const auto found = sip_call_id(std::as_bytes(std::span{one.message, std::strlen(one.message)}));
    EXPECT_EQ(found ? std::string{*found} : "none", one.call_id != nullptr ? one.call_id : "none") << one.message;
  }
  const std::string longest = "x\ni:" + std::string(255, 'a') + "\n", too_long = "x\ni:" + std::string(256, 'a') + "\n";
  EXPECT_TRUE(sip_call_id(std::as_bytes(std::span{longest})));
  EXPECT_FALSE(sip_call_id(std::as_bytes(std::span{too_long})));
}

}  // namespace
}  // namespace director
