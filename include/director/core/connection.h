// ConnectionTable: every connection, found by the flow of either direction, ended when its time is up.
//
// Theory of operation. Connections live in chunks of a slab, so they never move and an index of 32 bits names them. A hash table
// of indexes finds them: NAT connections stand in it twice, by the client's flow and by the real server's; tunnel and direct ones
// once, as their replies are never seen. The table grows by *linear hashing* (Litwin, 1980): each insertion splits at most one
// bucket, so there is never a stall, whatever the size. Ends are kept on a *timing wheel* of 1/8 s slots. A packet only writes the
// connection's new deadline; the wheel looks at it when the old slot comes up and moves the connection on. Only a deadline that comes
// nearer moves it at once. So time-outs may differ by state, by service and over time, and a packet costs no list work.
//
// Invariants: a live connection is on the wheel exactly once, in a slot not later than its deadline (rounded up to a slot);
// it is in the hash once per direction it has a path for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "director/base/id.h"
#include "director/base/time.h"
#include "director/core/forwarder.h"
#include "director/core/tcp_state.h"
#include "director/net/address.h"

namespace director {

/// A connection, or a *template* of persistence (core/persistence.h): then the client is a network with port 0, and no packet is ever
/// found to belong to it.
struct Connection {
  FlowKey flow;                 ///< as the client sends: client -> virtual service
  State state = State::none;
  bool has_reply_path = false;  ///< NAT: found by the real server's flow too
  bool has_request_path = true;  ///< false: only remembers whom a one-packet service's answer goes to
  bool is_template = false;
  bool young = true;            ///< nobody has answered yet: the first to go when the table is full
  bool input_only = false;      ///< replies have not been seen (yet): which block of the TCP table applies
  bool live = false;
  Endpoint real;                ///< where its packets go
  RealId server;
  TemplateId affinity;          ///< the template's row: its own, or that of the one this connection was made by
  std::uint32_t in_packets = 0;  ///< from the client
  Instant deadline{};
  Duration timeout{};           ///< what the deadline was set by
  Forwarder request;            ///< from the client
  Forwarder reply;              ///< from the real server; with has_reply_path
  // What other directors were told of it (core/sync.h).
  State told_state = State::none;
  std::uint8_t told_again = 0;       ///< times, within sync_refresh_period
  bool from_sync = false;            ///< another director told us
  Instant told_until{};              ///< the deadline that was told last
  // Where replies go, remembered; true while reply_generation is the network's.
  HopId reply_hop;
  std::uint32_t reply_mtu = 0;
  std::uint32_t reply_generation = 0;
  // Shortcuts: how many packets have walked, and which directions have one; true while shortcut_epoch is the balancer's.
  std::uint8_t walked = 0;
  bool shortcut[2] = {};
  std::uint16_t shortcut_epoch = 0;

  [[nodiscard]] FlowKey reply_flow() const { return {real, flow.source, flow.protocol}; }
  /// Of its flow, keyed: what no outsider can predict and all packets of the flow share.
  [[nodiscard]] std::uint32_t hash() const { return hash_[0]; }
  [[nodiscard]] Visibility visibility() const { return input_only ? Visibility::input_only : Visibility::both; }

 private:
  friend class ConnectionTable;
  std::uint32_t index_ = 0;
  std::uint32_t hash_[2] = {};
  std::uint32_t chain_[2] = {};  // next reference in the bucket, per direction
  std::uint32_t wheel_next_ = 0;
  std::uint32_t wheel_previous_ = 0;
  std::uint64_t slot_ = 0;       // absolute slot number it is filed under
};

/// What becomes of a connection whose deadline has come.
enum class Ending : std::uint8_t { due, postponed };

/// What floods are made of: no answer yet, or (UDP) nothing said but once.
[[nodiscard]] inline bool is_unanswered(const Connection& c) {
  switch (c.state) {
    case State::none:
    case State::syn_sent:
    case State::syn_recv:
    case State::synack:
    case State::sctp_init1:
    case State::sctp_init: return true;
    case State::udp: return c.in_packets <= 1;
    default: return false;
  }
}

class ConnectionTable {
 public:
  ConnectionTable(std::uint64_t seed, std::size_t most);

  struct Found {
    Connection* connection = nullptr;
    Direction direction = Direction::request;
    explicit operator bool() const { return connection != nullptr; }
  };
  /// The connection this packet belongs to. It may be past its deadline, if expire() has not come by yet.
  [[nodiscard]] Found find(const FlowKey& flow);
  /// A new connection, filed under flow (and real -> client when has_reply_path), or nullptr: the table is full.
  /// REQUIRES: not in the table yet.
  Connection* open(const FlowKey& flow, const Endpoint& real, bool has_reply_path, Instant deadline);
  /// The same, filed under real -> client alone. REQUIRES: no connection has that reply flow.
  Connection* open_reply_only(const FlowKey& flow, const Endpoint& real, Instant deadline);
  /// A template; `salt` tells apart those of one flow (a hash of a Call-ID). REQUIRES: not in the table yet.
  Connection* open_template(const FlowKey& flow, std::uint32_t salt, const Endpoint& real, Instant deadline);
  /// The template of that flow and salt for which `match` is true.
  template <typename Match>
  [[nodiscard]] Connection* find_template(const FlowKey& flow, std::uint32_t salt, Match match);
  /// Files a template under another flow. REQUIRES: live, is_template.
  void refile_template(Connection& c, const FlowKey& flow);
  /// REQUIRES: live.
  void close(Connection& connection);
  /// Sets a new deadline.
  void set_deadline(Connection& connection, Instant deadline);

  /// Closes what is due, at most `budget` of the wheel's entries a call, if `ending` says so; else it has set a later deadline.
  /// Returns how many ended.
  template <typename Judge>
  std::size_t expire(Instant now, std::size_t budget, Judge ending);
  /// When expire() may have something to do; kNever: the table is empty.
  [[nodiscard]] Instant next_deadline() const;

  template <typename Visit>
  void for_each(Visit visit) {
    for (std::uint32_t i = 0; i < used_; ++i)
      if (Connection& c = at(i); c.live) visit(c);
  }
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::uint32_t i = 0; i < used_; ++i)
      if (const Connection& c = at(i); c.live) visit(c);
  }

  /// Looks at the next `count` rows, around and around, for a connection that pleases; nullptr: none of them.
  template <typename Match>
  [[nodiscard]] Connection* sweep(std::size_t count, Match match) {
    for (; count > 0 && used_ > 0; --count) {
      if (hand_ >= used_) hand_ = 0;
      if (Connection& c = at(hand_++); c.live && match(c)) return &c;
    }
    return nullptr;
  }

  /// The connection got its answer. REQUIRES: live.
  void grow_up(Connection& c);
  /// A young connection, of those the one that was met longest ago, more or less; nullptr: none in the part of the table that is
  /// looked at, which is bounded. Templates are never young.
  [[nodiscard]] Connection* next_young();

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t row_count() const { return used_; }
  [[nodiscard]] std::size_t most() const { return most_; }
  void set_most(std::size_t most) { most_ = std::min<std::size_t>(most, UINT32_MAX / 2 - 1); }
  [[nodiscard]] std::size_t bucket_count() const { return level_ + split_; }
  static constexpr Duration kSlot = std::chrono::milliseconds(125);

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  static constexpr std::uint32_t kChunk = 4096;  // connections a chunk, and buckets a segment
  static constexpr std::size_t kSlots = 8192;    // 1024 s: past every default time-out

  [[nodiscard]] Connection& at(std::uint32_t index) { return chunks_[index / kChunk][index % kChunk]; }
  [[nodiscard]] const Connection& at(std::uint32_t index) const { return chunks_[index / kChunk][index % kChunk]; }
  [[nodiscard]] std::uint32_t& bucket(std::size_t i) { return segments_[i / kChunk][i % kChunk]; }
  [[nodiscard]] std::size_t bucket_of(std::uint32_t hash) const {
    const std::size_t low = hash & (level_ - 1);
    return low < split_ ? hash & (2 * level_ - 1) : low;
  }
  [[nodiscard]] std::uint32_t hash_of(const FlowKey& flow) const;
  [[nodiscard]] std::uint32_t template_hash_of(const FlowKey& flow, std::uint32_t salt) const {
    return ~hash_of(flow) ^ salt;  // not where the packets' flows are
  }
  Connection* take_row(const FlowKey& flow, const Endpoint& real, Instant deadline);
  void link(std::uint32_t reference, std::uint32_t hash);
  void unlink(std::uint32_t reference);
  void split_one();
  void file(Connection& c);
  void unfile(Connection& c);
  [[nodiscard]] static std::uint64_t slot_of(Instant t) {  // rounded up: never early
    return static_cast<std::uint64_t>((t.time_since_epoch() + kSlot - Duration{1}) / kSlot);
  }

  std::uint64_t seed_;
  std::size_t most_;
  std::vector<std::unique_ptr<Connection[]>> chunks_;
  std::uint32_t used_ = 0;              // indexes ever given out
  std::vector<std::uint32_t> free_;
  std::size_t size_ = 0;
  std::uint32_t hand_ = 0;              // where sweep() goes on
  std::vector<std::uint64_t> young_;    // a bit a row
  std::size_t young_hand_ = 0;          // the row where next_young() goes on
  std::vector<std::unique_ptr<std::uint32_t[]>> segments_;  // heads of bucket chains: references, 2 * index + direction
  std::size_t level_ = kChunk;          // buckets at the start of this round of splitting
  std::size_t split_ = 0;               // the next bucket to split
  std::size_t references_ = 0;
  std::vector<std::uint32_t> slots_;    // heads of the wheel's lists
  std::vector<std::uint64_t> occupied_;  // a bit a slot
  std::uint64_t due_ = 0;               // absolute number of the next slot to look at
};

template <typename Match>
Connection* ConnectionTable::find_template(const FlowKey& flow, std::uint32_t salt, Match match) {
  const std::uint32_t hash = template_hash_of(flow, salt);
  for (std::uint32_t reference = bucket(bucket_of(hash)); reference != kNone;) {
    Connection& c = at(reference / 2);
    const std::uint32_t direction = reference % 2;
    if (direction == 0 && c.hash_[0] == hash && c.is_template && c.flow == flow && match(c)) return &c;
    reference = c.chain_[direction];
  }
  return nullptr;
}

template <typename Judge>
std::size_t ConnectionTable::expire(Instant now, std::size_t budget, Judge ending) {
  const auto present = static_cast<std::uint64_t>(now.time_since_epoch() / kSlot);
  if (size_ == 0) {
    due_ = present;
    return 0;
  }
  if (present >= due_ + kSlots) due_ = present - kSlots + 1;  // every slot once is enough
  std::size_t ended = 0;
  while (due_ <= present) {
    std::uint32_t index = slots_[due_ % kSlots];
    while (index != kNone) {
      if (budget-- == 0) return ended;  // this slot goes on at the next call
      Connection& c = at(index);
      const std::uint32_t next = c.wheel_next_;
      if (c.deadline <= now && ending(c) == Ending::due) {
        close(c);
        ++ended;
      } else {  // a packet came since, or it may stay
        unfile(c);
        file(c);
      }
      index = next;
    }
    ++due_;
  }
  return ended;
}

}  // namespace director
