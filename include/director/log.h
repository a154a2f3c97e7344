// Log: one line per event on standard error, as logfmt (time=... level=... msg="..." key=value) or JSON.
//
// For people who run the director: what starts, stops, changes or fails. Never per packet and never included
// by net/, core/, forward/ or schedule/; the fate of packets is counted by Reason instead. Where standard error is the journal
// (JOURNAL_STREAM, systemd.exec(5)) that keeps time and level, so lines begin with its <N> priority instead. director.8 lists all lines.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace director::log {

enum class Level : std::uint8_t { error, warning, info, debug };
enum class Format : std::uint8_t { logfmt, json };

[[nodiscard]] std::optional<Level> parse_level(std::string_view text);
[[nodiscard]] std::optional<Format> parse_format(std::string_view text);

struct Field {
  std::string_view key;
  std::string value;

  /// Anything that prints in one line: by its format_as() or as fmt does it.
  template <typename T>
  Field(std::string_view k, const T& v) : key(k) {
    if constexpr (requires { format_as(v); })
      value = format_as(v);
    else
      value = fmt::format("{}", v);
  }
};
using Fields = std::initializer_list<Field>;

/// Before it is called: Level::info, Format::logfmt.
void configure(Level level, Format format);
void write(Level level, std::string_view message, std::span<const Field> fields);
inline void write(Level level, std::string_view message, Fields fields = {}) {
  write(level, message, std::span{fields.begin(), fields.size()});
}
inline void error(std::string_view message, Fields fields = {}) {
  write(Level::error, message, fields);
}
inline void warning(std::string_view message, Fields fields = {}) {
  write(Level::warning, message, fields);
}
inline void info(std::string_view message, Fields fields = {}) {
  write(Level::info, message, fields);
}
inline void debug(std::string_view message, Fields fields = {}) {
  write(Level::debug, message, fields);
}

/// The line without its newline, as write() prints it, in valid UTF-8 whatever the values are; `time` is empty where the journal keeps
/// it. For tests too.
[[nodiscard]] std::string line(Format format, std::string_view time, Level level, std::string_view message,
                               std::span<const Field> fields);
[[nodiscard]] inline std::string line(Format format, std::string_view time, Level level, std::string_view message, Fields fields) {
  return line(format, time, level, message, std::span{fields.begin(), fields.size()});
}

/// Lets a few events of one kind through every while, so that a flood of packets is no flood of lines. How many were held back is told
/// before the next one.
class Limiter {
 public:
  [[nodiscard]] bool allow();

 private:
  static constexpr int kBurst = 5;
  static constexpr std::int64_t kSeconds = 10;
  std::int64_t since_ = 0;
  int left_ = kBurst;
  std::uint64_t held_back_ = 0;
};

}  // namespace director::log
