// See the header.
#include "director/realserver/ledger_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "director/realserver/failure.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71  // linux/socket.h since 5.14
#endif

namespace director::realserver {
namespace {

std::string read_all(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// Namespaces share /run: the inode number keeps their files apart.
std::filesystem::path file_of(const std::filesystem::path& directory) {
  struct stat namespace_file {};
  if (::stat("/proc/self/ns/net", &namespace_file) != 0) {
    throw Failure(ExitCode::lacking, "/proc is needed to know the network namespace: mount it");
  }
  return directory / fmt::format("net-{}.state", namespace_file.st_ino);
}

Failure unwritable(const std::filesystem::path& path, int error) {
  return {ExitCode::lacking,
          fmt::format("{}: {}: what is changed must be written down so that `down` can undo it; "
                      "name a directory with --state",
                      path.string(), std::strerror(error))};
}

Ledger read_file(const std::filesystem::path& path, const std::string& identity) {
  Ledger empty;
  empty.name_space = identity;
  const std::string text = read_all(path);
  // What another namespace left under the same inode number, perhaps in words of another version, is no matter.
  if (text.find(fmt::format("\nnamespace {}\n", identity)) == std::string::npos) return empty;
  auto ledger = read_ledger(text);
  if (!ledger) {
    throw Failure(ExitCode::failed, fmt::format("{}: {}; remove the file to forget what was changed",
                                                path.string(), ledger.error().message));
  }
  return *ledger;
}

}  // namespace

std::string namespace_identity() {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  const UniqueFd any{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  ::getsockopt(any.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie,
               &size);  // before 5.14: 0, the inode alone must do
  std::string boot = read_all("/proc/sys/kernel/random/boot_id");
  while (!boot.empty() && boot.back() == '\n') boot.pop_back();
  return fmt::format("{} {}", cookie, boot.empty() ? "-" : boot);
}

LedgerFile::LedgerFile(const std::filesystem::path& directory)
    : directory_(directory), path_(file_of(directory)) {
  if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) throw unwritable(directory, errno);
  lock_ = UniqueFd{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!lock_ || ::flock(lock_.get(), LOCK_EX) != 0) throw unwritable(directory, errno);
  if (::access(directory.c_str(), W_OK) != 0) throw unwritable(directory, errno);
  ledger = read_file(path_, namespace_identity());
}

void LedgerFile::save() {
  if (ledger.services.empty() && ledger.changes.empty()) {
    ::unlink(path_.c_str());
    return;
  }
  const std::filesystem::path fresh = path_.string() + ".new";
  const std::string text = write_ledger(ledger);
  const UniqueFd out{::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  if (!out || ::write(out.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::rename(fresh.c_str(), path_.c_str()) != 0) {
    throw unwritable(fresh, errno);
  }
}

Ledger LedgerFile::peek(const std::filesystem::path& directory) {
  return read_file(file_of(directory), namespace_identity());
}

}  // namespace director::realserver
