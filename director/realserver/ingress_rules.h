// IngressRules: whether somebody filters at interfaces' entries (nftables' ingress hooks). Those chains come behind a tcx program, so
// where there is one, packets have to pass them before a tunnel is opened.
#pragma once

#include "director/io/unique_fd.h"

namespace director::realserver {

class IngressRules {
 public:
  IngressRules();  ///< of the network namespace the caller is in
  /// Readable when nftables' rules have changed; none: this kernel has no nftables.
  [[nodiscard]] const UniqueFd& changed() const { return events_; }
  /// Asks the kernel; and waits for changes from here on. True, too, where it can't be known.
  [[nodiscard]] bool any();

 private:
  UniqueFd events_;
};

}  // namespace director::realserver
