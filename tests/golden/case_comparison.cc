#include "case_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "departure_rules.h"
#include "director/net/format.h"
#include "director/replay.h"

namespace director::golden {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::string read_text(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in) throw std::runtime_error(path.string() + ": cannot be read");
  return text.str();
}

Json read_json(const fs::path& path) {
  try {
    return Json::parse(read_text(path));
  } catch (const Json::parse_error& error) {
    throw std::runtime_error(fmt::format("{}: not JSON: {}", path.string(), error.what()));
  }
}

template <typename T>
T or_throw(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

/// What the kernel's case.json lets us ignore.
struct IgnoredHere {
  Ignored frames;
  bool connections_at_end = false;
  bool list_at_end = false;
  bool last_connections_step = false;
  bool sync_grouping = false;
};

IgnoredHere ignored_in(const Json& json) {
  IgnoredHere ignored;
  const std::map<std::string, bool*, std::less<>> words{
      {"local.ip.id", &ignored.frames.local_ip_id},
      {"outer.ip.id(when outer DF=0)", &ignored.frames.outer_ip_id},
      {"outer.udp.sport", &ignored.frames.outer_udp_source},
      {"local.ip6.flowlabel", &ignored.frames.local_flow_label},
      {"outer.ip6.flowlabel", &ignored.frames.outer_flow_label},
      {"ip6.fragment.id of frames the director fragments", &ignored.frames.fragment_id},
      {"icmp.timestamp", &ignored.frames.icmp_timestamp},
      {"ip.option.timestamp", &ignored.frames.option_timestamp},
      {"conns.txt", &ignored.connections_at_end},
      {"grouping of connections into datagrams", &ignored.sync_grouping},
      {"sync.udp.sport", &ignored.sync_grouping},  // these three are left out of every comparison of sync messages
      {"sync.timeout", &ignored.sync_grouping},
      {"udp.checksum", &ignored.sync_grouping},
      {"list.txt", &ignored.list_at_end},
      {"rows of the last conns step", &ignored.last_connections_step},
  };
  for (const std::string word : json.value("ignore", Json::array())) {
    const auto found = words.find(word);
    if (found == words.end())
      throw std::runtime_error(fmt::format("case.json: nobody here knows how to ignore \"{}\"", word));
    *found->second = true;
  }
  return ignored;
}

/// The differences as a departures file.
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
  [[nodiscard]] const std::string& text() const { return text_; }

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
  for (std::string& line : lines) {  // an IPv6 address may be written in several ways
    const std::size_t end = line.find(']');
    if (!line.starts_with('[') || end == std::string::npos) continue;
    if (const auto address = IpAddress::parse(std::string_view{line}.substr(1, end - 1)))
      line = '[' + format_as(*address) + line.substr(end);
  }
  return lines;
}

}  // namespace

Departures::Departures(const fs::path& file) {
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
  if (sections_.empty())
    throw std::runtime_error(fmt::format("{}: expected \"step N\" or \"stats.txt\"", file.string()));
}

const std::vector<std::string>* Departures::find(const std::string& section) const {
  const auto found = sections_.find(section);
  return found == sections_.end() ? nullptr : &found->second;
}

CaseResult compare_case(const fs::path& folder, const Departures& departures, Rules rules) {
  const CaptureCase capture = or_throw(load_case(folder.string()));
  const Json steps = read_json(folder / "steps.json");
  const IgnoredHere ignored = ignored_in(read_json(folder / "case.json"));
  const std::vector<CapturedFrame> expected_frames = or_throw(read_pcap((folder / "out.pcap").string()));

  CaseResult result;
  result.frames_in = capture.frames.size();
  result.frames_out = expected_frames.size();
  Recorder recorder;
  SyncComparison messages;
  for (const CapturedFrame& frame : expected_frames)
    if (SyncComparison::is_message(frame.bytes)) messages.expect(frame.bytes);
  Replay replay(capture, Policy::kernel);
  if (const auto started = replay.start(); !started) throw std::runtime_error(started.error().message);

  std::size_t last_connections = 0;
  for (std::size_t i = 0; i < steps.size(); ++i)
    if (steps[i]["op"] == "conns") last_connections = i;

  // What the capture's clock did that a replay can't know: each command took up to half a second, and a sleep in which frames left
  // went on for as long after the last of them, whose time was the kernel's timer's.
  long half_seconds = 0;
  const auto slack = [&] { return 1 + (half_seconds + 1) / 2; };

  std::size_t next = 0;  // of capture.steps: a "late" step is none there
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Json& step = steps[i];
    const std::string op = step["op"];
    if (op == "late") continue;
    std::string heading = fmt::format("step {}: {}", i, op);
    std::vector<std::span<const std::byte>> caused_by;
    if (step.contains("note")) heading += ", " + step["note"].get<std::string>();
    if (step.contains("cmd")) heading += ", " + step["cmd"].get<std::string>();
    for (const std::size_t index : step.value("in", Json::array())) {
      caused_by.emplace_back(capture.frames[index].bytes);
      heading +=
          fmt::format("\n  in {:>3}   {}", index, packet_line(capture.frames[index].bytes, Detail::full));
    }
    if (op == "frame") half_seconds = 0;
    if (op == "admin") ++half_seconds;
    if (op == "sleep" && !step.value("out", Json::array()).empty()) half_seconds += 4;
    Replay::Outcome outcome = replay.run(capture.steps.at(next++));
    std::erase_if(outcome.sent, [&](const CapturedFrame& frame) {
      if (!SyncComparison::is_message(frame.bytes)) return false;
      messages.got(frame.bytes);
      return true;
    });
    const auto expect_none = [&](const std::string& wrong) {
      if (!wrong.empty()) result.differences.push_back({heading, wrong});
    };

    if (const std::vector<std::string>* lines = departures.find(fmt::format("step {}", i))) {
      expect_none(compare_with_lines(*lines, outcome.sent));
    } else {
      std::vector<CapturedFrame> expected;
      for (const std::size_t index : step.value("out", Json::array()))
        if (!SyncComparison::is_message(expected_frames.at(index).bytes)) expected.push_back(expected_frames.at(index));
      std::string wrong = FrameComparison(ignored.frames, caused_by).compare(expected, outcome.sent);
      if (!wrong.empty() && rules == Rules::known)
        if (const auto rule = explaining_rule({caused_by, expected, outcome.sent}, ignored.frames)) {
          ++result.departures[std::string{*rule}];
          wrong.clear();
        }
      if (!wrong.empty()) recorder.frames(i, outcome.sent, caused_by);
      expect_none(wrong);
    }
    if (op == "conns" && !(ignored.last_connections_step && i == last_connections))
      expect_none(compare_connections(step["rows"].get<std::vector<std::string>>(),
                                      without(2, lines_of(outcome.text)), slack()));
    if (op == "list")
      expect_none(
          compare_lines(step["rows"].get<std::vector<std::string>>(), without(3, lines_of(outcome.text))));
    if (step.contains("output"))
      expect_none(compare_output(lines_of(step["output"].get<std::string>()), lines_of(outcome.text), slack()));
    if (const int wanted = step.value("rc", 0); outcome.exit_code != wanted)
      expect_none(fmt::format("  expected exit code {}\n  got      {}\n", wanted, outcome.exit_code));
    if (step.contains("state"))
      expect_none(compare_lines({expected_decision(step)}, {replay.decisions().back()}));
  }

  const auto expect_equal = [&](std::string_view file, const std::string& wrong) {
    if (!wrong.empty()) result.differences.push_back({std::string{file}, wrong});
  };
  const auto at_end = [&](std::vector<std::string> words) { return lines_of(replay.command(words).text); };
  const auto expected_text = [&](std::string_view name) { return lines_of(read_text(folder / name)); };
  if (!ignored.connections_at_end)
    expect_equal("conns.txt", compare_connections(expected_text("conns.txt"), at_end({"-L", "-n", "-c"}), slack()));
  if (!ignored.list_at_end)
    expect_equal("list.txt", compare_lines(expected_text("list.txt"), at_end({"-L", "-n"})));
  expect_equal("save.txt", compare_lines(expected_text("save.txt"), at_end({"-S", "-n"})));
  expect_equal("messages to other directors", messages.compare());
  const std::vector<std::string>* other_stats = departures.find("stats.txt");
  const std::vector<std::string> stats = at_end({"-L", "-n", "--stats", "--exact"});
  const std::string wrong_stats =
      compare_lines(other_stats != nullptr ? *other_stats : expected_text("stats.txt"), stats);
  if (!wrong_stats.empty()) recorder.lines("stats.txt", stats);
  expect_equal("stats.txt", wrong_stats);
  if (fs::exists(folder / "decisions.txt"))
    expect_equal("decisions.txt",
                 compare_lines(decisions_of(expected_text("decisions.txt")), replay.decisions()));
  result.record = recorder.text();
  return result;
}

}  // namespace director::golden
