// Snapshot: the services and counters of a director at one moment, as the control tool reads them from --json listings.
//
// Pure. Used by vsadm top, which compares two of them, and by completion, which needs the names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "director/base/result.h"
#include "director/base/time.h"
#include "director/core/counters.h"

namespace director::vsadm {

struct Snapshot {
  struct Server {
    std::string name;  ///< "10.9.1.11:8080", as -r takes it
    std::uint64_t weight = 0;
    bool usable = false;
    std::uint64_t active = 0, inactive = 0;
    Traffic total, rate;
  };
  struct Service {
    std::string option;  ///< "-t", "-u", "--sctp-service" or "-f"
    std::string name;    ///< "10.9.0.100:80" or "7", as the option takes it
    bool is_v6 = false;
    std::string scheduler;
    Traffic total, rate;
    std::vector<Server> servers;

    [[nodiscard]] std::uint64_t active() const;
    [[nodiscard]] std::uint64_t inactive() const;
  };
  /// A reason that ends packets (fate.h).
  struct Drop {
    std::string name, text;
    bool is_refusal = false;  ///< the sender was told
    std::uint64_t total = 0;
    std::optional<std::uint64_t> rate;  ///< nothing: nobody has measured it
  };
  std::vector<Service> services;
  std::vector<Drop> drops;
};

/// From what `-L --json` and `reasons --json` print; `reasons` may be empty.
Result<Snapshot> read_snapshot(std::string_view services, std::string_view reasons);

/// `now` with the rates the time since `before` had. What wasn't there before keeps the director's average; a counter that went back was
/// set to zero in between.
Snapshot measured(const Snapshot& before, Snapshot now, Duration elapsed);

}  // namespace director::vsadm
