// Message: what vsadm and the director say to each other over the control socket, one Request and one Answer a connection.
//
// JSON in UTF-8; the sender shuts its side down when it has said all. Used by both programs; no sockets here.
//
//   {"argv": ["vsadm", "-A", "-t", "localhost:80"], "answers": {}}
//   {"wanted": ["address localhost"]}                        nothing has happened: answer that and ask again
//   {"argv": [...], "answers": {"address localhost": "127.0.0.1"}}
//   {"out": "", "err": "", "code": 0}
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "director/base/result.h"
#include "director/base/time.h"

namespace director {

struct Request {
  std::vector<std::string> argv;  ///< the program's name first
  /// Answers to questions (lookups.h) and what an earlier Answer asked to be reminded of; nothing: there is no answer.
  std::map<std::string, std::optional<std::string>, std::less<>> answers;
};

struct Answer {
  std::string out;  ///< for standard output
  std::string err;  ///< for standard error
  int exit_code = 0;
  std::vector<std::string> wanted;  ///< questions; not empty: nothing has happened yet
  /// More is to come: print this much, wait, ask the same again with these answers added.
  struct Again {
    Duration after{};
    std::map<std::string, std::string> remember;
  };
  std::optional<Again> again;
};

std::string encode(const Request& request);
std::string encode(const Answer& answer);
/// The error says what is wrong with the text; whoever sent it isn't one of ours.
Result<Request> decode_request(std::string_view text);
Result<Answer> decode_answer(std::string_view text);

}  // namespace director
