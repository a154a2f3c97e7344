// ProcMirror: files like the kernel's /proc/net/ip_vs*, in a folder of their own, for exporters that read those (--proc-dir).
//
// A reader sees a whole file or none: each is written beside its place and renamed. Nobody can be told when a reader looks, so the
// files follow the table: at most once a second, only while something changes, and never more than a twentieth of the time.
// They go when the director goes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "director/base/time.h"
#include "director/core/balancer.h"

namespace director {

class ProcMirror {
 public:
  /// Makes `folder`/net and fills it. Throws StartupError.
  /// REQUIRES: the balancer outlives the mirror.
  ProcMirror(std::string folder, const Balancer& balancer, Instant now);
  ~ProcMirror();
  ProcMirror(const ProcMirror&) = delete;
  ProcMirror& operator=(const ProcMirror&) = delete;

  /// Writes what has changed, if it is time to.
  void due(Instant now);
  /// When due() has something to do; kNever: nothing has changed. Call due() first.
  [[nodiscard]] Instant next_deadline() const { return waiting_ ? next_ : kNever; }

 private:
  /// What the files' contents depend on, but for the passing of time.
  struct Seen {
    std::uint64_t generation = 0;
    std::size_t connections = 0;
    std::array<std::uint64_t, 10> traffic{};
    friend bool operator==(const Seen&, const Seen&) = default;
  };
  [[nodiscard]] Seen look() const;
  [[nodiscard]] std::string path(std::string_view file) const;
  /// The error says which file and why.
  Result<void> write_all(Instant now);

  const Balancer& balancer_;
  std::string folder_;
  std::vector<std::string> made_;  // folders to be removed again, outermost first
  Seen written_;
  bool waiting_ = false;  // something changed and is not written yet
  bool failed_ = false;   // the last time, and that was logged
  Instant next_{};
};

}  // namespace director
