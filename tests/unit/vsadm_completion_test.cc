// completion: what a command line may go on with, by the words so far. "|" is where somebody types.
#include "director/vsadm/completion.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "director/command.h"
#include "director/rules.h"

namespace director::vsadm {
namespace {

class VsadmCompletionTest : public ::testing::Test {
 protected:
  VsadmCompletionTest() {
    const auto done = run_command({{"vsadm", "-R"},
                                   {{"input",
                                     "-A -t 10.9.0.100:80 -s rr\n"
                                     "-a -t 10.9.0.100:80 -r 10.9.1.11:8080 -m\n"
                                     "-a -t 10.9.0.100:80 -r 10.9.1.12:8080 -m\n"
                                     "-A -t 10.9.0.101:80 -s rr\n"
                                     "-a -t 10.9.0.101:80 -r 10.9.1.12:8080 -m\n"
                                     "-A -t [fd00::100]:80 -s rr\n"
                                     "-a -t [fd00::100]:80 -r [fd00::11]:80 -m\n"
                                     "-A -u 10.9.0.100:53 -s rr\n"
                                     "-a -u 10.9.0.100:53 -r 10.9.1.11:53 -m\n"
                                     "-A -f 7 -s rr\n"}}},
                                  balancer_, Instant{});
    EXPECT_EQ(done.exit_code, 0) << done.err;
  }

  /// Words with blanks between. Of what is typed only the part in front of "|" counts, as in a shell.
  std::string completed(std::string_view line) {
    EXPECT_TRUE(line.ends_with('|'));
    line.remove_suffix(1);
    std::vector<std::string> words{""};
    for (const char c : line)
      if (c == ' ')
        words.emplace_back();
      else
        words.back() += c;
    asked_ = 0;
    const Completion completion = complete(words, [this] {
      ++asked_;
      const auto listed = run_command({{"vsadm", "-L", "-n", "--json"}, {}}, balancer_, Instant{});
      return *read_snapshot(listed.out, "");
    });
    return completion.is_file ? "FILE" : fmt::format("{}", fmt::join(completion.words, " "));
  }

  Balancer balancer_{Balancer::Options{}};
  int asked_ = 0;
};

TEST_F(VsadmCompletionTest, TheCommandComesFirst) {
  EXPECT_EQ(completed("|"),
            "apply drain doctor explain reasons top tune --control -A -E -D -C -L -l -Z -a -e -d --set -h -v -R -S "
            "--start-daemon --stop-daemon --class "
            "--delete-class");
  EXPECT_EQ(completed("t|"), "top tune");
  EXPECT_EQ(completed("-|"),
            "--control -A -E -D -C -L -l -Z -a -e -d --set -h -v -R -S --start-daemon --stop-daemon --class "
            "--delete-class");
  EXPECT_EQ(completed("--d|"), "--delete-service --delete-server --delete-class");
  EXPECT_EQ(completed("bogus |"), "");
  EXPECT_EQ(asked_, 0) << "no director is asked for words";
}

TEST_F(VsadmCompletionTest, WhatACommandNeedsComesFirst) {
  EXPECT_EQ(completed("-a |"), "-t -u --sctp-service -f -r");
  EXPECT_EQ(completed("-a -t 10.9.0.100:80 |"), "-r");
  EXPECT_EQ(completed("-a -t 10.9.0.100:80 -r 10.9.1.13:80 |"),
            "-m -i -g -w -x -y --tun-type --tun-port --tun-nocsum --tun-csum --tun-remcsum --check --inter --fall --rise");
  EXPECT_EQ(completed("-a -t 10.9.0.100:80 -r 10.9.1.13:80 -m -w 1 |"),
            "-x -y --tun-type --tun-port --tun-nocsum --tun-csum --tun-remcsum --check --inter --fall --rise");
  EXPECT_EQ(completed("-A -t 10.9.0.1:80 --s|"), "--scheduler --sched-flags --server-gone --server-quiesced");
  EXPECT_EQ(completed("-A -t 10.9.0.1:80 --timeout-s|"),
            "--timeout-syn-sent --timeout-syn-recv --timeout-synack --timeout-sctp-init1 --timeout-sctp-init "
            "--timeout-sctp-cookie-sent "
            "--timeout-sctp-cookie-replied --timeout-sctp-cookie-wait --timeout-sctp-cookie "
            "--timeout-sctp-cookie-echoed "
            "--timeout-sctp-established --timeout-sctp-shutdown-sent --timeout-sctp-shutdown-received "
            "--timeout-sctp-shutdown-ack-sent "
            "--timeout-sctp-rejected --timeout-sctp-closed");
  EXPECT_EQ(completed("-L --st|"), "--stats");
  EXPECT_EQ(completed("-Ln --|").find("--numeric"), std::string::npos) << "it was given";
  EXPECT_EQ(completed("-Lc --d|"), "") << "-c and --daemon exclude each other";
  EXPECT_EQ(completed("-S |"), "-n --extended");
  EXPECT_EQ(completed("-C |"), "");
  EXPECT_EQ(completed("--class 7 |"), "");
  EXPECT_EQ(asked_, 0);
}

TEST_F(VsadmCompletionTest, ServicesAreTheLiveOnesOfTheirProtocol) {
  EXPECT_EQ(completed("-a -t |"), "10.9.0.100:80 10.9.0.101:80 [fd00::100]:80");
  EXPECT_EQ(completed("-E -t 10.9.0.1|"), "10.9.0.100:80 10.9.0.101:80");
  EXPECT_EQ(completed("-dt [|"), "[fd00::100]:80") << "a cluster of letters";
  EXPECT_EQ(completed("-Z -u |"), "10.9.0.100:53");
  EXPECT_EQ(completed("-L -f |"), "7");
  EXPECT_EQ(completed("-D --tcp-service=10.9.0.101|"), "--tcp-service=10.9.0.101:80");
  EXPECT_EQ(asked_, 1);
  EXPECT_EQ(completed("-A -t |"), "") << "a new one";
  EXPECT_EQ(asked_, 0);
}

TEST_F(VsadmCompletionTest, ServersAreThoseOfTheServiceOrToAddTheOthers) {
  EXPECT_EQ(completed("-d -t 10.9.0.100:80 -r |"), "10.9.1.11:8080 10.9.1.12:8080");
  EXPECT_EQ(completed("-e -u 10.9.0.100:53 -r |"), "10.9.1.11:53");
  EXPECT_EQ(completed("-a -t 10.9.0.101:80 -r |"), "10.9.1.11:8080 10.9.1.11:53 [fd00::11]:80");
  EXPECT_EQ(completed("-a -t 10.9.0.99:80 -r 10.9.1.12|"), "10.9.1.12:8080") << "once, though two have it";
  EXPECT_EQ(completed("-d -t 10.9.0.99:80 -r |"), "") << "no such service";
  EXPECT_EQ(completed("-d -r |"), "") << "no service yet";
}

TEST_F(VsadmCompletionTest, OtherValuesAreTheGrammars) {
  EXPECT_EQ(completed("-A -t 10.9.0.1:80 -s l|"), "lc lblc lblcr");
  EXPECT_EQ(completed("-A -t 10.9.0.1:80 -s mh -b |"), "mh-fallback mh-port");
  EXPECT_EQ(completed("-A -t 10.9.0.1:80 -b |"), "");
  EXPECT_EQ(completed("--start-daemon |"), "master backup");
  EXPECT_EQ(completed("-a -t 10.9.0.100:80 -r 10.9.1.1 -i --tun-type g|"), "gue gre");
  EXPECT_EQ(completed("-A -t 10.9.0.1:80 --no-server=|"),
            "--no-server=rst --no-server=icmp --no-server=drop");
  EXPECT_EQ(completed("-e -t 10.9.0.100:80 -r 10.9.1.11:8080 -w |"), "");
}

TEST_F(VsadmCompletionTest, WordsBeyondIpvsadm) {
  EXPECT_EQ(completed("drain |"), "10.9.0.100:80 10.9.0.101:80 [fd00::100]:80 udp:10.9.0.100:53");
  EXPECT_EQ(completed("drain 10.9.0.100:80 |"), "10.9.1.11:8080 10.9.1.12:8080");
  EXPECT_EQ(completed("drain --timeout 5m udp:10.9.0.100:53 |"), "10.9.1.11:53");
  EXPECT_EQ(completed("drain 10.9.0.100:80 10.9.1.11:8080 |"), "--timeout --on-timeout --json");
  EXPECT_EQ(completed("drain 10.9.0.100:80 10.9.1.11:8080 --on-timeout |"), "keep reset");
  EXPECT_EQ(completed("drain 10.9.0.100:80 10.9.1.11:8080 --timeout |"), "");
  EXPECT_EQ(completed("apply |"), "FILE");
  EXPECT_EQ(completed("apply web.rules |"), "--dry-run --json");
  EXPECT_EQ(completed("apply --dry-run |"), "FILE");
  EXPECT_EQ(completed("reasons |"), "--json");
  EXPECT_EQ(completed("top --sort in|"), "inact inpps inbps");
  EXPECT_EQ(completed("top -u |"), "10.9.0.100:53");
  EXPECT_EQ(completed("top --json --s|"), "--sort --sctp-service");
  EXPECT_EQ(completed("tune sloppy_t|"), "sloppy_tcp=");
}

}  // namespace
}  // namespace director::vsadm
