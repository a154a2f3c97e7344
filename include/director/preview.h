// Preview: what changes of the table would move, worked out on a copy: live connections and slots of hash schedulers.
//
// Pure. For vsadm apply --dry-run. A slot (of sh, dh, mh) is a share of the clients: one that moves sends them to another server.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "director/core/balancer.h"
#include "director/core/change.h"

namespace director {

struct Movement {
  std::uint64_t connections = 0;  ///< that would lose their server
  std::size_t slots = 0;          ///< that would change from one server to another
  std::size_t of_slots = 0;       ///< how many the scheduler has; 0: it isn't one that hashes
};

class Preview {
 public:
  /// REQUIRES: the balancer outlives it and doesn't change.
  explicit Preview(const Balancer& balancer);
  ~Preview();
  /// Makes the change on the copy. Changes of one table build on each other.
  Movement apply(const Change& change);

 private:
  struct Copy;
  [[nodiscard]] Copy* find(const ServiceKey& key);

  const Balancer& balancer_;
  std::vector<std::unique_ptr<Copy>> services_;
};

}  // namespace director
