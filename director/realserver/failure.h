// How this program fails: one sentence that names the cure, and the exit code that goes with it.
#pragma once

#include <stdexcept>
#include <string>

namespace director::realserver {

/// interface.md's exit codes, the same for director, realserver and lab.
enum class ExitCode : int { ok = 0, failed = 1, usage = 2, configuration = 3, lacking = 4 };

class Failure : public std::runtime_error {
 public:
  Failure(ExitCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  [[nodiscard]] ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// What the kernel's EPERM means here, with the cure. `what` completes "realserver needs CAP_... to ".
[[nodiscard]] inline Failure lacks_privilege(const std::string& what) {
  return {ExitCode::lacking,
          "CAP_NET_ADMIN and CAP_NET_RAW in this network namespace are needed to " + what +
              ": run realserver as root, or give the container cap_add: [NET_ADMIN, NET_RAW]"};
}

}  // namespace director::realserver
