// Listings as JSON: what --json prints instead of listing.h's tables. Always all there is, always numbers.
//
// Pure. Used by the control socket, and by the HTTP pages' /api.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "director/core/balancer.h"
#include "director/listing.h"
#include "director/preview.h"

namespace director {

/// {"version", "size", "services": [{..., "servers": [...]}]}, sorted as the tables are
std::string json_services(ServiceList services, std::size_t table_size, Order order);
/// {"connections": [{"protocol", "state", "expires", "client", "virtual", "real"}]}
std::string json_connections(const Balancer& balancer, Instant now);
/// {"entries", "connections": [...]}: how many there are, and of those in the table's first `rows` rows the first `most`
std::string json_some_connections(const Balancer& balancer, Instant now, std::size_t most, std::size_t rows);
/// {"timeouts": {"tcp", "tcpfin", "udp"}}, in seconds
std::string json_classes(const Classifier& classes);
std::string json_daemons(const Balancer& balancer);
std::string json_timeouts(const Timeouts& timeouts);
/// {"reasons": [{"name", "text", "fate", "count"}]}, all of them; fate: "handled", "refused" or "dropped" (fate.h)
std::string json_reasons(const Counters& counters);
/// {"tunables": [{"name", "value", "default", "least", "most", "effect"}]}; `names`: of which, empty: of all
std::string json_tunables(const Tunables& tunables, std::span<const std::string> names);
/// {"changes": [{"change", "connections", "slots", "of_slots"}]}: command lines, and what each moves (preview.h)
std::string json_changes(std::span<const std::pair<std::string, Movement>> changes);
/// {"server", "active", "inactive", "state"}, a line: draining, removed, kept or reset
std::string json_drain(std::string_view server, std::uint32_t active, std::uint32_t inactive, std::string_view state);

}  // namespace director
