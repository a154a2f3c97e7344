// What a service does where the kernel's IPVS leaves no choice: no server, a server that goes while it has connections, time-outs.
#pragma once

#include <cstdint>
#include <vector>

#include "director/base/time.h"
#include "director/core/tcp_state.h"

namespace director {

/// Nobody can serve a new connection. by_policy: `reset` with Policy::improved, `icmp` with Policy::kernel.
enum class NoServer : std::uint8_t {
  by_policy,
  reset,  ///< TCP reset; for other protocols as icmp
  icmp,   ///< port unreachable
  drop,
};

/// The server of a connection was removed. by_policy: `reset` with Policy::improved; with Policy::kernel what expire_nodest_conn says.
enum class ServerGone : std::uint8_t {
  by_policy,
  reset,       ///< TCP: both ends get a reset with the next packet; other protocols as reschedule
  drop,        ///< in silence, until the connection times out or the server is back
  reschedule,  ///< to another server, whatever the next packet is
};

/// The server of a connection has weight 0 now.
enum class ServerQuiesced : std::uint8_t {
  keep,        ///< it goes on: what draining is made of
  reset,       ///< as ServerGone
  reschedule,  ///< as ServerGone, while there is another server
};

struct StateTimeout {
  State state = State::none;
  Duration after{};
  friend bool operator==(const StateTimeout&, const StateTimeout&) = default;
};

struct ServicePolicy {
  NoServer no_server = NoServer::by_policy;
  ServerGone server_gone = ServerGone::by_policy;
  ServerQuiesced server_quiesced = ServerQuiesced::keep;
  std::vector<StateTimeout> timeouts;  ///< in the order of the states; others have the global ones
  friend bool operator==(const ServicePolicy&, const ServicePolicy&) = default;
};

}  // namespace director
