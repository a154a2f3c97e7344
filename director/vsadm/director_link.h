// DirectorLink: the control tool's end of the control socket. One question and one answer a connection.
#pragma once

#include <string>

#include "director/base/result.h"
#include "director/control/message.h"

namespace director::vsadm {

class DirectorLink {
 public:
  explicit DirectorLink(std::string path) : path_(std::move(path)) {}
  /// The error is a sentence that names the cure, and ipvsadm's exit code for it.
  struct Unreachable {
    std::string sentence;
    int exit_code = 2;
  };
  Result<Answer, Unreachable> ask(const Request& request) const;

 private:
  std::string path_;
};

}  // namespace director::vsadm
