// VS/DR: the real server is on the link and has the virtual address itself; only the MAC address changes.
#pragma once

namespace director {

/// Recipe of a direct connection: nothing of its own, the hop's seal does it all.
struct Direct {};

}  // namespace director
