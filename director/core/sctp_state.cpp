// The SCTP table of LVS.
#include "director/core/sctp_state.h"

#include <array>

namespace director {
namespace {

constexpr std::size_t kStates = 14;
constexpr std::size_t kEvents = static_cast<std::size_t>(SctpEvent::kCount);
using Row = std::array<State, kStates>;
using Block = std::array<Row, kEvents>;

constexpr State NO = State::none, I1 = State::sctp_init1, IN = State::sctp_init, CS = State::sctp_cookie_sent,
                CR = State::sctp_cookie_replied, CW = State::sctp_cookie_wait, CO = State::sctp_cookie,
                CE = State::sctp_cookie_echoed, ES = State::sctp_established, SS = State::sctp_shutdown_sent,
                SR = State::sctp_shutdown_received, SA = State::sctp_shutdown_ack_sent, RJ = State::sctp_rejected,
                CL = State::sctp_closed;
static_assert(static_cast<std::size_t>(CL) - static_cast<std::size_t>(I1) == kStates - 2);

std::size_t column(State s) {
  return s == NO ? 0 : static_cast<std::size_t>(s) - static_cast<std::size_t>(I1) + 1;
}

// Columns: NO I1 IN CS CR CW CO CE ES SS SR SA RJ CL.
constexpr std::array<Block, 3> kTable{{
    {{// from the client
      /*data             */ {ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*init             */ {I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN},
      /*init-ack         */ {CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*cookie-echo      */ {CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*cookie-ack       */ {ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL},
      /*shutdown         */ {SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL},
      /*shutdown-ack     */ {CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL},
      /*shutdown-complete*/ {CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL},
      /*error            */ {CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL},
      /*abort            */ {CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL}}},
    {{// from the real server
      /*data             */ {ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*init             */ {CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW},
      /*init-ack         */ {CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*cookie-echo      */ {CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL},
      /*cookie-ack       */ {ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL},
      /*shutdown         */ {SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL},
      /*shutdown-ack     */ {SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL},
      /*shutdown-complete*/ {CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*error            */ {CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*abort            */ {CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL}}},
    {{// from the client, where the real server's packets are never seen
      /*data             */ {ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*init             */ {I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN},
      /*init-ack         */ {CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*cookie-echo      */ {ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*cookie-ack       */ {ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL},
      /*shutdown         */ {SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL},
      /*shutdown-ack     */ {CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL},
      /*shutdown-complete*/ {CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL},
      /*error            */ {CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL},
      /*abort            */ {CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL}}},
}};

}  // namespace

State next_sctp_state(State now, SctpEvent event, Direction direction, Visibility visibility) {
  const std::size_t block = direction == Direction::reply ? 1 : visibility == Visibility::both ? 0 : 2;
  return kTable[block][static_cast<std::size_t>(event)][column(now)];
}

}  // namespace director
