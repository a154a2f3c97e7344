// Privileges: what the process keeps once everything is open.
#pragma once

namespace director {

/// Keeps CAP_NET_ADMIN and CAP_NET_RAW (to follow an interface that comes back, and to change the guard) and
/// gives up every other capability, for good. Without privileges to give up it does nothing.
void drop_privileges();

}  // namespace director
