// Who a fragment belongs to.
#include "director/core/fragment.h"

namespace director {

std::size_t FragmentTable::KeyHash::operator()(const Key& k) const {
  std::size_t h = 0xcbf29ce484222325ULL;
  const auto mix = [&h](std::uint8_t b) { h = (h ^ b) * 0x100000001b3ULL; };
  for (const std::uint8_t b : k.source.bytes()) mix(b);
  for (const std::uint8_t b : k.target.bytes()) mix(b);
  mix(static_cast<std::uint8_t>(k.id));
  mix(static_cast<std::uint8_t>(k.id >> 8U));
  mix(static_cast<std::uint8_t>(k.protocol));
  return h;
}

std::optional<FragmentTable::Ports> FragmentTable::find(const PacketView& view) const {
  const auto it = entries_.find(key_of(view));
  return it == entries_.end() ? std::nullopt : it->second.ports;
}

std::vector<FragmentTable::Waiting> FragmentTable::learn(const PacketView& view, Instant now) {
  Entry& entry = entry_of(key_of(view), now);
  entry.ports = Ports{view.flow.source.port, view.flow.target.port};
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
