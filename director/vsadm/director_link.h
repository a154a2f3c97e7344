// DirectorLink: the control tool's end of the control socket. One question and one answer a connection.
#pragma once

#include <chrono>
#include <string>

#include "director/base/result.h"
#include "director/control/message.h"

namespace director::vsadm {

class DirectorLink {
 public:
  /// A director answers within its loop's next turn; one that is silent for so long is stopped or stuck.
  static constexpr std::chrono::milliseconds kPatience{30'000};

  explicit DirectorLink(std::string path, std::chrono::milliseconds patience = kPatience)
      : path_(std::move(path)), patience_(patience) {}
  /// The error is a sentence that names the cure, and ipvsadm's exit code for it.
  struct Unreachable {
    std::string sentence;
    int exit_code = 2;
  };
  Result<Answer, Unreachable> ask(const Request& request) const;

 private:
  std::string path_;
  std::chrono::milliseconds patience_;
};

}  // namespace director::vsadm
