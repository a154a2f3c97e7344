// The kernel's links, addresses and routes, asked and changed by rtnetlink (libmnl): blocking requests for a
// program that runs once. The director follows the kernel with director/control/netlink.h instead.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "director/net/address.h"

struct mnl_socket;
struct nlmsghdr;

namespace director::realserver {

using LinkId = int;  ///< the kernel's interface index

struct Link {
  LinkId id = 0;
  std::string name;
  std::string kind;  ///< "veth", "ipip", ...; empty for hardware and lo
  MacAddress mac;
  std::uint32_t mtu = 0;
  bool up = false;
  bool ethernet = false;  ///< has MAC addresses and answers ARP
  bool enslaved = false;  ///< port of a bridge or bond: its master has the addresses
};

struct LinkAddress {
  LinkId link = 0;
  Prefix prefix;
  bool link_local = false;
};

/// How the kernel would send to an address.
struct Route {
  LinkId link = 0;
  std::optional<IpAddress> gateway;
};

class RtNetlink {
 public:
  RtNetlink();  ///< of the network namespace the caller is in
  ~RtNetlink();
  RtNetlink(const RtNetlink&) = delete;
  RtNetlink& operator=(const RtNetlink&) = delete;

  // Questions. They throw std::system_error if the kernel refuses.
  [[nodiscard]] std::vector<Link> links();
  [[nodiscard]] std::optional<Link> link(std::string_view name);
  [[nodiscard]] std::vector<LinkAddress> addresses();
  /// The IPv6 addresses this host answers neighbour solicitations for in somebody else's name, as /128 on the
  /// link where it does (`ip -6 neigh show proxy`).
  [[nodiscard]] std::vector<LinkAddress> proxied();
  /// None when there is no route. `source` makes it the answer for a reply from that address.
  [[nodiscard]] std::optional<Route> route_to(const IpAddress& target, const IpAddress& source);
  [[nodiscard]] std::optional<Route> default_route(Family family);

  // Changes. They throw std::system_error with the kernel's reason.
  void add_address(LinkId link,
                   const IpAddress& host);  ///< as /32 or /128; IPv6 without DAD, never chosen as source
  void remove_address(LinkId link, const IpAddress& host);
  void set_up(LinkId link, bool up);
  /// An interface's own IPv4 setting (IPV4_DEVCONF_* of linux/ip.h), also where /proc/sys is read-only.
  void set_ipv4_conf(LinkId link, std::uint16_t setting, std::uint32_t value);
  /// No address of its own making: no link-local, no router solicitation.
  void set_silent(LinkId link);
  /// A tunnel interface of the kernel's that opens whatever comes, from anywhere: kind "ipip" or "sit".
  void add_tunnel(const std::string& kind, const std::string& name);
  /// A pair whose second end lies in the namespace behind `peer_namespace`.
  void add_veth(const std::string& name, const std::string& peer, int peer_namespace);
  void remove_link(LinkId link);

 private:
  void change(nlmsghdr* message);
  template <typename Take>
  void ask(nlmsghdr* message, Take take);
  template <typename Row, typename Read>
  std::vector<Row> dump(nlmsghdr* message, Read read);

  mnl_socket* socket_;
  std::uint32_t sequence_;
};

}  // namespace director::realserver
