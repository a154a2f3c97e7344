// The socket's life, then a client's.
#include "director/control/command_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "director/base/startup_error.h"

namespace director {
namespace {

constexpr std::size_t kReadAtOnce = std::size_t{256} << 10U;  // a client's turn; frames want theirs

/// Closes at the end of its scope what wasn't released.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

[[noreturn]] void cannot(const std::string& path, std::string_view what, int error) {
  throw StartupError(
      ExitCode::lacking,
      fmt::format("control socket {}: {}: {}; name another with --control or $DIRECTOR_CONTROL", path, what,
                  std::generic_category().message(error)));
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    throw StartupError(ExitCode::usage,
                       fmt::format("control socket {}: a socket's path has at most {} characters", path,
                                   sizeof address.sun_path - 1));
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

CommandSocket::Peer peer_of(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return {};
  return {peer.uid, peer.pid};
}

/// Throws when somebody listens at the path.
void refuse_if_taken(const std::string& path, const sockaddr_un& address) {
  const Descriptor probe{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  const bool heard = connect(probe.get(), generic(address), sizeof address) == 0;
  if (!heard && errno != EAGAIN) return;  // EAGAIN: there is a queue, and it is full
  const std::int64_t process = heard ? peer_of(probe.get()).process : -1;
  throw StartupError(ExitCode::failed,
                     fmt::format("a director{} is running already with the control socket {}; stop it, or "
                                 "start this one with another --control",
                                 process > 0 ? fmt::format(" (process {})", process) : "", path));
}

void watch(int epoll, int operation, int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  epoll_ctl(epoll, operation, fd,
            &event);  // fails for want of memory only; the client's patience ends it then
}

}  // namespace

// --- the socket --------------------------------------------------------------------------------------------------------------

CommandSocket::CommandSocket(std::string path, Serve serve)
    : path_(std::move(path)), serve_(std::move(serve)) {
  const sockaddr_un address = address_of(path_);
  const std::size_t slash = path_.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path_.substr(0, slash);
  if (mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) cannot(path_, "its folder can't be made", errno);

  // Two directors that start at once look one after the other: the folder is locked until one listens.
  const Descriptor lock{open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!lock || flock(lock.get(), LOCK_EX) != 0) cannot(path_, "its folder can't be opened", errno);
  refuse_if_taken(path_, address);
  struct stat found {};
  if (lstat(path_.c_str(), &found) == 0) {
    if (!S_ISSOCK(found.st_mode)) cannot(path_, "there is something that isn't a socket", EEXIST);
    unlink(path_.c_str());  // a killed director's
  }

  Descriptor listener{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  const mode_t usual = umask(0117);
  const bool bound = listener && bind(listener.get(), generic(address), sizeof address) == 0;
  const int error = errno;
  umask(usual);
  if (!bound) cannot(path_, "it can't be made", error);
  Descriptor epoll{epoll_create1(EPOLL_CLOEXEC)};
  if (listen(listener.get(), 64) != 0 || !epoll || lstat(path_.c_str(), &found) != 0) {
    const int why = errno;
    unlink(path_.c_str());
    cannot(path_, "it can't be listened at", why);
  }
  inode_ = found.st_ino;
  listener_ = listener.release();
  epoll_ = epoll.release();
  listen_again(true);
}

CommandSocket::~CommandSocket() {
  for (const auto& [fd, client] : clients_) close(fd);
  close(listener_);
  close(epoll_);
  struct stat found {};
  if (lstat(path_.c_str(), &found) == 0 && found.st_ino == inode_) unlink(path_.c_str());
}

void CommandSocket::listen_again(bool on) {
  if (on == listening_) return;
  listening_ = on;
  watch(epoll_, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listener_, EPOLLIN);
}

void CommandSocket::ready(Instant now) {
  std::array<epoll_event, 16> events;
  const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<std::size_t>(i)].data.fd;
    if (fd == listener_) {
      accept_clients(now);
      continue;
    }
    Client& client = clients_.at(fd);
    const bool goes_on = client.answered ? write_some(fd, client, now) : read_some(fd, client, now);
    if (!goes_on) let_go(fd);
  }
}

Instant CommandSocket::next_deadline() const {
  Instant next = listen_at_;
  for (const auto& [fd, client] : clients_) next = std::min(next, client.deadline);
  return next;
}

void CommandSocket::due(Instant now) {
  for (auto it = clients_.begin(); it != clients_.end();) {
    const auto present = it++;
    if (present->second.deadline <= now) let_go(present->first);
  }
  if (listen_at_ <= now) {
    listen_at_ = kNever;
    listen_again(true);
  }
}

// --- a client ----------------------------------------------------------------------------------------------------------------

void CommandSocket::accept_clients(Instant now) {
  while (clients_.size() < kMaxClients) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) return;
      listen_again(false);  // no descriptors or no memory: a readable listener would keep the loop awake
      listen_at_ = now + std::chrono::seconds{1};
      return;
    }
    clients_[fd].deadline = now + kPatience;
    clients_[fd].peer = peer_of(fd);
    watch(epoll_, EPOLL_CTL_ADD, fd, EPOLLIN);
  }
  listen_again(false);
}

bool CommandSocket::read_some(int fd, Client& client, Instant now) {
  std::array<char, 16384> buffer;
  for (std::size_t turn = 0; turn < kReadAtOnce;) {
    const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) {
      if (client.request.empty()) return false;  // somebody looked whether we are there
      client.answer = serve_(client.request, client.peer, now);
      client.answered = true;
      client.request = {};
      watch(epoll_, EPOLL_CTL_MOD, fd, EPOLLOUT);
      return write_some(fd, client, now);
    }
    turn += static_cast<std::size_t>(got);
    client.deadline = now + kPatience;
    client.request.append(buffer.data(), static_cast<std::size_t>(got));
    if (client.request.size() > kMaxRequest) return false;
  }
  return true;
}

bool CommandSocket::write_some(int fd, Client& client, Instant now) {
  while (client.sent < client.answer.size()) {
    const ssize_t sent =
        send(fd, client.answer.data() + client.sent, client.answer.size() - client.sent, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    client.sent += static_cast<std::size_t>(sent);
    client.deadline = now + kPatience;
  }
  return false;
}

void CommandSocket::let_go(int fd) {
  close(fd);  // and so out of the epoll set
  clients_.erase(fd);
  if (listen_at_ == kNever) listen_again(true);
}

}  // namespace director
