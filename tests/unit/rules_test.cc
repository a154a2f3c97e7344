// rules: ipvsadm's grammar as tables of lines, their meaning, and what is said about the wrong ones.
#include "director/rules.h"

#include <gtest/gtest.h>

namespace director {
namespace {

std::vector<std::string> words_of(const std::string& line) {
  return split_rule(line).words;
}

Result<Command, BadCommand> parse(const std::string& line, Lookups& lookups) {
  const auto words = words_of(line);
  return parse_command("ipvsadm", words, lookups);
}
Result<Command, BadCommand> parse(const std::string& line) {
  Lookups none;
  return parse(line, none);
}

/// The line as we would write it: what was understood.
std::string meaning(const std::string& line, Lookups& lookups) {
  const auto command = parse(line, lookups);
  if (!command) return "refused: " + command.error().message;
  const Change* const change = std::get_if<Change>(&*command);
  return change == nullptr ? "no change" : command_text(*change);
}
std::string meaning(const std::string& line) {
  Lookups none;
  return meaning(line, none);
}

struct Line {
  const char* given;
  const char* meant;
};

TEST(Rules, LinesAreUnderstood) {
  static constexpr Line kLines[] = {
      {"-A -t 10.9.0.100:80", "-A -t 10.9.0.100:80 -s wlc"},
      {"ipvsadm -A -t 10.9.0.100:80 -s rr", "-A -t 10.9.0.100:80 -s rr"},
      {"--add-service --tcp-service 10.9.0.100:80 --scheduler=rr", "-A -t 10.9.0.100:80 -s rr"},
      {"-At 10.9.0.100:80 -srr", "-A -t 10.9.0.100:80 -s rr"},
      {"-A -t10.9.0.100:80 -s=rr", "-A -t 10.9.0.100:80 -s rr"},
      {"-A -s rr -t 10.9.0.100:80", "-A -t 10.9.0.100:80 -s rr"},
      {"-E -t 10.9.0.100:80", "-E -t 10.9.0.100:80 -s wlc"},
      {"-D -t 10.9.0.100:80", "-D -t 10.9.0.100:80"},
      {"-A -u 10.9.0.100:53 -s rr -o", "-A -u 10.9.0.100:53 -s rr -o"},
      {"-A --sctp-service 10.9.0.100:9 -s rr", "-A --sctp-service 10.9.0.100:9 -s rr"},
      {"-A -t [fd00:9::100]:80 -s rr", "-A -t [fd00:9::100]:80 -s rr"},
      {"-A -t fd00:9::100 -p", "-A -t [fd00:9::100]:0 -s wlc -p 360"},
      {"-A -t 10.9.0.100:80 -p", "-A -t 10.9.0.100:80 -s wlc -p 360"},
      {"-A -t 10.9.0.100:80 -p 60", "-A -t 10.9.0.100:80 -s wlc -p 60"},
      {"-A -p -t 10.9.0.100:80", "-A -t 10.9.0.100:80 -s wlc -p 360"},
      {"-A -t 10.9.0.100 -p", "-A -t 10.9.0.100:0 -s wlc -p 360"},
      {"-A -t 10.9.0.100:80 -p 60 -M 255.255.255.0", "-A -t 10.9.0.100:80 -s wlc -p 60 -M 255.255.255.0"},
      {"-A -t 10.9.0.100:80 -p 60 -M 24",
       "-A -t 10.9.0.100:80 -s wlc -p 60 -M 0.0.0.24"},  // inet_aton, as ipvsadm
      {"-A -t 10.9.0.100:80 -M 255.255.255.0", "-A -t 10.9.0.100:80 -s wlc"},
      {"-A -t [fd00:9::100]:80 -p 60 -M 64", "-A -t [fd00:9::100]:80 -s wlc -p 60 -M 64"},
      {"-A -t [fd00:9::100]:80 -p 60 -M 128", "-A -t [fd00:9::100]:80 -s wlc -p 60"},
      {"-A -f 7 -s sh -b sh-fallback,sh-port", "-A -f 7 -s sh -b sh-fallback,sh-port"},
      {"-A -f 7 -s mh -b flag-2", "-A -f 7 -s mh -b mh-port"},
      {"-A -f 7 -b sh-port,,flag-1, -s sh", "-A -f 7 -s sh -b sh-fallback,sh-port"},
      {"-A -f 7 -s rr -b flag-1,flag-3", "-A -f 7 -s rr -b flag-1,flag-3"},
      {"-A -f 8 -6 -s rr", "-A -f 8 -6 -s rr"},
      {"-A -u 10.9.0.100:5060 -p 60 --pe sip", "-A -u 10.9.0.100:5060 -s wlc -p 60 --pe sip"},

      {"-a -t 10.9.0.100:80 -r 10.9.0.11", "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g -w 1"},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m -w 3", "-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m -w 3"},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -m", "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 1"},
      {"-a -r 10.9.0.11 -t 10.9.0.100:80 -m", "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 1"},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -g", "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g -w 1"},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -i",
       "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -i -w 1 --tun-type ipip"},
      {"-a -f 7 -r 10.9.0.11 -g", "-a -f 7 -r 10.9.0.11:0 -g -w 1"},
      {"-a -f 7 -r 10.9.0.11:8080 -g", "-a -f 7 -r 10.9.0.11:8080 -g -w 1"},
      {"-e -t 10.9.0.100:80 -r 10.9.0.11:80", "-e -t 10.9.0.100:80 -r 10.9.0.11:80 -g -w 1"},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m -x 100 -y 50",
       "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 1 -x 100 -y 50"},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -i --tun-type gue --tun-port 6080 --tun-remcsum",
       "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum"},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -i --tun-type gre --tun-csum",
       "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -i -w 1 --tun-type gre --tun-csum"},
      {"-a -t [fd00:9::100]:80 -r 10.9.0.11:80 -i",
       "-a -t [fd00:9::100]:80 -r 10.9.0.11:80 -i -w 1 --tun-type ipip"},
      {"-d -t 10.9.0.100:80 -r 10.9.0.11", "-d -t 10.9.0.100:80 -r 10.9.0.11:80"},
      {"-d -t 10.9.0.100:80 -r 10.9.0.11:8080", "-d -t 10.9.0.100:80 -r 10.9.0.11:8080"},

      {"-C", "-C"},
      {"-Z", "-Z"},
      {"-Z -t 10.9.0.100:80", "-Z -t 10.9.0.100:80"},
      {"--set 10 20 30", "--set 10 20 30"},
      {"--set 0 0 2678400", "--set 0 0 2678400"},
      {"-A -t 10.9:80", "-A -t 10.0.0.9:80 -s wlc"},          // inet_aton fills up
      {"-A -t 0x0a.011.0.1:80", "-A -t 10.9.0.1:80 -s wlc"},  // and reads C's numbers
  };
  for (const Line& line : kLines) EXPECT_EQ(meaning(line.given), line.meant) << line.given;
}

TEST(Rules, WhatIsWrittenIsReadBack) {
  for (const char* line : {
           "-A -t 10.9.0.100:0 -s rr -p 360",
           "-A -t 10.9.0.100:443 -s wlc -p 100 -M 255.255.255.0",
           "-A -u 10.9.0.100:53 -s rr -o",
           "-A -u 10.9.0.100:5060 -s rr -p 60 --pe sip",
           "-A -t [fd00:9::100]:81 -s rr -p 300 -M 64",
           "-A -f 7 -s mh -p 600 -M 255.255.255.0 -b mh-port",
           "-A -f 8 -6 -s sh -b sh-fallback,sh-port",
           "-a -f 7 -r 10.9.0.12:8080 -m -w 1",
           "-a -t [fd00:9::100]:80 -r [fd00:9::11]:80 -m -w 1",
           "-a -t 10.9.0.100:80 -r 10.9.0.5:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum -x 9 -y 3",
       })
    EXPECT_EQ(meaning(line), line);
}

struct Wrong {
  const char* given;
  const char* said;
  int code;
};

TEST(Rules, WrongLinesGetIpvsadmsWords) {
  static constexpr Wrong kWrong[] = {
      {"-A", "You need to supply the 'service-address' option for the 'add-service' command", 2},
      {"-a -t 10.9.0.100:80", "You need to supply the 'real-server' option for the 'add-server' command", 2},
      {"-A -t 10.9.0.100:80 -r 10.9.0.11", "Illegal 'real-server' option with the 'add-service' command", 2},
      {"-C -n", "Illegal 'numeric' option with the 'flush' command", 2},
      {"-L --daemon --timeout",
       "The option 'daemon' conflicts with the 'timeout' option in the 'list' command", 2},
      {"-L -c -t 10.9.0.100:80",
       "The option 'service-address' conflicts with the 'connection' option in the 'list' command", 2},
      {"-L -c --stats", "options conflicts in the list command", 2},
      {"-L --timeout --persistent-conn", "options conflicts in the list command", 2},
      {"-A -t 10.9.0.100:80 -s rr -s rr", "multiple 'scheduler' options specified", 2},
      {"-A -t 10.9.0.100:80 -u 10.9.0.100:80", "multiple 'service-address' options specified", 2},
      {"-A -D", "invalid option `-D'", 2},
      {"-A -t 10.9.0.100:70000", "illegal virtual server address[:port] specified", 2},
      {"-A -t notanaddress:80", "illegal virtual server address[:port] specified", 2},
      {"-A -t [fd00::1]", "illegal virtual server address[:port] specified", 2},
      {"-A -t [fd00::1:80", "illegal virtual server address[:port] specified", 2},
      {"-A -t 80", "illegal virtual server address[:port] specified", 2},
      {"-a -t 10.9.0.100:80 -r x", "illegal real server address[:port] specified", 2},
      {"-A -t 10.9.0.100:0 -s rr", "Zero port specified for non-persistent service", 2},
      {"-A -t 10.9.0.100", "Zero port specified for non-persistent service", 2},
      {"-A -t 10.9.0.100:53 -s rr -o", "One-Packet Scheduling is only for UDP virtual services", 2},
      {"-A -t 10.9.0.100:80 -s rr -b sh-port", "incompatible scheduler flag `sh-port'", 2},
      {"-A -t 10.9.0.100:80 -s sh -b bogus", "invalid scheduler flag `bogus'", 2},
      {"-A -t 10.9.0.100:80 -p 0", "invalid timeout value `0' specified", 2},
      {"-A -t 10.9.0.100:80 -p 2678401", "invalid timeout value `2678401' specified", 2},
      {"-A -f 0 -s rr", "invalid fwmark value `0' specified", 2},
      {"-A -f 4294967296", "invalid fwmark value `4294967296' specified", 2},
      {"-A -t 10.9.0.100:80 -p -M x", "illegal virtual server persistent mask specified", 2},
      {"-A -t [fd00::1]:80 -p -M 129", "illegal ipv6 netmask specified", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -w 2147483648", "illegal weight specified", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -w -1", "illegal weight specified", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -x y", "illegal u_threshold specified", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -y y", "illegal l_threshold specified", 2},
      {"-a -t [fd00:9::100]:80 -r 10.9.0.11:80 -m",
       "Different address family is allowed only for tunneling servers", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -m --tun-type ipip", "Tunnel options conflict with forward method",
       2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -i --tun-type gue",
       "You need to supply the 'tun-port' option for the 'gue' tunnel type", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -i --tun-type gre --tun-port 9",
       "Illegal 'tun-port' option with the 'gre' tunnel type", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -i --tun-type gue --tun-port 9 --tun-nocsum --tun-csum",
       "The option 'tun-csum' conflicts with the 'tun-nocsum' option in the 'gue' tunnel type", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -i --tun-type x", "illegal tunnel type specified", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 -i --tun-port 0", "illegal tunnel port specified", 2},
      {"--set 1 2", "--set option requires 3 timeout values", 2},
      {"--set 1 2 x", "invalid timeout value `x' specified", 2},
      {"--set 1 2 3 4", "unexpected argument 4", 2},
      {"--set -1 1 1", "-1: unknown option", 255},
      {"-L foo", "unexpected argument foo", 2},
      {"--start-daemon middle", "illegal start-daemon parameter specified", 2},
      {"--stop-daemon middle", "illegal start_daemon specified", 2},
      {"--start-daemon master --syncid 300", "illegal syncid specified", 2},
      {"--start-daemon master --mcast-group 10.0.0.1", "invalid IPv4 mcast-group `10.0.0.1'", 2},
      {"-A -6 -f 1", "-6 used before -f\n", 2},
      {"-Q", "Try `ipvsadm -h' or 'ipvsadm --help' for more information.", 255},
      {"-n -L", "Try `ipvsadm -h' or 'ipvsadm --help' for more information.", 255},
      {"status", "Try `ipvsadm -h' or 'ipvsadm --help' for more information.", 255},
      {"-L -Q", "-Q: unknown option", 255},
      {"-LnQ", "-LnQ: unknown option", 255},
      {"-L --bogus", "--bogus: unknown option", 255},
      {"-A -t", "-t: missing argument", 255},
      {"-L --stats=3", "--stats=3: option does not take an argument", 255},
      {"-Ln=3", "-Ln=3: option does not take an argument", 255},
      {"-D -t 10.9.0.100:80 -b x", "invalid scheduler flag `x'", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 --check udp", "invalid check `udp' specified", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 --check tcp --inter 5ms", "invalid interval `5ms' specified", 2},
      {"-a -t 10.9.0.100:80 -r 10.9.0.11 --fall 2", "--inter, --fall and --rise say how --check is done", 2},
      {"-a -f 7 -r 10.9.0.11 --check tcp:80", "--check asks at the virtual address, and a class has none", 2},
      {"-a -f 7 -r 10.9.0.11 -m --check tcp", "--check asks at a port, and this server has none of its own", 2},
      {"-A -t 10.9.0.100:80 --check tcp", "Illegal 'check' option with the 'add-service' command", 2},
  };
  for (const Wrong& wrong : kWrong) {
    const auto command = parse(wrong.given);
    ASSERT_FALSE(command) << wrong.given;
    EXPECT_EQ(command.error().message, wrong.said) << wrong.given;
    EXPECT_EQ(command.error().exit_code, wrong.code) << wrong.given;
  }
}

TEST(Rules, ListingsSayTheirTableAndView) {
  const auto list = [](const std::string& line) { return std::get<List>(*parse(line)); };
  EXPECT_EQ(list("").table, List::Table::services);
  EXPECT_EQ(list("").style.addresses, Addresses::named);
  EXPECT_EQ(list("-Lnc").table, List::Table::connections);
  EXPECT_EQ(list("-Lnc").style.addresses, Addresses::numeric);
  EXPECT_EQ(list("-l --timeout").table, List::Table::timeouts);
  EXPECT_EQ(list("-L --daemon").table, List::Table::daemons);
  EXPECT_EQ(list("-L -n --rate --stats").style.view, View::stats);
  EXPECT_EQ(list("-L -n --tun-info --thresholds").style.view, View::thresholds);
  EXPECT_EQ(list("-L -n --persistent-conn --tun-info").style.view, View::persistent_connections);
  EXPECT_EQ(list("-L --exact -n --stats").style.numbers, Numbers::exact);
  EXPECT_EQ(list("-LX --stats").style.numbers, Numbers::exact);
  EXPECT_EQ(list("-L --nosort").style.order, Order::as_kept);
  EXPECT_EQ(list("-L --sort").style.order, Order::sorted);
  EXPECT_EQ(list("-Ln -t 10.9.0.100:80").service->endpoint,
            (Endpoint{*IpAddress::parse("10.9.0.100"), Port::of(80)}));
  EXPECT_EQ(list("-Ln --json").notation, Notation::json);
  EXPECT_EQ(std::get<Save>(*parse("-Sn")).addresses, Addresses::numeric);
  EXPECT_EQ(std::get<Save>(*parse("-S --extended")).extras, Extras::included);
}

TEST(Rules, NamesAreAskedForAndThenUsed) {
  Lookups nobody;
  EXPECT_FALSE(parse("-a -t localhost:http -r www.example:8080 -m", nobody));
  EXPECT_TRUE(nobody.missing().empty());

  Lookups first{Lookups::Answers{}};
  (void)parse("-a -t localhost:http -r www.example:8080 -m", first);
  EXPECT_EQ(first.missing(), (std::vector<std::string>{"address localhost", "port http/tcp", "address www.example"}))
      << "all of them at once";

  Lookups known{
      {{"address localhost", "127.0.0.1"}, {"port http/tcp", "80"}, {"address www.example", "10.9.0.11"}}};
  EXPECT_EQ(meaning("-a -t localhost:http -r www.example:8080 -m", known),
            "-a -t 127.0.0.1:80 -r 10.9.0.11:8080 -m -w 1");
  EXPECT_TRUE(known.missing().empty());

  Lookups unknown{{{"address nowhere", std::nullopt}}};
  EXPECT_EQ(meaning("-A -t nowhere:80", unknown), "refused: illegal virtual server address[:port] specified");
  EXPECT_TRUE(unknown.missing().empty()) << "known to have no address is not a question any more";

  Lookups lies{{{"address liar", "not an address"}, {"port http/tcp", "99999"}}};
  EXPECT_FALSE(parse("-A -t liar:80", lies));
  EXPECT_FALSE(parse("-A -t 10.0.0.1:http", lies));
}

TEST(RulesFile, CommentsBlanksAndTheProgramsNameAreAllowed) {
  const auto rules = parse_rules(
      "# the shop\n"
      "\n"
      "ipvsadm -A -t 10.9.0.100:80 -s rr   # round robin\n"
      "  -a -t 10.9.0.100:80 -r 10.9.0.11:80 -m\r\n"
      "vsadm --set 900 120 300\n"
      "   \t\n"
      "-a -t 10.9.0.100:80 -r 10.9.0.12:80 -m");
  ASSERT_TRUE(rules) << rules.error().in("rules");
  ASSERT_EQ(rules->size(), 4U);
  EXPECT_EQ((*rules)[0].line, 3U);
  EXPECT_EQ((*rules)[1].line, 4U);
  EXPECT_EQ((*rules)[3].line, 7U);
  EXPECT_TRUE(std::holds_alternative<SetTimeouts>((*rules)[2].change));
  EXPECT_TRUE(parse_rules(""));
}

TEST(RulesFile, ErrorsSayWhereAndWhatWasExpected) {
  struct Bad {
    const char* text;
    const char* said;
  };
  static constexpr Bad kBad[] = {
      {"-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11 -w x\n",
       "web.rules:2:37: illegal weight specified: expected a number from 0 to 2147483647"},
      {"-A -t 10.9.0.100:80 -r 10.9.0.11",
       "web.rules:1:33: Illegal 'real-server' option with the 'add-service' command"},
      {"\n\n   -A\n",
       "web.rules:3:6: You need to supply the 'service-address' option for the 'add-service' command"},
      {"add -t 10.9.0.100:80", "web.rules:1:1: 'add' begins no rule, expected a command first: -A, -a, ..."},
      {"-A -t 10.9.0.100:80 --bogus 3", "web.rules:1:21: --bogus: unknown option"},
      {"-D -t 10.9.0.100:80", "web.rules:1:1: -D has no place in a rules file: expected -A, -a, --class or --set"},
      {"-L", "web.rules:1:1: -L has no place in a rules file: expected -A, -a, --class or --set"},
      {"-A -t www.example:80",
       "web.rules:1:7: illegal virtual server address[:port] specified: expected HOST:PORT or [IPV6]:PORT"},
  };
  for (const Bad& bad : kBad) {
    const auto rules = parse_rules(bad.text);
    ASSERT_FALSE(rules) << bad.text;
    EXPECT_EQ(rules.error().in("web.rules"), bad.said);
  }
}

}  // namespace
}  // namespace director
