// What ipvsadm 1.31 on Linux 6.1 said to thousands of command lines, one after another, and what ours says: the same, byte for byte.
//
// A folder below tests/golden/admin with a steps.json is a session and a test; one with frames (case.json) is golden_test's. departures/admin/CASE.json lists the steps at which ours
// says something else on purpose or can't yet, each with its reason; a departure that isn't one any more fails too.
// With $DIRECTOR_GOLDEN_RECORD set, that file is written anew: read it, judge it, fill the reasons in.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "director/command.h"
#include "director/proc_listing.h"

namespace director {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

const fs::path kGolden = fs::path{DIRECTOR_SOURCE_DIR} / "tests/golden";

std::string read_text(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::string> sessions() {
  std::vector<std::string> names;
  for (const auto& folder : fs::directory_iterator(kGolden / "admin"))
    if (fs::exists(folder.path() / "steps.json") && !fs::exists(folder.path() / "case.json")) names.push_back(folder.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

/// A shell's words: blanks part them, quotes keep them.
std::vector<std::string> shell_words(std::string_view line) {
  std::vector<std::string> words;
  std::optional<std::string> word;
  char quote = 0;
  for (const char c : line) {
    if (quote != 0) {
      if (c == quote) quote = 0;
      else *word += c;
    } else if (c == '\'' || c == '"') {
      quote = c;
      if (!word) word.emplace();
    } else if (c == ' ') {
      if (word) words.push_back(*word);
      word.reset();
    } else {
      if (!word) word.emplace();
      *word += c;
    }
  }
  if (word) words.push_back(*word);
  return words;
}

/// What the machine that ran ipvsadm knew.
std::optional<std::string> known_there(const std::string& question) {
  static const std::map<std::string, std::string, std::less<>> kKnown{
      {"address localhost", "127.0.0.1"}, {"name 127.0.0.1", "localhost"}, {"port http/tcp", "80"},
      {"port domain/udp", "53"},          {"service 80/tcp", "http"},      {"service 443/tcp", "https"},
      {"service 8080/tcp", "http-alt"},   {"service 53/udp", "domain"},    {"service 5060/udp", "sip"},
      {"service 5061/udp", "sip-tls"},
  };
  const auto found = kKnown.find(question);
  return found == kKnown.end() ? std::nullopt : std::optional{found->second};
}

constexpr std::string_view kProcNet = "cat /proc/net/";

class Session {
 public:
  struct Outcome {
    std::string output;
    int exit_code = 0;
    friend bool operator==(const Outcome&, const Outcome&) = default;
  };
  Session() {
    const Change device = SetDevice{.device = DeviceId{0}, .name = "e0", .mac = {}, .stack = Stack::own};
    const Change addresses = SetAddresses{DeviceId{0}, {*Prefix::parse("10.9.0.2/24")}};
    EXPECT_TRUE(balancer_.apply(device, Instant{}) && balancer_.apply(addresses, Instant{}));
  }

  /// A command, or two with a pipe between.
  Outcome run(const std::string& line, const std::string& input) {
    if (line.starts_with(kProcNet)) {
      const auto text = proc_text(std::string_view{line}.substr(kProcNet.size()), balancer_, Instant{});
      return {text.value_or("no such file here"), text ? 0 : 1};
    }
    const std::size_t pipe = line.find(" | ");
    if (pipe == std::string::npos) return one(line, input, false);
    const Outcome first = one(line.substr(0, pipe), input, true);
    return one(line.substr(pipe + 3), first.output, false);
  }

 private:
  Outcome one(const std::string& line, const std::string& input, bool output_only) {
    Request request{shell_words(line), {}};
    Answer answer = run_command(request, balancer_, Instant{});
    while (!answer.wanted.empty()) {
      for (const std::string& question : answer.wanted)
        request.answers[question] = question == "input" ? std::optional{input} : known_there(question);
      answer = run_command(request, balancer_, Instant{});
    }
    return {answer.out + (output_only ? "" : answer.err), answer.exit_code};
  }

  Balancer balancer_{Balancer::Options{.policy = Policy::kernel, .seed = 0, .max_connections = 1000, .announce = false}};
};

class AdminGolden : public testing::TestWithParam<std::string> {};

TEST_P(AdminGolden, SaysWhatIpvsadmSaid) {
  const Json steps = Json::parse(read_text(kGolden / "admin" / GetParam() / "steps.json"));
  const fs::path departures_file = kGolden / "departures/admin" / (GetParam() + ".json");
  const bool recording = std::getenv("DIRECTOR_GOLDEN_RECORD") != nullptr;
  Json recorded = Json::array();
  std::map<std::size_t, Json> departures;
  if (fs::exists(departures_file))
    for (const Json& entry : Json::parse(read_text(departures_file))) departures[entry.at("step")] = entry;

  Session session;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Json& step = steps[i];
    if (step.at("op") != "admin") continue;
    const std::string line = step.at("cmd");
    const Session::Outcome expected{step.at("output"), step.at("rc")};
    const auto departure = departures.find(i);
    if (departure != departures.end() && !recording) {
      EXPECT_EQ(departure->second.at("cmd"), line) << "departures: step " << i << " is another command";
      EXPECT_NE(departure->second.at("why"), "") << "departures: step " << i << " has no reason";
      if (departure->second.value("skip", false)) continue;
    }
    if (!line.starts_with("ipvsadm") && !line.starts_with("/sbin/ipvsadm") &&
        !line.starts_with(kProcNet)) {
      if (recording) recorded.push_back({{"step", i}, {"cmd", line}, {"skip", true}, {"why", ""}});
      else ADD_FAILURE() << "step " << i << ": " << line << " is no command of ours, and no departure says why";
      continue;
    }

    const Session::Outcome got = session.run(line, step.value("input", ""));
    if (recording) {
      if (got != expected)
        recorded.push_back({{"step", i}, {"cmd", line}, {"rc", got.exit_code}, {"output", got.output}, {"why", ""}});
      continue;
    }
    const bool departs = departure != departures.end();
    if (departs) {
      EXPECT_NE(got, expected) << "departures: step " << i << ", " << line << ", is as ipvsadm's now: remove it";
    }
    const Session::Outcome wanted =
        departs ? Session::Outcome{departure->second.at("output"), departure->second.at("rc")} : expected;
    EXPECT_EQ(got.output, wanted.output) << "step " << i << ": " << line;
    EXPECT_EQ(got.exit_code, wanted.exit_code) << "step " << i << ": " << line;
  }
  if (recording) std::ofstream(departures_file) << recorded.dump(1) << "\n";
}

INSTANTIATE_TEST_SUITE_P(Ipvsadm, AdminGolden, testing::ValuesIn(sessions()), [](const auto& session) {
  std::string name = session.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace director
