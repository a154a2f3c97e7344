// Folders, then what has changed, then files.
#include "director/proc_mirror.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "director/base/startup_error.h"
#include "director/io/clock.h"
#include "director/io/unique_fd.h"
#include "director/log.h"
#include "director/proc_listing.h"

namespace director {
namespace {

constexpr Duration kEvery = std::chrono::seconds(1);
constexpr int kRest = 19;  // times as long as the last writing took

Result<void> write_file(const std::string& path, std::string_view text) {
  const std::string beside = path + ".new";
  const auto failed = [&](const std::string& what) {
    const int error = errno;
    unlink(beside.c_str());
    return fail(fmt::format("{}: {}", what, std::strerror(error)));
  };
  {
    const UniqueFd file{open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644)};
    if (!file) return failed(beside);
    while (!text.empty()) {
      const ssize_t some = write(file.get(), text.data(), text.size());
      if (some < 0 && errno == EINTR) continue;
      if (some < 0) return failed(beside);
      text.remove_prefix(static_cast<std::size_t>(some));
    }
  }
  if (std::rename(beside.c_str(), path.c_str()) != 0) return failed(path);
  return {};
}

}  // namespace

ProcMirror::ProcMirror(std::string folder, const Balancer& balancer, Instant now)
    : balancer_(balancer), folder_(std::move(folder)) {
  for (const std::string& one : {folder_, folder_ + "/net"}) {
    if (mkdir(one.c_str(), 0755) == 0)
      made_.push_back(one);
    else if (errno != EEXIST)
      throw StartupError(ExitCode::failed, fmt::format("--proc-dir {}: {} can't be made: {}", folder_, one,
                                                       std::strerror(errno)));
  }
  if (const auto done = write_all(now); !done)
    throw StartupError(ExitCode::failed, fmt::format("--proc-dir {}: {}", folder_, done.error().message));
}

ProcMirror::~ProcMirror() {
  for (const std::string_view file : proc_files()) unlink(path(file).c_str());
  std::for_each(made_.rbegin(), made_.rend(), [](const std::string& one) { rmdir(one.c_str()); });
}

std::string ProcMirror::path(std::string_view file) const {
  return fmt::format("{}/net/{}", folder_, file);
}

ProcMirror::Seen ProcMirror::look() const {
  const auto& [total, rate] = std::pair{balancer_.traffic().total, balancer_.traffic().rate};
  return {balancer_.generation(),
          balancer_.connection_count(),
          {total.connections, total.in_packets, total.out_packets, total.in_bytes, total.out_bytes,
           rate.connections, rate.in_packets, rate.out_packets, rate.in_bytes, rate.out_bytes}};
}

void ProcMirror::due(Instant now) {
  waiting_ = look() != written_;
  if (!waiting_ || now < next_) return;
  const auto done = write_all(now);
  if (!done && !failed_) log::error("the mirror of /proc/net is out of date", {{"reason", done.error().message}});
  failed_ = !done;
}

Result<void> ProcMirror::write_all(Instant now) {
  const Instant began = clock::now();
  written_ = look();  // even if that fails: it is tried again when there is something new
  waiting_ = false;
  Result<void> all{};
  for (const std::string_view file : proc_files())
    if (const auto done = write_file(path(file), *proc_text(file, balancer_, now)); !done) all = done;
  const Instant ended = clock::now();
  next_ = ended + std::max(kEvery, (ended - began) * kRest);
  return all;
}

}  // namespace director
