// packet:IFACE, an AF_PACKET socket on an existing Ethernet interface whose kernel stack lives on beside the
// director.
//
// Frames carry a virtio_net_hdr both ways (PACKET_VNET_HDR), so partial checksums and super-frames pass
// untouched. The kernel hands the director a copy of each frame before its own stack sees it;
// control/kernel_guard keeps that stack quiet. Not promiscuous: what is addressed to the interface's MAC is
// what a director gets. Source: packet(7).
#include <fmt/format.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "director/io/device.h"
#include "director/io/unique_fd.h"
#include "director/io/vnet_header.h"
#include "director/log.h"
#include "director/base/startup_error.h"

namespace director {
namespace {

/// Room for bursts: some 250 super-frames in the kernel's accounting. The default of 208 KiB holds two.
constexpr int kSocketBuffer = 32 << 20;
class PacketSocket final : public Device {
 public:
  PacketSocket(const DeviceSpec& spec, const DeviceContext& context);

  [[nodiscard]] int descriptor() const override { return socket_.get(); }
  void receive(FrameBatch& batch) override;
  void transmit(std::span<Frame* const> frames) override;
  [[nodiscard]] std::string describe() const override {
    return fmt::format("packet:{} vnet-header checksum tso4 tso6{}", interface_, udp_segments_ ? " uso" : "");
  }
  void listen_to(const std::vector<MacAddress>& groups) override;
  void link_changed(unsigned index, bool up) override;
  bool filter(int program) override {
    return setsockopt(socket_.get(), SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof program) == 0;
  }

 private:
  struct Slot {
    VnetHeader header;
    iovec parts[2];
    alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(tpacket_auxdata))];
  };

  void option(int name, const char* what);
  void grow_buffer(int forced, int plain);
  void bind_to(unsigned index);
  void membership(int change, const MacAddress& group);
  Reason accept(mmsghdr& message, const Slot& slot, Frame& frame);
  void count_overflow();
  [[nodiscard]] bool carries(const Frame& frame) const;
  std::size_t send_some(std::span<Frame* const> frames);
  std::size_t give_up(int error, std::span<Frame* const> frames);
  void send_in_segments(Frame& frame);

  std::string interface_;
  DeviceContext context_;
  UniqueFd socket_;
  unsigned index_ = 0;
  bool up_ = true;
  std::vector<MacAddress> groups_;  // joined
  bool udp_segments_ = true;  // until the kernel refuses one
  log::Limiter errors_;

  std::array<Slot, FrameBatch::kSize> slots_{};
  std::array<mmsghdr, FrameBatch::kSize> messages_{};
  std::array<std::byte, kMaxFrame> segment_;  // one frame cut from a super-frame
};

PacketSocket::PacketSocket(const DeviceSpec& spec, const DeviceContext& context)
    : interface_(spec.interface), context_(context) {
  socket_ = UniqueFd{socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  if (!socket_ && (errno == EPERM || errno == EACCES))
    throw StartupError(
        ExitCode::lacking,
        fmt::format("packet:{} needs CAP_NET_RAW and CAP_NET_ADMIN: run as root, or give a container "
                    "--cap-add NET_RAW --cap-add NET_ADMIN",
                    interface_));
  if (!socket_)
    throw StartupError(
        ExitCode::lacking,
        fmt::format("packet:{} needs packet sockets (CONFIG_PACKET), and this kernel refuses one: {}; "
                    "use a kernel that has them",
                    interface_, std::strerror(errno)));
  option(PACKET_VNET_HDR, "PACKET_VNET_HDR");
  option(PACKET_AUXDATA, "PACKET_AUXDATA");
  option(PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING");
  grow_buffer(SO_RCVBUFFORCE, SO_RCVBUF);
  grow_buffer(SO_SNDBUFFORCE, SO_SNDBUF);

  const unsigned index = if_nametoindex(interface_.c_str());
  if (index == 0)
    throw StartupError(ExitCode::lacking,
                       fmt::format("there is no interface {}: `ip link` lists those there are", interface_));
  ifreq request{};
  interface_.copy(request.ifr_name, IFNAMSIZ - 1);
  if (ioctl(socket_.get(), SIOCGIFHWADDR, &request) != 0 || request.ifr_hwaddr.sa_family != ARPHRD_ETHER)
    throw StartupError(
        ExitCode::lacking,
        fmt::format("{} is not an Ethernet interface; the director needs one with MAC addresses",
                    interface_));
  bind_to(index);
}

void PacketSocket::option(int name, const char* what) {
  const int on = 1;
  if (setsockopt(socket_.get(), SOL_PACKET, name, &on, sizeof on) == 0) return;
  throw StartupError(ExitCode::lacking,
                     fmt::format("packet:{}: this kernel refuses {} ({}); Linux 4.20 or newer is needed",
                                 interface_, what, std::strerror(errno)));
}

/// With CAP_NET_ADMIN beyond net.core.[rw]mem_max, without it as far as that allows.
void PacketSocket::grow_buffer(int forced, int plain) {
  if (setsockopt(socket_.get(), SOL_SOCKET, forced, &kSocketBuffer, sizeof kSocketBuffer) != 0)
    setsockopt(socket_.get(), SOL_SOCKET, plain, &kSocketBuffer, sizeof kSocketBuffer);
}

void PacketSocket::bind_to(unsigned index) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = Be16{ETH_P_ALL}.raw();
  address.sll_ifindex = static_cast<int>(index);
  if (bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw StartupError(ExitCode::lacking, fmt::format("packet:{}: can't listen on the interface: {}",
                                                      interface_, std::strerror(errno)));
  index_ = index;
  for (const MacAddress& group : groups_) membership(PACKET_ADD_MEMBERSHIP, group);
}

/// Memberships go with the socket, and with the interface: bind_to() joins again on one that came back.
void PacketSocket::listen_to(const std::vector<MacAddress>& groups) {
  const auto in = [](const std::vector<MacAddress>& all, const MacAddress& g) { return std::ranges::find(all, g) != all.end(); };
  const std::vector<MacAddress> before = std::exchange(groups_, groups);
  for (const MacAddress& group : before)
    if (!in(groups_, group)) membership(PACKET_DROP_MEMBERSHIP, group);
  for (const MacAddress& group : groups_)
    if (!in(before, group)) membership(PACKET_ADD_MEMBERSHIP, group);
}

void PacketSocket::membership(int change, const MacAddress& group) {
  packet_mreq request{};
  request.mr_ifindex = static_cast<int>(index_);
  request.mr_type = PACKET_MR_MULTICAST;
  request.mr_alen = static_cast<unsigned short>(group.bytes.size());
  std::ranges::copy(group.bytes, request.mr_address);
  if (setsockopt(socket_.get(), SOL_PACKET, change, &request, sizeof request) == 0) return;
  if (change == PACKET_ADD_MEMBERSHIP && errors_.allow())
    log::warning("can't join an Ethernet group, neighbours may not find an IPv6 address",
                 {{"device", interface_}, {"group", format_as(group)}, {"error", std::strerror(errno)}});
}

void PacketSocket::link_changed(unsigned index, bool up) {
  up_ = up && index != 0;
  if (index == 0 || index == index_)
    return;  // of an interface that goes down and up the kernel hooks us up again itself
  try {
    bind_to(index);  // one of the same name came back with another index
    log::info("following the interface that came back", {{"device", interface_}, {"index", index}});
  } catch (const StartupError& error) {
    up_ = false;
    log::error(error.what(), {{"device", interface_}});
  }
}

// --- receiving
// --------------------------------------------------------------------------------------------------------

void PacketSocket::receive(FrameBatch& batch) {
  for (std::size_t i = 0; i < FrameBatch::kSize; ++i) {
    Slot& slot = slots_[i];
    Frame& frame = batch.open(i);
    slot.parts[0] = {&slot.header, sizeof slot.header};
    slot.parts[1] = {frame.storage.data() + frame.start, frame.tailroom()};
    msghdr& message = messages_[i].msg_hdr;
    message = {};
    message.msg_iov = slot.parts;
    message.msg_iovlen = 2;
    message.msg_control = slot.control;
    message.msg_controllen = sizeof slot.control;
  }
  const int count = recvmmsg(socket_.get(), messages_.data(), FrameBatch::kSize, MSG_DONTWAIT, nullptr);
  if (count < 0) {
    // ENETDOWN: the interface went down, netlink says more. Anything else: the kernel could not describe a
    // frame.
    if (errno == EAGAIN || errno == EINTR || errno == ENETDOWN) return;
    context_.counters->count(Reason::receive_error);
    if (errors_.allow())
      log::warning("can't receive", {{"device", interface_}, {"error", std::strerror(errno)}});
    return;
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const Reason reason = accept(messages_[i], slots_[i], batch.slot(i));
    if (reason == Reason::none)
      batch.keep(i);
    else
      context_.counters->count(reason);
  }
}

/// Fills in length, ingress and Offload; or why the frame isn't for the director.
Reason PacketSocket::accept(mmsghdr& message, const Slot& slot, Frame& frame) {
  if ((message.msg_hdr.msg_flags & MSG_TRUNC) != 0 || message.msg_len < sizeof slot.header)
    return Reason::receive_error;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message.msg_hdr); c != nullptr; c = CMSG_NXTHDR(&message.msg_hdr, c)) {
    if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata extra;
    std::memcpy(&extra, CMSG_DATA(c), sizeof extra);
    if ((extra.tp_status & TP_STATUS_LOSING) != 0) count_overflow();
    constexpr unsigned kVlanId =
        0x0fff;  // 0 is a mere priority tag, such a frame is the interface's own (802.1Q)
    if ((extra.tp_status & TP_STATUS_VLAN_VALID) != 0 && (extra.tp_vlan_tci & kVlanId) != 0)
      return Reason::vlan;
  }
  const std::size_t length = message.msg_len - sizeof slot.header;
  const auto offload = to_offload(slot.header, length);
  if (!offload) return Reason::bad_offload;
  frame.resize(length);
  frame.ingress = context_.id;
  frame.offload = *offload;
  return Reason::none;
}

/// The kernel had to drop frames because we read too slowly. Asking how many resets its count.
void PacketSocket::count_overflow() {
  tpacket_stats stats{};
  socklen_t size = sizeof stats;
  if (getsockopt(socket_.get(), SOL_PACKET, PACKET_STATISTICS, &stats, &size) != 0 || stats.tp_drops == 0)
    return;
  context_.counters->count(Reason::receive_full, stats.tp_drops);
  if (errors_.allow())
    log::warning("frames came faster than the director reads them",
                 {{"device", interface_}, {"lost", stats.tp_drops}});
}

// --- transmitting
// -----------------------------------------------------------------------------------------------------

void PacketSocket::transmit(std::span<Frame* const> frames) {
  if (!up_) {
    context_.counters->count(Reason::device_down, frames.size());
    return;
  }
  while (!frames.empty()) {
    if (carries(*frames.front())) {
      frames = frames.subspan(send_some(frames));
    } else {
      send_in_segments(*frames.front());
      frames = frames.subspan(1);
    }
  }
}

bool PacketSocket::carries(const Frame& frame) const {
  return udp_segments_ || frame.offload.segments != Offload::Segments::udp;
}

/// Sends the leading frames with one system call. Returns how many are dealt with, sent or given up.
std::size_t PacketSocket::send_some(std::span<Frame* const> frames) {
  unsigned count = 0;
  for (; count < frames.size() && count < FrameBatch::kSize && carries(*frames[count]); ++count) {
    Slot& slot = slots_[count];
    const auto bytes = frames[count]->bytes();
    slot.header = to_vnet_header(frames[count]->offload);
    slot.parts[0] = {&slot.header, sizeof slot.header};
    slot.parts[1] = {bytes.data(), bytes.size()};
    msghdr& message = messages_[count].msg_hdr;
    message = {};
    message.msg_iov = slot.parts;
    message.msg_iovlen = 2;
  }
  const int sent = sendmmsg(socket_.get(), messages_.data(), count, MSG_DONTWAIT);
  return sent > 0 ? static_cast<std::size_t>(sent) : give_up(errno, frames);
}

/// The first of the frames was refused. Returns how many are lost by that.
std::size_t PacketSocket::give_up(int error, std::span<Frame* const> frames) {
  Counters& counters = *context_.counters;
  switch (error) {
    case EINTR:
      return 0;
    case EAGAIN:  // the socket's buffer is full, and the others would fare no better
      counters.count(Reason::transmit_full, frames.size());
      return frames.size();
    case ENOBUFS:  // the interface's queue dropped this one
      counters.count(Reason::transmit_full);
      return 1;
    case ENETDOWN:
    case ENODEV:
    case ENXIO:
      counters.count(Reason::device_down, frames.size());
      return frames.size();
    case EINVAL:
      if (frames.front()->offload.segments == Offload::Segments::udp && udp_segments_) {
        udp_segments_ = false;  // Linux before 6.2 knows no VIRTIO_NET_HDR_GSO_UDP_L4
        log::info("UDP super-frames are cut by the director", {{"device", interface_}});
        return 0;
      }
      break;
    default:
      break;
  }
  counters.count(Reason::transmit_error);
  if (errors_.allow())
    log::warning(
        "a frame was refused",
        {{"device", interface_}, {"error", std::strerror(error)}, {"bytes", frames.front()->length}});
  return 1;
}

void PacketSocket::send_in_segments(Frame& frame) {
  const bool cut = for_each_segment(frame, segment_, [this](Frame& segment) {
    Frame* one = &segment;
    while (send_some({&one, 1}) == 0) {
    }
  });
  if (!cut) context_.counters->count(Reason::transmit_error);
}

}  // namespace

Result<void> check_packet(const DeviceSpec& spec) {
  if (spec.settings.empty()) return {};
  return fail(fmt::format(
      "--device packet:{}: there is no key \"{}\"; a packet device learns everything from the kernel",
      spec.interface, spec.settings.front().first));
}

std::unique_ptr<Device> make_packet(const DeviceSpec& spec, const DeviceContext& context) {
  return std::make_unique<PacketSocket>(spec, context);
}

}  // namespace director
