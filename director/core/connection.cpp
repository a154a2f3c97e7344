// The connection table: slab, linear hashing, timing wheel. connection.h has the theory.
#include "director/core/connection.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cassert>

namespace director {

ConnectionTable::ConnectionTable(std::uint64_t seed, std::size_t most) : seed_(seed), slots_(kSlots, kNone), occupied_(kSlots / 64) {
  set_most(most);
  segments_.push_back(std::make_unique_for_overwrite<std::uint32_t[]>(kSegment));  // untouched pages cost nothing
  std::fill_n(segments_[0].get(), kFirstBuckets, kNone);
}

std::uint32_t ConnectionTable::hash_of(const FlowKey& flow) const {
  const auto& [source, target, protocol] = flow;
  const std::uint64_t rest = std::uint64_t{source.port.wire.raw()} << 32U | std::uint64_t{target.port.wire.raw()} << 16U |
                             static_cast<std::uint64_t>(protocol);
  const auto hash = [&](auto words) { return static_cast<std::uint32_t>(XXH3_64bits_withSeed(&words, sizeof words, seed_)); };
  if (source.address.is_v4() && target.address.is_v4()) {
    const std::uint64_t addresses = std::uint64_t{source.address.v4_wire().raw()} << 32U | target.address.v4_wire().raw();
    return hash(std::array{addresses, rest});
  }
  const auto [s0, s1] = std::bit_cast<std::array<std::uint64_t, 2>>(source.address.bytes());
  const auto [t0, t1] = std::bit_cast<std::array<std::uint64_t, 2>>(target.address.bytes());
  return hash(std::array{s0, s1, t0, t1, rest});
}

/// What a reference is filed under.
std::uint32_t ConnectionTable::hash_of(std::uint32_t reference) const {
  const Connection& c = at(reference / 2);
  if (!c.has_reply_path) return c.chain_[1];
  return hash_of(reference % 2 == 0 ? flow(c) : reply_flow(c));
}

ConnectionTable::Found ConnectionTable::find(const FlowKey& flow, std::uint32_t hash) {
  for (Place place = bucket(bucket_of(hash)); place != kNowhere;) {
    const Connection& c = at(place / 2);
    if (is_filed(c, place, flow)) return found_at(place);
    place = c.chain_[place % 2];
  }
  return {};
}

Connection* ConnectionTable::open(const Endpoint& client, const RecipeKey& key, Instant deadline) {
  const bool has_reply_path = key.method == Method::masq;
  const std::uint32_t reply_hash = has_reply_path ? hash_of(FlowKey{key.real, client, key.protocol}) : 0;
  if (has_reply_path) fetch_bucket(reply_hash);  // that of the request was looked at just now
  Connection* const c = take_row(client, key, deadline);
  if (c == nullptr) return nullptr;
  c->has_reply_path = has_reply_path;
  link(2 * index_of(*c), hash_of(flow(*c)));
  if (has_reply_path) link(2 * index_of(*c) + 1, reply_hash);
  return c;
}

Connection* ConnectionTable::open_reply_only(const Endpoint& client, const RecipeKey& key, Instant deadline) {
  Connection* const c = take_row(client, key, deadline);
  if (c == nullptr) return nullptr;
  c->has_request_path = false;
  c->has_reply_path = true;
  link(2 * index_of(*c) + 1, hash_of(reply_flow(*c)));
  return c;
}

Connection* ConnectionTable::open_template(const Endpoint& client, const RecipeKey& key, std::uint32_t salt, Instant deadline) {
  Connection* const c = take_row(client, key, deadline);
  if (c == nullptr) return nullptr;
  c->is_template = true;
  grow_up(*c);
  link(2 * index_of(*c), template_hash_of(flow(*c), salt));
  return c;
}

void ConnectionTable::refile_template(Connection& c, const RecipeKey& key) {
  assert(c.live && c.is_template);
  unlink(2 * index_of(c));
  const RecipeId before = c.recipe;
  c.recipe = recipes_.take(key);
  recipes_.release(before);
  link(2 * index_of(c), template_hash_of(flow(c), 0));
}

Connection* ConnectionTable::take_row(const Endpoint& client, const RecipeKey& key, Instant deadline) {
  if (size_ >= most_) return nullptr;
  std::uint32_t index = free_;
  if (index != kNone) {
    free_ = at(index).chain_[0];
    if (free_ != kNone) fetch_row(2 * free_);  // for the next that is opened
  } else {
    if (used_ == chunks_.size() * kRows) {
      chunks_.push_back(std::make_unique_for_overwrite<Chunk>());
      chunks_.back()->first = used_;
      chunks_.back()->young.fill(0);
    }
    index = used_++;
  }
  // Deadlines are known by their distance from the wheel's hand, which stands still while there are none.
  constexpr std::uint64_t kFar = std::chrono::days{40} / kSlot;
  if (const std::uint64_t slot = slot_of(deadline); size_ == 0 && slot > due_ + kFar) due_ = slot - kFar;
  Connection& c = *std::construct_at(&at(index));
  c.client = client;
  c.recipe = recipes_.take(key);
  c.deadline_ = Ticks{static_cast<std::uint32_t>(tick_of(deadline).count())};
  c.live = true;
  const std::uint32_t row = index % kRows;
  chunk_of(c).young[row / 64] |= std::uint64_t{1} << (row % 64);
  ++size_;
  file(c);
  return &c;
}

void ConnectionTable::close(Connection& c) {
  assert(c.live);
  const std::uint32_t index = index_of(c);
  unfile(c);
  if (c.has_request_path) unlink(2 * index);
  if (c.has_reply_path) unlink(2 * index + 1);
  recipes_.release(c.recipe);
  c.live = false;
  grow_up(c);
  c.chain_[0] = free_;
  free_ = index;
  --size_;
}

void ConnectionTable::grow_up(Connection& c) {
  c.young = false;
  const std::uint32_t row = index_of(c) % kRows;
  chunk_of(c).young[row / 64] &= ~(std::uint64_t{1} << (row % 64));
}

Connection* ConnectionTable::next_young() {
  constexpr std::size_t kMostWords = 1024;  // 65536 connections: well under a microsecond
  const std::size_t words = chunks_.size() * kRows / 64;
  for (std::size_t looked = 0; looked <= std::min(kMostWords, words); ++looked) {
    if (young_hand_ >= 64 * words) young_hand_ = 0;
    if (words == 0) return nullptr;
    const std::uint64_t ahead = chunks_[young_hand_ / kRows]->young[young_hand_ % kRows / 64] >> (young_hand_ % 64);
    if (ahead != 0) {  // and on behind it: who takes its place comes last
      young_hand_ += static_cast<std::size_t>(std::countr_zero(ahead)) + 1;
      return &at(static_cast<std::uint32_t>(young_hand_ - 1));
    }
    young_hand_ = (young_hand_ / 64 + 1) * 64;
  }
  return nullptr;
}

void ConnectionTable::set_deadline(Connection& c, Instant at) {
  const Instant latest = Instant{kSlot * static_cast<std::int64_t>(due_)} + 2 * kLongestTimeout;  // what 32 bits can tell apart
  const Ticks before = c.deadline_;
  c.deadline_ = Ticks{static_cast<std::uint32_t>(tick_of(std::min(at, latest)).count())};
  if (static_cast<std::int32_t>(c.deadline_.count() - before.count()) >= 0) return;  // the wheel will see when the old slot comes up
  unfile(c);
  file(c);
}

Instant ConnectionTable::next_deadline() const {
  if (size_ == 0) return kNever;
  // From due_ on, once around; slot numbers ascend with time because nothing is filed further than kSlots ahead.
  for (std::size_t step = 0; step < kSlots;) {
    const std::size_t slot = (due_ + step) % kSlots;
    const std::uint64_t word = occupied_[slot / 64] >> (slot % 64);
    if (word != 0) {
      const std::uint64_t absolute = due_ + step + static_cast<std::uint64_t>(std::countr_zero(word));
      return Instant{kSlot * static_cast<std::int64_t>(absolute)};
    }
    step += 64 - slot % 64;
  }
  return kNever;
}

void ConnectionTable::link(std::uint32_t reference, std::uint32_t hash) {
  Connection& c = at(reference / 2);
  if (!c.has_reply_path) c.chain_[1] = hash;
  std::uint32_t& head = bucket(bucket_of(hash));
  c.chain_[reference % 2] = head;
  head = reference;
  if (++references_ > bucket_count()) split_one();
}

void ConnectionTable::unlink(std::uint32_t reference) {
  std::uint32_t* at_link = &bucket(bucket_of(hash_of(reference)));
  while (*at_link != reference) at_link = &at(*at_link / 2).chain_[*at_link % 2];
  *at_link = at(reference / 2).chain_[reference % 2];
  --references_;
}

void ConnectionTable::split_one() {
  const std::size_t added = bucket_count();
  if (added / kSegment == segments_.size()) segments_.push_back(std::make_unique_for_overwrite<std::uint32_t[]>(kSegment));
  std::uint32_t keep = kNone;
  std::uint32_t move = kNone;
  for (std::uint32_t reference = bucket(split_); reference != kNone;) {
    std::uint32_t& chain = at(reference / 2).chain_[reference % 2];
    const std::uint32_t next = chain;
    std::uint32_t& head = (hash_of(reference) & level_) != 0 ? move : keep;
    chain = head;
    head = reference;
    reference = next;
  }
  bucket(split_) = keep;
  bucket(added) = move;
  if (++split_ == level_) {
    level_ *= 2;
    split_ = 0;
  }
  // The rows that the next splits will read: buckets are split in their order, so their heads are near already.
  constexpr std::size_t kAhead = 8;
  if (split_ + kAhead >= level_) return;
  fetch_row(bucket(split_ + kAhead));
  if (const std::uint32_t first = bucket(split_ + kAhead / 2); first != kNone) fetch_row(at(first / 2).chain_[first % 2]);
}

void ConnectionTable::file(Connection& c) {
  const std::uint64_t slot = std::clamp(slot_of(deadline(c)), due_, due_ + kSlots - 1) % kSlots;
  c.wheel_previous_ = kFirst | static_cast<std::uint32_t>(slot);
  c.wheel_next_ = slots_[slot];
  const std::uint32_t index = index_of(c);
  if (c.wheel_next_ != kNone) at(c.wheel_next_).wheel_previous_ = index;
  slots_[slot] = index;
  occupied_[slot / 64] |= std::uint64_t{1} << (slot % 64);
}

void ConnectionTable::unfile(Connection& c) {
  if (c.wheel_next_ != kNone) at(c.wheel_next_).wheel_previous_ = c.wheel_previous_;
  if ((c.wheel_previous_ & kFirst) == 0) {
    at(c.wheel_previous_).wheel_next_ = c.wheel_next_;
    return;
  }
  const std::uint32_t slot = c.wheel_previous_ & ~kFirst;
  slots_[slot] = c.wheel_next_;
  if (slots_[slot] == kNone) occupied_[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
}

}  // namespace director
