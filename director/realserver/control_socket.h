// How `realserver` speaks with the decapsulator that runs in the same network namespace.
//
// An abstract unix socket belongs to its network namespace and dies with its process: its name is at once the
// lock that lets one decapsulator run, the way to find it, and nothing to clean up after kill -9. One
// request, one reply, as text:
//   status           -> "pid 12", "interface vs-tun0", "input eth0", "vip 10.9.0.100", "tunnel gue:6080",
//                       "count delivered 17", one a line
//   serve WORD ...   -> the VIPs and tunnels are these from now on; "ok"
//   stop             -> "ok", and the process ends
// Only root and the user who runs it may say `serve` and `stop`.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "director/io/unique_fd.h"

namespace director::realserver {

class ControlSocket {
 public:
  /// None if a decapsulator has it already.
  [[nodiscard]] static std::optional<ControlSocket> open();

  struct Request {
    std::string text;
    bool trusted = false;  ///< from root or from our own user
    std::string reply_to;  ///< the asker's socket name
  };
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::optional<Request> receive();  ///< never waits
  void reply(const Request& request, std::string_view text);

 private:
  explicit ControlSocket(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

[[nodiscard]] bool decapsulator_runs();
/// Asks the decapsulator; none if there is none.
[[nodiscard]] std::optional<std::string> ask_decapsulator(std::string_view request);

}  // namespace director::realserver
