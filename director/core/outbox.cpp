// The outbox's buffers: grown when needed, kept for the next batch.
#include "director/core/outbox.h"

namespace director {

Outbox::Entry& Outbox::add_entry(std::size_t size, DeviceId egress) {
  if (used_ == entries_.size()) {
    entries_.emplace_back();
    buffers_.emplace_back();
    capacities_.push_back(0);
  }
  const std::size_t needed = kHeadroom + size;
  if (capacities_[used_] < needed) {
    const std::size_t capacity = needed <= 2048 ? 2048 : needed;
    buffers_[used_] = std::make_unique<std::byte[]>(capacity);
    capacities_[used_] = capacity;
  }
  Entry& entry = entries_[used_];
  entry.egress = egress;
  entry.frame = Frame{};
  entry.frame.storage = {buffers_[used_].get(), capacities_[used_]};
  entry.frame.start = kHeadroom;
  ++used_;
  return entry;
}

}  // namespace director
