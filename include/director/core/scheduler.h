// Scheduler: picks a real server for a new connection. One file each in director/schedule/, one line in schedulers.def.
//
// `servers` is always the service's list in the kernel's order: last added first (ip_vs_ctl.c, list_add_rcu). "First" and ties
// mean that order. Called once per connection, never per packet.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "director/core/change.h"
#include "director/core/real_server.h"
#include "director/core/tunables.h"

namespace director {

using ServerList = std::span<RealServer* const>;

class Scheduler {
 public:
  virtual ~Scheduler() = default;
  /// The server for this flow (client -> virtual service), or nullptr: nobody can serve.
  virtual RealServer* pick(ServerList servers, const FlowKey& flow, Instant now) = 0;
  /// `added` is now in the list.
  virtual void server_added(ServerList /*servers*/, const RealServer& /*added*/) {}
  /// `servers` is the list that still has `leaving`, at `position`.
  virtual void server_leaving(ServerList /*servers*/, std::size_t /*position*/) {}
  /// Weights, thresholds or the list itself changed; `servers` is the list as it is now.
  virtual void servers_changed(ServerList /*servers*/) {}
  /// For people: what pick() would compare of this server, in figures; empty: nothing.
  [[nodiscard]] virtual std::string standing(const RealServer& /*server*/) const { return {}; }
  /// Of a scheduler that hashes: the flow's slot.
  [[nodiscard]] virtual std::optional<std::size_t> slot_of(const FlowKey& /*flow*/) const { return {}; }
  /// Of a scheduler that hashes: whose each slot of its table is; nullptr: nobody's. Empty: it has no such table.
  [[nodiscard]] virtual std::vector<const RealServer*> slots() const { return {}; }
  /// Before the first pick, and whenever a knob was turned; `servers` is the list as it is.
  virtual void tuned(const Tunables& /*tunables*/, ServerList /*servers*/) {}
};

/// A scheduler by its ipvsadm name ("rr", "wlc", ...); nullptr if there is none.
[[nodiscard]] std::unique_ptr<Scheduler> make_scheduler(std::string_view name, SchedulerFlags flags);
/// Whether make_scheduler knows the name.
[[nodiscard]] bool scheduler_exists(std::string_view name);
/// All names, in the order of schedulers.def.
[[nodiscard]] std::span<const std::string_view> scheduler_names();
/// Whom it takes, and why not another usable one, in a few words. REQUIRES: scheduler_exists.
struct SchedulerWords {
  std::string_view takes;
  std::string_view passes_over;
};
[[nodiscard]] SchedulerWords words_of_scheduler(std::string_view name);

}  // namespace director
