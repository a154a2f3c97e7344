// director: which of its tasks is asked for, and how a failure to start is told.
#include <fmt/format.h>

#include "director/base/startup_error.h"
#include "director/daemon.h"
#include "director/explain_command.h"
#include "director/log.h"
#include "director/options.h"
#include "director/replay_command.h"
#include "director/rules_file.h"

namespace director {
namespace {

int dispatch(const std::vector<std::string>& words) {
  if (!words.empty() && words[0] == "replay") return replay_command({words.begin() + 1, words.end()});
  if (!words.empty() && words[0] == "explain") return explain_command({words.begin() + 1, words.end()});
  const Options options = parse_options(words);
  log::configure(options.config.log_level, options.config.log_format);
  switch (options.task) {
    case Task::help:
      fmt::print("{}", usage());
      break;
    case Task::version:
      fmt::print("director {}\n", DIRECTOR_VERSION);
      break;
    case Task::check:
      return static_cast<int>(check_rules_file(options.config.rules, options.told));
    case Task::run:
      Daemon(options.config).run();
      break;
  }
  return static_cast<int>(ExitCode::ok);
}

}  // namespace
}  // namespace director

int main(int argc, char** argv) {
  try {
    return director::dispatch({argv + 1, argv + argc});
  } catch (const director::StartupError& error) {
    fmt::print(stderr, "director: {}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "director: {}\n", error.what());
    return static_cast<int>(director::ExitCode::failed);
  }
}
