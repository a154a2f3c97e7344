// Listings: the tables of services, real servers and connections as ipvsadm -L and -S print them.
//
// Pure: values in, text out, to the byte of ipvsadm 1.31 (trailing blanks included; scripts cut columns). Used by the command
// socket and by replay --print. Names instead of numbers come through lookups (lookups.h), never from a resolver.
#pragma once

#include <span>
#include <string>

#include "director/command_line.h"
#include "director/core/balancer.h"
#include "director/core/service.h"
#include "director/core/tcp_state.h"
#include "director/lookups.h"

namespace director {

using ServiceList = std::span<const Service* const>;

/// -L of the whole table. `table_size`: buckets of the connection table, the first line tells them.
std::string list_services(ServiceList services, std::size_t table_size, const ListStyle& style,
                          Lookups& lookups);
/// -L of one service: without the first line.
std::string list_service(const Service& service, const ListStyle& style, Lookups& lookups);
/// -Lc, in the table's order, as ipvsadm. View::persistent_connections adds two columns.
std::string list_connections(const Balancer& balancer, Instant now, const ListStyle& style, Lookups& lookups);
/// -L --timeout
std::string list_timeouts(const Timeouts& timeouts);
/// -L --classes: a rule a line, in the order they are asked.
std::string list_classes(const Classifier& classes);
/// -S. Extras::restorable: thresholds too, and time-outs that were changed, as a --set line; Extras::included: also what no ipvsadm
/// can restore, and the time-outs always.
std::string save_rules(ServiceList services, const Classifier& classes, const Timeouts& timeouts, const Save& save, Lookups& lookups);
/// -L --daemon: a line for each that runs.
std::string list_daemons(const Balancer& balancer);

/// "vsadm reasons": every counter that isn't 0, in the order packets meet them.
std::string list_reasons(const Counters& counters);
/// "vsadm tune": every knob, "name = value", and why if it has no effect.
std::string list_tunables(const Tunables& tunables);

/// The services as ipvsadm sorts them, or as they are kept.
std::vector<const Service*> in_order(ServiceList services, Order order);
/// A service's servers likewise; kept is last added first.
std::vector<const RealServer*> in_order(const Service& service, Order order);

}  // namespace director
