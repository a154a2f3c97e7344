// The SCTP state machine of LVS: rows are what a packet says (net/sctp.h, SctpEvent), columns the present state, three blocks as in
// tcp_state.h. States are as the real server sees the association.
// Source: net/netfilter/ipvs/ip_vs_proto_sctp.c (sctp_states, sctp_timeouts).
#pragma once

#include "director/core/tcp_state.h"
#include "director/net/sctp.h"

namespace director {

/// The state after a packet that says this.
[[nodiscard]] State next_sctp_state(State now, SctpEvent event, Direction direction, Visibility visibility);

}  // namespace director
