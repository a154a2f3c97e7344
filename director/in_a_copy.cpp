// A pipe, a fork, and patience.
#include "director/in_a_copy.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "director/io/unique_fd.h"

namespace director {
namespace {

constexpr int kPatience = 2000;  // milliseconds without a word

/// Runs in the copy, and never comes back.
[[noreturn]] void speak(int to, const std::function<std::string()>& say) {
  int code = 1;
  try {
    const std::string text = say();
    std::size_t written = 0;
    while (written < text.size()) {
      const ssize_t n = write(to, text.data() + written, text.size() - written);
      if (n > 0) written += static_cast<std::size_t>(n);
      else if (n < 0 && errno != EINTR) break;
    }
    code = written == text.size() ? 0 : 1;
  } catch (...) {
    code = 1;
  }
  _exit(code);  // no destructor, no buffer: they are the original's
}

}  // namespace

Result<std::string> in_a_copy(const std::function<std::string()>& say) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return fail(fmt::format("no pipe to a copy of the process: {}", std::strerror(errno)));
  UniqueFd from{ends[0]};
  UniqueFd to{ends[1]};
  const pid_t copy = fork();
  if (copy < 0) return fail(fmt::format("no copy of the process can be made: {}", std::strerror(errno)));
  if (copy == 0) speak(to.get(), say);
  to = UniqueFd{};

  std::string text;
  bool silent = false;
  for (std::array<char, 65536> buffer{};;) {
    pollfd wait{from.get(), POLLIN, 0};
    const int ready = poll(&wait, 1, kPatience);
    if (ready < 0 && errno == EINTR) continue;
    silent = ready <= 0;
    const ssize_t n = silent ? 0 : read(from.get(), buffer.data(), buffer.size());
    if (n <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  if (silent) kill(copy, SIGKILL);
  int status = 0;
  while (waitpid(copy, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return fail("the copy of the process came to no answer");
  return text;
}

}  // namespace director
