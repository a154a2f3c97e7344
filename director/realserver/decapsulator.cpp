// See the header. In the order of events: opening, waiting, receiving, answering.
#include "director/realserver/decapsulator.h"

#include <fmt/format.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>

#include "director/realserver/failure.h"

namespace director::realserver {
namespace {

/// The largest frame: a 64 KiB super-frame with its link header, rounded up (net/frame.h).
constexpr std::size_t kSlot = kMaxFrame;
constexpr int kReceiveBuffer = 16 << 20;  // bytes: some milliseconds of a 10 Gbit/s link

std::system_error system_failure(const char* what) {
  return {errno, std::system_category(), what};
}

UniqueFd open_socket(int family, int type, int protocol) {
  UniqueFd fd{::socket(family, type | SOCK_CLOEXEC, protocol)};
  if (fd) return fd;
  if (errno == EPERM || errno == EACCES) throw lacks_privilege("read tunnelled packets");
  throw system_failure("socket");
}

template <typename T>
void set_option(const UniqueFd& fd, int level, int option, const T& value, const char* what) {
  if (::setsockopt(fd.get(), level, option, &value, sizeof value) != 0) throw system_failure(what);
}

void attach_filter(const UniqueFd& fd, std::vector<sock_filter> program) {
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  set_option(fd, SOL_SOCKET, SO_ATTACH_FILTER, filter, "SO_ATTACH_FILTER");
}

/// Classic BPF: packets for this host's MAC, not from our own interface, of a protocol we open. The rest
/// never wakes us.
std::vector<sock_filter> tunnel_filter(LinkId own_interface) {
  constexpr std::uint32_t kAncillary = static_cast<std::uint32_t>(SKF_AD_OFF);
  constexpr std::uint32_t kIpProtocol =
      static_cast<std::uint32_t>(SKF_NET_OFF) + 9;  // RFC 791: offset of the field
  std::vector<sock_filter> program{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kAncillary + SKF_AD_PKTTYPE),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kAncillary + SKF_AD_IFINDEX),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(own_interface), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kIpProtocol),
  };
  for (const Protocol p : tunnel_protocols()) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(p), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, UINT32_MAX));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, 0));
  return program;
}

enum class Event : std::uint32_t { packets, addresses, control, signal };

void watch(int epoll, int fd, Event event) {
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.u32 = static_cast<std::uint32_t>(event);
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) != 0) throw system_failure("epoll");
}

/// Where the IP header begins in a received frame, as the kernel counts it (PACKET_AUXDATA).
std::optional<std::size_t> network_offset(const msghdr& message) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr;
       c = CMSG_NXTHDR(const_cast<msghdr*>(&message), c)) {
    if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata data{};
    std::memcpy(&data, CMSG_DATA(c), sizeof data);
    return std::size_t{data.tp_net} - data.tp_mac;
  }
  return {};
}

}  // namespace

// --- opening -----------------------------------------------------------------------------------------------

Decapsulator::Decapsulator(ControlSocket control, const std::optional<std::string>& input,
                           const std::vector<IpAddress>& vips)
    : control_(std::move(control)), input_(input.value_or("all interfaces")), storage_(kBatch * kSlot) {
  admission_.vips = AddressSet{vips};
  follow_addresses();
  silence_kernel();
  injector_ = make_injector(kernel_);
  open_packet_socket(input);

  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  ::sigprocmask(SIG_BLOCK, &stop, nullptr);
  signals_ = UniqueFd{::signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK)};
  if (!signals_) throw system_failure("signalfd");
}

void Decapsulator::open_packet_socket(const std::optional<std::string>& input) {
  packets_ = open_socket(AF_PACKET, SOCK_RAW, 0);
  const int on = 1;
  set_option(packets_, SOL_PACKET, PACKET_VNET_HDR, on, "PACKET_VNET_HDR");
  set_option(packets_, SOL_PACKET, PACKET_AUXDATA, on, "PACKET_AUXDATA");
  if (::setsockopt(packets_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof kReceiveBuffer) != 0) {
    set_option(packets_, SOL_SOCKET, SO_RCVBUF, kReceiveBuffer, "SO_RCVBUF");
  }
  attach_filter(packets_, tunnel_filter(injector_->link()));

  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_protocol = Be16{ETH_P_IP}.raw();
  if (input) {
    const auto link = kernel_.link(*input);
    if (!link)
      throw Failure(ExitCode::usage, fmt::format("--interface {}: no such interface (see: ip link)", *input));
    where.sll_ifindex = link->id;
  }
  if (::bind(packets_.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0)
    throw system_failure("bind");

  // A fan-out group of one, for the sake of its DEFRAG flag: the kernel hands fragments over as the packet
  // they make up.
  constexpr std::uint32_t kFanout =
      PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_DEFRAG | PACKET_FANOUT_FLAG_UNIQUEID;
  set_option(packets_, SOL_PACKET, PACKET_FANOUT, kFanout << 16U, "PACKET_FANOUT");
}

/// A raw socket for a protocol makes the kernel take its packets for served (net/ipv4/ip_input.c: no ICMP
/// "protocol unreachable" where raw_local_deliver() found a socket). Its filter keeps nothing.
void Decapsulator::silence_kernel() {
  for (const Protocol p : tunnel_protocols()) {
    UniqueFd raw = open_socket(AF_INET, SOCK_RAW, static_cast<int>(p));
    attach_filter(raw, {BPF_STMT(BPF_RET | BPF_K, 0)});
    raw_.push_back(std::move(raw));
  }
}

void Decapsulator::follow_addresses() {
  address_events_ = open_socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE);
  sockaddr_nl groups{};
  groups.nl_family = AF_NETLINK;
  groups.nl_groups = RTMGRP_IPV4_IFADDR;
  if (::bind(address_events_.get(), reinterpret_cast<const sockaddr*>(&groups), sizeof groups) != 0) {
    throw system_failure("netlink groups");
  }
  read_addresses();
}

/// Tunnels end at any address of this host but the loopback net, which no packet on a link may carry (RFC
/// 1122, 3.2.1.3).
void Decapsulator::read_addresses() {
  std::vector<IpAddress> own;
  for (const LinkAddress& a : kernel_.addresses())
    if (!a.prefix.address.is_loopback()) own.push_back(a.prefix.address);
  admission_.own = AddressSet{std::move(own)};
}

// --- waiting -----------------------------------------------------------------------------------------------

void Decapsulator::run() {
  const UniqueFd epoll{::epoll_create1(EPOLL_CLOEXEC)};
  if (!epoll) throw system_failure("epoll");
  watch(epoll.get(), packets_.get(), Event::packets);
  watch(epoll.get(), address_events_.get(), Event::addresses);
  watch(epoll.get(), control_.fd(), Event::control);
  watch(epoll.get(), signals_.get(), Event::signal);

  while (running_) {
    std::array<epoll_event, 4> events{};
    const int n = ::epoll_wait(epoll.get(), events.data(), events.size(), -1);
    for (int i = 0; i < n; ++i) {
      switch (static_cast<Event>(events[static_cast<std::size_t>(i)].data.u32)) {
        case Event::packets:
          receive_batches();
          break;
        case Event::addresses: {
          std::array<char, 8192> news;  // what it says doesn't matter: all addresses are read again
          while (::recv(address_events_.get(), news.data(), news.size(), 0) > 0) {
          }
          read_addresses();
          break;
        }
        case Event::control:
          answer_requests();
          break;
        case Event::signal:
          running_ = false;
          break;
      }
    }
  }
}

// --- receiving ---------------------------------------------------------------------------------------------

/// Some batches, then back to the other events: a flood must not keep `stop` waiting.
void Decapsulator::receive_batches() {
  constexpr int kMostBatches = 16;
  for (int i = 0; i < kMostBatches && receive_batch(); ++i) {
  }

  tpacket_stats statistics{};
  socklen_t size = sizeof statistics;
  if (::getsockopt(packets_.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &size) == 0) {
    count(Fate::not_received) += statistics.tp_drops;
  }
}

/// One batch in and out; true if there may be more.
bool Decapsulator::receive_batch() {
  for (std::size_t i = 0; i < kBatch; ++i) {
    parts_[i] = {iovec{&headers_[i], sizeof headers_[i]}, iovec{storage_.data() + i * kSlot, kSlot}};
    messages_[i] = {};
    messages_[i].msg_hdr.msg_iov = parts_[i].data();
    messages_[i].msg_hdr.msg_iovlen = parts_[i].size();
    messages_[i].msg_hdr.msg_control = control_space_[i].bytes.data();
    messages_[i].msg_hdr.msg_controllen = control_space_[i].bytes.size();
  }
  const int n = ::recvmmsg(packets_.get(), messages_.data(), kBatch, MSG_DONTWAIT, nullptr);
  if (n < 0) {
    if (errno == EINVAL) ++count(Fate::undescribed);  // the kernel has dropped it
    return errno == EINVAL ||
           errno == ENETDOWN;  // an interface that went down: told once, then business goes on
  }
  std::array<Frame*, kBatch> good;
  std::size_t taken = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    const Fate fate = open_packet(i, messages_[i]);
    ++count(fate);
    if (fate == Fate::delivered) good[taken++] = &frames_[i];
  }
  const std::size_t refused = injector_->inject({good.data(), taken});
  count(Fate::delivered) -= refused;
  count(Fate::refused) += refused;
  return static_cast<std::size_t>(n) == kBatch;
}

Fate Decapsulator::open_packet(std::size_t slot, const mmsghdr& received) {
  if ((received.msg_hdr.msg_flags & MSG_TRUNC) != 0 || received.msg_len < sizeof(VnetHeader)) {
    return Fate::outer_malformed;
  }
  const std::size_t length = received.msg_len - sizeof(VnetHeader);
  const auto offset = network_offset(received.msg_hdr);
  const auto offload = to_offload(headers_[slot], length);
  if (!offload) return Fate::undescribed;
  if (!offset || *offset > length) return Fate::outer_malformed;
  Frame& frame = frames_[slot];
  frame.storage = std::span{storage_}.subspan(slot * kSlot, kSlot);
  frame.start = 0;
  frame.length = static_cast<std::uint32_t>(length);
  frame.offload = *offload;
  if (offload->checksum == Offload::Checksum::partial && offload->checksum_start < *offset)
    return Fate::bad_offload;
  frame.pull(*offset);
  return decapsulate(frame, admission_);
}

// --- answering ---------------------------------------------------------------------------------------------

void Decapsulator::answer_requests() {
  while (const auto request = control_.receive()) {
    constexpr std::string_view kVips = "vips";
    if (request->text == "status") {
      control_.reply(*request, status());
    } else if (!request->trusted) {
      control_.reply(*request, "error: only root may");
    } else if (request->text == "stop") {
      running_ = false;
      control_.reply(*request, "ok");
    } else if (request->text.starts_with(kVips)) {
      std::vector<IpAddress> vips;
      std::string_view rest = std::string_view{request->text}.substr(kVips.size());
      while (!rest.empty()) {
        rest.remove_prefix(1);
        const std::size_t end = std::min(rest.find(' '), rest.size());
        if (const auto vip = IpAddress::parse(rest.substr(0, end))) vips.push_back(*vip);
        rest.remove_prefix(end);
      }
      admission_.vips = AddressSet{std::move(vips)};
      control_.reply(*request, "ok");
    } else {
      control_.reply(*request, "error: unknown request");
    }
  }
}

std::string Decapsulator::counters() const {
  std::string text;
  for (std::size_t i = 0; i < kFates.size(); ++i)
    if (counts_[i] != 0) text += fmt::format("count {} {}\n", kFates[i].name, counts_[i]);
  return text;
}

std::string Decapsulator::status() const {
  std::string text = fmt::format("pid {}\ninterface {}\nway {}\ninput {}\n", ::getpid(), injector_->name(),
                                 injector_->description(), input_);
  for (const IpAddress& vip : admission_.vips.addresses()) text += fmt::format("vip {}\n", format_as(vip));
  return text + counters();
}

}  // namespace director::realserver
