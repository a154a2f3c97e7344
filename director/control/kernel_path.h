// KernelPath: carries shortcuts (core/shortcut.h) inside the kernel, so that a big flow costs no copy and no wake-up.
//
// One BPF map of flows; a program at each interface (tcx, Linux 6.6) that rewrites and forwards, and one on the director's packet
// sockets that keeps what was carried away from them. Links, programs and map belong to the process: the kernel removes them with it,
// kill -9 included. Where the kernel can't (too old, no CAP_BPF, built without), everything walks through the director.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "director/base/result.h"
#include "director/base/time.h"
#include "director/core/change.h"
#include "director/core/shortcut.h"

namespace director {

class KernelPath {
 public:
  /// Where frames come to the director: from an interface's wire, or through a TAP.
  enum class Entry : std::uint8_t { interface, tap };
  using Tell = std::function<void(const Carried&)>;

  /// Loads the programs. The Failure says in a sentence what is lacking.
  [[nodiscard]] static Result<std::unique_ptr<KernelPath>> open();
  virtual ~KernelPath() = default;

  /// The program for a packet socket (SO_ATTACH_BPF).
  [[nodiscard]] virtual int socket_filter() const = 0;
  /// The device's interface is this one now; 0: it has none.
  virtual void link_changed(DeviceId device, unsigned index, Entry entry) = 0;
  /// Opens and closes what the core says. `tell` gets what closed flows had carried.
  virtual void follow(const ShortcutNews& news, const Tell& tell) = 0;
  /// Tells what some flows carried since they were asked last, all of them in a second's calls; those that carry nothing for a while are
  /// let go.
  virtual void collect(Instant now, const Tell& tell) = 0;
  /// The same of all at once: somebody asks for counters.
  virtual void collect_all(Instant now, const Tell& tell) = 0;
  /// When collect() should be called next; kNever: no shortcut is open.
  [[nodiscard]] virtual Instant next_deadline() const = 0;
};

}  // namespace director
