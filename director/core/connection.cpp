// The connection table: slab, linear hashing, timing wheel. connection.h has the theory.
#include "director/core/connection.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cassert>

namespace director {

ConnectionTable::ConnectionTable(std::uint64_t seed, std::size_t most)
    : seed_(seed), most_(std::min<std::size_t>(most, UINT32_MAX / 2 - 1)), slots_(kSlots, kNone), occupied_(kSlots / 64) {
  segments_.push_back(std::make_unique<std::uint32_t[]>(kChunk));
  std::fill_n(segments_[0].get(), kChunk, kNone);
}

std::uint32_t ConnectionTable::hash_of(const FlowKey& flow) const {
  return static_cast<std::uint32_t>(XXH3_64bits_withSeed(&flow, sizeof flow, seed_));
}

ConnectionTable::Found ConnectionTable::find(const FlowKey& flow) {
  const std::uint32_t hash = hash_of(flow);
  for (std::uint32_t reference = bucket(bucket_of(hash)); reference != kNone;) {
    Connection& c = at(reference / 2);
    const std::uint32_t direction = reference % 2;
    if (c.hash_[direction] == hash && !c.is_template) {
      if (direction == 0 ? c.flow == flow : c.reply_flow() == flow)
        return {&c, direction == 0 ? Direction::request : Direction::reply};
    }
    reference = c.chain_[direction];
  }
  return {};
}

Connection* ConnectionTable::open(const FlowKey& flow, const Endpoint& real, bool has_reply_path, Instant deadline) {
  Connection* const c = take_row(flow, real, deadline);
  if (c == nullptr) return nullptr;
  c->has_reply_path = has_reply_path;
  link(2 * c->index_, hash_of(flow));
  if (has_reply_path) link(2 * c->index_ + 1, hash_of(c->reply_flow()));
  return c;
}

Connection* ConnectionTable::open_reply_only(const FlowKey& flow, const Endpoint& real, Instant deadline) {
  Connection* const c = take_row(flow, real, deadline);
  if (c == nullptr) return nullptr;
  c->has_request_path = false;
  c->has_reply_path = true;
  link(2 * c->index_ + 1, hash_of(c->reply_flow()));
  return c;
}

Connection* ConnectionTable::open_template(const FlowKey& flow, std::uint32_t salt, const Endpoint& real, Instant deadline) {
  Connection* const c = take_row(flow, real, deadline);
  if (c == nullptr) return nullptr;
  c->is_template = true;
  grow_up(*c);
  link(2 * c->index_, template_hash_of(flow, salt));
  return c;
}

void ConnectionTable::refile_template(Connection& c, const FlowKey& flow) {
  assert(c.live && c.is_template);
  unlink(2 * c.index_);
  c.flow = flow;
  link(2 * c.index_, template_hash_of(flow, 0));
}

Connection* ConnectionTable::take_row(const FlowKey& flow, const Endpoint& real, Instant deadline) {
  if (size_ >= most_) return nullptr;
  std::uint32_t index = 0;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (used_ == chunks_.size() * kChunk) {
      chunks_.push_back(std::make_unique<Connection[]>(kChunk));
      young_.resize(chunks_.size() * kChunk / 64);
    }
    index = used_++;
  }
  Connection& c = at(index);
  c = Connection{};
  c.index_ = index;
  c.flow = flow;
  c.real = real;
  c.deadline = deadline;
  c.live = true;
  young_[index / 64] |= std::uint64_t{1} << (index % 64);
  ++size_;
  file(c);
  return &c;
}

void ConnectionTable::close(Connection& c) {
  assert(c.live);
  const std::uint32_t index = c.index_;
  unfile(c);
  if (c.has_request_path) unlink(2 * index);
  if (c.has_reply_path) unlink(2 * index + 1);
  c.live = false;
  grow_up(c);
  free_.push_back(index);
  --size_;
}

void ConnectionTable::grow_up(Connection& c) {
  c.young = false;
  young_[c.index_ / 64] &= ~(std::uint64_t{1} << (c.index_ % 64));
}

Connection* ConnectionTable::next_young() {
  constexpr std::size_t kMostWords = 1024;  // 65536 connections: well under a microsecond
  for (std::size_t looked = 0; looked <= std::min(kMostWords, young_.size()); ++looked) {
    if (young_hand_ >= 64 * young_.size()) young_hand_ = 0;
    if (young_.empty()) return nullptr;
    const std::uint64_t ahead = young_[young_hand_ / 64] >> (young_hand_ % 64);
    if (ahead != 0) {  // and on behind it: who takes its place comes last
      young_hand_ += static_cast<std::size_t>(std::countr_zero(ahead)) + 1;
      return &at(static_cast<std::uint32_t>(young_hand_ - 1));
    }
    young_hand_ = (young_hand_ / 64 + 1) * 64;
  }
  return nullptr;
}

void ConnectionTable::set_deadline(Connection& c, Instant deadline) {
  c.deadline = deadline;
  if (slot_of(deadline) >= c.slot_) return;  // the wheel will see when the old slot comes up
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
  const std::uint32_t direction = reference % 2;
  c.hash_[direction] = hash;
  std::uint32_t& head = bucket(bucket_of(hash));
  c.chain_[direction] = head;
  head = reference;
  if (++references_ > bucket_count()) split_one();
}

void ConnectionTable::unlink(std::uint32_t reference) {
  Connection& c = at(reference / 2);
  const std::uint32_t direction = reference % 2;
  std::uint32_t* at_link = &bucket(bucket_of(c.hash_[direction]));
  while (*at_link != reference) at_link = &at(*at_link / 2).chain_[*at_link % 2];
  *at_link = c.chain_[direction];
  --references_;
}

void ConnectionTable::split_one() {
  const std::size_t added = bucket_count();
  if (added / kChunk == segments_.size()) segments_.push_back(std::make_unique<std::uint32_t[]>(kChunk));
  std::uint32_t keep = kNone;
  std::uint32_t move = kNone;
  for (std::uint32_t reference = bucket(split_); reference != kNone;) {
    Connection& c = at(reference / 2);
    const std::uint32_t direction = reference % 2;
    const std::uint32_t next = c.chain_[direction];
    std::uint32_t& head = (c.hash_[direction] & level_) != 0 ? move : keep;
    c.chain_[direction] = head;
    head = reference;
    reference = next;
  }
  bucket(split_) = keep;
  bucket(added) = move;
  if (++split_ == level_) {
    level_ *= 2;
    split_ = 0;
  }
}

void ConnectionTable::file(Connection& c) {
  c.slot_ = std::clamp(slot_of(c.deadline), due_, due_ + kSlots - 1);
  const std::size_t slot = c.slot_ % kSlots;
  c.wheel_previous_ = kNone;
  c.wheel_next_ = slots_[slot];
  if (c.wheel_next_ != kNone) at(c.wheel_next_).wheel_previous_ = c.index_;
  slots_[slot] = c.index_;
  occupied_[slot / 64] |= std::uint64_t{1} << (slot % 64);
}

void ConnectionTable::unfile(Connection& c) {
  const std::size_t slot = c.slot_ % kSlots;
  if (c.wheel_previous_ != kNone)
    at(c.wheel_previous_).wheel_next_ = c.wheel_next_;
  else
    slots_[slot] = c.wheel_next_;
  if (c.wheel_next_ != kNone) at(c.wheel_next_).wheel_previous_ = c.wheel_previous_;
  if (slots_[slot] == kNone) occupied_[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
}

}  // namespace director
