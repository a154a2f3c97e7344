// Captures of the kernel's IPVS, replayed: the same frames out, the same connections, lists, statistics and rules.
//
// A folder below tests/golden (or $DIRECTOR_GOLDEN) with a case.json is a case, and a test. departures.md says where ours
// goes another way on purpose, and `departures/` holds what it does there instead.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "compare.h"
#include "director/net/format.h"
#include "director/replay.h"

namespace director::golden {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

fs::path golden_folder() {
  const char* elsewhere = std::getenv("DIRECTOR_GOLDEN");
  return elsewhere != nullptr ? fs::path{elsewhere} : fs::path{DIRECTOR_SOURCE_DIR} / "tests/golden";
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  EXPECT_TRUE(in) << path;
  return text.str();
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  const fs::path root = golden_folder();
  for (const auto& family : fs::directory_iterator(root)) {
    if (!family.is_directory() || family.path().filename() == "departures") continue;
    for (const auto& folder : fs::directory_iterator(family.path()))
      if (fs::exists(folder.path() / "case.json"))
        names.push_back(fs::relative(folder.path(), root).string());
  }
  std::ranges::sort(names);
  return names;
}

/// What the kernel's case.json lets us ignore.
struct IgnoredHere {
  Ignored frames;
  bool connections_at_end = false;
  bool list_at_end = false;
  bool last_connections_step = false;
};

IgnoredHere ignored_in(const Json& json) {
  IgnoredHere ignored;
  const std::map<std::string, bool*, std::less<>> words{
      {"local.ip.id", &ignored.frames.local_ip_id},
      {"outer.ip.id(when outer DF=0)", &ignored.frames.outer_ip_id},
      {"icmp.timestamp", &ignored.frames.icmp_timestamp},
      {"ip.option.timestamp", &ignored.frames.option_timestamp},
      {"conns.txt", &ignored.connections_at_end},
      {"list.txt", &ignored.list_at_end},
      {"rows of the last conns step", &ignored.last_connections_step},
  };
  for (const std::string word : json.value("ignore", Json::array())) {
    const auto found = words.find(word);
    if (found == words.end()) {
      ADD_FAILURE() << "case.json: the golden runner doesn't know how to ignore \"" << word << "\"";
    } else {
      *found->second = true;
    }
  }
  return ignored;
}

/// What ours does instead of what the kernel did: departures/FAMILY/CASE.txt. "step N", then a full line of packet text for each frame
/// of that step; or "stats.txt", then its lines. departures.md says why.
class Departures {
 public:
  explicit Departures(const fs::path& file) {
    if (!fs::exists(file)) return;
    std::vector<std::string>* lines = nullptr;
    for (const std::string& line : lines_of(read_text(file))) {
      if (line.empty() || line.starts_with('#')) continue;
      if (line.starts_with("step ") || line == "stats.txt") {
        lines = &sections_[line];
      } else if (lines != nullptr) {
        lines->push_back(line);
      }
    }
    EXPECT_FALSE(sections_.empty()) << file << ": expected \"step N\" or \"stats.txt\"";
  }
  [[nodiscard]] const std::vector<std::string>* find(const std::string& section) const {
    const auto found = sections_.find(section);
    return found == sections_.end() ? nullptr : &found->second;
  }

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> sections_;
};

/// With $DIRECTOR_GOLDEN_RECORD set, writes what differs as a departure, to be read, judged and given a reason in departures.md.
class Recorder {
 public:
  void frames(std::size_t step, const std::vector<CapturedFrame>& sent,
              const std::vector<std::span<const std::byte>>& caused_by) {
    text_ += fmt::format("step {}\n", step);
    for (const CapturedFrame& frame : sent) {
      PacketText line = describe_frame(frame.bytes);
      const auto id_of = [](const PacketText& t) {
        return t.find("id") != nullptr ? t.find("id")->value : "";
      };
      const bool forwarded = std::ranges::any_of(
          caused_by, [&](std::span<const std::byte> in) { return id_of(describe_frame(in)) == id_of(line); });
      if (!forwarded)
        std::erase_if(line.fields, [](const auto& field) { return field.name == "id"; });  // unpredictable
      text_ += to_line(line, Detail::full) + "\n";
    }
  }
  void lines(std::string_view section, const std::vector<std::string>& lines) {
    text_ += fmt::format("{}\n{}\n", section, fmt::join(lines, "\n"));
  }
  void write(const fs::path& file) const {
    if (std::getenv("DIRECTOR_GOLDEN_RECORD") == nullptr || text_.empty()) return;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text_;
  }

 private:
  std::string text_;
};

std::string compare_with_lines(const std::vector<std::string>& expected,
                               const std::vector<CapturedFrame>& got) {
  std::string differences;
  for (std::size_t i = 0; i < std::max(expected.size(), got.size()); ++i) {
    const std::string want = i < expected.size() ? expected[i] : "nothing";
    const std::string have = i < got.size() ? packet_line(got[i].bytes, Detail::full) : "nothing";
    std::string wrong = i < expected.size() && i < got.size() ? "" : "not as many frames";
    if (wrong.empty()) {
      const auto text = parse_line(expected[i]);
      wrong = text ? mismatch(*text, describe_frame(got[i].bytes)) : text.error().message;
    }
    if (!wrong.empty())
      differences += fmt::format("  expected {}\n  got      {}\n    {}\n", want, have, wrong);
  }
  return differences;
}

std::vector<std::string> without(std::size_t headings, std::vector<std::string> lines) {
  lines.erase(lines.begin(), lines.begin() + static_cast<long>(std::min(headings, lines.size())));
  return lines;
}

std::string expected_decision(const Json& step) {
  const std::string state = step["state"];
  return fmt::format(
      "{:<45}{}", step["note"].get<std::string>(),
      step.contains("expire") ? fmt::format("{:<12} {}", state, step["expire"].get<int>() + 1) : state);
}

/// decisions.txt without its headings, and without what it says between steps.
std::vector<std::string> decisions_of(std::vector<std::string> lines) {
  std::erase_if(lines, [](const std::string& line) {
    return line.starts_with("-- ") || line.starts_with("set changed");
  });
  return lines;
}

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, IsWhatTheKernelDid) {
  const fs::path folder = golden_folder() / GetParam();
  const auto capture = load_case(folder.string());
  ASSERT_TRUE(capture) << capture.error().message;
  const Json description = Json::parse(read_text(folder / "case.json"));
  const Json steps = Json::parse(read_text(folder / "steps.json"));
  const IgnoredHere ignored = ignored_in(description);
  const auto expected_frames = read_pcap((folder / "out.pcap").string());
  ASSERT_TRUE(expected_frames) << expected_frames.error().message;
  const fs::path departures_file = golden_folder() / "departures" / (GetParam() + ".txt");
  const Departures departures(departures_file);
  Recorder recorder;

  Replay replay(*capture, Policy::kernel);
  const auto started = replay.start();
  ASSERT_TRUE(started) << started.error().message;

  std::size_t last_connections = 0;
  for (std::size_t i = 0; i < steps.size(); ++i)
    if (steps[i]["op"] == "conns") last_connections = i;

  std::size_t next = 0;  // of capture->steps: a "late" step is none there
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Json& step = steps[i];
    const std::string op = step["op"];
    if (op == "late") continue;
    std::string heading = fmt::format("step {}: {}", i, op);
    std::vector<std::span<const std::byte>> caused_by;
    if (step.contains("note")) heading += ", " + step["note"].get<std::string>();
    if (step.contains("cmd")) heading += ", " + step["cmd"].get<std::string>();
    for (const std::size_t index : step.value("in", Json::array())) {
      caused_by.emplace_back(capture->frames[index].bytes);
      heading +=
          fmt::format("\n  in {:>3}   {}", index, packet_line(capture->frames[index].bytes, Detail::full));
    }
    const Replay::Outcome outcome = replay.run(capture->steps.at(next++));
    const auto expect_none = [&](const std::string& wrong) {
      if (!wrong.empty()) ADD_FAILURE() << heading << "\n" << wrong;
    };

    if (const std::vector<std::string>* lines = departures.find(fmt::format("step {}", i))) {
      expect_none(compare_with_lines(*lines, outcome.sent));
    } else {
      std::vector<CapturedFrame> expected;
      for (const std::size_t index : step.value("out", Json::array()))
        expected.push_back(expected_frames->at(index));
      const std::string wrong = FrameComparison(ignored.frames, caused_by).compare(expected, outcome.sent);
      if (!wrong.empty()) recorder.frames(i, outcome.sent, caused_by);
      expect_none(wrong);
    }
    if (op == "conns" && !(ignored.last_connections_step && i == last_connections))
      expect_none(compare_connections(step["rows"].get<std::vector<std::string>>(),
                                      without(2, lines_of(outcome.text))));
    if (op == "list")
      expect_none(
          compare_lines(step["rows"].get<std::vector<std::string>>(), without(3, lines_of(outcome.text))));
    if (step.contains("output"))
      expect_none(compare_lines(lines_of(step["output"].get<std::string>()), lines_of(outcome.text)));
    EXPECT_EQ(outcome.exit_code, step.value("rc", 0)) << heading;
    if (step.contains("state")) {
      EXPECT_EQ(replay.decisions().back(), expected_decision(step)) << heading;
    }
  }

  const auto expect_equal = [&](std::string_view file, const std::string& wrong) {
    if (!wrong.empty()) ADD_FAILURE() << file << "\n" << wrong;
  };
  const auto at_end = [&](std::vector<std::string> words) { return lines_of(replay.command(words).text); };
  const auto expected_text = [&](std::string_view name) { return lines_of(read_text(folder / name)); };
  if (!ignored.connections_at_end)
    expect_equal("conns.txt", compare_connections(expected_text("conns.txt"), at_end({"-L", "-n", "-c"})));
  if (!ignored.list_at_end)
    expect_equal("list.txt", compare_lines(expected_text("list.txt"), at_end({"-L", "-n"})));
  expect_equal("save.txt", compare_lines(expected_text("save.txt"), at_end({"-S", "-n"})));
  const std::vector<std::string>* other_stats = departures.find("stats.txt");
  const std::vector<std::string> stats = at_end({"-L", "-n", "--stats", "--exact"});
  const std::string wrong_stats =
      compare_lines(other_stats != nullptr ? *other_stats : expected_text("stats.txt"), stats);
  if (!wrong_stats.empty()) recorder.lines("stats.txt", stats);
  expect_equal("stats.txt", wrong_stats);
  if (fs::exists(folder / "decisions.txt"))
    expect_equal("decisions.txt",
                 compare_lines(decisions_of(expected_text("decisions.txt")), replay.decisions()));
  recorder.write(departures_file);
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::ranges::replace_if(
      name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Kernel, Golden, testing::ValuesIn(case_names()), test_name);

}  // namespace
}  // namespace director::golden
