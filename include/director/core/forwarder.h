// Forwarder: what a connection does to its packets, decided once and stored with it. The list of types is the registration of the
// forwarding methods.
#pragma once

#include <variant>

#include "director/forward/direct.h"
#include "director/forward/nat.h"
#include "director/forward/tunnel.h"

namespace director {

using Forwarder = std::variant<Direct, Tunnel, Nat>;

}  // namespace director
