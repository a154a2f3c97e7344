// Outbox: frames the core makes itself and that don't fit the frame in hand: segments and fragments cut for a tunnel, ARP
// requests, announcements, a second reset, frames that waited for a MAC address.
//
// The core adds, the loop transmits and then clears. Buffers are kept and used again: after warm-up nothing is allocated.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "director/net/frame.h"

namespace director {

class Outbox {
 public:
  struct Entry {
    Frame frame;
    DeviceId egress;  ///< none: thought better of, to be skipped
  };

  /// A new empty frame with headroom in front and room for `size` bytes, to leave by `egress`. Valid until clear().
  Frame& add(std::size_t size, DeviceId egress) { return add_entry(size, egress).frame; }
  Entry& add_entry(std::size_t size, DeviceId egress);

  [[nodiscard]] std::size_t size() const { return used_; }
  [[nodiscard]] Entry& operator[](std::size_t i) { return entries_[i]; }
  void clear() { used_ = 0; }

 private:
  std::deque<Entry> entries_;  // addresses stay; the first used_ are in use
  std::vector<std::unique_ptr<std::byte[]>> buffers_;
  std::vector<std::size_t> capacities_;
  std::size_t used_ = 0;
};

}  // namespace director
