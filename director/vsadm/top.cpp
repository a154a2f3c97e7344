// Ask, measure, draw, wait; and the keys.
#include "director/vsadm/top.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>

#include "director/duration_text.h"
#include "director/vsadm/snapshot.h"
#include "director/vsadm/terminal.h"
#include "director/vsadm/top_table.h"

namespace director::vsadm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr Duration kLeastInterval = 100ms;
constexpr std::string_view kUsage =
    "usage: vsadm top [SERVICE] [--interval 2s|500ms] [-n COUNT] [--sort "
    "name|weight|active|inact|cps|inpps|outpps|inbps|outbps] "
    "[--json]";

struct TopOptions {
  std::vector<std::string> service;  // words that select one
  Duration interval = 2s;
  std::optional<std::uint64_t> count;
  Column sort = Column::name;
  bool json = false;
};

std::optional<TopOptions> read_options(std::span<const std::string> words) {
  TopOptions options;
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string word = words[i];
    std::optional<std::string> glued;
    if (const std::size_t equals = word.find('='); word.starts_with("--") && equals != word.npos) {
      glued = word.substr(equals + 1);
      word.resize(equals);
    }
    if (word == "--json" && !glued) {
      options.json = true;
      continue;
    }
    if (word == "-6" || word == "--ipv6") {
      options.service.push_back(word);
      continue;
    }
    if (!glued && i + 1 == words.size()) return {};
    const std::string value = glued ? *glued : words[++i];
    if (word == "--interval") {
      const auto interval = parse_duration(value);
      if (!interval || *interval < kLeastInterval) return {};
      options.interval = *interval;
    } else if (word == "--count" || word == "-n") {
      const auto [end, error] =
          std::from_chars(value.data(), value.data() + value.size(), options.count.emplace());
      if (error != std::errc{} || end != value.data() + value.size() || *options.count == 0) return {};
    } else if (word == "--sort") {
      const auto column = parse_column(value);
      if (!column) return {};
      options.sort = *column;
    } else if (word == "-t" || word == "-u" || word == "-f" || word.ends_with("-service")) {
      options.service.insert(options.service.end(), {word, value});
    } else {
      return {};
    }
  }
  return options;
}

/// What to say when there is nothing to draw, and the exit code.
using Trouble = DirectorLink::Unreachable;

class Top {
 public:
  Top(const DirectorLink& director, const std::string& program, TopOptions options)
      : director_(director), program_(program), options_(std::move(options)) {}

  /// Until the tables are counted off.
  Result<void, Trouble> print();
  /// Until somebody presses q, too.
  Result<void, Trouble> run_on(const Terminal& terminal);

 private:
  Result<void, Trouble> look();
  Result<std::string, Trouble> list(std::vector<std::string> words) const;
  [[nodiscard]] bool is_last() const { return options_.count && looks_ >= *options_.count; }
  [[nodiscard]] TopTable draw(std::optional<Window> window) const;
  /// Whether to go on.
  bool follow(const Terminal::Input& input, const Terminal& terminal);
  void turn_sort(std::size_t by);

  const DirectorLink& director_;
  const std::string& program_;
  TopOptions options_;
  std::uint64_t looks_ = 0;
  std::size_t first_ = 0;
  Snapshot snapshot_;
  Clock::time_point taken_;
  std::chrono::system_clock::time_point time_;
  std::optional<Duration> elapsed_;  // between the last two
};

Result<std::string, Trouble> Top::list(std::vector<std::string> words) const {
  words.insert(words.begin(), program_);
  auto answer = director_.ask(Request{std::move(words), {}});
  if (!answer) return Failure{answer.error()};
  if (!answer->wanted.empty()) return Failure{Trouble{"addresses and ports are given to top as numbers", 2}};
  if (answer->exit_code != 0) return Failure{Trouble{answer->err, answer->exit_code}};
  return std::move(answer->out);
}

Result<void, Trouble> Top::look() {
  std::vector<std::string> words{"-L", "-n", "--json"};
  words.insert(words.end(), options_.service.begin(), options_.service.end());
  const auto services = list(std::move(words));
  if (!services) return Failure{services.error()};
  const auto now = Clock::now();
  const auto reasons = list({"reasons", "--json"});
  if (!reasons) return Failure{reasons.error()};
  auto snapshot = read_snapshot(*services, *reasons);
  if (!snapshot) return Failure{Trouble{snapshot.error().message, 1}};
  if (looks_ != 0) {
    elapsed_ = now - taken_;
    snapshot_ = measured(snapshot_, std::move(*snapshot), *elapsed_);
  } else {
    snapshot_ = std::move(*snapshot);
  }
  taken_ = now;
  time_ = std::chrono::system_clock::now();
  ++looks_;
  return {};
}

TopTable Top::draw(std::optional<Window> window) const {
  const std::string time =
      fmt::format("{:%F %T}", fmt::localtime(std::chrono::system_clock::to_time_t(time_)));
  return draw_top(snapshot_, {time, options_.interval, options_.sort, window, first_});
}

Result<void, Trouble> Top::print() {
  for (;;) {
    if (const auto done = look(); !done) return done;
    if (options_.json) {
      const std::string time =
          fmt::format("{:%FT%TZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(time_)));
      fmt::print("{}", top_json(snapshot_, time, elapsed_));
    } else {
      if (looks_ > 1) fmt::print("\n");
      for (const std::string& line : draw({}).lines) fmt::print("{}\n", line);
    }
    if (std::fflush(stdout) != 0) return Failure{Trouble{"standard output can't be written to", 1}};
    if (is_last()) return {};
    std::this_thread::sleep_until(taken_ + options_.interval);
  }
}

Result<void, Trouble> Top::run_on(const Terminal& terminal) {
  for (;;) {
    if (const auto done = look(); !done) return done;
    Terminal::Input input{Terminal::Key::redraw, 0};
    while (input.key != Terminal::Key::none) {
      const TopTable table = draw(terminal.window());
      first_ = table.first;
      terminal.show(table.lines, table.heading);
      input = terminal.wait(taken_ + options_.interval - Clock::now());
      if (!follow(input, terminal)) return {};
    }
    if (is_last()) return {};
  }
}

void Top::turn_sort(std::size_t by) {
  options_.sort = static_cast<Column>((static_cast<std::size_t>(options_.sort) + by) % kColumns);
}

bool Top::follow(const Terminal::Input& input, const Terminal& terminal) {
  using Key = Terminal::Key;
  const std::size_t page = std::max<std::size_t>(terminal.window().rows / 2, 1);
  switch (input.key) {
    case Key::none:
    case Key::redraw:
      break;
    case Key::closed:
      return false;
    case Key::up:
      first_ -= std::min<std::size_t>(first_, 1);
      break;
    case Key::down:
      ++first_;
      break;
    case Key::page_up:
      first_ -= std::min(first_, page);
      break;
    case Key::page_down:
      first_ += page;
      break;
    case Key::home:
      first_ = 0;
      break;
    case Key::end:
      first_ = static_cast<std::size_t>(-1);
      break;
    case Key::left:
      turn_sort(kColumns - 1);
      break;
    case Key::right:
      turn_sort(1);
      break;
    case Key::other:
      if (input.letter == 'q' || input.letter == 'Q') return false;
      if (input.letter == 's') turn_sort(1);
      if (input.letter == 'S') turn_sort(kColumns - 1);
      break;
  }
  return true;
}

}  // namespace

int top(const DirectorLink& director, const std::string& program, std::span<const std::string> words) {
  auto options = read_options(words);
  if (!options) {
    fmt::print(stderr, "{}\n", kUsage);
    return 2;
  }
  const bool on_terminal = Terminal::available() && !options->json;
  Top table{director, program, std::move(*options)};
  const auto done = [&] {
    if (!on_terminal) return table.print();
    const Terminal terminal;
    return table.run_on(terminal);  // the screen is given back before anything is said
  }();
  if (done) return 0;
  const std::string& sentence = done.error().sentence;
  if (sentence.ends_with('\n'))  // the director's own words
    fmt::print(stderr, "{}", sentence);
  else
    fmt::print(stderr, "{}: {}\n", program.substr(program.rfind('/') + 1), sentence);
  return done.error().exit_code;
}

}  // namespace director::vsadm
