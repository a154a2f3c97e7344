// ConnectionTable: every connection, found by the flow of either direction, ended when its time is up.
//
// Theory of operation. Connections live in chunks of a slab, so they never move and an index of 32 bits names them. A hash table
// of indexes finds them: NAT connections stand in it twice, by the client's flow and by the real server's; tunnel and direct ones
// once, as their replies are never seen. The table grows by *linear hashing* (Litwin, 1980): each insertion splits at most one
// bucket, so there is never a stall, whatever the size. Ends are kept on a *timing wheel* of 1/8 s slots. A packet only writes the
// connection's new deadline; the wheel looks at it when the old slot comes up and moves the connection on. Only a deadline that comes
// nearer moves it at once. So time-outs may differ by state, by service and over time, and a packet costs no list work.
//
// What many connections share is in their *recipe* (core/recipe.h), what only some have is in tables of their own (persistence, sync):
// a row is 56 bytes, with its place in the hash table 60 (NAT: 64), in both address families.
//
// Invariants: a live connection is on the wheel exactly once, in a slot not later than its deadline (rounded up to a slot);
// it is in the hash once per direction it has a path for.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "director/base/fetch.h"
#include "director/base/id.h"
#include "director/base/time.h"
#include "director/core/recipe.h"
#include "director/core/tcp_state.h"
#include "director/net/address.h"

namespace director {

/// The time connections know: a little less than 4 ms, as the kernel's jiffies. Deadlines are told apart over 97 days.
using Ticks = std::chrono::duration<std::uint32_t, std::ratio<1, 256>>;
inline constexpr Duration kLongestTimeout = std::chrono::days{48};

/// A connection, or a *template* of persistence (core/persistence.h): then the client is a network with port 0, and no packet is ever
/// found to belong to it.
struct Connection {
  Endpoint client;                   ///< whose it is
  State state : 5 = State::none;
  bool has_reply_path : 1 = false;   ///< NAT: found by the real server's flow too
  bool has_request_path : 1 = true;  ///< false: only remembers whom a one-packet service's answer goes to
  bool is_template : 1 = false;
  bool young : 1 = true;             ///< nobody has answered yet: the first to go when the table is full
  bool input_only : 1 = false;       ///< replies have not been seen (yet): which block of the TCP table applies
  bool live : 1 = false;
  bool from_sync : 1 = false;        ///< another director told us
  bool has_request_shortcut : 1 = false;  ///< core/shortcut.h
  bool has_reply_shortcut : 1 = false;
  RecipeId recipe;
  TemplateId affinity;           ///< the template's row: its own, or that of the one this connection was made by
  std::uint32_t in_packets = 0;  ///< from the client

  /// What the deadline was set by.
  [[nodiscard]] Duration timeout() const { return timeout_; }
  void set_timeout(Duration d) { timeout_ = std::chrono::duration_cast<Ticks>(std::min(d, kLongestTimeout)); }
  [[nodiscard]] Visibility visibility() const { return input_only ? Visibility::input_only : Visibility::both; }

 private:
  friend class ConnectionTable;
  Ticks timeout_{};
  Ticks deadline_{};             // modulo 2^32
  // Next reference in the bucket, per direction. Without a reply path [1] is the hash; of a free row [0] is the next free one.
  std::uint32_t chain_[2] = {};
  std::uint32_t wheel_next_ = 0;
  std::uint32_t wheel_previous_ = 0;  // or, of the first in a slot's list, kFirst and the slot
};
static_assert(sizeof(Connection) == 56 && alignof(Connection) == 4);

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
  [[nodiscard]] Found find(const FlowKey& flow) { return find(flow, hash_of(flow)); }
  /// REQUIRES: `hash` is hash_of(flow).
  [[nodiscard]] Found find(const FlowKey& flow, std::uint32_t hash);
  /// Where a flow may be found: a row, and the direction that it is filed under there.
  using Place = std::uint32_t;
  static constexpr Place kNowhere = UINT32_MAX;
  /// The same, and looks at `place` first; what has become of the table since that was found out does no harm.
  [[nodiscard]] Found find(const FlowKey& flow, std::uint32_t hash, Place place) {
    if (place != kNowhere) {
      Connection& c = at(place / 2);
      if (c.live && (place % 2 == 0 ? c.has_request_path : c.has_reply_path) && is_filed(c, place, flow)) return found_at(place);
    }
    return find(flow, hash);
  }
  /// A look-up waits for memory: for the bucket, for its first row, and where that is another flow's for its second. These ask for each
  /// ahead, one after the other, for many flows at once; they return at once when what they read was asked for before.
  void fetch_bucket(std::uint32_t hash) const { fetch(&bucket(bucket_of(hash))); }
  [[nodiscard]] Place fetch_first(std::uint32_t hash) const {
    const Place place = bucket(bucket_of(hash));
    fetch_row(place);
    return place;
  }
  /// The likelier of a place and the next in its bucket. By arithmetic: which it is no branch could predict.
  [[nodiscard]] Place fetch_next(const FlowKey& flow, Place place) const {
    if (place == kNowhere) return place;
    const Connection& c = at(place / 2);
    const Endpoint& client = place % 2 == 0 ? flow.source : flow.target;
    const auto other = static_cast<std::uint32_t>(-static_cast<std::int32_t>(c.client != client));
    const Place likelier = place ^ ((place ^ c.chain_[place % 2]) & other);
    fetch_row(likelier);
    return likelier;
  }
  /// A new connection, filed under client -> virtual endpoint (and real -> client when masqueraded), or nullptr: the table is full.
  /// REQUIRES: not in the table yet.
  Connection* open(const Endpoint& client, const RecipeKey& key, Instant deadline);
  /// The same, filed under real -> client alone. REQUIRES: no connection has that reply flow.
  Connection* open_reply_only(const Endpoint& client, const RecipeKey& key, Instant deadline);
  /// A template; `salt` tells apart those of one flow (a hash of a Call-ID). REQUIRES: not in the table yet.
  Connection* open_template(const Endpoint& client, const RecipeKey& key, std::uint32_t salt, Instant deadline);
  /// The template of that flow and salt for which `match` is true.
  template <typename Match>
  [[nodiscard]] Connection* find_template(const FlowKey& flow, std::uint32_t salt, Match match);
  /// Files a template under another recipe. REQUIRES: live, is_template.
  void refile_template(Connection& c, const RecipeKey& key);
  /// REQUIRES: live.
  void close(Connection& connection);

  [[nodiscard]] RecipeTable& recipes() { return recipes_; }
  [[nodiscard]] const Recipe& recipe(const Connection& c) const { return recipes_[c.recipe]; }
  /// Its packets' flow, as the client sends them, and as the real server does.
  [[nodiscard]] FlowKey flow(const Connection& c) const {
    const Recipe& r = recipe(c);
    return {c.client, r.virtual_, r.protocol};
  }
  [[nodiscard]] FlowKey reply_flow(const Connection& c) const {
    const Recipe& r = recipe(c);
    return {r.real, c.client, r.protocol};
  }
  /// Of a flow, keyed: what no outsider can predict and all its packets share.
  [[nodiscard]] std::uint32_t hash_of(const FlowKey& flow) const;

  /// Sets a new deadline.
  void set_deadline(Connection& connection, Instant deadline);
  [[nodiscard]] Instant deadline(const Connection& c) const {
    const std::int64_t near = static_cast<std::int64_t>(due_) * kTicksPerSlot;
    const auto ahead = static_cast<std::int32_t>(c.deadline_.count() - static_cast<std::uint32_t>(near));
    return Instant{std::chrono::duration<std::int64_t, Ticks::period>{near + ahead}};
  }
  /// Its time is up; the clock may not have come by yet.
  [[nodiscard]] bool is_due(const Connection& c, Instant now) const { return deadline(c) <= now; }

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

  /// Visits those among the rows [first, first + count). Returns the row to go on with; 0: that was the last.
  template <typename Visit>
  std::size_t for_some(std::size_t first, std::size_t count, Visit visit) const {
    const std::size_t end = std::min<std::size_t>(used_, first + count);
    for (; first < end; ++first)
      if (const Connection& c = at(static_cast<std::uint32_t>(first)); c.live) visit(c);
    return first < used_ ? first : 0;
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

  /// The row, as a name for those who keep something beside it.
  [[nodiscard]] ConnectionId id_of(const Connection& c) const { return {index_of(c)}; }
  [[nodiscard]] Connection& operator[](ConnectionId id) { return at(id.index); }

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
  static constexpr std::uint32_t kNone = kNowhere;
  static constexpr std::size_t kHugePage = std::size_t{1} << 21U;
  static constexpr std::uint32_t kRows = 36864;          // of a chunk: what a huge page has room for, in whole words of `young`
  static constexpr std::uint32_t kSegment = 1U << 19U;   // buckets: a huge page
  static constexpr std::uint32_t kFirstBuckets = 4096;
  static constexpr std::size_t kSlots = 8192;            // 1024 s: past every default time-out
  static constexpr std::int64_t kTicksPerSlot = 32;
  static constexpr std::uint32_t kFirst = UINT32_C(1) << 31U;  // in wheel_previous_, with the slot

  /// Aligned to its size: a row's address tells its chunk, and its index needs no room. Rows begin to exist when they are first used.
  struct alignas(kHugePage) Chunk {
    std::uint32_t first;                          // index of the first row
    std::array<std::uint64_t, kRows / 64> young;  // a bit a row
    alignas(Connection) std::array<std::byte, kRows * sizeof(Connection)> rows;

    [[nodiscard]] Connection* row(std::uint32_t i) { return reinterpret_cast<Connection*>(rows.data()) + i; }  // NOLINT: made in take_row
  };
  static_assert(sizeof(Chunk) == kHugePage);

  [[nodiscard]] Connection& at(std::uint32_t index) const { return *chunks_[index / kRows]->row(index % kRows); }
  [[nodiscard]] static Chunk& chunk_of(const Connection& c) {
    return *reinterpret_cast<Chunk*>(reinterpret_cast<std::uintptr_t>(&c) & ~(kHugePage - 1));  // NOLINT: see Chunk
  }
  [[nodiscard]] static std::uint32_t index_of(const Connection& c) {
    Chunk& chunk = chunk_of(c);
    return chunk.first + static_cast<std::uint32_t>(&c - chunk.row(0));
  }
  [[nodiscard]] std::uint32_t& bucket(std::size_t i) const { return segments_[i / kSegment][i % kSegment]; }
  [[nodiscard]] std::size_t bucket_of(std::uint32_t hash) const {
    const std::size_t low = hash & (level_ - 1);
    return low < split_ ? hash & (2 * level_ - 1) : low;
  }
  [[nodiscard]] std::uint32_t template_hash_of(const FlowKey& flow, std::uint32_t salt) const {
    return ~hash_of(flow) ^ salt;  // not where the packets' flows are
  }
  [[nodiscard]] std::uint32_t hash_of(std::uint32_t reference) const;
  /// Whether the row at `place` is this flow's, if it is filed there at all.
  [[nodiscard]] bool is_filed(const Connection& c, Place place, const FlowKey& flow) const {
    const bool is_request = place % 2 == 0;
    if (c.client != (is_request ? flow.source : flow.target) || c.is_template) return false;
    const Recipe& r = recipe(c);
    return (is_request ? r.virtual_ == flow.target : r.real == flow.source) && r.protocol == flow.protocol;
  }
  [[nodiscard]] Found found_at(Place place) const {
    return {&at(place / 2), place % 2 == 0 ? Direction::request : Direction::reply};
  }
  void fetch_row(std::uint32_t reference) const {
    if (reference == kNone) return;
    const Connection& c = at(reference / 2);
    fetch(&c);
    fetch(&c.wheel_previous_);  // a row may lie across two lines
  }
  Connection* take_row(const Endpoint& client, const RecipeKey& key, Instant deadline);
  void link(std::uint32_t reference, std::uint32_t hash);
  void unlink(std::uint32_t reference);
  void split_one();
  void file(Connection& c);
  void unfile(Connection& c);
  [[nodiscard]] static std::chrono::duration<std::int64_t, Ticks::period> tick_of(Instant t) {
    return std::chrono::floor<std::chrono::duration<std::int64_t, Ticks::period>>(t.time_since_epoch());
  }
  [[nodiscard]] static std::uint64_t slot_of(Instant t) {  // rounded up: never early
    return static_cast<std::uint64_t>((t.time_since_epoch() + kSlot - Duration{1}) / kSlot);
  }

  std::uint64_t seed_;
  std::size_t most_;
  RecipeTable recipes_;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::uint32_t used_ = 0;              // indexes ever given out
  std::uint32_t free_ = kNone;          // the first free row, of those
  std::size_t size_ = 0;
  std::uint32_t hand_ = 0;              // where sweep() goes on
  std::size_t young_hand_ = 0;          // the row where next_young() goes on
  std::vector<std::unique_ptr<std::uint32_t[]>> segments_;  // heads of bucket chains: references, 2 * index + direction
  std::size_t level_ = kFirstBuckets;   // buckets at the start of this round of splitting
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
    const bool found = reference % 2 == 0 && c.is_template && c.chain_[1] == hash && c.client == flow.source && this->flow(c) == flow;
    if (found && match(c)) return &c;
    reference = c.chain_[reference % 2];
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
      if (is_due(c, now) && ending(c) == Ending::due) {
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
