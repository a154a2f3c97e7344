// rtnetlink by libmnl: dumps, events, and what of them the core is told.
#include "director/control/netlink.h"

#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "director/base/startup_error.h"
#include "director/log.h"

namespace director {
namespace {

/// Routes are read again at most this often: a routing daemon that learns a table changes thousands in a
/// second.
constexpr Duration kRouteInterval = 100ms;
/// A dump that is overtaken by a change is asked for again (NLM_F_DUMP_INTR), but not for ever.
constexpr int kDumpAttempts = 10;

/// The attributes of a message by type; the last of a type wins.
template <std::size_t N>
using Attributes = std::array<const nlattr*, N>;

/// libmnl's own loops over attributes are macros that only C takes.
template <typename Visit>
void for_each_attribute(const void* begin, std::size_t size, Visit visit) {
  const auto* a = static_cast<const nlattr*>(begin);
  const auto* end = static_cast<const char*>(begin) + size;
  for (; mnl_attr_ok(a, static_cast<int>(end - reinterpret_cast<const char*>(a))); a = mnl_attr_next(a))
    visit(a);
}

template <std::size_t N>
Attributes<N> attributes(const nlmsghdr* message, std::size_t header) {
  Attributes<N> found{};
  const std::size_t skip = MNL_ALIGN(header);
  for_each_attribute(static_cast<const char*>(mnl_nlmsg_get_payload(message)) + skip,
                     mnl_nlmsg_get_payload_len(message) - skip, [&](const nlattr* a) {
                       const std::size_t type = mnl_attr_get_type(a);
                       if (type < N) found[type] = a;
                     });
  return found;
}

std::optional<IpAddress> to_address(const void* payload, std::size_t size) {
  if (size == 4) {
    Be32 wire;
    std::memcpy(&wire, payload, sizeof wire);
    return IpAddress::v4(wire);
  }
  if (size == 16) {
    std::array<std::uint8_t, 16> wire;
    std::memcpy(wire.data(), payload, wire.size());
    return IpAddress::v6(wire);
  }
  return {};
}

std::optional<IpAddress> to_address(const nlattr* attribute) {
  if (attribute == nullptr) return {};
  return to_address(mnl_attr_get_payload(attribute), mnl_attr_get_payload_len(attribute));
}

std::optional<MacAddress> to_mac(const nlattr* attribute) {
  MacAddress mac;
  if (attribute == nullptr || mnl_attr_get_payload_len(attribute) != mac.bytes.size()) return {};
  std::memcpy(mac.bytes.data(), mnl_attr_get_payload(attribute), mac.bytes.size());
  return mac;
}

IpAddress any_of(std::uint8_t family) {
  return family == AF_INET ? IpAddress{} : IpAddress::v6({});
}

/// The first next hop of a route: of RTA_MULTIPATH the first that is alive.
struct NextHop {
  unsigned index = 0;
  std::optional<IpAddress> via;
};

std::optional<IpAddress> gateway(const nlattr* plain, const nlattr* other_family) {
  if (plain != nullptr) return to_address(plain);
  if (other_family == nullptr || mnl_attr_get_payload_len(other_family) < sizeof(rtvia)) return {};
  const auto* via = static_cast<const rtvia*>(mnl_attr_get_payload(other_family));
  return to_address(via->rtvia_addr, mnl_attr_get_payload_len(other_family) - sizeof(rtvia));
}

std::optional<NextHop> first_hop(const rtmsg& route, const Attributes<RTA_MAX + 1>& a) {
  constexpr unsigned kUnusable = RTNH_F_DEAD | RTNH_F_LINKDOWN;
  if (a[RTA_MULTIPATH] == nullptr) {
    if (a[RTA_OIF] == nullptr || (route.rtm_flags & kUnusable) != 0) return {};
    return NextHop{mnl_attr_get_u32(a[RTA_OIF]), gateway(a[RTA_GATEWAY], a[RTA_VIA])};
  }
  const auto* hop = static_cast<const rtnexthop*>(mnl_attr_get_payload(a[RTA_MULTIPATH]));
  int left = mnl_attr_get_payload_len(a[RTA_MULTIPATH]);
  for (; RTNH_OK(hop, left); left -= NLMSG_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop)) {
    if ((hop->rtnh_flags & kUnusable) != 0) continue;
    NextHop found{static_cast<unsigned>(hop->rtnh_ifindex), {}};
    for_each_attribute(hop + 1, hop->rtnh_len - sizeof(rtnexthop), [&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == RTA_GATEWAY) found.via = to_address(attribute);
      if (mnl_attr_get_type(attribute) == RTA_VIA) found.via = gateway(nullptr, attribute);
    });
    return found;
  }
  return {};
}

}  // namespace

void Netlink::SocketCloser::operator()(mnl_socket* s) const {
  mnl_socket_close(s);
}

Netlink::Socket Netlink::open(unsigned groups) {
  Socket s{mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | (groups != 0 ? SOCK_NONBLOCK : 0))};
  if (!s || mnl_socket_bind(s.get(), groups, MNL_SOCKET_AUTOPID) != 0)
    throw StartupError(
        ExitCode::lacking,
        fmt::format("can't ask the kernel for its interfaces and routes (rtnetlink): {}; a sandbox that "
                    "filters system calls must allow AF_NETLINK",
                    std::strerror(errno)));
  const int size = 4 << 20;
  if (setsockopt(mnl_socket_get_fd(s.get()), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
    setsockopt(mnl_socket_get_fd(s.get()), SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  return s;
}

Netlink::Netlink(const std::vector<Watched>& watched, std::vector<Route> other_routes, Tell tell,
                 LinkSeen link_seen)
    : other_routes_(std::move(other_routes)),
      tell_(std::move(tell)),
      link_seen_(std::move(link_seen)),
      events_(open(RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
                   RTMGRP_IPV6_ROUTE)),
      requests_(open(0)) {
  for (const Watched& w : watched) {
    Device device{w.device, w.interface, 0, {}, {}};
    device.told.device = w.device;
    device.told.name = w.interface;
    device.told.up = false;
    device.told.mtu = 0;  // so that the first sight of it is always news
    devices_.push_back(std::move(device));
  }
}

Netlink::~Netlink() = default;

int Netlink::descriptor() const {
  return mnl_socket_get_fd(events_.get());
}

void Netlink::start(Instant now) {
  learn_everything(now);
}

void Netlink::ready(Instant now) {
  now_ = now;
  std::array<char, 32768> buffer;  // MNL_SOCKET_BUFFER_SIZE isn't constant
  for (;;) {
    const auto size = mnl_socket_recvfrom(events_.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == ENOBUFS) {
      log::info("network events came too fast, reading everything again");
      learn_everything(now);
      return;
    }
    if (size <= 0) break;
    mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), 0, 0, &Netlink::handle, this);
  }
  tell_devices();
  due(now);
}

Instant Netlink::next_deadline() const {
  return routes_changed_ ? routes_read_ + kRouteInterval : kNever;
}

void Netlink::due(Instant now) {
  now_ = now;
  if (next_deadline() <= now) learn_routes(now);
}

std::vector<IpAddress> Netlink::host_addresses() const {
  std::vector<IpAddress> all;
  for (const auto& [index, prefixes] : addresses_)
    for (const Prefix& p : prefixes) all.push_back(p.address);
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

// --- asking
// -----------------------------------------------------------------------------------------------------------

void Netlink::learn_everything(Instant now) {
  now_ = now;
  ++generation_;
  links_.clear();
  addresses_.clear();
  seen_.clear();
  dump(RTM_GETLINK, AF_UNSPEC);
  dump(RTM_GETADDR, AF_UNSPEC);
  tell_devices();
  learn_routes(now);
  dump(RTM_GETNEIGH, AF_UNSPEC);
  for (auto it = neighbours_.begin(); it != neighbours_.end();) {
    if (seen_.contains(it->first)) {
      ++it;
      continue;
    }
    tell(SetNeighbour{it->first.first, it->first.second, {}, false});
    it = neighbours_.erase(it);
  }
}

void Netlink::learn_routes(Instant now) {
  routes_.clear();
  dump(RTM_GETROUTE, AF_INET);
  dump(RTM_GETROUTE, AF_INET6);
  routes_.insert(routes_.end(), other_routes_.begin(), other_routes_.end());
  routes_changed_ = false;
  routes_read_ = now;
  if (routes_ == told_routes_) return;
  told_routes_ = routes_;
  tell(SetRoutes{routes_});
}

void Netlink::dump(std::uint16_t type, std::uint8_t family) {
  std::array<char, 32768> buffer;
  const std::size_t routes_before = routes_.size();
  for (int attempt = 0; attempt < kDumpAttempts; ++attempt) {
    routes_.resize(routes_before);
    nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
    request->nlmsg_type = type;
    request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request->nlmsg_seq = static_cast<unsigned>(attempt + 1);
    // Every one of the four headers begins with the family, and is otherwise zero in a request. What is longer is taken for attributes.
    const std::size_t header = type == RTM_GETLINK   ? sizeof(ifinfomsg)
                               : type == RTM_GETADDR ? sizeof(ifaddrmsg)
                               : type == RTM_GETNEIGH ? sizeof(ndmsg)
                                                      : sizeof(rtmsg);
    *static_cast<std::uint8_t*>(mnl_nlmsg_put_extra_header(request, header)) = family;
    if (mnl_socket_sendto(requests_.get(), request, request->nlmsg_len) < 0) break;
    int more = MNL_CB_OK;
    while (more == MNL_CB_OK) {
      const auto size = mnl_socket_recvfrom(requests_.get(), buffer.data(), buffer.size());
      if (size < 0) break;
      more = mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), static_cast<unsigned>(attempt + 1), 0,
                        &Netlink::handle, this);
    }
    if (more == MNL_CB_STOP) return;
    if (errno != EINTR) break;
  }
  log::warning("the kernel's answer about the network is incomplete",
               {{"request", type}, {"error", std::strerror(errno)}});
}

int Netlink::handle(const nlmsghdr* message, void* self) {
  auto& netlink = *static_cast<Netlink*>(self);
  switch (message->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      netlink.on_link(message);
      break;
    case RTM_NEWADDR:
    case RTM_DELADDR:
      netlink.on_address(message);
      break;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      netlink.on_route(message);
      break;
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      netlink.on_neighbour(message);
      break;
    default:
      break;
  }
  return MNL_CB_OK;
}

// --- hearing
// ----------------------------------------------------------------------------------------------------------

void Netlink::on_link(const nlmsghdr* message) {
  const auto& info = *static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  if (info.ifi_family != AF_UNSPEC)
    return;  // a bridge's news of its ports; its RTM_DELLINK means "left the bridge"
  const auto index = static_cast<unsigned>(info.ifi_index);
  routes_changed_ = true;  // an interface that goes down takes its routes with it, without a word
  if (message->nlmsg_type == RTM_DELLINK) {
    links_.erase(index);
    addresses_.erase(index);
    ++generation_;
  } else {
    const auto a = attributes<IFLA_MTU + 1>(message, sizeof info);
    Link& link = links_[index];
    if (a[IFLA_IFNAME] != nullptr) link.name = mnl_attr_get_str(a[IFLA_IFNAME]);
    if (a[IFLA_MTU] != nullptr) link.mtu = mnl_attr_get_u32(a[IFLA_MTU]);
    if (const auto mac = to_mac(a[IFLA_ADDRESS])) link.mac = *mac;
    constexpr unsigned kUp = IFF_UP | IFF_LOWER_UP;
    link.up = (info.ifi_flags & kUp) == kUp;
  }
  if ((message->nlmsg_flags & NLM_F_MULTI) == 0) tell_devices();  // what comes next may be about a new index
}

void Netlink::on_address(const nlmsghdr* message) {
  const auto& info = *static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
  const auto a = attributes<IFA_MAX + 1>(message, sizeof info);
  const auto address = to_address(a[IFA_LOCAL] != nullptr ? a[IFA_LOCAL] : a[IFA_ADDRESS]);
  if (!address) return;
  auto& all = addresses_[info.ifa_index];
  const Prefix prefix{*address, info.ifa_prefixlen};
  ++generation_;
  std::erase(all, prefix);
  if (message->nlmsg_type == RTM_NEWADDR && (info.ifa_flags & IFA_F_DADFAILED) == 0) all.push_back(prefix);
  routes_changed_ = true;
}

void Netlink::on_route(const nlmsghdr* message) {
  const auto& info = *static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
  const auto a = attributes<RTA_MAX + 1>(message, sizeof info);
  const std::uint32_t table = a[RTA_TABLE] != nullptr ? mnl_attr_get_u32(a[RTA_TABLE]) : info.rtm_table;
  if (table != RT_TABLE_MAIN || (info.rtm_flags & RTM_F_CLONED) != 0 || info.rtm_tos != 0) return;
  routes_changed_ = true;
  if ((message->nlmsg_flags & NLM_F_MULTI) == 0)
    return;  // an event: the whole table is read once they have all come

  Route route;
  route.destination.address = to_address(a[RTA_DST]).value_or(any_of(info.rtm_family));
  route.destination.length = info.rtm_dst_len;
  route.source = to_address(a[RTA_PREFSRC]);
  if (a[RTA_PRIORITY] != nullptr) route.metric = mnl_attr_get_u32(a[RTA_PRIORITY]);
  if (a[RTA_METRICS] != nullptr) {
    for_each_attribute(mnl_attr_get_payload(a[RTA_METRICS]), mnl_attr_get_payload_len(a[RTA_METRICS]),
                       [&](const nlattr* metric) {
                         if (mnl_attr_get_type(metric) == RTAX_MTU) route.mtu = mnl_attr_get_u32(metric);
                       });
  }
  switch (info.rtm_type) {
    case RTN_UNICAST: {
      const auto hop = first_hop(info, a);
      if (!hop) return;
      route.device = device_of(hop->index);
      if (route.device) route.via = hop->via;
      break;
    }
    case RTN_UNREACHABLE:
    case RTN_BLACKHOLE:
    case RTN_PROHIBIT:
      break;  // no device: nothing gets there from here
    default:
      return;
  }
  routes_.push_back(std::move(route));
}

void Netlink::on_neighbour(const nlmsghdr* message) {
  const auto& info = *static_cast<const ndmsg*>(mnl_nlmsg_get_payload(message));
  if (info.ndm_family != AF_INET && info.ndm_family != AF_INET6)
    return;  // AF_BRIDGE: a bridge's table of MACs
  if ((info.ndm_flags & NTF_PROXY) != 0 || (info.ndm_state & NUD_NOARP) != 0) return;
  const DeviceId device = device_of(static_cast<unsigned>(info.ndm_ifindex));
  if (!device) return;
  const auto a = attributes<NDA_MAX + 1>(message, sizeof info);
  const auto address = to_address(a[NDA_DST]);
  if (!address) return;
  const NeighbourKey key{device, *address};
  constexpr unsigned kKnown = NUD_PERMANENT | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE;
  const auto mac = to_mac(a[NDA_LLADDR]);
  const auto told = neighbours_.find(key);
  if (message->nlmsg_type == RTM_DELNEIGH || (info.ndm_state & kKnown) == 0 || !mac) {
    if (told == neighbours_.end()) return;
    neighbours_.erase(told);
    tell(SetNeighbour{device, *address, {}, false});
    return;
  }
  seen_.insert(key);
  const Neighbour now{*mac, (info.ndm_state & NUD_PERMANENT) != 0};
  if (told != neighbours_.end() && told->second == now) return;
  neighbours_[key] = now;
  tell(SetNeighbour{device, *address, now.mac, now.permanent});
}

// --- telling
// ----------------------------------------------------------------------------------------------------------

DeviceId Netlink::device_of(unsigned index) const {
  const auto found = std::ranges::find(devices_, index, &Device::index);
  return found == devices_.end() || index == 0 ? DeviceId{} : found->id;
}

void Netlink::tell_devices() {
  for (Device& device : devices_) tell_device(device);
}

void Netlink::tell_device(Device& device) {
  auto link = links_.find(device.index);
  if (link == links_.end())
    link = std::ranges::find_if(links_, [&](const auto& l) { return l.second.name == device.interface; });
  const bool present = link != links_.end();
  const unsigned index = present ? link->first : 0;
  if (index != device.index) ++generation_;
  device.index = index;

  SetDevice now = device.told;
  now.up = present && link->second.up;
  if (present) {
    now.mac = link->second.mac;
    now.mtu = link->second.mtu;
  }
  const std::vector<Prefix> none;
  const auto known = addresses_.find(device.index);
  const std::vector<Prefix>& addresses = present && known != addresses_.end() ? known->second : none;

  const bool news = now.up != device.told.up || now.mac != device.told.mac || now.mtu != device.told.mtu;
  link_seen_(device.id, device.index, now.up);
  if (news) {
    log::write(now.up ? log::Level::info : log::Level::warning,
               now.up    ? "interface is up"
               : present ? "interface is down"
                         : "interface is gone",
               {{"device", device.interface}, {"mac", now.mac}, {"mtu", now.mtu}});
    device.told = now;
    tell(now);
  }
  if (addresses != device.told_addresses) {
    device.told_addresses = addresses;
    tell(SetAddresses{device.id, addresses});
  }
}

}  // namespace director
