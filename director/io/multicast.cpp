// RFC 3678: one option for both families.
#include "director/io/multicast.h"

#include <fmt/format.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace director {

Result<MulticastMembership> MulticastMembership::join(const std::string& interface, const IpAddress& group) {
  const auto failed = [&](int error) {
    return fail(fmt::format("{} can't join {}: {}", interface, format_as(group), std::strerror(error)));
  };
  UniqueFd socket{::socket(group.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (!socket) return failed(errno);
  group_req request{};
  request.gr_interface = if_nametoindex(interface.c_str());
  if (request.gr_interface == 0) return failed(errno);
  if (group.is_v4()) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    std::memcpy(&address.sin_addr, group.wire().data(), sizeof address.sin_addr);
    std::memcpy(&request.gr_group, &address, sizeof address);
  } else {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    std::memcpy(&address.sin6_addr, group.wire().data(), sizeof address.sin6_addr);
    std::memcpy(&request.gr_group, &address, sizeof address);
  }
  const int level = group.is_v4() ? IPPROTO_IP : IPPROTO_IPV6;
  if (setsockopt(socket.get(), level, MCAST_JOIN_GROUP, &request, sizeof request) != 0) return failed(errno);
  return MulticastMembership{std::move(socket)};
}

}  // namespace director
