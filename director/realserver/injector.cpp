// Chooses the way in and makes its interface ready.
#include "director/realserver/injector.h"

#include <linux/ip.h>

#include "director/realserver/failure.h"

namespace director::realserver {

std::unique_ptr<Injector> make_injector(RtNetlink& kernel) {
  auto injector = make_tun_injector(kernel);
  if (!injector) injector = make_veth_injector(kernel);
  if (!injector) throw lacks_privilege("make the interface that tunnelled packets come out of");
  // Before it comes up: no address of its own, and packets whose way back is another interface are welcome.
  kernel.set_silent(injector->link());
  kernel.set_ipv4_conf(injector->link(), IPV4_DEVCONF_RP_FILTER, 0);
  kernel.set_up(injector->link(), true);
  return injector;
}

}  // namespace director::realserver
