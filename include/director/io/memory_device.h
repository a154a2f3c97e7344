// MemoryDevice: a Device without an operating system behind it. What a test pushes in is received, what is
// transmitted is kept for the test to look at. Not a stand-in for offloads: it carries every Offload state as
// it is.
#pragma once

#include <deque>
#include <vector>

#include "director/io/device.h"

namespace director {

class MemoryDevice final : public Device {
 public:
  struct Record {
    std::vector<std::byte> bytes;
    Offload offload;
  };

  explicit MemoryDevice(const DeviceContext& context);
  ~MemoryDevice() override;

  /// Puts a frame into the receive queue; descriptor() becomes readable.
  void push(std::span<const std::byte> bytes, const Offload& offload = {});
  /// Everything transmitted since the last call, in order.
  [[nodiscard]] std::vector<Record> take_sent();

  [[nodiscard]] int descriptor() const override { return event_; }
  void receive(FrameBatch& batch) override;
  void transmit(std::span<Frame* const> frames) override;
  [[nodiscard]] std::string describe() const override { return "memory"; }

 private:
  DeviceContext context_;
  int event_;  // an eventfd: readable while received_ isn't empty
  std::deque<Record> received_;
  std::vector<Record> sent_;
};

}  // namespace director
