// Who a fragment belongs to.
#include "director/core/fragment.h"

#include <algorithm>

namespace director {

std::size_t FragmentTable::KeyHash::operator()(const Key& k) const {
  std::size_t h = 0xcbf29ce484222325ULL;
  const auto mix = [&h](std::uint8_t b) { h = (h ^ b) * 0x100000001b3ULL; };
  for (const std::uint8_t b : k.source.bytes()) mix(b);
  for (const std::uint8_t b : k.target.bytes()) mix(b);
  for (unsigned shift = 0; shift < 32; shift += 8) mix(static_cast<std::uint8_t>(k.id >> shift));
  mix(static_cast<std::uint8_t>(k.protocol));
  return h;
}

Reason FragmentTable::cover(const PacketView& view, Instant now) {
  Entry& entry = entry_of(key_of(view), now);
  if (entry.given_up) return Reason::fragment_overlap;
  const Entry::Piece piece{view.fragment_offset, view.fragment_offset + view.payload_length()};
  auto behind = std::ranges::lower_bound(entry.pieces, piece.begin, {}, &Entry::Piece::begin);
  const bool again = behind != entry.pieces.end() && behind->begin == piece.begin && behind->end == piece.end;
  if (again) return Reason::none;
  if (entry.length != 0 && entry.covered == entry.length) {  // it was all there: another packet with the same ID
    entry.owner.reset();
    entry.pieces.clear();
    entry.covered = 0;
    entry.length = 0;
    behind = entry.pieces.end();
  }
  const bool overlaps = (behind != entry.pieces.end() && behind->begin < piece.end) ||
                        (behind != entry.pieces.begin() && std::prev(behind)->end > piece.begin);
  const bool other_end = !view.more_fragments && entry.length != 0 && entry.length != piece.end;
  const bool beyond_end = entry.length != 0 && piece.end > entry.length;
  const bool last_is_short = !view.more_fragments && !entry.pieces.empty() && entry.pieces.back().end > piece.end;
  if (overlaps || other_end || beyond_end || last_is_short) {
    give_up(entry);
    return Reason::fragment_overlap;
  }
  if (entry.pieces.size() >= kMostPieces) return Reason::bad_fragment;
  entry.pieces.insert(behind, piece);
  entry.covered += piece.end - piece.begin;
  if (!view.more_fragments) entry.length = piece.end;
  return Reason::none;
}

void FragmentTable::give_up(Entry& entry) {
  entry.given_up = true;
  entry.owner.reset();
  waiting_ -= entry.waiting.size();
  entry.waiting.clear();
  entry.pieces.clear();
}

std::optional<FragmentTable::Owner> FragmentTable::find(const PacketView& view) const {
  const auto it = entries_.find(key_of(view));
  return it == entries_.end() ? std::nullopt : it->second.owner;
}

std::vector<FragmentTable::Waiting> FragmentTable::learn(const PacketView& view, Instant now) {
  Entry& entry = entry_of(key_of(view), now);
  entry.owner = Owner{view.flow.source.port, view.flow.target.port, view.flow.protocol};
  waiting_ -= entry.waiting.size();
  return std::exchange(entry.waiting, {});
}

void FragmentTable::keep(const PacketView& view, const Frame& frame, Instant now) {
  while (waiting_ >= kMostWaiting) forget_oldest();
  Entry& entry = entry_of(key_of(view), now);
  const auto bytes = frame.bytes();
  entry.waiting.push_back({{bytes.begin(), bytes.end()}, frame.ingress});
  ++waiting_;
}

void FragmentTable::expire(Instant now) {
  while (!order_.empty() && order_.front().until <= now) forget_oldest();
}

FragmentTable::Entry& FragmentTable::entry_of(const Key& key, Instant now) {
  if (const auto it = entries_.find(key); it != entries_.end()) return it->second;
  if (entries_.size() >= kMostPackets) forget_oldest();
  Entry& entry = entries_[key];
  entry.serial = ++serial_;
  order_.push_back({key, entry.serial, now + kLifetime});
  return entry;
}

void FragmentTable::forget_oldest() {
  const Order oldest = order_.front();
  order_.pop_front();
  const auto it = entries_.find(oldest.key);
  if (it == entries_.end() || it->second.serial != oldest.serial) return;
  waiting_ -= it->second.waiting.size();
  entries_.erase(it);
}

}  // namespace director
