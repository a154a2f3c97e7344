// Plan: from the services there are to the services there should be, in the fewest changes, judged before any is made.
//
// Pure. A *table* is services and real servers as configuration, without counters and connections. Used for a reload (SIGHUP,
// vsadm apply: the table becomes the file's) and for vsadm -R (the file's lines are added): both are worked out on a copy of the
// table first, and only a copy on which every line succeeded becomes changes of the balancer. What stays the same in both
// tables isn't touched: its connections, counters and place in the list live on.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "director/base/result.h"
#include "director/core/balancer.h"
#include "director/core/change.h"
#include "director/rules.h"

namespace director {

struct Table {
  struct Entry {
    ServiceConfig config;
    std::vector<ServerConfig> servers;  ///< first added first
  };
  std::vector<Entry> services;  ///< first added first
  std::vector<ClassRule> classes;
  SetTimeouts timeouts;         ///< 0: whatever they are

  [[nodiscard]] Entry* find(const ServiceKey& key);
  [[nodiscard]] const Entry* find(const ServiceKey& key) const;
};

/// The balancer's services and servers.
Table table_of(const Balancer& balancer);

/// The change on a table: succeeds and is refused exactly as Balancer::apply() would. Changes that are not about services,
/// servers or time-outs succeed and do nothing.
Result<void, Refusal> apply(Table& table, const Change& change);

/// The changes that make `from` into `to`. New servers come before their neighbours in the kernel's order, as if added by hand.
std::vector<Change> difference(const Table& from, const Table& to);

/// What becomes of the classes when the rules name none: gone, as everything that isn't in a rules file, or left as they are, as
/// firewall marks are when ipvsadm-restore brings back services that were saved without them.
enum class Classes : std::uint8_t { as_said, kept_unless_said };

/// All that is wrong with a rules file, in the order of its lines; empty: nothing. Whether the rules go together is asked only when each of
/// them can be read: what a line was meant to be nobody knows.
std::vector<RulesError> problems_in(std::string_view rules);

/// What a reload has to change so that the table is what `wanted` says; the error names the first line that can't be.
Result<std::vector<Change>, RulesError> plan_reload(const Balancer& balancer, std::span<const Rule> wanted,
                                                    Classes classes = Classes::as_said);

/// Applies changes that were worked out on a copy. A refusal is a bug of ours; it is returned, with what was refused.
Result<void> apply_all(Balancer& balancer, std::span<const Change> changes, Instant now);

}  // namespace director
