// http/server: what clients get, and what those who misbehave can't do to others. Time is the test's.
#include "director/http/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "director/base/startup_error.h"
#include "director/io/unique_fd.h"

namespace director {
namespace {

using namespace std::chrono_literals;

/// A connection to the server.
class Client {
 public:
  explicit Client(const Endpoint& at) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(at.port.host());
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0) << std::strerror(errno);
  }
  /// As much of it as is taken without waiting.
  std::size_t send(std::string_view text) {
    const ssize_t sent = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? 0 : static_cast<std::size_t>(sent);
  }
  void read() {
    char buffer[65536];
    for (;;) {
      const ssize_t got = recv(fd_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) {
        answer.append(buffer, static_cast<std::size_t>(got));
        continue;
      }
      if (got == 0 || errno != EAGAIN) ended = true;
      return;
    }
  }
  [[nodiscard]] int descriptor() const { return fd_.get(); }

  std::string answer;
  bool ended = false;

 private:
  UniqueFd fd_;
};

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest()
      : server_({*IpAddress::parse("127.0.0.1"), Port{}}, [this](const HttpRequest& r, Instant) { return serve(r); }) {}

  HttpAnswer serve(const HttpRequest& request) {
    ++served_;
    HttpAnswer answer;
    if (request.path == "/long") {
      answer.more = [left = 1000](std::string& out) mutable {
        out.append(4096, '#');
        return --left > 0;
      };
    } else {
      answer.body = std::string{request.path} + " " + std::string{request.query("a")} + "\n";
    }
    return answer;
  }

  /// Turns of the loop until `done`; a turn takes a microsecond of the test's clock.
  template <typename Done>
  void turn_until(std::initializer_list<Client*> clients, Done done) {
    for (int turns = 0; turns < 20000 && !done(); ++turns) {
      std::vector<pollfd> all{{server_.descriptor(), POLLIN, 0}};
      for (Client* c : clients)
        if (!c->ended) all.push_back({c->descriptor(), POLLIN, 0});
      now_ += 1us;
      const bool busy = server_.next_deadline() <= now_;
      poll(all.data(), all.size(), busy ? 0 : 1);
      if (all[0].revents != 0) server_.ready(now_);
      if (busy) server_.due(now_);
      for (Client* c : clients) c->read();
    }
    EXPECT_TRUE(done());
  }
  std::string ask(std::string_view request) {
    Client client{server_.address()};
    client.send(request);
    turn_until({&client}, [&] { return client.ended; });
    return client.answer;
  }

  Instant now_{1h};
  int served_ = 0;
  HttpServer server_;
};

std::string status_line(const std::string& answer) {
  return answer.substr(0, answer.find("\r\n"));
}

TEST_F(HttpServerTest, AnswersGetAndHead) {
  const std::string got = ask("GET /x?a=1%202 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(status_line(got), "HTTP/1.1 200 OK");
  EXPECT_TRUE(got.ends_with("\r\n\r\n/x 1 2\n")) << got;
  EXPECT_NE(got.find("Content-Security-Policy: default-src 'none'"), std::string::npos);
  EXPECT_NE(got.find("X-Content-Type-Options: nosniff"), std::string::npos);
  const std::string head = ask("HEAD /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(status_line(head), "HTTP/1.1 200 OK");
  EXPECT_TRUE(head.ends_with("\r\n\r\n")) << "no body: " << head;
}

TEST_F(HttpServerTest, KeepsAConnectionForTheNextRequest) {
  Client client{server_.address()};
  for (int i = 1; i <= 3; ++i) {
    client.answer.clear();
    client.send("GET /again HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until({&client}, [&] { return client.answer.ends_with("/again \n"); });
    EXPECT_FALSE(client.ended);
  }
}

TEST_F(HttpServerTest, RefusesOtherMethodsWithWords) {
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE"}) {
    const std::string got = ask(std::string{method} + " / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    EXPECT_EQ(status_line(got), "HTTP/1.1 405 Method Not Allowed") << method;
    EXPECT_NE(got.find("Allow: GET, HEAD"), std::string::npos);
    EXPECT_NE(got.find("only to be looked at"), std::string::npos);
  }
  EXPECT_EQ(served_, 0);
}

TEST_F(HttpServerTest, TakesNoBody) {
  const std::string got = ask("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n");
  EXPECT_EQ(status_line(got).substr(0, 12), "HTTP/1.1 413");
  EXPECT_EQ(status_line(ask("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")).substr(0, 12), "HTTP/1.1 413");
  EXPECT_EQ(served_, 0);
}

TEST_F(HttpServerTest, EndsGarbageAndHugeHeaders) {
  for (const std::string& garbage : {std::string{"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 15},  // as TLS begins
                                     std::string(5000, '\0'), std::string{"BREW\r\n\r\n"}, std::string{"GET / HTTP/9.9\r\n\r\n"}}) {
    Client client{server_.address()};
    client.send(garbage);
    for (int turns = 0; turns < 20; ++turns) server_.ready(now_);
    now_ += HttpServer::kPatience;  // for what it takes for the beginning of a request
    server_.due(now_);
    turn_until({&client}, [&] { return client.ended; });
    EXPECT_EQ(client.answer.find(" 200 "), std::string::npos) << client.answer;
  }
  // A megabyte of header, as fast as it is taken.
  Client client{server_.address()};
  const std::string huge = "GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(1 << 20, 'y') + "\r\n\r\n";
  std::size_t sent = 0;
  turn_until({&client}, [&] {
    sent += client.send(std::string_view{huge}.substr(sent));
    return client.ended;
  });
  EXPECT_TRUE(client.answer.empty() || status_line(client.answer).starts_with("HTTP/1.1 431")) << status_line(client.answer);
  EXPECT_EQ(served_, 0);
}

TEST_F(HttpServerTest, WhoDawdlesIsLetGo) {
  Client slow{server_.address()};
  slow.send("GET / HT");
  turn_until({}, [&] { return server_.next_deadline() <= now_ + HttpServer::kPatience; });
  const Instant end = now_ + HttpServer::kPatience;
  for (; now_ < end; now_ += 1s) {  // a byte a second is no progress
    slow.send("T");
    server_.ready(now_);
    server_.due(now_);
  }
  slow.read();
  EXPECT_FALSE(slow.ended);
  now_ = end;
  server_.due(now_);
  turn_until({&slow}, [&] { return slow.ended; });
}

TEST_F(HttpServerTest, WhoReadsNothingIsLetGoToo) {
  Client lazy{server_.address()};
  lazy.send("GET /long HTTP/1.1\r\nHost: h\r\n\r\n");
  turn_until({}, [&] { return served_ == 1; });
  for (int turns = 0; turns < 2000; ++turns) {  // until the sockets are full
    now_ += 1us;
    server_.ready(now_);
    server_.due(now_);
  }
  now_ += HttpServer::kPatience;
  server_.due(now_);
  turn_until({}, [&] { return server_.next_deadline() == kNever; });
}

TEST_F(HttpServerTest, LongAnswersComeInPortions) {
  Client client{server_.address()};
  Client other{server_.address()};
  client.send("GET /long HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  turn_until({&client}, [&] { return !client.answer.empty(); });
  other.send("GET /short HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  turn_until({&client, &other}, [&] { return other.ended; });
  EXPECT_FALSE(client.ended) << "the short answer didn't wait for the long one";
  turn_until({&client}, [&] { return client.ended; });
  EXPECT_EQ(std::count(client.answer.begin(), client.answer.end(), '#'), 4096 * 1000);
}

TEST_F(HttpServerTest, OneAddressHasSoManyConnections) {
  std::vector<std::unique_ptr<Client>> many;
  for (unsigned i = 0; i < HttpServer::kMostOfOneAddress + 10; ++i) many.push_back(std::make_unique<Client>(server_.address()));
  const auto ended = [&] {
    for (const auto& c : many) c->read();
    return std::count_if(many.begin(), many.end(), [](const auto& c) { return c->ended; });
  };
  turn_until({}, [&] { return ended() == 10; });
  many.clear();
  turn_until({}, [&] { return server_.next_deadline() == kNever; });
  EXPECT_EQ(status_line(ask("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")), "HTTP/1.1 200 OK") << "they made room";
}

TEST_F(HttpServerTest, WithoutConnectionsItNeverWakes) {
  EXPECT_EQ(server_.next_deadline(), kNever);
  (void)ask("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  turn_until({}, [&] { return server_.next_deadline() == kNever; });
  pollfd idle{server_.descriptor(), POLLIN, 0};
  EXPECT_EQ(poll(&idle, 1, 0), 0);
}

TEST_F(HttpServerTest, ATakenPortIsSaidSo) {
  try {
    const HttpServer second{server_.address(), {}};
    FAIL();
  } catch (const StartupError& error) {
    EXPECT_EQ(error.code(), ExitCode::failed);
    EXPECT_NE(std::string{error.what()}.find("another program listens there already"), std::string::npos) << error.what();
  }
  try {
    const HttpServer elsewhere{{*IpAddress::parse("192.0.2.1"), Port::of(9101)}, {}};
    FAIL();
  } catch (const StartupError& error) {
    EXPECT_EQ(error.code(), ExitCode::lacking);
    EXPECT_NE(std::string{error.what()}.find("127.0.0.1:9101"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace director
