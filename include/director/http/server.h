// HttpServer: HTTP/1.1 for those who watch, inside the director's one loop (libmicrohttpd, external epoll).
//
// Knows nothing of directors: what stands at a path is the business of the function that serves it (http/site.h). Read-only: GET and
// HEAD. Nobody here waits, and nobody can make others wait: there are at most so many connections, and of one address fewer; a
// request has a bounded size, no body, and a time by which it must be done with; long answers are made and sent a portion a turn.
// Without connections it never wakes the loop. Used by the daemon.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "director/base/time.h"
#include "director/net/address.h"

namespace director {

struct HttpRequest {
  std::string_view path;  ///< "/api/services", without the query
  /// The value of "?name=value"; empty: there is none.
  std::function<std::string_view(const char* name)> query;
};

struct HttpAnswer {
  unsigned status = 200;
  std::string_view type = "text/plain; charset=utf-8";
  std::string body;
  /// Instead of a body: appends another portion of it, false: that was the last. Called while the client takes it.
  std::function<bool(std::string& out)> more{};
  std::string_view content_policy = "default-src 'none'; frame-ancestors 'none'";
};

class HttpServer {
 public:
  using Serve = std::function<HttpAnswer(const HttpRequest& request, Instant now)>;

  static constexpr unsigned kMostConnections = 64;                   ///< more wait in the kernel's queue
  static constexpr unsigned kMostOfOneAddress = 24;                  ///< more are closed at once
  static constexpr std::size_t kMostMemory = std::size_t{32} << 10U;  ///< of a connection: request, headers, a portion of the answer
  static constexpr Duration kPatience = std::chrono::seconds{15};    ///< for a request to come and its answer to be taken

  /// Listens. Throws StartupError: the address is in use, or isn't this machine's.
  HttpServer(const Endpoint& at, Serve serve);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// Where it listens; with the port the kernel chose, if it was to choose one (0).
  [[nodiscard]] Endpoint address() const;
  /// Readable when ready() has something to do.
  [[nodiscard]] int descriptor() const;
  void ready(Instant now);
  /// When due() wants to be called; kNever: it doesn't.
  [[nodiscard]] Instant next_deadline() const;
  void due(Instant now);

 private:
  struct Parts;  // libmicrohttpd's types stay in server.cpp
  std::unique_ptr<Parts> parts_;
};

}  // namespace director
