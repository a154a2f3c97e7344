// The socket, libmicrohttpd's callbacks, and the patience with connections.
#include "director/http/server.h"

#include <fmt/format.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <system_error>

#include "director/base/startup_error.h"
#include "director/io/unique_fd.h"

namespace director {
namespace {

constexpr int kQueue = 128;                                  // connections the kernel holds until one is free
constexpr std::size_t kPortion = std::size_t{16} << 10U;    // of a long answer, made at once
constexpr unsigned kIdleSeconds = 10;                        // without a byte in either direction

[[noreturn]] void cannot_listen(const Endpoint& at, int error) {
  const std::string where = fmt::format("--http {}", format_as(at));
  switch (error) {
    case EADDRINUSE:
      throw StartupError(ExitCode::failed,
                         fmt::format("{}: another program listens there already; stop it, or give --http another port", where));
    case EADDRNOTAVAIL:
      throw StartupError(ExitCode::lacking, fmt::format("{}: no interface of this machine has that address; give --http one that "
                                                        "`ip address` shows, or 127.0.0.1:{}",
                                                        where, at.port.host()));
    case EACCES:
      throw StartupError(ExitCode::lacking,
                         fmt::format("{}: ports below 1024 need CAP_NET_BIND_SERVICE; give --http a higher one", where));
    default:
      throw StartupError(ExitCode::lacking, fmt::format("{}: {}; give --http another address or port", where,
                                                        std::generic_category().message(error)));
  }
}

/// A socket that listens. Throws StartupError.
UniqueFd listen_at(const Endpoint& at) {
  sockaddr_storage address{};
  socklen_t length = 0;
  const auto wire = at.address.wire();
  if (at.address.is_v4()) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(address);
    v4.sin_family = AF_INET;
    std::memcpy(&v4.sin_addr, wire.data(), wire.size());
    std::memcpy(&v4.sin_port, &at.port.wire, sizeof v4.sin_port);
    length = sizeof v4;
  } else {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
    v6.sin6_family = AF_INET6;
    std::memcpy(&v6.sin6_addr, wire.data(), wire.size());
    std::memcpy(&v6.sin6_port, &at.port.wire, sizeof v6.sin6_port);
    length = sizeof v6;
  }
  UniqueFd fd{socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd) cannot_listen(at, errno);
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.ss_family == AF_INET6) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 || listen(fd.get(), kQueue) != 0)
    cannot_listen(at, errno);
  return fd;
}

}  // namespace

struct HttpServer::Parts {
  Serve serve;
  UniqueFd listener;
  MHD_Daemon* daemon = nullptr;
  int epoll = -1;
  Instant now{};               // of the present turn, for the callbacks
  Instant run_at = kNever;     // what libmicrohttpd wants
  struct Open {
    int socket;
    Instant until;
  };
  std::map<MHD_Connection*, Open> open;

  void run(Instant at);
  void let_dawdlers_go(Instant at);
  MHD_Result answer(MHD_Connection* connection, const char* path, std::string_view method, bool first);
  MHD_Result refuse(MHD_Connection* connection, unsigned status, std::string words);
  MHD_Result queue(MHD_Connection* connection, HttpAnswer answer);

  // What libmicrohttpd calls; `self` is a Parts.
  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* path, const char* method, const char* version,
                               const char* upload, std::size_t* upload_size, void** state);
  static void on_connection(void* self, MHD_Connection* connection, void** context, MHD_ConnectionNotificationCode what);
  static void on_completed(void* self, MHD_Connection* connection, void** state, MHD_RequestTerminationCode how);
};

// --- the server --------------------------------------------------------------------------------------------------------------

HttpServer::HttpServer(const Endpoint& at, Serve serve) : parts_(std::make_unique<Parts>()) {
  parts_->serve = std::move(serve);
  parts_->listener = listen_at(at);
  unsigned flags = MHD_USE_EPOLL;
  if (!at.address.is_v4()) flags |= MHD_USE_IPv6;
  parts_->daemon = MHD_start_daemon(  // NOLINT(*-vararg): its interface
      flags, 0, nullptr, nullptr, &Parts::on_request, parts_.get(),                                  //
      MHD_OPTION_LISTEN_SOCKET, parts_->listener.get(),                                              //
      MHD_OPTION_CONNECTION_LIMIT, kMostConnections,                                                 //
      MHD_OPTION_PER_IP_CONNECTION_LIMIT, kMostOfOneAddress,                                         //
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, kMostMemory,                                               //
      MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds,                                                   //
      MHD_OPTION_NOTIFY_CONNECTION, &Parts::on_connection, parts_.get(),                             //
      MHD_OPTION_NOTIFY_COMPLETED, &Parts::on_completed, parts_.get(),                               //
      MHD_OPTION_END);
  const MHD_DaemonInfo* info =
      parts_->daemon == nullptr ? nullptr : MHD_get_daemon_info(parts_->daemon, MHD_DAEMON_INFO_EPOLL_FD);  // NOLINT(*-vararg)
  if (info == nullptr)
    throw StartupError(ExitCode::failed, fmt::format("--http {}: libmicrohttpd could not be started; leave --http out to run "
                                                     "without the status page",
                                                     format_as(at)));
  parts_->epoll = info->epoll_fd;
}

HttpServer::~HttpServer() {
  if (parts_->daemon == nullptr) return;
  MHD_stop_daemon(parts_->daemon);
  (void)std::exchange(parts_->listener, UniqueFd{});
}

Endpoint HttpServer::address() const {
  sockaddr_storage found{};
  socklen_t length = sizeof found;
  getsockname(parts_->listener.get(), reinterpret_cast<sockaddr*>(&found), &length);
  if (found.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(found);
    return {IpAddress::v4(Be32{ntohl(v4.sin_addr.s_addr)}), Port::of(ntohs(v4.sin_port))};
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(found);
  return {IpAddress::v6(std::to_array(v6.sin6_addr.s6_addr)), Port::of(ntohs(v6.sin6_port))};
}

int HttpServer::descriptor() const {
  return parts_->epoll;
}

void HttpServer::ready(Instant now) {
  parts_->run(now);
}

Instant HttpServer::next_deadline() const {
  Instant next = parts_->run_at;
  for (const auto& [connection, open] : parts_->open) next = std::min(next, open.until);
  return next;
}

void HttpServer::due(Instant now) {
  parts_->let_dawdlers_go(now);
  if (parts_->run_at <= now) parts_->run(now);
}

void HttpServer::Parts::run(Instant at) {
  now = at;
  MHD_run(daemon);
  MHD_UNSIGNED_LONG_LONG milliseconds = 0;
  const bool waits = MHD_get_timeout(daemon, &milliseconds) == MHD_YES;
  // At once means in the next turn: frames go first.
  run_at = waits ? at + std::max(Duration{std::chrono::milliseconds{milliseconds}}, Duration{1}) : kNever;
}

/// Who sends a byte now and then is as idle as who sends none. The socket is shut down, and libmicrohttpd finds its end.
void HttpServer::Parts::let_dawdlers_go(Instant at) {
  for (auto& [connection, one] : open) {
    if (one.until > at) continue;
    one.until = kNever;
    shutdown(one.socket, SHUT_RDWR);
  }
}

// --- a connection ------------------------------------------------------------------------------------------------------------

void HttpServer::Parts::on_connection(void* self, MHD_Connection* connection, void**, MHD_ConnectionNotificationCode what) {
  auto& parts = *static_cast<Parts*>(self);
  if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
    parts.open.erase(connection);
    return;
  }
  const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);  // NOLINT(*-vararg)
  parts.open[connection] = {info->connect_fd, parts.now + kPatience};
}

void HttpServer::Parts::on_completed(void* self, MHD_Connection* connection, void**, MHD_RequestTerminationCode) {
  auto& parts = *static_cast<Parts*>(self);
  if (const auto it = parts.open.find(connection); it != parts.open.end()) it->second.until = parts.now + kPatience;
}

/// Called when the headers are there, and again when the body would be.
MHD_Result HttpServer::Parts::on_request(void* self, MHD_Connection* connection, const char* path, const char* method, const char*,
                                         const char*, std::size_t* upload_size, void** state) {
  if (*upload_size != 0) return MHD_NO;  // a body nobody has announced
  const bool first = *state == nullptr;
  *state = self;  // anything that isn't nullptr
  return static_cast<Parts*>(self)->answer(connection, path, method, first);
}

MHD_Result HttpServer::Parts::answer(MHD_Connection* connection, const char* path, std::string_view method, bool first) {
  if (first) {  // an answer now ends the connection behind it, so that no body is read
    if (method != MHD_HTTP_METHOD_GET && method != MHD_HTTP_METHOD_HEAD)
      return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only to be looked at: GET or HEAD; vsadm changes things\n");
    const char* length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const bool has_body = (length != nullptr && std::string_view{length} != "0") ||
                          MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING) != nullptr;
    return has_body ? refuse(connection, MHD_HTTP_CONTENT_TOO_LARGE, "a question without a body, please\n") : MHD_YES;
  }
  const HttpRequest request{path, [connection](const char* name) -> std::string_view {
                              const char* value = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, name);
                              return value == nullptr ? std::string_view{} : std::string_view{value};
                            }};
  return queue(connection, serve(request, now));
}

MHD_Result HttpServer::Parts::refuse(MHD_Connection* connection, unsigned status, std::string words) {
  HttpAnswer said;
  said.status = status;
  said.body = std::move(words);
  return queue(connection, std::move(said));
}

MHD_Result HttpServer::Parts::queue(MHD_Connection* connection, HttpAnswer said) {
  struct Portions {
    std::function<bool(std::string&)> more;
    std::string text{};
    std::size_t sent = 0;
    bool complete = false;
  };
  MHD_Response* response = nullptr;
  if (said.more) {
    const auto read = [](void* state, std::uint64_t, char* to, std::size_t room) -> ssize_t {
      auto& p = *static_cast<Portions*>(state);
      if (p.sent == p.text.size()) {
        p.text.clear();
        p.sent = 0;
        while (!p.complete && p.text.empty()) p.complete = !p.more(p.text);
        if (p.text.empty()) return MHD_CONTENT_READER_END_OF_STREAM;
      }
      const std::size_t some = std::min(room, p.text.size() - p.sent);
      std::memcpy(to, p.text.data() + p.sent, some);
      p.sent += some;
      return static_cast<ssize_t>(some);
    };
    const auto done = [](void* state) { delete static_cast<Portions*>(state); };
    auto portions = std::make_unique<Portions>(Portions{std::move(said.more)});
    response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, kPortion, read, portions.get(), done);
    if (response != nullptr) (void)portions.release();  // the response's now
  } else {
    response = MHD_create_response_from_buffer(said.body.size(), said.body.data(), MHD_RESPMEM_MUST_COPY);
  }
  if (response == nullptr) return MHD_NO;  // no memory: the connection ends

  const auto header = [response](const char* name, std::string_view value) {
    MHD_add_response_header(response, name, std::string{value}.c_str());
  };
  header(MHD_HTTP_HEADER_CONTENT_TYPE, said.type);
  header("Content-Security-Policy", said.content_policy);
  header("X-Content-Type-Options", "nosniff");
  header("Referrer-Policy", "no-referrer");
  header("Cross-Origin-Resource-Policy", "same-origin");
  header(MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
  if (said.status == MHD_HTTP_METHOD_NOT_ALLOWED) header(MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
  const MHD_Result queued = MHD_queue_response(connection, said.status, response);
  MHD_destroy_response(response);  // the connection has its own hold on it
  return queued;
}

}  // namespace director
