// CommandSocket: the unix socket through which the control tool asks and is answered.
//
// A connection is one request and one answer: the client writes, shuts its side down, reads until the end. What the texts
// mean is the business of the function that serves them (command.h). Nobody here waits: clients that dawdle keep a buffer, no time;
// there are at most so many of them, requests are bounded, and who makes no progress for a while is let go. Used by the daemon.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "director/base/time.h"

namespace director {

class CommandSocket {
 public:
  /// Who asks, as the kernel knows it (SO_PEERCRED, unix(7)).
  struct Peer {
    std::int64_t user = -1;     ///< -1: it didn't tell
    std::int64_t process = -1;
  };
  using Serve = std::function<std::string(std::string_view request, const Peer& peer, Instant now)>;

  static constexpr std::size_t kMaxClients = 32;                      ///< more wait in the kernel's queue
  static constexpr std::size_t kMaxRequest = std::size_t{16} << 20U;  ///< a rules file of 200,000 lines
  static constexpr Duration kPatience = std::chrono::seconds{10};     ///< without progress

  /// Makes the socket, mode 0660, and its folder if need be. What a killed director left behind is replaced.
  /// Throws StartupError: another director listens there (with its process id), or it can't be made.
  CommandSocket(std::string path, Serve serve);
  /// Removes the socket.
  ~CommandSocket();
  CommandSocket(const CommandSocket&) = delete;
  CommandSocket& operator=(const CommandSocket&) = delete;

  /// Readable when ready() has something to do.
  [[nodiscard]] int descriptor() const { return epoll_; }
  void ready(Instant now);
  /// When due() wants to be called; kNever: it doesn't.
  [[nodiscard]] Instant next_deadline() const;
  void due(Instant now);

 private:
  struct Client {
    std::string request;
    std::string answer;
    std::size_t sent = 0;  // of the answer
    bool answered = false;
    Peer peer;  // asked for when it comes: it may have gone when it is answered
    Instant deadline{};
  };

  void listen_again(bool on);
  void accept_clients(Instant now);
  /// Both false: the client is done with.
  bool read_some(int fd, Client& client, Instant now);
  bool write_some(int fd, Client& client, Instant now);
  void let_go(int fd);

  std::string path_;
  Serve serve_;
  std::uint64_t inode_ = 0;  // of the socket's file: what stands there later may not be ours
  int epoll_ = -1;
  int listener_ = -1;
  bool listening_ = false;
  std::map<int, Client> clients_;
  Instant listen_at_ = kNever;  // after the process ran out of descriptors
};

}  // namespace director
