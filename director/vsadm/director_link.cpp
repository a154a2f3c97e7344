// Connect, write all, shut down, read all.
#include "director/vsadm/director_link.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "director/io/unique_fd.h"

namespace director::vsadm {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

}  // namespace

Result<Answer, DirectorLink::Unreachable> DirectorLink::ask(const Request& request) const {
  const auto unreachable = [](std::string sentence, int exit_code = 2) {
    return Failure{Unreachable{std::move(sentence), exit_code}};
  };
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path)
    return unreachable(
        fmt::format("{}: a socket's path has at most {} characters", path_, sizeof address.sun_path - 1));
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);

  const UniqueFd fd{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const timeval patience{patience_.count() / 1000, patience_.count() % 1000 * 1000};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == EACCES || errno == EPERM)
      return unreachable(fmt::format("Permission denied (you must be root, or in the group of {})", path_),
                         255);
    if (errno == ENOENT || errno == ECONNREFUSED)
      return unreachable(
          fmt::format("no director listens at {}: start it, or name its socket with --control or "
                      "$DIRECTOR_CONTROL",
                      path_));
    return unreachable(fmt::format("no director can be reached at {}: {}", path_, reason(errno)));
  }

  const std::string text = encode(request);
  for (std::size_t sent = 0; sent < text.size();) {
    const ssize_t some = send(fd.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (some < 0 && errno == EINTR) continue;
    if (some < 0)
      return unreachable(errno == EPIPE || errno == ECONNRESET
                             ? "the director takes no more of this: is it longer than 16 MB?"
                             : fmt::format("the director at {} doesn't listen: {}", path_, reason(errno)));
    sent += static_cast<std::size_t>(some);
  }
  shutdown(fd.get(), SHUT_WR);

  std::string answer;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t got = recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return unreachable(fmt::format("the director at {} doesn't answer: {}", path_, reason(errno)));
    if (got == 0) break;
    answer.append(buffer.data(), static_cast<std::size_t>(got));
  }
  auto decoded = decode_answer(answer);
  if (!decoded)
    return unreachable(fmt::format("what answers at {} is no director: {}", path_, decoded.error().message));
  return std::move(*decoded);
}

}  // namespace director::vsadm
