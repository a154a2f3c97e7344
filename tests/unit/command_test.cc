// command: requests of the control tool and what comes back, without a socket.
#include "director/command.h"

#include <gtest/gtest.h>

#include "director/rules.h"

namespace director {
namespace {

class CommandTest : public ::testing::Test {
 protected:
  Answer ask(const std::string& line,
             std::map<std::string, std::optional<std::string>, std::less<>> answers = {}) {
    Request request{{}, std::move(answers)};
    for (std::string_view rest = line; !rest.empty();) {  // the program's name counts here
      const std::size_t blank = rest.find(' ');
      if (blank != 0) request.argv.emplace_back(rest.substr(0, blank));
      rest.remove_prefix(blank == rest.npos ? rest.size() : blank + 1);
    }
    return run_command(request, balancer_, now_);
  }
  /// Exit code and everything printed.
  std::string told(const std::string& line,
                   std::map<std::string, std::optional<std::string>, std::less<>> answers = {}) {
    const Answer answer = ask(line, std::move(answers));
    std::string wanted;
    for (const std::string& question : answer.wanted) wanted += "wanted: " + question + "\n";
    return std::to_string(answer.exit_code) + "\n" + answer.out + answer.err + wanted;
  }
  std::string saved() { return ask("vsadm -Sn").out; }

  Balancer balancer_{Balancer::Options{}};
  Instant now_{};
};

constexpr const char* kShop =
    "-A -t 10.9.0.100:80 -s rr\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 1\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.12:80 -m -w 1\n";

TEST_F(CommandTest, ServicesAndServersComeChangeAndGo) {
  EXPECT_EQ(told("vsadm -A -t 10.9.0.100:80 -s rr"), "0\n");
  EXPECT_EQ(told("vsadm -a -t 10.9.0.100:80 -r 10.9.0.11 -m"), "0\n");
  EXPECT_EQ(told("vsadm -a -t 10.9.0.100:80 -r 10.9.0.12 -m"), "0\n");
  EXPECT_EQ(saved(), kShop);
  EXPECT_EQ(told("vsadm -e -t 10.9.0.100:80 -r 10.9.0.12 -m -w 0"), "0\n");
  EXPECT_EQ(told("vsadm -E -t 10.9.0.100:80 -s wlc"), "0\n");
  EXPECT_EQ(told("vsadm -d -t 10.9.0.100:80 -r 10.9.0.11"), "0\n");
  EXPECT_EQ(saved(), "-A -t 10.9.0.100:80 -s wlc\n-a -t 10.9.0.100:80 -r 10.9.0.12:80 -m -w 0\n");
  EXPECT_EQ(told("vsadm -D -t 10.9.0.100:80"), "0\n");
  EXPECT_EQ(saved(), "");
}

TEST_F(CommandTest, RefusalsAreIpvsadms) {
  ask("vsadm -A -t 10.9.0.100:80 -s rr");
  ask("vsadm -a -t 10.9.0.100:80 -r 10.9.0.11 -m");
  EXPECT_EQ(told("ipvsadm -A -t 10.9.0.100:80"), "255\nService already exists\n");
  EXPECT_EQ(told("ipvsadm -A -t 10.9.0.100:81 -s bogus"), "255\nScheduler or persistence engine not found\n");
  EXPECT_EQ(told("ipvsadm -D -t 10.9.0.100:81"), "255\nNo such service\n");
  EXPECT_EQ(told("ipvsadm -Z -t 10.9.0.100:81"), "255\nNo such service\n");
  EXPECT_EQ(told("ipvsadm -Ln -t 10.9.0.100:81"), "1\nNo such service\n");
  EXPECT_EQ(told("ipvsadm -a -t 10.9.0.100:81 -r 10.9.0.11"), "255\nService not defined\n");
  EXPECT_EQ(told("ipvsadm -a -t 10.9.0.100:80 -r 10.9.0.11 -m"), "255\nDestination already exists\n");
  EXPECT_EQ(told("ipvsadm -d -t 10.9.0.100:80 -r 10.9.0.12"), "255\nNo such destination\n");
  EXPECT_EQ(told("ipvsadm -a -t 10.9.0.100:80 -r 10.9.0.12 -x 1 -y 2"),
            "255\nNumerical result out of range\n");
  EXPECT_EQ(told("ipvsadm -a -t 10.9.0.100:80 -r 224.0.0.1"),
            "255\nInvalid operation.  Possibly wrong module version, address not unicast, ...\n");
  EXPECT_EQ(told("/sbin/ipvsadm nonsense"),
            "255\nTry `/sbin/ipvsadm -h' or '/sbin/ipvsadm --help' for more information.\n");
  EXPECT_EQ(told("ipvsadm reasons"), "255\nTry `ipvsadm -h' or 'ipvsadm --help' for more information.\n");
  EXPECT_EQ(told("ipvsadm --stop-daemon master"), "255\nNo daemon is running\n");
  EXPECT_EQ(told("ipvsadm -L --daemon"), "0\n");
}

TEST_F(CommandTest, ClassesAreAddedListedSavedAndKeptByARestore) {
  EXPECT_EQ(told("vsadm --class 7 tcp dport 80,443 daddr 10.9.0.100"), "0\n");
  EXPECT_EQ(told("vsadm --class 7 tcp dport 80,443 daddr 10.9.0.100"), "255\nClass rule already exists\n");
  EXPECT_EQ(told("vsadm --class 0 tcp"), "2\ninvalid class `0' specified\n");
  EXPECT_EQ(told("vsadm --class 7 dport 99999").substr(0, 25), "2\nillegal ports '99999': ");
  EXPECT_EQ(told("vsadm -A -f 7 -s rr"), "0\n");
  EXPECT_EQ(told("vsadm -L --classes"), "0\nClass Rule\n7     tcp dport 80,443 daddr 10.9.0.100\n");
  EXPECT_EQ(told("vsadm -S -n"), "0\n-A -f 7 -s rr\n") << "a real ipvsadm can be fed with it";
  EXPECT_EQ(told("vsadm -S -n --extended"),
            "0\n--set 900 120 300\n--class 7 tcp dport 80,443 daddr 10.9.0.100\n-A -f 7 -s rr\n");
  EXPECT_EQ(told("vsadm --delete-class 8"), "255\nNo such class\n");
  EXPECT_EQ(told("vsadm --delete-class 7"), "0\n");
  EXPECT_EQ(told("vsadm -L --classes"), "0\nClass Rule\n");
}

TEST_F(CommandTest, NamesAreAnsweredByTheAsker) {
  EXPECT_EQ(told("vsadm -A -t www.example:http -s rr"),
            "0\nwanted: address www.example\nwanted: port http/tcp\n");
  EXPECT_EQ(saved(), "") << "nothing happens before all is known";
  EXPECT_EQ(told("vsadm -A -t www.example:http -s rr",
                 {{"address www.example", "10.9.0.100"}, {"port http/tcp", "80"}}),
            "0\n");
  EXPECT_EQ(saved(), "-A -t 10.9.0.100:80 -s rr\n");
  EXPECT_EQ(told("vsadm -S"), "0\nwanted: name 10.9.0.100\nwanted: service 80/tcp\n");
  EXPECT_EQ(told("vsadm -S", {{"name 10.9.0.100", "www.example"}, {"service 80/tcp", std::nullopt}}),
            "0\n-A -t www.example:80 -s rr\n");
  EXPECT_EQ(told("vsadm -A -t nowhere.example:80", {{"address nowhere.example", std::nullopt}}),
            "2\nillegal virtual server address[:port] specified\n");
}

TEST_F(CommandTest, RestoreIsAllOrNothing) {
  EXPECT_EQ(told("vsadm -R"), "0\nwanted: input\n");
  EXPECT_EQ(told("vsadm -R", {{"input", kShop}}), "0\n");
  EXPECT_EQ(saved(), kShop);
  EXPECT_EQ(told("vsadm -R", {{"input",
                               "-A -t 10.9.0.100:81 -s rr\n"
                               "-A -t 10.9.0.100:80 -s rr\n"
                               "# a comment\n"
                               "-a -t 10.9.0.100:81 -r 10.9.0.11 -w x\n"
                               "-L\n"}}),
            "255\nline 2: Service already exists\nline 4: illegal weight specified\n"
            "line 5: -L changes nothing that could be restored\nnothing was changed\n");
  EXPECT_EQ(saved(), kShop);
  EXPECT_EQ(told("vsadm -R", {{"input", "-C\n-A -t 10.9.0.100:81\n"}}), "0\n");
  EXPECT_EQ(saved(), "-A -t 10.9.0.100:81 -s wlc\n");
}

TEST_F(CommandTest, ApplyMakesTheTableTheFiles) {
  ask("vsadm -R", {{"input", kShop}});
  const_cast<RealServer*>(balancer_.services()[0]->servers[0])->active = 3;  // 10.9.0.12, added last
  const std::string file =
      "-A -t 10.9.0.100:80 -s rr\n"
      "-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 5\n"
      "-a -t 10.9.0.100:80 -r 10.9.0.13:80 -m -w 1\n";
  const std::string difference =
      "-d -t 10.9.0.100:80 -r 10.9.0.12:80   # 3 connections\n"
      "-e -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 5\n"
      "-a -t 10.9.0.100:80 -r 10.9.0.13:80 -m -w 1\n";
  EXPECT_EQ(told("vsadm apply web.rules"), "0\nwanted: file web.rules\n");
  EXPECT_EQ(told("vsadm apply web.rules --dry-run", {{"file web.rules", file}}), "0\n" + difference);
  EXPECT_EQ(saved(), kShop);
  EXPECT_EQ(told("vsadm apply web.rules", {{"file web.rules", file}}), "0\n" + difference);
  EXPECT_EQ(saved(), file);
  EXPECT_EQ(told("vsadm apply -", {{"input", file}}), "0\n");
  EXPECT_EQ(told("vsadm apply web.rules", {{"file web.rules", "-A -t 10.9.0.1:80\nnonsense\n"}}),
            "2\nweb.rules:2:1: 'nonsense' begins no rule, expected a command first: -A, -a, ...\n");
  EXPECT_EQ(told("vsadm apply web.rules", {{"file web.rules", "-A -t 10.9.0.1:80\n-A -t 10.9.0.1:80\n"}}),
            "255\nweb.rules:2:1: Service already exists\n");
  EXPECT_EQ(saved(), file);
  EXPECT_EQ(ask("vsadm apply").exit_code, 2);
  EXPECT_EQ(ask("vsadm apply a b").exit_code, 2);
}

TEST_F(CommandTest, SaveAndRestoreUnderTheirOwnNames) {
  EXPECT_EQ(told("/usr/sbin/ipvsadm-restore"), "0\nwanted: input\n");
  EXPECT_EQ(told("ipvsadm-restore", {{"input", kShop}}), "0\n");
  EXPECT_EQ(told("ipvsadm-save -n"), std::string{"0\n"} + kShop);
  EXPECT_EQ(told("ipvsadm-restore", {{"input", "-A -t 10.9.0.100:81\n"}}), "0\n") << "it replaces";
  EXPECT_EQ(told("ipvsadm-save -n"), "0\n-A -t 10.9.0.100:81 -s wlc\n");
  EXPECT_EQ(ask("ipvsadm-save -x").exit_code, 1);
}

TEST_F(CommandTest, DrainWaitsUntilTheLastConnectionIsGone) {
  ask("vsadm -R", {{"input", kShop}});
  RealServer& server = *const_cast<RealServer*>(balancer_.services()[0]->servers[0]);
  server.active = 2;
  const std::string line = "vsadm drain 10.9.0.100:80 10.9.0.12";
  Answer first = ask(line);
  EXPECT_EQ(first.out, "10.9.0.12:80: 2 active and 0 inactive connections left\n");
  EXPECT_EQ(server.config.weight, 0U);
  ASSERT_TRUE(first.again);

  Request next{{"vsadm", "drain", "10.9.0.100:80", "10.9.0.12"}, {}};
  for (const auto& [key, value] : first.again->remember) next.answers[key] = value;
  now_ += 1s;
  const Answer second = run_command(next, balancer_, now_);
  EXPECT_EQ(second.out, "") << "nothing new to tell";
  ASSERT_TRUE(second.again);
  server.active = 0;
  EXPECT_EQ(run_command(next, balancer_, now_).out, "10.9.0.12:80: no connections left, removed\n");
  EXPECT_EQ(saved(), "-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m -w 1\n");
}

TEST_F(CommandTest, DrainEndsWhenItsTimeIsUp) {
  ask("vsadm -R", {{"input", kShop}});
  RealServer& server = *const_cast<RealServer*>(balancer_.services()[0]->servers[0]);
  server.active = 2;
  const Answer first = ask("vsadm drain tcp:10.9.0.100:80 10.9.0.12 --timeout 30s");
  ASSERT_TRUE(first.again);
  std::map<std::string, std::optional<std::string>, std::less<>> remember;
  for (const auto& [key, value] : first.again->remember) remember[key] = value;
  now_ += 30s;
  EXPECT_EQ(told("vsadm drain tcp:10.9.0.100:80 10.9.0.12 --timeout 30s", remember),
            "1\n10.9.0.12:80: 2 active and 0 inactive connections left\n"
            "10.9.0.12:80 keeps them, with weight 0 (vsadm -d removes it)\n");
  EXPECT_EQ(told("vsadm drain tcp:10.9.0.100:80 10.9.0.12 --timeout 30s --on-timeout reset", remember),
            "0\n10.9.0.12:80: 2 active and 0 inactive connections left\n10.9.0.12:80: removed, and 2 "
            "connections ended\n");
  EXPECT_EQ(balancer_.tunables().expire_nodest_conn, 0) << "only for this one";
  EXPECT_EQ(told("vsadm drain 10.9.0.100:80 10.9.0.12"), "255\nNo such destination\n");
  EXPECT_EQ(told("vsadm drain 10.9.0.1:80 10.9.0.12"), "255\nService not defined\n");
  EXPECT_EQ(ask("vsadm drain 10.9.0.100:80").exit_code, 2);
}

TEST_F(CommandTest, KnobsAreShownAndSetTogetherOrNotAtAll) {
  EXPECT_EQ(told("vsadm tune expire_nodest_conn"), "0\nexpire_nodest_conn = 0\n");
  EXPECT_EQ(told("vsadm tune expire_nodest_conn=1 sloppy_tcp=1"), "0\n");
  EXPECT_EQ(balancer_.tunables().sloppy_tcp, 1);
  EXPECT_EQ(told("vsadm tune sloppy_tcp=0 sloppy_tcp=2"), "2\nsloppy_tcp: expected a number from 0 to 1\n");
  EXPECT_EQ(balancer_.tunables().sloppy_tcp, 1);
  EXPECT_EQ(told("vsadm tune bogus=1"), "2\nbogus: no such knob; vsadm tune lists them\n");
}

TEST_F(CommandTest, JsonHasTheSameNumbers) {
  ask("vsadm -R", {{"input", kShop}});
  const std::string services = ask("vsadm -Ln --json").out;
  EXPECT_NE(services.find("\"address\": \"10.9.0.12\""), std::string::npos);
  EXPECT_NE(services.find("\"weight\": 1"), std::string::npos);
  EXPECT_EQ(ask("vsadm -Lnc --json").out, "{\"connections\": [\n]}\n");
  EXPECT_NE(ask("vsadm -L --timeout --json").out.find("\"tcpfin\": 120"), std::string::npos);
  balancer_.counters().count(Reason::runt, 3);
  EXPECT_NE(ask("vsadm reasons --json").out.find("\"count\": 3"), std::string::npos);
  EXPECT_NE(ask("vsadm tune --json").out.find("\"name\": \"sloppy_tcp\""), std::string::npos);
}

TEST_F(CommandTest, JsonOfWhatChanges) {
  ask("vsadm -R", {{"input", kShop}});
  RealServer& server = *const_cast<RealServer*>(balancer_.services()[0]->servers[0]);  // 10.9.0.12
  server.active = 3;
  EXPECT_EQ(told("vsadm apply web.rules --dry-run --json",
                 {{"file web.rules", "-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -m\n"}}),
            "0\n{\n  \"changes\": [\n    {\n      \"change\": \"-d -t 10.9.0.100:80 -r 10.9.0.12:80\",\n"
            "      \"connections\": 3,\n      \"slots\": 0,\n      \"of_slots\": 0\n    }\n  ]\n}\n");
  EXPECT_EQ(told("vsadm apply web.rules --json", {{"file web.rules", kShop}}), "0\n{\n  \"changes\": []\n}\n");
  const Answer draining = ask("vsadm drain 10.9.0.100:80 10.9.0.12 --json --timeout 30s");
  EXPECT_EQ(draining.out, "{\"server\":\"10.9.0.12:80\",\"active\":3,\"inactive\":0,\"state\":\"draining\"}\n");
  std::map<std::string, std::optional<std::string>, std::less<>> remember;
  for (const auto& [key, value] : draining.again->remember) remember[key] = value;
  now_ += 30s;
  EXPECT_EQ(told("vsadm drain 10.9.0.100:80 10.9.0.12 --json --timeout 30s", remember),
            "1\n{\"server\":\"10.9.0.12:80\",\"active\":3,\"inactive\":0,\"state\":\"kept\"}\n"
            "10.9.0.12:80 keeps them, with weight 0 (vsadm -d removes it)\n");
  server.active = 0;
  EXPECT_EQ(told("vsadm drain 10.9.0.100:80 10.9.0.12 --json", remember),
            "0\n{\"server\":\"10.9.0.12:80\",\"active\":0,\"inactive\":0,\"state\":\"removed\"}\n");
  const std::string knob = ask("vsadm tune sloppy_tcp=1 sloppy_tcp --json").out;
  EXPECT_NE(knob.find("\"name\": \"sloppy_tcp\",\n      \"value\": 1,"), std::string::npos) << knob;
  EXPECT_EQ(knob.find("\"sloppy_sctp\""), std::string::npos);
}

TEST_F(CommandTest, MessagesThatAreNoRequestsAreRefused) {
  for (const char* text :
       {"", "{", "[]", "{}", R"({"argv": []})", R"({"argv": "vsadm"})", R"({"argv": [1]})",
        R"({"argv": ["vsadm"], "answers": []})", R"({"argv": ["vsadm"], "answers": {"a": 1}})"}) {
    const auto answer = decode_answer(serve_command(text, balancer_, now_));
    ASSERT_TRUE(answer) << text;
    EXPECT_EQ(answer->exit_code, 2) << text;
    EXPECT_EQ(answer->err.substr(0, 16), "control socket: ") << text;
  }
}

TEST(Message, SurvivesTheWay) {
  const Request request{{"vsadm", "-A", "-t", "x\n\"y\xff"},
                        {{"address a", "1"}, {"address b", std::nullopt}}};
  const auto read = decode_request(encode(request));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->argv[3], "x\n\"y\xEF\xBF\xBD") << "what isn't UTF-8 is replaced";
  EXPECT_EQ(read->answers, request.answers);
  Answer answer;
  answer.out = "a\n";
  answer.exit_code = 255;
  answer.again = Answer::Again{1500ms, {{"k", "v"}}};
  const auto back = decode_answer(encode(answer));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->out, answer.out);
  EXPECT_EQ(back->exit_code, 255);
  EXPECT_EQ(back->again->after, 1500ms);
  EXPECT_EQ(back->again->remember, answer.again->remember);
  EXPECT_FALSE(decode_answer("{}"));
}

}  // namespace
}  // namespace director
