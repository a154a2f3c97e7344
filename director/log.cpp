// Log lines: time of day in UTC with milliseconds, quoted where a value has blanks.
#include "director/log.h"

#include <fmt/chrono.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

namespace director::log {
namespace {

Level g_level = Level::info;
Format g_format = Format::logfmt;

constexpr std::array<std::string_view, 4> kLevels{"error", "warning", "info", "debug"};
constexpr std::array<char, 4> kPriorities{'3', '4', '6', '7'};  // syslog(3)

std::string_view name_of(Level level) {
  return kLevels[static_cast<std::size_t>(level)];
}

/// Whether standard error is the very stream systemd made, "device:inode" of it in the variable, and wasn't led elsewhere since.
bool to_journal() {
  static const bool answer = [] {
    const char* const stream = std::getenv("JOURNAL_STREAM");
    struct stat here {};
    return stream != nullptr && fstat(STDERR_FILENO, &here) == 0 &&
           fmt::format("{}:{}", here.st_dev, here.st_ino) == stream;
  }();
  return answer;
}

/// 2026-11-23T08:40:12.345Z
std::string time_of_day() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return fmt::format("{:%FT%T}.{:03}Z", fmt::gmtime(t.tv_sec), t.tv_nsec / 1'000'000);
}

/// As JSON quotes, and logfmt alike; what isn't UTF-8 is replaced.
void append_quoted(std::string& out, std::string_view text) {
  out += nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void append_logfmt(std::string& out, std::string_view value) {
  const bool bare = !value.empty() && std::ranges::none_of(value, [](char c) {
    return c == '"' || c == '=' || c == '\\' || static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7f;
  });
  if (bare)
    out += value;
  else
    append_quoted(out, value);
}

template <typename E>
std::optional<E> find(std::string_view text, std::span<const std::string_view> names) {
  const auto found = std::ranges::find(names, text);
  if (found == names.end()) return {};
  return static_cast<E>(found - names.begin());
}

}  // namespace

std::optional<Level> parse_level(std::string_view text) {
  return find<Level>(text, kLevels);
}

std::optional<Format> parse_format(std::string_view text) {
  constexpr std::array<std::string_view, 2> kFormats{"logfmt", "json"};
  return find<Format>(text, kFormats);
}

void configure(Level level, Format format) {
  g_level = level;
  g_format = format;
}

std::string line(Format format, std::string_view time, Level level, std::string_view message,
                 std::span<const Field> fields) {
  std::string out;
  if (format == Format::json) {
    out = "{";
    if (!time.empty()) out += fmt::format("\"time\":\"{}\",", time);
    out += fmt::format("\"level\":\"{}\",\"msg\":", name_of(level));
    append_quoted(out, message);
    for (const Field& field : fields) {
      out += ',';
      append_quoted(out, field.key);
      out += ':';
      append_quoted(out, field.value);
    }
    return out += '}';
  }
  if (!time.empty()) out = fmt::format("time={} ", time);
  out += fmt::format("level={} msg=", name_of(level));
  append_quoted(out, message);
  for (const Field& field : fields) {
    out += fmt::format(" {}=", field.key);
    append_logfmt(out, field.value);
  }
  return out;
}

void write(Level level, std::string_view message, std::span<const Field> fields) {
  if (level > g_level) return;
  std::string out;
  if (to_journal()) out = fmt::format("<{}>", kPriorities[static_cast<std::size_t>(level)]);
  out += line(g_format, to_journal() ? std::string{} : time_of_day(), level, message, fields);
  out += '\n';
  // One write per line, so that lines of several programs on one terminal don't mix. A closed stderr is
  // nobody's loss.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, out.data(), out.size());
}

bool Limiter::allow() {
  const auto now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
  if (now - since_ >= kSeconds) {
    since_ = now;
    left_ = kBurst;
    if (const auto lines = std::exchange(held_back_, 0); lines != 0)
      warning("lines like the next were held back", {{"lines", lines}});
  }
  if (left_ == 0) {
    ++held_back_;
    return false;
  }
  --left_;
  return true;
}

}  // namespace director::log
