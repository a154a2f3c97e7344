// Sync: how directors tell each other about their connections, so that another one can take over.
//
// The words and the bytes are the kernel's (ip_vs_sync.c): a *master* multicasts UDP messages, a *backup* takes connections from them.
// A kernel director may be either. Messages are version 1, as of Linux 2.6.39; version 0 is understood too.
//
//   message   0, SyncID, length16, records8, version8 = 1, 0, 0
//   record    type8 (bit 0: IPv6), protocol8, length16, flags32, state16, three ports, mark32, seconds32, three addresses, parameters
//
// All in network order; records begin on 32 bits. Here: what a message says, as values, and back. Who is told what and when, and what is
// made of it: synchronise.cpp. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "director/base/id.h"
#include "director/base/result.h"
#include "director/base/time.h"
#include "director/core/change.h"
#include "director/core/tcp_state.h"

namespace director {

/// A connection's flags (uapi/linux/ip_vs.h).
namespace sync_flag {
inline constexpr std::uint32_t kMethod = 0x0007;     ///< 0 masq, 2 tunnel, 3 direct
inline constexpr std::uint32_t kNoOutput = 0x0080;   ///< replies have not been seen
inline constexpr std::uint32_t kInactive = 0x0100;
inline constexpr std::uint32_t kTemplate = 0x1000;
}  // namespace sync_flag

/// One connection, as it is told.
struct SyncRecord {
  FlowKey flow;  ///< client -> virtual service
  Endpoint real;
  std::uint32_t flags = 0;
  std::uint16_t state = 0;  ///< the kernel's number for the protocol
  std::uint32_t mark = 0;
  Duration timeout{};  ///< 0: not told (version 0)
  std::string engine, engine_data;  ///< of a template: "sip" and a Call-ID

  [[nodiscard]] bool is_template() const { return (flags & sync_flag::kTemplate) != 0; }
};

/// The kernel's number of a state, and back. Nothing: the protocol has no such state.
[[nodiscard]] std::uint16_t sync_state(State state);
[[nodiscard]] std::optional<State> state_of_sync(Protocol protocol, std::uint16_t number);

/// A daemon that runs; its settings have no defaults left.
struct SyncDaemon {
  StartDaemon settings;
  DeviceId device;
};

/// A message being filled.
class SyncMessage {
 public:
  explicit SyncMessage(std::uint8_t sync_id);
  /// Appends the record, unless the message would be longer than `most` bytes. The first always fits.
  [[nodiscard]] bool add(const SyncRecord& record, std::size_t most);
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] bool empty() const { return records_ == 0; }

 private:
  std::vector<std::byte> bytes_;
  std::uint8_t records_ = 0;
};

/// What backups were told of a connection last.
struct SyncTold {
  Instant until{};            ///< its deadline
  State state = State::none;
  std::uint8_t again = 0;     ///< times, within sync_refresh_period
};

/// What the balancer keeps of all this.
struct Synchronisation {
  std::optional<SyncMessage> message;  ///< waiting for more, or for its time
  Instant send_at = kNever;

  [[nodiscard]] std::optional<SyncDaemon>& daemon(SyncRole role) { return daemons_[static_cast<std::size_t>(role)]; }
  [[nodiscard]] const std::optional<SyncDaemon>& daemon(SyncRole role) const {
    return daemons_[static_cast<std::size_t>(role)];
  }
  void drop_message() {
    message.reset();
    send_at = kNever;
  }
  [[nodiscard]] SyncTold told(ConnectionId connection) const {
    const auto found = told_.find(connection.index);
    return found == told_.end() ? SyncTold{} : found->second;
  }
  void remember(ConnectionId connection, const SyncTold& told) { told_[connection.index] = told; }
  void forget(ConnectionId connection) {
    if (!told_.empty()) told_.erase(connection.index);
  }

 private:
  std::unordered_map<std::uint32_t, SyncTold> told_;  // by connection: only of those that were told of
  std::array<std::optional<SyncDaemon>, 2> daemons_;  // by role
};

struct SyncReading {
  std::uint8_t sync_id = 0;
  std::vector<SyncRecord> records;  ///< as far as the message made sense
  bool whole = true;                ///< it made sense to its end
};
/// Reads a message of any origin: every length in it is doubted.
[[nodiscard]] SyncReading read_sync_message(std::span<const std::byte> message);

}  // namespace director
