// The in-memory device: two queues and an eventfd.
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstring>

#include "director/io/memory_device.h"

namespace director {

MemoryDevice::MemoryDevice(const DeviceContext& context)
    : context_(context), event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

MemoryDevice::~MemoryDevice() {
  close(event_);
}

void MemoryDevice::push(std::span<const std::byte> bytes, const Offload& offload) {
  received_.push_back({{bytes.begin(), bytes.end()}, offload});
  eventfd_write(event_, 1);
}

std::vector<MemoryDevice::Record> MemoryDevice::take_sent() {
  return std::exchange(sent_, {});
}

void MemoryDevice::receive(FrameBatch& batch) {
  for (std::size_t i = 0; i < FrameBatch::kSize && !received_.empty(); ++i) {
    const Record record = std::move(received_.front());
    received_.pop_front();
    Frame& frame = batch.open(i);
    if (record.bytes.size() > frame.tailroom()) {
      context_.counters->count(Reason::receive_error);
      continue;
    }
    frame.resize(record.bytes.size());
    std::memcpy(frame.bytes().data(), record.bytes.data(), record.bytes.size());
    frame.ingress = context_.id;
    frame.offload = record.offload;
    batch.keep(i);
  }
  if (received_.empty()) {
    eventfd_t ignored = 0;
    eventfd_read(event_, &ignored);
  }
}

void MemoryDevice::transmit(std::span<Frame* const> frames) {
  for (const Frame* frame : frames) {
    const auto bytes = frame->bytes();
    sent_.push_back({{bytes.begin(), bytes.end()}, frame->offload});
  }
}

}  // namespace director
