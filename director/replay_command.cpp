// Words, then a case and its steps or a recording and its calls, then what was asked for.
#include "director/replay_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <sstream>

#include "director/base/startup_error.h"
#include "director/option_words.h"
#include "director/recording.h"
#include "director/replay.h"

namespace director {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kUsage =
    "usage: director replay DIR|FILE [-w OUT.pcap] [--print LIST] [--json] [--policy improved|kernel]\n"
    "  DIR                a capture case: rules, case.json, in.pcap and perhaps steps.json\n"
    "  FILE               a recording of director --pcap: is it done again as it was?\n"
    "  -w OUT.pcap        what the director would have sent, with the time of what caused it\n"
    "  --print LIST       texts at the end, any of list,conns,stats,save,decisions\n"
    "  --json             those texts and all decisions, for programs\n"
    "  --policy improved|kernel\n"
    "                     kernel: exactly the kernel's IPVS; default: what was recorded, or kernel if case.json names one\n";

constexpr std::array<std::string_view, 5> kTexts{"list", "conns", "stats", "save", "decisions"};

struct ReplayOptions {
  bool help = false;
  std::string capture;
  std::string output;
  std::vector<std::string> texts;
  bool json = false;
  std::optional<Policy> policy;
};

std::vector<std::string> parse_texts(OptionWords& words) {
  std::vector<std::string> texts;
  const std::string value = words.value();
  for (std::string_view list = value; !list.empty();) {
    const std::size_t comma = std::min(list.find(','), list.size());
    const std::string_view name = list.substr(0, comma);
    if (std::ranges::find(kTexts, name) == kTexts.end())
      words.refuse(fmt::format("--print: \"{}\" isn't one of {}", name, fmt::join(kTexts, ", ")));
    texts.emplace_back(name);
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return texts;
}

ReplayOptions parse_replay_options(const std::vector<std::string>& argv) {
  ReplayOptions options;
  OptionWords words{"replay", kUsage, argv};
  while (words.next()) {
    if (words.name == "-h" || words.name == "--help") options.help = true;
    else if (words.name == "-w" || words.name == "--write") options.output = words.value();
    else if (words.name == "--print") options.texts = parse_texts(words);
    else if (words.name == "--json") options.json = true;
    else if (words.name == "--policy") options.policy = words.policy();
    else if (options.capture.empty()) options.capture = words.argument();
    else words.refuse(fmt::format("one at a time: what is \"{}\"?", words.argument()));
  }
  if (options.capture.empty() && !options.help) words.refuse("of what? name a case's folder, or a recording");
  return options;
}

/// A connection listing in the order of its text: the table's own says nothing.
std::string sorted_rows(const std::string& listing) {
  constexpr std::size_t kHeadings = 2;
  std::istringstream in(listing);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  if (lines.size() > kHeadings) std::sort(lines.begin() + kHeadings, lines.end());
  return fmt::format("{}\n", fmt::join(lines, "\n"));
}

std::string text_at_end(Replay& replay, std::string_view name) {
  if (name == "decisions") {
    std::string text;
    for (const std::string& line : replay.decisions()) text += line + "\n";
    return text;
  }
  if (name == "list") return replay.command(std::array<std::string, 2>{"-L", "-n"}).text;
  if (name == "conns") return sorted_rows(replay.command(std::array<std::string, 3>{"-L", "-n", "-c"}).text);
  if (name == "stats")
    return replay.command(std::array<std::string, 4>{"-L", "-n", "--stats", "--exact"}).text;
  return replay.command(std::array<std::string, 2>{"-S", "-n"}).text;
}

/// `also`: what else there is to say as JSON.
void tell_end(Replay& replay, const ReplayOptions& options, Json also = Json::object()) {
  Json texts = Json::object();
  for (const std::string& name : options.texts) {
    const std::string text = text_at_end(replay, name);
    if (options.json) texts[name] = text;
    else fmt::print("{}", text);
  }
  if (!options.json) return;
  Json all{{"decisions", replay.decisions()}, {"texts", texts}};
  all.update(also);
  fmt::print("{}\n", all.dump(2));
}

/// The file of -w, if there is one.
class Output {
 public:
  explicit Output(const std::string& file) {
    if (file.empty()) return;
    auto created = PcapWriter::create(file);
    if (!created) throw StartupError(ExitCode::failed, created.error().message);
    writer_ = std::move(*created);
  }
  void write(std::span<const CapturedFrame> frames) {
    if (writer_)
      for (const CapturedFrame& frame : frames) writer_->write(frame.time, frame.bytes);
  }
  void close() {
    if (!writer_) return;
    if (const auto closed = writer_->close(); !closed) throw StartupError(ExitCode::failed, closed.error().message);
  }

 private:
  std::optional<PcapWriter> writer_;
};

void replay_case(const ReplayOptions& options) {
  const auto capture = load_case(options.capture);
  if (!capture) throw StartupError(ExitCode::configuration, capture.error().message);
  for (const std::string& warning : capture->warnings) fmt::print(stderr, "director: {}\n", warning);

  Replay replay(*capture, options.policy.value_or(capture->from_kernel ? Policy::kernel : Policy::improved));
  if (const auto started = replay.start(); !started)
    throw StartupError(ExitCode::configuration, started.error().message);
  Output output(options.output);
  for (const Step& step : capture->steps) {
    const Replay::Outcome outcome = replay.run(step);
    output.write(outcome.sent);
    if (outcome.exit_code != 0)
      fmt::print(stderr, "director: {}: {}", std::get<AdminStep>(step).command, outcome.text);
  }
  tell_end(replay, options);
  output.close();
}

void replay_recording(const ReplayOptions& options) {
  auto recording = Recording::open(options.capture);
  if (!recording) throw StartupError(ExitCode::configuration, recording.error().message);
  Rerun rerun(std::move(*recording), options.policy);
  Output output(options.output);
  for (;;) {
    const auto outcome = rerun.next();
    if (!outcome) throw StartupError(ExitCode::configuration, outcome.error().message);
    if (!*outcome) break;
    output.write((*outcome)->sent);
  }
  tell_end(rerun.replay(), options,
           {{"received", rerun.received()}, {"sent", rerun.sent()}, {"difference", rerun.difference() ? Json(*rerun.difference()) : Json()}});
  output.close();
  if (rerun.difference()) throw StartupError(ExitCode::failed, fmt::format("{}: {}", options.capture, *rerun.difference()));
  fmt::print(stderr, "director: {}: {} frames came and {} left, all as recorded\n", options.capture, rerun.received(), rerun.sent());
}

}  // namespace

int replay_command(const std::vector<std::string>& words) {
  const ReplayOptions options = parse_replay_options(words);
  if (options.help) fmt::print("{}", kUsage);
  else if (std::filesystem::is_regular_file(options.capture)) replay_recording(options);
  else replay_case(options);
  return 0;
}

}  // namespace director
