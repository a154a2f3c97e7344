// Lookups: what the director can't know without waiting for somebody else, as the one who asks has found it
// out.
//
// The director never calls a resolver and never reads a file of its users: both may block, and there is one
// thread. So the control tool does it: it is told which questions are open (missing()), answers them and asks
// again. Used by the readers of ipvsadm's grammar (rules.h) and by listings with names (listing.h). Pure: a
// dictionary, nothing more.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "director/net/address.h"

namespace director {

class Lookups {
 public:
  /// Answer by question; nothing: there is no answer (an unknown name).
  using Answers = std::map<std::string, std::optional<std::string>, std::less<>>;

  /// Nobody is there to ask: no name has an answer, numbers only.
  Lookups() = default;
  /// Somebody is there: what isn't among `answers` becomes a question, and stands for something (0.0.0.0, port 0) so that the
  /// reader goes on and meets all of its questions at once. While missing() isn't empty, what was read means nothing.
  explicit Lookups(Answers answers) : answers_(std::move(answers)), open_(true) {}

  std::optional<IpAddress> address_of(std::string_view host);  ///< "address localhost" -> "127.0.0.1"
  std::optional<Port> port_of(std::string_view service, Protocol protocol);  ///< "port http/tcp" -> "80"
  std::optional<std::string> name_of(const IpAddress& address);         ///< "name 127.0.0.1" -> "localhost"
  std::optional<std::string> service_of(Port port, Protocol protocol);  ///< "service 80/tcp" -> "http"
  std::optional<std::string> input();                                   ///< "input" -> all of standard input
  std::optional<std::string> file(std::string_view path);               ///< "file web.rules" -> its text

  /// The questions that were asked here and have not been answered, each once, in order.
  [[nodiscard]] const std::vector<std::string>& missing() const { return missing_; }

 private:
  /// The answer, which may be that there is none; nullptr: it is among the missing now.
  const std::optional<std::string>* ask(std::string question);
  std::optional<std::string> text(std::string question);

  Answers answers_;
  bool open_ = false;
  std::vector<std::string> missing_;
};

}  // namespace director
