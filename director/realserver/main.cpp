// realserver: prepares and checks this host as an LVS real server. Which command, and what its failure exits
// with.
#include <fmt/format.h>

#include <cstdio>
#include <system_error>

#include "director/realserver/check.h"
#include "director/realserver/failure.h"
#include "director/realserver/options.h"
#include "director/realserver/setup.h"

namespace {

using namespace director::realserver;

ExitCode run(const Options& options) {
  switch (options.command) {
    case Command::up:
      return up(options);
    case Command::down:
      return down(options);
    case Command::check:
      return check(options);
    case Command::help:
      fmt::print("{}", help_text());
      return ExitCode::ok;
    case Command::version:
      fmt::print("realserver {}\n", DIRECTOR_VERSION);
      return ExitCode::ok;
  }
  return ExitCode::usage;
}

int fail(ExitCode code, const char* sentence) {
  fmt::print(stderr, "realserver: {}\n", sentence);
  return static_cast<int>(code);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return static_cast<int>(run(parse_options(argc, argv)));
  } catch (const Failure& failure) {
    return fail(failure.code(), failure.what());
  } catch (const std::system_error& e) {
    if (e.code().value() == EPERM) return fail(ExitCode::lacking, lacks_privilege("do this").what());
    return fail(ExitCode::failed, e.what());
  } catch (const std::exception& e) {
    return fail(ExitCode::failed, e.what());
  }
}
