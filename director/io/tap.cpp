// tap:IFACE, a TAP interface made for the director, which is a host of its own behind it: own MAC, own
// addresses, ARP by the core. The kernel's side of it is a mere port, of a bridge or for whoever is given an
// address on it.
//
// Not persistent: the interface goes with the process. Frames carry a virtio_net_hdr both ways. One read or
// write per frame; that is all a TAP offers. Source: Documentation/networking/tuntap.rst; drivers/net/tun.c.
#include <fcntl.h>
#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "director/io/device.h"
#include "director/io/unique_fd.h"
#include "director/io/vnet_header.h"
#include "director/log.h"
#include "director/base/startup_error.h"

namespace director {
namespace {

// Linux 6.2, newer than Debian 12's headers (linux/if_tun.h).
constexpr unsigned kUso4 = 0x20;
constexpr unsigned kUso6 = 0x40;

struct TapConfig {
  std::string interface;
  std::string bridge;
  std::optional<MacAddress> mac;
  std::vector<Prefix> addresses;
  std::vector<IpAddress> gateways;
  std::uint32_t mtu = 1500;
};

Result<TapConfig> parse(const DeviceSpec& spec) {
  TapConfig config;
  config.interface = spec.interface;
  const auto wrong = [&](const auto& setting, const char* expected) {
    return fail(
        fmt::format("--device tap:{}: {}={}: {}", spec.interface, setting.first, setting.second, expected));
  };
  for (const auto& setting : spec.settings) {
    const auto& [key, value] = setting;
    if (key == "bridge") {
      config.bridge = value;
    } else if (key == "mac") {
      config.mac = MacAddress::parse(value);
      if (!config.mac || config.mac->is_group())
        return wrong(setting, "expected the MAC address of one host, like 02:00:00:00:00:02");
    } else if (key == "address") {
      const auto prefix = Prefix::parse(value);
      if (!prefix || value.find('/') == std::string::npos || prefix->address.is_multicast() ||
          prefix->address.is_unspecified())
        return wrong(setting, "expected an address with its subnet's length, like 10.9.0.2/24");
      config.addresses.push_back(*prefix);
    } else if (key == "gateway") {
      const auto gateway = IpAddress::parse(value);
      if (!gateway) return wrong(setting, "expected an address, like 10.9.0.1");
      config.gateways.push_back(*gateway);
    } else if (key == "mtu") {
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), config.mtu);
      if (error != std::errc{} || end != value.data() + value.size() || config.mtu < 68 || config.mtu > 65521)
        return wrong(setting, "expected a number from 68 to 65521");
    } else {
      return wrong(setting, "there is no such key, only bridge, mac, address, gateway and mtu");
    }
  }
  for (const IpAddress& gateway : config.gateways) {
    const auto reaches = [&](const Prefix& p) { return p.contains(gateway); };
    if (std::ranges::none_of(config.addresses, reaches))
      return fail(fmt::format("--device tap:{}: gateway={}: none of the addresses is in its subnet",
                              spec.interface, format_as(gateway)));
  }
  return config;
}

MacAddress random_mac() {
  MacAddress mac;
  if (getrandom(mac.bytes.data(), mac.bytes.size(), 0) != static_cast<ssize_t>(mac.bytes.size()))
    throw StartupError(ExitCode::failed,
                       fmt::format("no random numbers from the kernel: {}", std::strerror(errno)));
  mac.bytes[0] = 0x02;  // locally administered, one host
  return mac;
}

/// The kernel's side needs a MAC of its own. A bridge takes on the lowest of its ports' addresses, so a high
/// one leaves the bridge's as it is.
MacAddress kernel_side(MacAddress mac) {
  mac.bytes[0] = mac.bytes[0] == 0xfe ? 0xfa : 0xfe;
  return mac;
}

class Tap final : public Device {
 public:
  Tap(TapConfig config, std::string name, const DeviceContext& context);

  [[nodiscard]] int descriptor() const override { return file_.get(); }
  void receive(FrameBatch& batch) override;
  void transmit(std::span<Frame* const> frames) override;
  [[nodiscard]] std::string describe() const override;
  [[nodiscard]] std::vector<Change> configuration() const override;
  [[nodiscard]] std::vector<Route> routes() const override;
  [[nodiscard]] unsigned own_interface() const override { return index_; }

 private:
  void make_interface();
  void offer_offloads();
  void set_up_link();
  void transmit_one(Frame& frame);
  [[nodiscard]] bool write_frame(const Frame& frame) const;
  void send_in_segments(const Frame& frame);

  TapConfig config_;
  std::string name_;
  DeviceContext context_;
  UniqueFd file_;
  unsigned offloads_ = 0;
  unsigned index_ = 0;  // another when the interface had to be made again
  bool udp_segments_ = true;  // until the kernel refuses one
  log::Limiter errors_;
  std::array<std::byte, kMaxFrame> segment_;  // one frame cut from a super-frame
};

Tap::Tap(TapConfig config, std::string name, const DeviceContext& context)
    : config_(std::move(config)), name_(std::move(name)), context_(context) {
  if (!config_.mac) config_.mac = random_mac();
  file_ = UniqueFd{open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)};
  if (!file_ && (errno == EACCES || errno == EPERM))
    throw StartupError(ExitCode::lacking,
                       fmt::format("tap:{} needs /dev/net/tun, which only root may open here: run as "
                                   "root, give a container --device /dev/net/tun, or use packet:",
                                   config_.interface));
  if (!file_)
    throw StartupError(
        ExitCode::lacking,
        fmt::format("tap:{} needs /dev/net/tun ({}): `modprobe tun`, give a container --device "
                    "/dev/net/tun, or use packet:",
                    config_.interface, std::strerror(errno)));
  make_interface();
}

void Tap::make_interface() {
  if (if_nametoindex(config_.interface.c_str()) != 0)
    throw StartupError(
        ExitCode::lacking,
        fmt::format("there is an interface {0} already: choose another name, or `ip link delete {0}`",
                    config_.interface));
  ifreq request{};
  config_.interface.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(file_.get(), TUNSETIFF, &request) != 0)
    throw StartupError(
        ExitCode::lacking,
        errno == EPERM ? fmt::format("tap:{} needs CAP_NET_ADMIN: run as root, or give a container --cap-add "
                                     "NET_ADMIN",
                                     config_.interface)
                       : fmt::format("tap:{}: the kernel makes no such interface: {}; choose another name",
                                     config_.interface, std::strerror(errno)));
  const int header = sizeof(VnetHeader);
  if (ioctl(file_.get(), TUNSETVNETHDRSZ, &header) != 0)
    throw StartupError(ExitCode::lacking,
                       fmt::format("tap:{}: this kernel's TAP has no virtio header: {}; use packet:",
                                   config_.interface, std::strerror(errno)));
  offer_offloads();
  set_up_link();
  index_ = if_nametoindex(config_.interface.c_str());
}

/// What the kernel may hand over unfinished: all that the core can carry, or as much of it as this kernel
/// knows.
void Tap::offer_offloads() {
  constexpr unsigned kTcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  for (const unsigned offer : {kTcp | kUso4 | kUso6, kTcp, unsigned{TUN_F_CSUM}, 0U}) {
    if (ioctl(file_.get(), TUNSETOFFLOAD, static_cast<unsigned long>(offer)) != 0) continue;
    offloads_ = offer;
    return;
  }
}

/// MTU, MAC, bridge and up, by rtnetlink.
void Tap::set_up_link() {
  const unsigned index = if_nametoindex(config_.interface.c_str());
  const unsigned bridge = config_.bridge.empty() ? 0 : if_nametoindex(config_.bridge.c_str());
  if (bridge == 0 && !config_.bridge.empty())
    throw StartupError(
        ExitCode::lacking,
        fmt::format("there is no bridge {0}: `ip link add {0} type bridge` makes one", config_.bridge));

  const std::unique_ptr<mnl_socket, decltype(&mnl_socket_close)> netlink{
      mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC), &mnl_socket_close};
  std::array<char, 8192> buffer;
  // Asks for one change of the link; 0, or the errno the kernel answers with.
  const auto change = [&](auto put_attributes, unsigned flags) {
    nlmsghdr* message = mnl_nlmsg_put_header(buffer.data());
    message->nlmsg_type = RTM_NEWLINK;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    auto* link = static_cast<ifinfomsg*>(mnl_nlmsg_put_extra_header(message, sizeof(ifinfomsg)));
    link->ifi_index = static_cast<int>(index);
    link->ifi_flags = link->ifi_change = flags;
    put_attributes(message);
    if (!netlink || mnl_socket_sendto(netlink.get(), message, message->nlmsg_len) < 0) return errno;
    const auto size = mnl_socket_recvfrom(netlink.get(), buffer.data(), buffer.size());
    if (size < 0) return errno;
    return mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), 0, 0, nullptr, nullptr) < 0 ? errno : 0;
  };
  // The kernel's side is no host: it needs no link-local address. (A kernel without IPv6 refuses; nothing is
  // lost.)
  change(
      [](nlmsghdr* m) {
        constexpr std::uint8_t kNoAddresses = 1;  // IN6_ADDR_GEN_MODE_NONE
        nlattr* families = mnl_attr_nest_start(m, IFLA_AF_SPEC);
        nlattr* ipv6 = mnl_attr_nest_start(m, AF_INET6);
        mnl_attr_put_u8(m, IFLA_INET6_ADDR_GEN_MODE, kNoAddresses);
        mnl_attr_nest_end(m, ipv6);
        mnl_attr_nest_end(m, families);
      },
      0);
  const int error = change(
      [&](nlmsghdr* m) {
        const MacAddress mac = kernel_side(*config_.mac);
        mnl_attr_put_u32(m, IFLA_MTU, config_.mtu);
        mnl_attr_put(m, IFLA_ADDRESS, mac.bytes.size(), mac.bytes.data());
        if (bridge != 0) mnl_attr_put_u32(m, IFLA_MASTER, bridge);
      },
      IFF_UP);
  if (error != 0)
    throw StartupError(
        ExitCode::lacking,
        fmt::format(
            "tap:{}: can't set it up{}: {}; it needs CAP_NET_ADMIN, a bridge that takes ports and an MTU it "
            "allows",
            config_.interface, bridge != 0 ? " in bridge " + config_.bridge : "", std::strerror(error)));
}

std::string Tap::describe() const {
  return fmt::format(
      "tap:{} vnet-header{}{}{}", config_.interface, (offloads_ & TUN_F_CSUM) != 0 ? " checksum" : "",
      (offloads_ & TUN_F_TSO4) != 0 ? " tso4 tso6" : "", (offloads_ & kUso4) != 0 ? " uso" : "");
}

/// A host of IPv6 has an address of the link, too (RFC 4291, 2.8): listener reports come from it.
std::vector<Prefix> with_link_local(std::vector<Prefix> addresses, const MacAddress& mac) {
  const auto is_ipv6 = [](const Prefix& p) { return !p.address.is_v4(); };
  const auto is_link_local = [](const Prefix& p) { return !p.address.is_v4() && p.address.is_link_local(); };
  if (std::ranges::any_of(addresses, is_ipv6) && std::ranges::none_of(addresses, is_link_local))
    addresses.push_back({link_local(mac), 64});
  return addresses;
}

std::vector<Change> Tap::configuration() const {
  return {SetDevice{context_.id, name_, *config_.mac, config_.mtu, true, Stack::own},
          SetAddresses{context_.id, with_link_local(config_.addresses, *config_.mac)},
          SetForwarding{true}};  // the gateway of masqueraded servers, which have errands of their own
}

std::vector<Route> Tap::routes() const {
  std::vector<Route> routes;
  for (const IpAddress& gateway : config_.gateways) {
    Route route;
    route.destination.address = gateway.is_v4() ? IpAddress{} : IpAddress::v6({});
    route.device = context_.id;
    route.via = gateway;
    routes.push_back(route);
  }
  return routes;
}

void Tap::receive(FrameBatch& batch) {
  for (std::size_t i = 0; i < FrameBatch::kSize; ++i) {
    Frame& frame = batch.open(i);
    VnetHeader header;
    const iovec parts[2] = {{&header, sizeof header}, {frame.storage.data() + frame.start, frame.tailroom()}};
    const auto size = readv(file_.get(), parts, 2);
    if (size < 0 && errno == EBADFD) {
      log::warning("the interface was removed, making it again", {{"device", name_}});
      make_interface();  // throws: without it there is nothing to do, and the loop would spin
      return;
    }
    if (size < 0) {
      if (errno == EAGAIN || errno == EINTR) return;
      context_.counters->count(Reason::receive_error);
      if (errors_.allow())
        log::warning("can't receive", {{"device", name_}, {"error", std::strerror(errno)}});
      return;
    }
    if (static_cast<std::size_t>(size) < sizeof header) {
      context_.counters->count(Reason::receive_error);
      continue;
    }
    const std::size_t length = static_cast<std::size_t>(size) - sizeof header;
    const auto offload = to_offload(header, length);
    if (!offload) {
      context_.counters->count(Reason::bad_offload);
      continue;
    }
    frame.resize(length);
    frame.ingress = context_.id;
    frame.offload = *offload;
    batch.keep(i);
  }
}

void Tap::transmit(std::span<Frame* const> frames) {
  for (Frame* frame : frames) transmit_one(*frame);
}

void Tap::transmit_one(Frame& frame) {
  const bool udp = frame.offload.segments == Offload::Segments::udp;
  if (udp && !udp_segments_) return send_in_segments(frame);
  if (write_frame(frame)) return;
  switch (errno) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      context_.counters->count(Reason::transmit_full);
      return;
    case EIO:
    case EBADFD:
      context_.counters->count(Reason::device_down);
      return;  // set down, or removed: receive() sees to it
    case EINVAL:
      if (!udp) break;
      udp_segments_ = false;  // Linux before 6.2 knows no VIRTIO_NET_HDR_GSO_UDP_L4
      log::info("UDP super-frames are cut by the director", {{"device", name_}});
      return send_in_segments(frame);
    default:
      break;
  }
  context_.counters->count(Reason::transmit_error);
  if (errors_.allow())
    log::warning("a frame was refused",
                 {{"device", name_}, {"error", std::strerror(errno)}, {"bytes", frame.length}});
}

bool Tap::write_frame(const Frame& frame) const {
  VnetHeader header = to_vnet_header(frame.offload);
  const auto bytes = frame.storage.subspan(frame.start, frame.length);
  const iovec parts[2] = {{&header, sizeof header}, {bytes.data(), bytes.size()}};
  return writev(file_.get(), parts, 2) >= 0;
}

void Tap::send_in_segments(const Frame& frame) {
  const bool cut = for_each_segment(frame, segment_, [this](const Frame& segment) {
    if (!write_frame(segment)) context_.counters->count(Reason::transmit_error);
  });
  if (!cut) context_.counters->count(Reason::transmit_error);
}

}  // namespace

Result<void> check_tap(const DeviceSpec& spec) {
  if (auto config = parse(spec); !config) return Failure{config.error()};
  return {};
}

std::unique_ptr<Device> make_tap(const DeviceSpec& spec, const DeviceContext& context) {
  auto config = parse(spec);
  if (!config) throw StartupError(ExitCode::usage, config.error().message);
  return std::make_unique<Tap>(std::move(*config), spec.name, context);
}

}  // namespace director
