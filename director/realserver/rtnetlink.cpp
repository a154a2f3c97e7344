// See the header. Every request is one message in one buffer and mnl_cb_run over what comes back.
#include "director/realserver/rtnetlink.h"

#include <libmnl/libmnl.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

namespace director::realserver {
namespace {

/// A request under construction. Attributes are put behind what is there already.
class Request {
 public:
  Request(std::uint16_t type, unsigned flags) : header_(mnl_nlmsg_put_header(buffer_.data())) {
    header_->nlmsg_type = type;
    header_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  }
  template <typename Body>
  Body& body() {
    return *static_cast<Body*>(mnl_nlmsg_put_extra_header(header_, sizeof(Body)));
  }
  void put(std::uint16_t type, const IpAddress& a) {
    mnl_attr_put(header_, type, a.wire().size(), a.wire().data());
  }
  void put(std::uint16_t type, std::uint32_t value) { mnl_attr_put_u32(header_, type, value); }
  void put_u8(std::uint16_t type, std::uint8_t value) { mnl_attr_put_u8(header_, type, value); }
  void put(std::uint16_t type, const std::string& text) { mnl_attr_put_strz(header_, type, text.c_str()); }
  template <typename T>
  void put_struct(std::uint16_t type, const T& value) {
    mnl_attr_put(header_, type, sizeof value, &value);
  }
  /// Everything `fill` puts lies inside an attribute of this type.
  template <typename Fill>
  void nest(std::uint16_t type, Fill fill) {
    nlattr* const outer = mnl_attr_nest_start(header_, type);
    fill();
    mnl_attr_nest_end(header_, outer);
  }
  nlmsghdr* header() { return header_; }

 private:
  alignas(nlmsghdr) std::array<char, 1024> buffer_{};
  nlmsghdr* header_;
};

std::uint8_t kernel_family(Family f) {
  return f == Family::ipv4 ? AF_INET : AF_INET6;
}

/// Attributes of a message by type, the last of each kind.
class Attributes {
 public:
  Attributes(const nlmsghdr* message, std::size_t body) {
    mnl_attr_parse(message, static_cast<unsigned>(body), take, this);
  }
  explicit Attributes(const nlattr* nest) { mnl_attr_parse_nested(nest, take, this); }
  const nlattr* operator[](std::size_t type) const { return found_[type]; }
  [[nodiscard]] std::uint32_t u32(std::size_t type) const {
    return found_[type] == nullptr ? 0 : mnl_attr_get_u32(found_[type]);
  }
  [[nodiscard]] std::string text(std::size_t type) const {
    return found_[type] == nullptr ? std::string{} : mnl_attr_get_str(found_[type]);
  }
  [[nodiscard]] std::optional<IpAddress> address(std::size_t type) const {
    if (found_[type] == nullptr) return {};
    const auto* const bytes = static_cast<const std::uint8_t*>(mnl_attr_get_payload(found_[type]));
    if (mnl_attr_get_payload_len(found_[type]) == 4) {
      return IpAddress::v4(std::bit_cast<Be32>(std::array{bytes[0], bytes[1], bytes[2], bytes[3]}));
    }
    if (mnl_attr_get_payload_len(found_[type]) != 16) return {};
    std::array<std::uint8_t, 16> wire{};
    std::copy_n(bytes, 16, wire.begin());
    return IpAddress::v6(wire);
  }

 private:
  static int take(const nlattr* a, void* self) {
    if (mnl_attr_get_type(a) <= kMost) static_cast<Attributes*>(self)->found_[mnl_attr_get_type(a)] = a;
    return MNL_CB_OK;
  }
  static constexpr std::size_t kMost = 127;  // more than any message asked for here has
  std::array<const nlattr*, kMost + 1> found_{};
};

Link read_link(const nlmsghdr* message) {
  const auto& info = *static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  const Attributes attributes(message, sizeof info);
  Link link;
  link.id = info.ifi_index;
  link.name = attributes.text(IFLA_IFNAME);
  link.mtu = attributes.u32(IFLA_MTU);
  link.up = (info.ifi_flags & IFF_UP) != 0;
  link.ethernet = info.ifi_type == ARPHRD_ETHER && (info.ifi_flags & IFF_NOARP) == 0;
  link.enslaved = attributes[IFLA_MASTER] != nullptr;
  if (const nlattr* const mac = attributes[IFLA_ADDRESS];
      mac != nullptr && mnl_attr_get_payload_len(mac) == 6) {
    std::memcpy(link.mac.bytes.data(), mnl_attr_get_payload(mac), 6);
  }
  if (attributes[IFLA_LINKINFO] != nullptr) {
    link.kind = Attributes(attributes[IFLA_LINKINFO]).text(IFLA_INFO_KIND);
  }
  return link;
}

Route read_route(const nlmsghdr* message) {
  const Attributes attributes(message, sizeof(rtmsg));
  if (attributes[RTA_MULTIPATH] != nullptr) {  // several next hops: the first stands for all
    const auto& hop = *static_cast<const rtnexthop*>(mnl_attr_get_payload(attributes[RTA_MULTIPATH]));
    return {hop.rtnh_ifindex, {}};
  }
  return {static_cast<LinkId>(attributes.u32(RTA_OIF)), attributes.address(RTA_GATEWAY)};
}

}  // namespace

RtNetlink::RtNetlink()
    : socket_(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC)),
      sequence_(static_cast<std::uint32_t>(std::chrono::system_clock::now().time_since_epoch().count())) {
  if (socket_ == nullptr || mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) {
    const int error = errno;
    if (socket_ != nullptr) mnl_socket_close(socket_);
    throw std::system_error(error, std::system_category(), "netlink socket");
  }
}

RtNetlink::~RtNetlink() {
  mnl_socket_close(socket_);
}

/// Sends a request and gives each message of the answer to `take`.
template <typename Take>
void RtNetlink::ask(nlmsghdr* message, Take take) {
  message->nlmsg_seq = ++sequence_;
  if (mnl_socket_sendto(socket_, message, message->nlmsg_len) < 0) {
    throw std::system_error(errno, std::system_category(), "netlink request");
  }
  const auto each = [](const nlmsghdr* answer, void* context) {
    (*static_cast<Take*>(context))(answer);
    return MNL_CB_OK;
  };
  alignas(nlmsghdr) std::array<char, 65536> buffer;
  int more = MNL_CB_OK;
  // With NLM_F_ACK or a dump the answer ends with a message that makes mnl_cb_run return 0 or fail.
  while (more > MNL_CB_STOP) {
    const ssize_t n = mnl_socket_recvfrom(socket_, buffer.data(), buffer.size());
    more = n < 0 ? static_cast<int>(n)
                 : mnl_cb_run(buffer.data(), static_cast<std::size_t>(n), sequence_,
                              mnl_socket_get_portid(socket_), each, &take);
  }
  if (more < 0) throw std::system_error(errno, std::system_category(), "netlink");
}

void RtNetlink::change(nlmsghdr* message) {
  message->nlmsg_flags |= NLM_F_ACK;
  ask(message, [](const nlmsghdr*) {});
}

/// A whole table. The kernel says when it changed under the reading (EINTR): then it is read again.
template <typename Row, typename Read>
std::vector<Row> RtNetlink::dump(nlmsghdr* message, Read read) {
  constexpr int kTries = 10;
  for (int i = 1;; ++i) {
    std::vector<Row> rows;
    try {
      ask(message, [&](const nlmsghdr* m) {
        if (std::optional<Row> row = read(m)) rows.push_back(std::move(*row));
      });
      return rows;
    } catch (const std::system_error& e) {
      if (e.code().value() != EINTR || i == kTries) throw;
    }
  }
}

std::vector<Link> RtNetlink::links() {
  Request request(RTM_GETLINK, NLM_F_DUMP);
  request.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  return dump<Link>(request.header(), [](const nlmsghdr* m) { return std::optional{read_link(m)}; });
}

std::optional<Link> RtNetlink::link(std::string_view name) {
  for (Link& l : links())
    if (l.name == name) return std::move(l);
  return {};
}

std::vector<LinkAddress> RtNetlink::addresses() {
  Request request(RTM_GETADDR, NLM_F_DUMP);
  request.body<ifaddrmsg>().ifa_family = AF_UNSPEC;
  return dump<LinkAddress>(request.header(), [](const nlmsghdr* m) -> std::optional<LinkAddress> {
    const auto& info = *static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(m));
    if (info.ifa_family != AF_INET && info.ifa_family != AF_INET6) return {};
    const Attributes attributes(m, sizeof info);
    auto address = attributes.address(IFA_LOCAL);  // on a point-to-point link IFA_ADDRESS is the other end
    if (!address) address = attributes.address(IFA_ADDRESS);
    if (!address) return {};
    return LinkAddress{
        static_cast<LinkId>(info.ifa_index), {*address, info.ifa_prefixlen}, info.ifa_scope == RT_SCOPE_LINK};
  });
}

std::vector<LinkAddress> RtNetlink::proxied() {
  Request request(RTM_GETNEIGH, NLM_F_DUMP);
  auto& body = request.body<ndmsg>();
  body.ndm_family = AF_INET6;
  body.ndm_flags = NTF_PROXY;
  return dump<LinkAddress>(request.header(), [](const nlmsghdr* m) -> std::optional<LinkAddress> {
    const auto& entry = *static_cast<const ndmsg*>(mnl_nlmsg_get_payload(m));
    const auto address = Attributes(m, sizeof entry).address(NDA_DST);
    if (!address || (entry.ndm_flags & NTF_PROXY) == 0) return {};
    return LinkAddress{entry.ndm_ifindex, {*address, 128}, false};
  });
}

std::optional<Route> RtNetlink::route_to(const IpAddress& target, const IpAddress& source) {
  Request request(RTM_GETROUTE, NLM_F_ACK);
  auto& body = request.body<rtmsg>();
  body.rtm_family = kernel_family(target.family());
  body.rtm_dst_len = body.rtm_src_len = static_cast<std::uint8_t>(target.wire().size() * 8);
  request.put(RTA_DST, target);
  request.put(RTA_SRC, source);
  std::optional<Route> route;
  try {
    ask(request.header(), [&](const nlmsghdr* m) {
      const auto& info = *static_cast<const rtmsg*>(mnl_nlmsg_get_payload(m));
      if (info.rtm_type == RTN_UNICAST || info.rtm_type == RTN_LOCAL) route = read_route(m);
    });
  } catch (const std::system_error& e) {
    const int why = e.code().value();
    if (why != ENETUNREACH && why != EHOSTUNREACH && why != EINVAL && why != EACCES) throw;
  }
  return route;
}

std::optional<Route> RtNetlink::default_route(Family family) {
  Request request(RTM_GETROUTE, NLM_F_DUMP);
  request.body<rtmsg>().rtm_family = kernel_family(family);
  const auto routes = dump<Route>(request.header(), [](const nlmsghdr* m) -> std::optional<Route> {
    const auto& info = *static_cast<const rtmsg*>(mnl_nlmsg_get_payload(m));
    if (info.rtm_dst_len != 0 || info.rtm_type != RTN_UNICAST || info.rtm_table != RT_TABLE_MAIN) return {};
    return read_route(m);
  });
  return routes.empty() ? std::nullopt : std::optional{routes.front()};
}

void RtNetlink::add_address(LinkId link, const IpAddress& host) {
  Request request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  auto& body = request.body<ifaddrmsg>();
  body.ifa_family = kernel_family(host.family());
  body.ifa_prefixlen = static_cast<std::uint8_t>(host.wire().size() * 8);
  body.ifa_scope = RT_SCOPE_UNIVERSE;
  body.ifa_index = static_cast<std::uint32_t>(link);
  request.put(IFA_LOCAL, host);
  request.put(IFA_ADDRESS, host);
  if (!host.is_v4()) {
    request.put(IFA_FLAGS, std::uint32_t{IFA_F_NODAD});
    // Preferred for 0 seconds, valid for ever: a "deprecated" address answers, but never calls (RFC
    // 4862, 5.5.4).
    request.put_struct(IFA_CACHEINFO,
                       ifa_cacheinfo{.ifa_prefered = 0, .ifa_valid = UINT32_MAX, .cstamp = 0, .tstamp = 0});
  }
  change(request.header());
}

void RtNetlink::remove_address(LinkId link, const IpAddress& host) {
  Request request(RTM_DELADDR, 0);
  auto& body = request.body<ifaddrmsg>();
  body.ifa_family = kernel_family(host.family());
  body.ifa_prefixlen = static_cast<std::uint8_t>(host.wire().size() * 8);
  body.ifa_index = static_cast<std::uint32_t>(link);
  request.put(IFA_LOCAL, host);
  change(request.header());
}

void RtNetlink::set_up(LinkId link, bool up) {
  Request request(RTM_NEWLINK, 0);
  auto& body = request.body<ifinfomsg>();
  body.ifi_index = link;
  body.ifi_change = IFF_UP;
  body.ifi_flags = up ? IFF_UP : 0;
  change(request.header());
}

void RtNetlink::set_ipv4_conf(LinkId link, std::uint16_t setting, std::uint32_t value) {
  Request request(RTM_NEWLINK, 0);
  request.body<ifinfomsg>().ifi_index = link;
  request.nest(IFLA_AF_SPEC, [&] {
    request.nest(AF_INET, [&] { request.nest(IFLA_INET_CONF, [&] { request.put(setting, value); }); });
  });
  change(request.header());
}

void RtNetlink::set_silent(LinkId link) {
  Request request(RTM_NEWLINK, 0);
  request.body<ifinfomsg>().ifi_index = link;
  request.nest(IFLA_AF_SPEC, [&] {
    request.nest(AF_INET6, [&] { request.put_u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE); });
  });
  try {
    change(request.header());
  } catch (const std::system_error& e) {
    if (e.code().value() != EAFNOSUPPORT) throw;  // a kernel without IPv6 is silent anyway
  }
}

void RtNetlink::add_tunnel(const std::string& kind, const std::string& name) {
  Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  request.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  request.put(IFLA_IFNAME, name);
  request.nest(IFLA_LINKINFO, [&] { request.put(IFLA_INFO_KIND, kind); });
  change(request.header());
}

void RtNetlink::add_veth(const std::string& name, const std::string& peer, int peer_namespace) {
  constexpr std::uint32_t kLargestMtu = 65535;  // what a decapsulated packet can measure
  Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  request.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  request.put(IFLA_IFNAME, name);
  request.put(IFLA_MTU, kLargestMtu);
  request.nest(IFLA_LINKINFO, [&] {
    request.put(IFLA_INFO_KIND, std::string{"veth"});
    request.nest(IFLA_INFO_DATA, [&] {
      request.nest(VETH_INFO_PEER, [&] {
        request.body<ifinfomsg>().ifi_family = AF_UNSPEC;
        request.put(IFLA_IFNAME, peer);
        request.put(IFLA_MTU, kLargestMtu);
        request.put(IFLA_NET_NS_FD, static_cast<std::uint32_t>(peer_namespace));
      });
    });
  });
  change(request.header());
}

void RtNetlink::remove_link(LinkId link) {
  Request request(RTM_DELLINK, 0);
  request.body<ifinfomsg>().ifi_index = link;
  change(request.header());
}

}  // namespace director::realserver
