// Capabilities by libcap-ng. The user id stays: in a container root is the only user who can be given
// capabilities.
#include "director/privileges.h"

#include <cap-ng.h>
#include <sys/prctl.h>

#include "director/log.h"

namespace director {

void drop_privileges() {
  const bool admin = capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN) != 0;
  const bool raw = capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_RAW) != 0;
  const bool bounds =
      capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 0;  // needed to lower the bounding set
  capng_clear(CAPNG_SELECT_BOTH);
  constexpr auto kBoth = static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED);
  if (admin) capng_update(CAPNG_ADD, kBoth, CAP_NET_ADMIN);
  if (raw) capng_update(CAPNG_ADD, kBoth, CAP_NET_RAW);
  if (capng_apply(bounds ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS) != 0)
    log::warning("privileges that aren't needed could not be given up");
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

}  // namespace director
