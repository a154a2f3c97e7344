// The TCP state machine of LVS: a table, not a guess at what TCP would do.
//
// Rows are what a segment says (the first that is true of RST, SYN, FIN, ACK), columns the present state, three blocks: segments from
// the client, from the server, and from the client where the server's are never seen ("input only": tunnel and direct).
// Source: net/netfilter/ipvs/ip_vs_proto_tcp.c (tcp_states, tcp_states_dos, tcp_timeouts).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "director/base/time.h"

namespace director {

/// States of a connection, TCP's, UDP's single one and SCTP's, each in the kernel's order.
enum class State : std::uint8_t {
  none,
  established,
  syn_sent,
  syn_recv,
  fin_wait,
  time_wait,
  close,
  close_wait,
  last_ack,
  listen,
  synack,
  udp,
  sctp_init1,  // SCTP begins in none, too (sctp_state.h)
  sctp_init,
  sctp_cookie_sent,
  sctp_cookie_replied,
  sctp_cookie_wait,
  sctp_cookie,
  sctp_cookie_echoed,
  sctp_established,
  sctp_shutdown_sent,
  sctp_shutdown_received,
  sctp_shutdown_ack_sent,
  sctp_rejected,
  sctp_closed,
  kCount,
};
inline constexpr std::size_t kStateCount = static_cast<std::size_t>(State::kCount);

/// As ipvsadm -Lnc prints it: "ESTABLISHED".
[[nodiscard]] std::string_view name_of(State s);
/// Counts as active in the schedulers and listings; everything else, UDP among it, as inactive.
[[nodiscard]] bool is_active(State s);

enum class Direction : std::uint8_t { request, reply };  ///< from the client, from the real server

/// Which block of the table applies to a client's segment.
enum class Visibility : std::uint8_t {
  both,        ///< replies pass the director (NAT)
  input_only,  ///< they don't (tunnel, direct)
};
/// `secure` is the table of net.ipv4.vs.secure_tcp.
enum class TcpTable : std::uint8_t { normal, secure };

/// The state after a segment with these flags.
[[nodiscard]] State next_tcp_state(TcpTable table, State now, std::uint8_t tcp_flags, Direction direction,
                                   Visibility visibility);

/// How long a connection lives after its last packet, by state; ipvsadm --set changes three of them.
struct Timeouts {
  std::array<Duration, kStateCount> by_state;

  Timeouts();
  [[nodiscard]] Duration operator[](State s) const { return by_state[static_cast<std::size_t>(s)]; }
  [[nodiscard]] Duration& operator[](State s) { return by_state[static_cast<std::size_t>(s)]; }
};

}  // namespace director
