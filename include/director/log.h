// Log: one line per event on standard error, as logfmt (time=... level=... msg="..." key=value) or JSON.
//
// For people who run the director: what starts, stops, changes or fails. Never per packet and never included
// by net/, core/, forward/ or schedule/; the fate of packets is counted by Reason instead. Under systemd
// (JOURNAL_STREAM) the journal keeps time and level, so lines begin with its <N> priority instead.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
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
void write(Level level, std::string_view message, Fields fields = {});
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

/// The line without its newline, as write() prints it; `time` is empty where the journal keeps it. For tests
/// too.
[[nodiscard]] std::string line(Format format, std::string_view time, Level level, std::string_view message,
                               Fields fields);

/// Lets a few events of one kind through and then one every while, so that a flood of packets is no flood of
/// lines.
class Limiter {
 public:
  [[nodiscard]] bool allow();

 private:
  static constexpr int kBurst = 5;
  static constexpr std::int64_t kSeconds = 10;
  std::int64_t since_ = 0;
  int left_ = kBurst;
};

}  // namespace director::log
