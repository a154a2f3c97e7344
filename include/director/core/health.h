// Health checks: what is asked of a real server, how often, and what its answers have come to.
//
// The director asks as a client would, by the method of the service: to a masqueraded server's own endpoint; to the virtual address,
// through the tunnel or to the server's MAC address, of the others, so that a server without the virtual address on it fails. The
// packets are the core's own (core/health.cpp): no socket, the same with every device, and in a recording like all others.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "director/base/id.h"
#include "director/base/result.h"
#include "director/base/time.h"
#include "director/net/address.h"

namespace director {

/// --check, --inter, --fall, --rise: HAProxy's words and defaults.
struct HealthCheck {
  enum class Kind : std::uint8_t {
    tcp,   ///< the server accepts a connection
    http,  ///< and answers a GET with a status from 200 to 399
  };
  Kind kind = Kind::tcp;
  Port port;                ///< 0: the one packets are sent to
  std::string path;         ///< of http, with its "/"
  Duration interval = 2s;   ///< from one question to the next; also how long an answer may take
  std::uint32_t fall = 3;   ///< so many failures in a row take the server out
  std::uint32_t rise = 2;   ///< so many answers in a row bring it back
  friend bool operator==(const HealthCheck&, const HealthCheck&) = default;
};

/// "tcp", "tcp:8080", "http:/health", "http:8080/health". The error says what is expected.
[[nodiscard]] Result<HealthCheck> parse_check(std::string_view text);
/// The same, written.
[[nodiscard]] std::string check_text(const HealthCheck& check);

/// One server's standing. It is well until it has failed: a director that starts knows nothing against anybody.
struct Health {
  enum class Stage : std::uint8_t { resting, connecting, asking };

  bool failed = false;
  std::uint32_t streak = 0;  ///< results in a row that speak against `failed`
  std::string says;          ///< what came of the last check, for people; empty: there was none yet
  std::uint64_t passes = 0, failures = 0;  ///< checks

  // The check under way, or the next one.
  Stage stage = Stage::resting;
  Instant next{};  ///< resting: when it is asked again; else: when it is too late for an answer
  Endpoint self, asked;
  std::uint32_t sequence = 0;  ///< of the next byte we send
  std::uint32_t expected = 0;  ///< asking: of the next byte we get

  /// Takes a result; whether the verdict has turned.
  bool take(bool passed, const HealthCheck& check) {
    ++(passed ? passes : failures);
    if (passed != failed) {
      streak = 0;
      return false;
    }
    if (++streak < (passed ? check.rise : check.fall)) return false;
    failed = !passed;
    streak = 0;
    return true;
  }
};

/// Checks come from these ports: outside of what a host takes for its own connections (net.ipv4.ip_local_port_range).
struct CheckPorts {
  static constexpr std::uint16_t kFirst = 61000;
  static constexpr std::uint16_t kCount = 4000;
  static constexpr std::uint16_t kLast = kFirst + kCount - 1;
  [[nodiscard]] static constexpr bool contains(Port port) { return port.host() >= kFirst && port.host() <= kLast; }
};

/// When whom to ask, and who was asked from which port.
struct HealthSchedule {
  using Due = std::pair<Instant, std::uint32_t>;  // and a row of the servers; what its Health doesn't say any more is void
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due;
  std::array<RealId, CheckPorts::kCount> asked{};
  std::uint16_t next_port = 0;     ///< counted from kFirst
  std::uint64_t turns = 0;         ///< verdicts that turned

  /// The port for this server's check, until asked[] forgets it; nothing: all are taken.
  std::optional<Port> take_port(RealId server) {
    for (std::uint16_t tried = 0; tried < CheckPorts::kCount; ++tried) {
      const std::uint16_t place = std::exchange(next_port, static_cast<std::uint16_t>((next_port + 1) % CheckPorts::kCount));
      if (asked[place]) continue;
      asked[place] = server;
      return Port::of(static_cast<std::uint16_t>(CheckPorts::kFirst + place));
    }
    return {};
  }
};

}  // namespace director
