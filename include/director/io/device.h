// Device: where frames come from and go to. The one seam between the core and the operating system.
//
// Virtual once per batch. A device knows nothing of services or verdicts: it hands over frames with their
// Offload state and takes frames with theirs. Its in-memory twin for tests is memory_device.h. Used by
// io/event_loop.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "director/base/id.h"
#include "director/base/result.h"
#include "director/core/change.h"
#include "director/core/counters.h"
#include "director/net/frame.h"

namespace director {

/// Storage for the frames of one receive(), used again for the next. The loop owns one and lends it to every
/// device in turn.
class FrameBatch {
 public:
  static constexpr std::size_t kSize = 64;

  FrameBatch();

  /// Empties slot `i`: a window of no length behind kHeadroom, with room for kMaxFrame bytes. REQUIRES: i <
  /// kSize.
  Frame& open(std::size_t i);
  [[nodiscard]] Frame& slot(std::size_t i) { return frames_[i]; }
  /// Slot `i` is filled and the next frame of the batch. REQUIRES: slots are kept in rising order, i >=
  /// frames().size().
  void keep(std::size_t i);

  [[nodiscard]] std::span<Frame> frames() { return std::span{frames_}.first(count_); }
  void clear() { count_ = 0; }

 private:
  std::unique_ptr<std::byte[]> storage_;
  std::array<Frame, kSize> frames_;
  std::size_t count_ = 0;
};

/// What --device says: [NAME=]KIND:ARG[,key=value...]
struct DeviceSpec {
  std::string name;       ///< for logs and commands; the interface's unless given
  std::string kind;       ///< "packet", "tap": a line of devices.def
  std::string interface;  ///< ARG
  std::vector<std::pair<std::string, std::string>> settings;

  [[nodiscard]] static Result<DeviceSpec> parse(std::string_view text);
};

/// What a device is given when it is made. REQUIRES: the counters outlive the device.
struct DeviceContext {
  DeviceId id;
  Counters* counters;  ///< where it counts what it could not receive or send
};

class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// Readable (level-triggered) while frames wait.
  [[nodiscard]] virtual int descriptor() const = 0;
  /// Fills an empty batch with what waits. Never blocks; with nothing waiting the batch stays empty.
  virtual void receive(FrameBatch& batch) = 0;
  /// Sends the frames in this order. Never blocks: what can't be sent is dropped and counted. May write into
  /// the frames (offloads it can't carry are done in software).
  virtual void transmit(std::span<Frame* const> frames) = 0;
  /// One line for the log: what it is and which offloads it carries.
  [[nodiscard]] virtual std::string describe() const = 0;

  /// What the core must know of it, as far as the device itself knows: a tap is a host of its own; of a
  /// packet device netlink tells.
  [[nodiscard]] virtual std::vector<Change> configuration() const { return {}; }
  /// Its routes, which the loop's owner joins with those of other devices into one SetRoutes.
  [[nodiscard]] virtual std::vector<Route> routes() const { return {}; }
  /// The Ethernet groups frames are wanted from, all of them (replaces what was said before): neighbour solicitations for the
  /// director's IPv6 addresses go to groups, which network cards filter.
  virtual void listen_to(const std::vector<MacAddress>& /*groups*/) {}
  /// The interface came, went or changed: `index` 0 means there is none of that name now.
  virtual void link_changed(unsigned /*index*/, bool /*up*/) {}
  /// The kernel's index of an interface the device made itself; 0: it made none.
  [[nodiscard]] virtual unsigned own_interface() const { return 0; }
  /// Receives only what this BPF socket filter keeps. False: this device can't.
  virtual bool filter(int /*program*/) { return false; }

 protected:
  Device() = default;
};

/// Opens the device a spec names. Throws StartupError with the cure when the machine lacks something.
[[nodiscard]] std::unique_ptr<Device> make_device(const DeviceSpec& spec, const DeviceContext& context);
/// What is wrong with a spec, without opening anything and without privilege.
[[nodiscard]] Result<void> check_device(const DeviceSpec& spec);

}  // namespace director
