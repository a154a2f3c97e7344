// See the header.
#include "director/realserver/control_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <system_error>

#include "director/realserver/failure.h"

namespace director::realserver {
namespace {

constexpr std::string_view kName{"\0realserver.decapsulator", 24};  // the leading zero makes it abstract
constexpr std::size_t kMaxMessage = 65536;

struct Name {
  sockaddr_un address{};
  socklen_t length = sizeof(sa_family_t);

  Name() { address.sun_family = AF_UNIX; }
  explicit Name(std::string_view name) : Name() {
    const std::size_t n = std::min(name.size(), sizeof address.sun_path);
    std::copy_n(name.begin(), n, std::begin(address.sun_path));
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + n);
  }
  [[nodiscard]] const sockaddr* generic() const { return reinterpret_cast<const sockaddr*>(&address); }
};

UniqueFd datagram_socket() {
  UniqueFd fd{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (!fd) throw std::system_error(errno, std::system_category(), "unix socket");
  return fd;
}

}  // namespace

std::optional<ControlSocket> ControlSocket::open() {
  UniqueFd fd = datagram_socket();
  const Name name{kName};
  const int on = 1;
  if (::bind(fd.get(), name.generic(), name.length) != 0) {
    if (errno == EADDRINUSE) return {};
    throw std::system_error(errno, std::system_category(), "control socket");
  }
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
    throw std::system_error(errno, std::system_category(), "control socket: SO_PASSCRED");
  }
  return ControlSocket{std::move(fd)};
}

std::optional<ControlSocket::Request> ControlSocket::receive() {
  std::array<char, 4096> text;
  Name from;
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control;
  msghdr message{};
  message.msg_name = &from.address;
  message.msg_namelen = sizeof from.address;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t n = ::recvmsg(fd_.get(), &message, MSG_DONTWAIT);
  if (n < 0) return {};

  Request request;
  request.text.assign(text.data(), static_cast<std::size_t>(n));
  constexpr std::size_t kPath = offsetof(sockaddr_un, sun_path);
  if (message.msg_namelen > kPath)
    request.reply_to.assign(from.address.sun_path, message.msg_namelen - kPath);
  for (const cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr;
       c = CMSG_NXTHDR(&message, const_cast<cmsghdr*>(c))) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS) continue;
    ucred who{};
    std::memcpy(&who, CMSG_DATA(c), sizeof who);
    request.trusted = who.uid == 0 || who.uid == ::geteuid();
  }
  return request;
}

void ControlSocket::reply(const Request& request, std::string_view text) {
  const Name to{request.reply_to};
  ::sendto(fd_.get(), text.data(), text.size(), MSG_DONTWAIT, to.generic(),
           to.length);  // who has gone needs no answer
}

bool decapsulator_runs() {
  const UniqueFd fd = datagram_socket();
  const Name name{kName};
  return ::connect(fd.get(), name.generic(), name.length) == 0;  // ECONNREFUSED: nobody has the name
}

std::optional<std::string> ask_decapsulator(std::string_view request) {
  const UniqueFd fd = datagram_socket();
  const Name anonymous;  // the kernel chooses a name to reply to
  const Name name{kName};
  if (::bind(fd.get(), anonymous.generic(), anonymous.length) != 0 ||
      ::connect(fd.get(), name.generic(), name.length) != 0 ||
      ::send(fd.get(), request.data(), request.size(), 0) < 0) {
    return {};
  }
  constexpr int kSlice = 100;    // ms; a process that ended with our request unread is noticed after one
  constexpr int kPatience = 50;  // slices
  std::string reply(kMaxMessage, '\0');
  for (int i = 0; i < kPatience; ++i) {
    pollfd readable{fd.get(), POLLIN, 0};
    if (::poll(&readable, 1, kSlice) > 0) {
      const ssize_t n = ::recv(fd.get(), reply.data(), reply.size(), MSG_DONTWAIT);
      if (n < 0) return {};
      reply.resize(static_cast<std::size_t>(n));
      return reply;
    }
    if (!decapsulator_runs()) return {};
  }
  throw Failure(ExitCode::failed,
                "the decapsulator of this network namespace does not answer; is it stopped?");
}

}  // namespace director::realserver
