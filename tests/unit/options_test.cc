// The daemon's command line and --config file.
#include "director/options.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "director/base/startup_error.h"

namespace director {
namespace {

Options parse(std::initializer_list<std::string> words) {
  return parse_options(std::vector<std::string>(words));
}

/// What parse_options says against the words, as "code: sentence"; empty if nothing.
std::string complaint(const std::vector<std::string>& words) {
  try {
    (void)parse_options(words);
    return {};
  } catch (const StartupError& error) {
    return std::to_string(static_cast<int>(error.code())) + ": " + error.what();
  }
}

struct TemporaryFile {
  std::string name = ::testing::TempDir() + "director_options_test." + std::to_string(getpid()) + ".ini";
  explicit TemporaryFile(const char* text) { std::ofstream(name) << text; }
  ~TemporaryFile() { std::remove(name.c_str()); }
};

TEST(Options, HaveTheDefaultsOfTheManual) {
  unsetenv("DIRECTOR_CONTROL");
  const Options o = parse({"--device", "packet:eth0"});
  EXPECT_EQ(o.task, Task::run);
  ASSERT_EQ(o.config.devices.size(), 1U);
  EXPECT_EQ(o.config.devices[0].interface, "eth0");
  EXPECT_EQ(o.config.control, "/run/director/control.sock");
  EXPECT_EQ(o.config.guard, Guard::on);
  EXPECT_EQ(o.config.policy, Policy::improved);
  EXPECT_FALSE(o.config.http);
  EXPECT_TRUE(o.config.rules.empty());
  EXPECT_TRUE(o.config.tunables.empty());
}

TEST(Options, TakeTheControlSocketFromTheEnvironment) {
  setenv("DIRECTOR_CONTROL", "/tmp/a.sock", 1);
  EXPECT_EQ(parse({"--device", "packet:eth0"}).config.control, "/tmp/a.sock");
  EXPECT_EQ(parse({"--device", "packet:eth0", "--control", "/tmp/b.sock"}).config.control, "/tmp/b.sock");
  unsetenv("DIRECTOR_CONTROL");
}

TEST(Options, TakeEverythingAtOnce) {
  const Options o = parse({"--device=front=packet:eth0", "--device", "tap:lb0,address=10.9.0.2/24", "--rules",
                           "r", "--guard", "off", "--policy=kernel", "--tune", "sloppy_tcp=1", "--tune",
                           "pmtu_disc=0", "--pcap", "p", "--log-level", "debug", "--log-format", "json"});
  EXPECT_EQ(parse({"--device", "packet:eth0", "--http", "127.0.0.1:9101"}).config.http,
            (Endpoint{*IpAddress::parse("127.0.0.1"), Port::of(9101)}));
  EXPECT_EQ(parse({"--device", "packet:eth0", "--http", "[::1]:80"}).config.http,
            (Endpoint{*IpAddress::parse("::1"), Port::of(80)}));
  EXPECT_EQ(o.config.devices[0].name, "front");
  EXPECT_EQ(o.config.devices[1].name, "lb0");
  EXPECT_EQ(o.config.rules, "r");
  EXPECT_EQ(o.config.guard, Guard::off);
  EXPECT_EQ(o.config.policy, Policy::kernel);
  ASSERT_EQ(o.config.tunables.size(), 2U);
  EXPECT_EQ(o.config.tunables[1].name, "pmtu_disc");
  EXPECT_EQ(o.config.tunables[1].value, 0);
  EXPECT_EQ(o.config.pcap, "p");
  EXPECT_EQ(o.config.log_level, log::Level::debug);
  EXPECT_EQ(o.config.log_format, log::Format::json);
}

TEST(Options, NeedNoDeviceForHelpVersionAndCheck) {
  EXPECT_EQ(parse({"--help"}).task, Task::help);
  EXPECT_EQ(parse({"--version"}).task, Task::version);
  EXPECT_EQ(parse({"--check"}).task, Task::check);
  EXPECT_EQ(parse({"--check", "--json"}).told, Told::as_json);
  EXPECT_THROW(parse({"--device", "packet:eth0", "--json"}), StartupError);
}

TEST(Options, SayWhatIsWrong) {
  struct {
    std::vector<std::string> words;
    const char* complaint;
  } const cases[] = {
      {{}, "2: at least one --device is needed"},
      {{"--http", "9101"}, "2: --http takes ADDRESS:PORT, for instance 127.0.0.1:9101 or [::1]:9101, not \"9101\": there is no port"},
      {{"--http", ":9101"}, "2: --http takes ADDRESS:PORT, for instance 127.0.0.1:9101 or [::1]:9101, not \":9101\": there is no address"},
      {{"--http", "localhost:9101"},
       "2: --http takes ADDRESS:PORT, for instance 127.0.0.1:9101 or [::1]:9101, not \"localhost:9101\": the address is no IP address"},
      {{"--http", "::1:9101"},
       "2: --http takes ADDRESS:PORT, for instance 127.0.0.1:9101 or [::1]:9101, not \"::1:9101\": an IPv6 address stands in brackets"},
      {{"--http", "[10.9.0.1]:9101"},
       "2: --http takes ADDRESS:PORT, for instance 127.0.0.1:9101 or [::1]:9101, not \"[10.9.0.1]:9101\": brackets are for IPv6"},
      {{"--http", "127.0.0.1:0"},
       "2: --http takes ADDRESS:PORT, for instance 127.0.0.1:9101 or [::1]:9101, not \"127.0.0.1:0\": the port is a number"},
      {{"--dev", "packet:eth0"}, "2: unrecognised option '--dev'"},
      {{"--device", "packet:eth0", "stray"}, "2: too many positional options"},
      {{"--device", "eth0"}, "2: --device eth0: expected [NAME=]KIND:INTERFACE"},
      {{"--device", "packet:eth0", "--device", "packet:eth0"}, "2: --device packet:eth0: there is already"},
      {{"--device", "a=packet:eth0", "--device", "b=packet:eth0"},
       "2: --device b=packet:eth0: the interface is already"},
      {{"--device", "packet:eth0", "--guard", "maybe"}, "2: --guard is one of on, off, not \"maybe\""},
      {{"--device", "packet:eth0", "--policy", "x"}, "2: --policy is one of improved, kernel"},
      {{"--device", "packet:eth0", "--tune", "sloppy_tcp"}, "2: --tune takes NAME=VALUE"},
      {{"--device", "packet:eth0", "--tune", "sloppy_tcp=2"}, "2: --tune sloppy_tcp: expected a number from 0 to 1"},
      {{"--device", "packet:eth0", "--tune", "sloppy_tcp=x"}, "2: --tune sloppy_tcp: expected a number from 0 to 1"},
      {{"--device", "packet:eth0", "--tune", "slopy=1"}, "2: --tune slopy=1: there is no knob \"slopy\""},
      {{"--device", "packet:eth0", "--log-level", "loud"},
       "2: --log-level is one of error, warning, info, debug"},
      {{"--config", "/nonexistent/x.ini"}, "3: /nonexistent/x.ini: can't be read"},
  };
  for (const auto& c : cases) {
    const std::string said = complaint(c.words);
    EXPECT_TRUE(said.starts_with(c.complaint)) << said;
  }
}

TEST(Options, ComeFromAFileTooAndTheCommandLineWins) {
  const TemporaryFile file(
      "# a comment\ndevice = packet:eth0\ndevice = packet:eth1\nguard = off\nrules = a.rules\n");
  const Options o = parse({"--config", file.name, "--rules", "b.rules"});
  EXPECT_EQ(o.config.devices.size(), 2U);
  EXPECT_EQ(o.config.guard, Guard::off);
  EXPECT_EQ(o.config.rules, "b.rules");
}

TEST(Options, TellTheFilesMistakesAsTheFiles) {
  struct {
    const char* text;
    const char* complaint;
  } const cases[] = {
      {"device = eth0\n", "--device eth0: expected"},
      {"gaurd = off\n", "unrecognised option 'gaurd'"},
      {"guard = perhaps\n", "--guard is one of"},
      {"config = other.ini\n", "unrecognised option 'config'"},
  };
  for (const auto& c : cases) {
    const TemporaryFile file(c.text);
    const std::string said = complaint({"--config", file.name});
    EXPECT_TRUE(said.starts_with("3: " + file.name + ": " + c.complaint)) << said;
  }
}

}  // namespace
}  // namespace director
