// StartupError: why the program can't start, in a sentence that names the cure, and the exit code that goes
// with it. Thrown before the loop runs, caught in main. Never in the packet path.
#pragma once

#include <stdexcept>
#include <string>

namespace director {

/// Exit codes of director, realserver and the lab.
enum class ExitCode : int {
  ok = 0,
  failed = 1,  ///< at run time
  usage = 2,
  configuration = 3,  ///< a file says something that can't be
  lacking = 4,        ///< the machine lacks something: capability, interface, TUN, nf_tables
};

class StartupError : public std::runtime_error {
 public:
  StartupError(ExitCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  [[nodiscard]] ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

}  // namespace director
