// KernelOpener: opens plain IPIP tunnels inside the kernel, so that a tunnelled packet costs no copy and no wake-up.
//
// A program at the interfaces' entries (tcx, Linux 6.6) does what decapsulate() does with nearly all packets: known ends, no fragment,
// no IP option, nothing for ECN to change. Everything else comes to the decapsulator as before, which alone decides and counts drops.
// It belongs to the process: the kernel removes it with it, kill -9 included. Where the kernel can't (too old, no CAP_BPF, built
// without), there is none.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "director/base/result.h"
#include "director/realserver/decapsulate.h"
#include "director/realserver/rtnetlink.h"

namespace director::realserver {

class KernelOpener {
 public:
  /// Loads the program, for packets that shall appear on `out`. The Failure says in a sentence what is lacking.
  [[nodiscard]] static Result<std::unique_ptr<KernelOpener>> open(const Link& out);
  virtual ~KernelOpener() = default;

  /// What is opened from now on, and at which Ethernet interfaces; none: nothing.
  virtual void admit(const Admission& admission, const std::vector<LinkId>& links) = 0;
  /// Interfaces it works at.
  [[nodiscard]] virtual std::size_t links() const = 0;
  [[nodiscard]] virtual std::uint64_t delivered() const = 0;
};

}  // namespace director::realserver
