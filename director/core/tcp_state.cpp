// The TCP table of LVS, with names and time-outs.
#include "director/core/tcp_state.h"

#include "director/net/headers.h"

namespace director {
namespace {

constexpr std::size_t kTcpStates = static_cast<std::size_t>(State::udp);  // the TCP states come first
using Row = std::array<State, kTcpStates>;
using Block = std::array<Row, 4>;  // syn, fin, ack, rst

constexpr State ES = State::established, SS = State::syn_sent, SR = State::syn_recv,
                FW = State::fin_wait, TW = State::time_wait, CL = State::close, CW = State::close_wait,
                LA = State::last_ack, LI = State::listen, SA = State::synack;

// ip_vs_proto_tcp.c, tcp_states. Columns: NO ES SS SR FW TW CL CW LA LI SA.
constexpr std::array<Block, 3> kNormal{{
    {{// from the client
      /*syn*/ {SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR},
      /*fin*/ {CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW},
      /*ack*/ {ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES},
      /*rst*/ {CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR}}},
    {{// from the real server
      /*syn*/ {SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR},
      /*fin*/ {TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW},
      /*ack*/ {ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES},
      /*rst*/ {CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL}}},
    {{// from the client, where the real server's segments are never seen
      /*syn*/ {SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR},
      /*fin*/ {CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW},
      /*ack*/ {ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES},
      /*rst*/ {CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL}}},
}};

// ip_vs_proto_tcp.c, tcp_states_dos: established only when the server has really answered.
constexpr std::array<Block, 3> kSecure{{
    {{/*syn*/ {SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA},
      /*fin*/ {CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA},
      /*ack*/ {ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA},
      /*rst*/ {CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL}}},
    {{/*syn*/ {SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA},
      /*fin*/ {TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW},
      /*ack*/ {ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES},
      /*rst*/ {CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL}}},
    {{/*syn*/ {SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA},
      /*fin*/ {CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW},
      /*ack*/ {ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES},
      /*rst*/ {CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL}}},
}};

constexpr std::array<std::string_view, kStateCount> kNames{
    "NONE",  "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT",
    "CLOSE", "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "SYNACK",   "UDP",
    "INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE", "C-ECHOED", "ESTABLISHED", "S-SENT", "S-RECEIVED",
    "S-ACK-SENT", "REJECTED", "CLOSED"};

}  // namespace

std::string_view name_of(State s) { return kNames[static_cast<std::size_t>(s)]; }

bool is_active(State s) {
  return s == State::established || s == State::syn_sent || s == State::syn_recv || s == State::synack ||
         s == State::sctp_established;
}

State next_tcp_state(TcpTable table, State now, std::uint8_t tcp_flags, Direction direction,
                     Visibility visibility) {
  std::size_t row = 0;
  if ((tcp_flags & TcpHeader::kRst) != 0) {
    row = 3;
  } else if ((tcp_flags & TcpHeader::kSyn) != 0) {
    row = 0;
  } else if ((tcp_flags & TcpHeader::kFin) != 0) {
    row = 1;
  } else if ((tcp_flags & TcpHeader::kAck) != 0) {
    row = 2;
  } else {
    return State::close;  // a segment that says nothing
  }
  const std::size_t block = direction == Direction::reply ? 1 : visibility == Visibility::both ? 0 : 2;
  const auto& blocks = table == TcpTable::secure ? kSecure : kNormal;
  return blocks[block][row][static_cast<std::size_t>(now)];
}

Timeouts::Timeouts() {  // ip_vs_proto_tcp.c, tcp_timeouts; ip_vs_proto_udp.c, udp_timeouts; ip_vs_proto_sctp.c
  by_state = {2s, 15min, 2min, 1min, 2min, 2min, 10s, 60s, 30s, 2min, 120s, 5min,
              4s, 61s, 61s, 61s, 61s, 61s, 61s, 15min, 61s, 61s, 61s, 4s, 61s};
}

}  // namespace director
