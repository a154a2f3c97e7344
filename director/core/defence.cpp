// Defences against floods: room for a new connection in a full table, and the kernel's drop_entry, drop_packet and secure_tcp.
// Source: ip_vs_ctl.c, update_defense_level; ip_vs_conn.c, ip_vs_random_dropentry; ip_vs_core.c.
#include <algorithm>

#include "director/core/balancer.h"

namespace director {
namespace {

constexpr Duration kLookEvery = 1s;  // DEFENSE_TIMER_PERIOD

}  // namespace

/// The kernel's knobs speak of pages of free memory; here it is the connection table that may run out.
std::int64_t Balancer::free_pages() const {
  constexpr std::size_t kPage = 4096;
  const std::size_t most = connections_.most();
  const std::size_t room = most > connections_.size() ? most - connections_.size() : 0;
  return static_cast<std::int64_t>(room * sizeof(Connection) / kPage);
}

/// A place for a new connection in a full table: of those that were never answered one goes, the longest there first, more or less.
/// Established connections stay. The search is bounded: a flood can't make it long, and finds its own connections.
bool Balancer::make_room(Instant now) {
  if (options_.policy == Policy::kernel) return false;
  Connection* const victim = connections_.next_young();
  if (victim == nullptr) return false;
  counters_.count(Reason::made_room);
  force_out(*victim, now);
  return true;
}

/// Ends a connection before its time, and its template if nothing holds that any more.
void Balancer::force_out(Connection& c, Instant now) {
  Connection* const model =
      c.affinity && !c.is_template ? templates_[c.affinity].connection : nullptr;
  close(c, now);
  if (model == nullptr) return;
  const TemplateTable::Row& row = templates_[model->affinity];
  if (row.made == 0 && !row.assured) close(*model, now);
}

/// Once a second while a knob asks for it. Modes 1 and 2 are the kernel's "automatic", off and on; it turns them itself.
void Balancer::defend(Instant now) {
  const std::int64_t available = free_pages();
  const bool is_short = available < tunables_.amemthresh;
  const auto turn = [&](std::int64_t& mode) {
    if (mode == 1 && is_short) mode = 2;
    else if (mode == 2 && !is_short) mode = 1;
  };
  turn(tunables_.drop_entry);
  turn(tunables_.drop_packet);
  turn(tunables_.secure_tcp);
  if (tunables_.drop_packet == 2) drop_rate_ = tunables_.amemthresh / std::max<std::int64_t>(1, tunables_.amemthresh - available);
  if (tunables_.drop_entry >= 2) drop_entries(now);
  const bool watches = tunables_.drop_entry != 0 || tunables_.drop_packet == 1 || tunables_.drop_packet == 2 ||
                       tunables_.secure_tcp == 1 || tunables_.secure_tcp == 2;
  next_defence_ = watches ? now + kLookEvery : kNever;
}

/// A thirty-second part of the table each second: half-open connections go, and of the quiet ones some.
void Balancer::drop_entries(Instant now) {
  const std::size_t share = connections_.row_count() / 32 + 1;
  for (std::size_t i = 0; i < share; ++i)
    if (Connection* c = connections_.sweep(1, [&](const Connection& one) { return may_be_dropped(one, now); })) {
      counters_.count(Reason::made_room);
      force_out(*c, now);
    }
}

bool Balancer::may_be_dropped(const Connection& c, Instant now) {
  // Not for a minute without a packet, and few before that: one in as many as it had (todrop_entry).
  const auto has_little_to_lose = [&] {
    constexpr Duration kQuiet = 60s;
    if (connections_.deadline(c) - c.timeout() + kQuiet > now || c.in_packets == 0 || c.in_packets >= drop_countdown_.size()) return false;
    if (--drop_countdown_[c.in_packets] > 0) return false;
    drop_countdown_[c.in_packets] = c.in_packets;
    return true;
  };
  if (c.is_template) {
    const TemplateTable::Row& row = templates_[c.affinity];
    return row.made == 0 && !row.assured;
  }
  switch (c.state) {
    case State::syn_recv:
    case State::synack:
    case State::sctp_init1:
    case State::sctp_init: return true;
    case State::established:
    case State::sctp_established:
    case State::udp: return has_little_to_lose();
    default: return false;
  }
}

/// ip_vs_todrop: refuses every n-th packet that would start a connection; in an automatic mode n is smaller the less room there is.
bool Balancer::refused_by_defence() {
  const std::int64_t rate = tunables_.drop_packet == 3 ? tunables_.am_droprate : tunables_.drop_packet == 2 ? drop_rate_ : 0;
  if (rate == 0 || --until_drop_ > 0) return false;
  until_drop_ = rate;
  return true;
}

}  // namespace director
