// command_socket: one request, one answer; nobody can make it wait; one director a path.
#include "director/control/command_socket.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>

#include "director/base/startup_error.h"

namespace director {
namespace {

class CommandSocketTest : public ::testing::Test {
 protected:
  CommandSocketTest() {
    std::string pattern = ::testing::TempDir() + "/director-socket-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    path_ = folder_ + "/control.sock";
  }
  ~CommandSocketTest() override { std::filesystem::remove_all(folder_); }

  void open() {
    socket_ = std::make_unique<CommandSocket>(path_, [this](std::string_view request, const CommandSocket::Peer&, Instant) {
      ++served_;
      return answer_.value_or("heard " + std::string{request});
    });
  }
  [[nodiscard]] int client() const {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << std::strerror(errno);
    return fd;
  }
  /// As the loop does: whenever the descriptor says so.
  void run() {
    pollfd p{socket_->descriptor(), POLLIN, 0};
    while (poll(&p, 1, 0) > 0) socket_->ready(now_);
  }
  /// What has come, and whether that was all.
  static std::pair<std::string, bool> read_all(int fd) {
    std::string text;
    std::array<char, 65536> buffer;
    ssize_t got = 0;
    while ((got = recv(fd, buffer.data(), buffer.size(), 0)) > 0)
      text.append(buffer.data(), static_cast<std::size_t>(got));
    return {text, got == 0 || errno == ECONNRESET};
  }
  static void say(int fd, std::string_view text) {
    ASSERT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }

  std::string folder_, path_;
  std::unique_ptr<CommandSocket> socket_;
  std::optional<std::string> answer_;
  int served_ = 0;
  Instant now_{};
};

TEST_F(CommandSocketTest, AnswersARequestThatIsComplete) {
  open();
  const int fd = client();
  say(fd, "one ");
  run();
  say(fd, "two");
  run();
  EXPECT_EQ(read_all(fd), std::pair(std::string{}, false))
      << "it isn't complete before the client has shut its side down";
  shutdown(fd, SHUT_WR);
  run();
  EXPECT_EQ(read_all(fd), std::pair(std::string{"heard one two"}, true));
  close(fd);
}

TEST_F(CommandSocketTest, IsForItsGroupAndGoesWithItsOwner) {
  open();
  struct stat file {};
  ASSERT_EQ(stat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777U, 0660U);
  socket_.reset();
  EXPECT_NE(stat(path_.c_str(), &file), 0);
}

TEST_F(CommandSocketTest, MakesItsFolder) {
  path_ = folder_ + "/run/control.sock";
  open();
  EXPECT_TRUE(std::filesystem::is_socket(path_));
}

TEST_F(CommandSocketTest, ASecondDirectorIsRefusedWithThePidOfTheFirst) {
  open();
  try {
    CommandSocket second(path_, {});
    FAIL();
  } catch (const StartupError& error) {
    EXPECT_EQ(error.code(), ExitCode::failed);
    EXPECT_NE(std::string{error.what()}.find("(process " + std::to_string(getpid()) + ")"), std::string::npos)
        << error.what();
  }
  run();
  EXPECT_EQ(served_, 0) << "the look was no request";
  EXPECT_TRUE(std::filesystem::is_socket(path_)) << "and took nothing away";
}

TEST_F(CommandSocketTest, WhatAKilledDirectorLeftIsReplaced) {
  const int dead = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(bind(dead, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  close(dead);
  ASSERT_TRUE(std::filesystem::is_socket(path_));
  open();
  const int fd = client();
  say(fd, "x");
  shutdown(fd, SHUT_WR);
  run();
  EXPECT_EQ(read_all(fd).first, "heard x");
  close(fd);
}

TEST_F(CommandSocketTest, SomethingElseInItsPlaceIsLeftAlone) {
  { std::unique_ptr<std::FILE, int (*)(std::FILE*)> file{std::fopen(path_.c_str(), "w"), &std::fclose}; }
  EXPECT_THROW(open(), StartupError);
  EXPECT_TRUE(std::filesystem::is_regular_file(path_));
  path_ = folder_ + "/" + std::string(200, 'x');
  EXPECT_THROW(open(), StartupError);
  path_ = folder_ + "/no/such/folder/control.sock";
  EXPECT_THROW(open(), StartupError);
}

TEST_F(CommandSocketTest, AClientThatDoesNotReadKeepsNobodyWaitingAndIsLetGo) {
  open();
  answer_ = std::string(std::size_t{8} << 20U, 'a');
  const int slow = client();
  say(slow, "x");
  shutdown(slow, SHUT_WR);
  run();
  answer_.reset();
  const int quick = client();
  say(quick, "y");
  shutdown(quick, SHUT_WR);
  run();
  EXPECT_EQ(read_all(quick), std::pair(std::string{"heard y"}, true));
  EXPECT_EQ(socket_->next_deadline(), now_ + CommandSocket::kPatience);

  EXPECT_FALSE(read_all(slow).second);
  now_ += CommandSocket::kPatience / 2;
  run();  // progress puts it off
  EXPECT_GT(socket_->next_deadline(), now_ + CommandSocket::kPatience / 2);
  now_ += CommandSocket::kPatience;
  socket_->due(now_);
  EXPECT_EQ(socket_->next_deadline(), kNever);
  EXPECT_TRUE(read_all(slow).second);
  close(slow);
  close(quick);
}

TEST_F(CommandSocketTest, MoreClientsThanItTakesWaitTheirTurn) {
  open();
  std::vector<int> silent;
  for (std::size_t i = 0; i < CommandSocket::kMaxClients; ++i) silent.push_back(client());
  run();
  const int late = client();
  say(late, "z");
  shutdown(late, SHUT_WR);
  run();
  EXPECT_EQ(served_, 0);
  close(silent.back());
  run();
  EXPECT_EQ(read_all(late).first, "heard z");
  for (std::size_t i = 0; i + 1 < silent.size(); ++i) close(silent[i]);
  close(late);
}

TEST_F(CommandSocketTest, AnEndlessRequestEnds) {
  open();
  const int fd = client();
  const std::string piece(std::size_t{64} << 10U, 'a');
  bool refused = false;
  for (std::size_t said = 0; said < 2 * CommandSocket::kMaxRequest && !refused;) {
    const ssize_t sent = send(fd, piece.data(), piece.size(), MSG_NOSIGNAL);
    if (sent > 0)
      said += static_cast<std::size_t>(sent);
    else
      refused = errno != EAGAIN;
    run();
  }
  EXPECT_TRUE(refused);
  EXPECT_EQ(served_, 0);
  close(fd);
}

}  // namespace
}  // namespace director
