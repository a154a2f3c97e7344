// See the header. In the order of events: opening, waiting, receiving, answering.
#include "director/realserver/decapsulator.h"

#include <fmt/format.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>

#include "director/net/headers.h"
#include "director/realserver/coalesce.h"
#include "director/realserver/failure.h"

namespace director::realserver {
namespace {

/// The largest frame: a 64 KiB super-frame with its link header, rounded up (net/frame.h).
constexpr std::size_t kSlot = kMaxFrame;
constexpr int kReceiveBuffer = 16 << 20;  // bytes: some milliseconds of a 10 Gbit/s link

std::system_error system_failure(const char* what) {
  return {errno, std::system_category(), what};
}

/// Without IPv6 in the kernel there is nothing to do for it.
UniqueFd open_socket(int family, int type, int protocol) {
  UniqueFd fd{::socket(family, type | SOCK_CLOEXEC, protocol)};
  if (fd) return fd;
  if (errno == EPERM || errno == EACCES) throw lacks_privilege("read tunnelled packets");
  if (errno == EAFNOSUPPORT && family == AF_INET6) return {};
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

/// Classic BPF: packets for this host's MAC, not from our own interface, of a tunnel that ends here. The rest
/// never wakes us.
std::vector<sock_filter> tunnel_filter(LinkId own_interface, Family outer, const std::vector<TunnelEnd>& ends) {
  constexpr std::uint32_t kAncillary = static_cast<std::uint32_t>(SKF_AD_OFF);
  constexpr std::uint32_t kNetwork = static_cast<std::uint32_t>(SKF_NET_OFF);
  // RFC 791 and RFC 8200: where the protocol, or the next header, stands; what UDP begins with.
  const std::uint32_t protocol_at = outer == Family::ipv4 ? 9 : 6;
  constexpr std::uint32_t kUdpTarget = 2;
  std::vector<sock_filter> program{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kAncillary + SKF_AD_PKTTYPE),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kAncillary + SKF_AD_IFINDEX),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(own_interface), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kNetwork + protocol_at),
  };
  const auto take_if = [&](std::uint32_t value) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, UINT32_MAX));
  };
  for (const TunnelEnd& end : ends)
    if (end.kind != TunnelEnd::Kind::gue) take_if(static_cast<std::uint32_t>(outer_protocol(end.kind)));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(Protocol::udp), 1, 0));
  program.push_back(BPF_STMT(BPF_RET | BPF_K, 0));
  if (outer == Family::ipv4) {
    program.push_back(BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, kNetwork));
  } else {
    program.push_back(BPF_STMT(BPF_LDX | BPF_W | BPF_IMM, std::uint32_t{sizeof(Ipv6Header)}));
  }
  program.push_back(BPF_STMT(BPF_LD | BPF_H | BPF_IND, kNetwork + kUdpTarget));
  for (const TunnelEnd& end : ends)
    if (end.kind == TunnelEnd::Kind::gue) take_if(end.port.host());
  program.push_back(BPF_STMT(BPF_RET | BPF_K, 0));
  return program;
}

/// For a socket that is only there to be there.
void keep_nothing(const UniqueFd& fd) {
  attach_filter(fd, {BPF_STMT(BPF_RET | BPF_K, 0)});
}

/// Of both families, where there are two.
UniqueFd hold_udp_port(Port port) {
  UniqueFd fd = open_socket(AF_INET6, SOCK_DGRAM, 0);
  int bound = -1;
  if (fd) {
    set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0, "IPV6_V6ONLY");
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = port.wire.raw();
    keep_nothing(fd);
    bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any);
  } else {
    fd = open_socket(AF_INET, SOCK_DGRAM, 0);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_port = port.wire.raw();
    keep_nothing(fd);
    bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any);
  }
  if (bound != 0)
    throw Failure(ExitCode::failed, fmt::format("UDP port {} can't be held for gue: {}; who has it: ss -ulnp sport = :{}",
                                                port.host(), std::generic_category().message(errno), port.host()));
  return fd;
}

enum class Event : std::uint32_t { packets4, packets6, addresses, rules, control, signal };

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

Decapsulator::Decapsulator(ControlSocket control, const std::optional<std::string>& input, const Served& served)
    : control_(std::move(control)), input_(input.value_or("all interfaces")), storage_(kBatch * kSlot) {
  if (input) {
    const auto found = kernel_.link(*input);
    if (!found)
      throw Failure(ExitCode::usage, fmt::format("--interface {}: no such interface (see: ip link)", *input));
    input_link_ = found->id;
  }
  follow_addresses();
  admission_.vips = AddressSet{served.vips};
  admission_.ends = served.ends;
  silence_kernel();
  injector_ = make_injector(kernel_);
  packets4_ = open_packet_socket(ETH_P_IP, input_link_);
  packets6_ = open_packet_socket(ETH_P_IPV6, input_link_);
  open_in_kernel();

  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  ::sigprocmask(SIG_BLOCK, &stop, nullptr);
  signals_ = UniqueFd{::signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK)};
  if (!signals_) throw system_failure("signalfd");
}

/// Bound last, so that nothing comes that the filter hasn't seen.
UniqueFd Decapsulator::open_packet_socket(std::uint16_t type, LinkId input) {
  UniqueFd fd = open_socket(AF_PACKET, SOCK_RAW, 0);
  const int on = 1;
  set_option(fd, SOL_PACKET, PACKET_VNET_HDR, on, "PACKET_VNET_HDR");
  set_option(fd, SOL_PACKET, PACKET_AUXDATA, on, "PACKET_AUXDATA");
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof kReceiveBuffer) != 0) {
    set_option(fd, SOL_SOCKET, SO_RCVBUF, kReceiveBuffer, "SO_RCVBUF");
  }
  const Family outer = type == ETH_P_IP ? Family::ipv4 : Family::ipv6;
  attach_filter(fd, tunnel_filter(injector_->link(), outer, admission_.ends));

  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_protocol = Be16{type}.raw();
  where.sll_ifindex = input;
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0) throw system_failure("bind");

  // A fan-out group of one, for the sake of its DEFRAG flag: the kernel hands IPv4 fragments over as the packet
  // they make up.
  constexpr std::uint32_t kFanout =
      PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_DEFRAG | PACKET_FANOUT_FLAG_UNIQUEID;
  if (type == ETH_P_IP) set_option(fd, SOL_PACKET, PACKET_FANOUT, kFanout << 16U, "PACKET_FANOUT");
  return fd;
}

/// Sockets that make the kernel take the tunnels' packets for served (net/ipv4/ip_input.c: no ICMP "protocol
/// unreachable" where raw_local_deliver() found a socket; net/ipv4/udp.c alike). Their filter keeps nothing.
void Decapsulator::silence_kernel() {
  std::vector<UniqueFd> sockets;
  for (const TunnelEnd& end : admission_.ends) {
    if (end.kind == TunnelEnd::Kind::gue) continue;
    for (const int family : {AF_INET, AF_INET6}) {
      UniqueFd raw = open_socket(family, SOCK_RAW, static_cast<int>(outer_protocol(end.kind)));
      if (!raw) continue;
      keep_nothing(raw);
      sockets.push_back(std::move(raw));
    }
  }
  silencers_.clear();  // a port can be held once: let go first, then hold again
  for (const TunnelEnd& end : admission_.ends)
    if (end.kind == TunnelEnd::Kind::gue) sockets.push_back(hold_udp_port(end.port));
  silencers_ = std::move(sockets);
}

void Decapsulator::serve(const Served& served) {
  const std::vector<TunnelEnd> before = std::exchange(admission_.ends, served.ends);
  if (before != admission_.ends) {
    try {
      silence_kernel();
    } catch (...) {  // the port is somebody else's: go on as before
      admission_.ends = before;
      silence_kernel();
      throw;
    }
    attach_filter(packets4_, tunnel_filter(injector_->link(), Family::ipv4, admission_.ends));
    attach_filter(packets6_, tunnel_filter(injector_->link(), Family::ipv6, admission_.ends));
  }
  admission_.vips = AddressSet{served.vips};
  tell_opener();
}

void Decapsulator::follow_addresses() {
  address_events_ = open_socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE);
  sockaddr_nl groups{};
  groups.nl_family = AF_NETLINK;
  groups.nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
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
  tell_opener();
}

void Decapsulator::open_in_kernel() {
  const auto out = kernel_.link(injector_->name());
  if (!out) throw Failure(ExitCode::failed, fmt::format("{} has gone", injector_->name()));
  auto opener = KernelOpener::open(*out);
  if (opener)
    opener_ = std::move(*opener);
  else
    opener_lacks_ = opener.error().message;
  tell_opener();
}

/// At interfaces that have addresses: where the IP layer takes packets, behind bridges and bonds. At none while somebody filters at
/// ingress: such rules are for the packets as they came.
void Decapsulator::tell_opener() {
  if (!opener_) return;
  std::vector<LinkId> links;
  if (!ingress_rules_.any()) {
    const auto addresses = kernel_.addresses();
    for (const Link& l : kernel_.links()) {
      const bool has_address =
          std::any_of(addresses.begin(), addresses.end(), [&](const LinkAddress& a) { return a.link == l.id; });
      if (l.ethernet && l.id != injector_->link() && (input_link_ == 0 ? has_address : l.id == input_link_)) links.push_back(l.id);
    }
  }
  opener_->admit(admission_, links);
}

// --- waiting -----------------------------------------------------------------------------------------------

void Decapsulator::run() {
  const UniqueFd epoll{::epoll_create1(EPOLL_CLOEXEC)};
  if (!epoll) throw system_failure("epoll");
  watch(epoll.get(), packets4_.get(), Event::packets4);
  watch(epoll.get(), packets6_.get(), Event::packets6);
  watch(epoll.get(), address_events_.get(), Event::addresses);
  if (ingress_rules_.changed()) watch(epoll.get(), ingress_rules_.changed().get(), Event::rules);
  watch(epoll.get(), control_.fd(), Event::control);
  watch(epoll.get(), signals_.get(), Event::signal);

  while (running_) {
    std::array<epoll_event, 6> events{};
    const int n = ::epoll_wait(epoll.get(), events.data(), events.size(), -1);
    for (int i = 0; i < n; ++i) {
      switch (static_cast<Event>(events[static_cast<std::size_t>(i)].data.u32)) {
        case Event::packets4:
          receive_batches(packets4_);
          break;
        case Event::packets6:
          receive_batches(packets6_);
          break;
        case Event::addresses: {
          std::array<char, 8192> news;  // what it says doesn't matter: all addresses are read again
          while (::recv(address_events_.get(), news.data(), news.size(), 0) > 0) {
          }
          read_addresses();
          break;
        }
        case Event::rules:
          tell_opener();
          break;
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
void Decapsulator::receive_batches(const UniqueFd& packets) {
  constexpr int kMostBatches = 16;
  for (int i = 0; i < kMostBatches && receive_batch(packets); ++i) {
  }

  tpacket_stats statistics{};
  socklen_t size = sizeof statistics;
  if (::getsockopt(packets.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &size) == 0) {
    count(Fate::not_received) += statistics.tp_drops;
  }
}

/// One batch in and out; true if there may be more.
bool Decapsulator::receive_batch(const UniqueFd& packets) {
  for (std::size_t i = 0; i < kBatch; ++i) {
    parts_[i] = {iovec{&headers_[i], sizeof headers_[i]}, iovec{storage_.data() + i * kSlot, kSlot}};
    messages_[i] = {};
    messages_[i].msg_hdr.msg_iov = parts_[i].data();
    messages_[i].msg_hdr.msg_iovlen = parts_[i].size();
    messages_[i].msg_hdr.msg_control = control_space_[i].bytes.data();
    messages_[i].msg_hdr.msg_controllen = control_space_[i].bytes.size();
  }
  const int n = ::recvmmsg(packets.get(), messages_.data(), kBatch, MSG_DONTWAIT, nullptr);
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
  std::array<std::uint16_t, kBatch> stands_for;
  const std::size_t left = coalesce(std::span{good}.first(taken), stands_for);
  refused_.clear();
  injector_->inject(std::span{good}.first(left), refused_);
  for (const std::size_t place : refused_) {
    count(Fate::delivered) -= stands_for[place];
    count(Fate::refused) += stands_for[place];
  }
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

namespace {

/// Words of a `serve` request: VIPs and tunnels, in any order.
Served parse_served(std::string_view words) {
  Served served;
  while (!words.empty()) {
    const std::size_t end = std::min(words.find(' '), words.size());
    const std::string_view word = words.substr(0, end);
    if (const auto tunnel = parse_tunnel_end(word)) {
      served.ends.push_back(*tunnel);
    } else if (const auto vip = IpAddress::parse(word)) {
      served.vips.push_back(*vip);
    }
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return served;
}

}  // namespace

// --- answering ---------------------------------------------------------------------------------------------

void Decapsulator::answer_requests() {
  while (const auto request = control_.receive()) {
    constexpr std::string_view kServe = "serve ";
    if (request->text == "status") {
      control_.reply(*request, status());
    } else if (!request->trusted) {
      control_.reply(*request, "error: only root may");
    } else if (request->text == "stop") {
      running_ = false;
      control_.reply(*request, "ok");
    } else if (request->text.starts_with(kServe)) {
      try {
        serve(parse_served(std::string_view{request->text}.substr(kServe.size())));
        control_.reply(*request, "ok");
      } catch (const std::exception& e) {
        control_.reply(*request, e.what());
      }
    } else {
      control_.reply(*request, "error: unknown request");
    }
  }
}

std::string Decapsulator::counters() const {
  std::string text;
  const std::uint64_t in_kernel = opener_ ? opener_->delivered() : 0;
  for (const auto& [fate, name, words] : kFates)
    if (const std::uint64_t n = counts_[static_cast<std::size_t>(fate)] + (fate == Fate::delivered ? in_kernel : 0); n != 0)
      text += fmt::format("count {} {}\n", name, n);
  return text;
}

/// Empty: plain packets are opened there.
std::string Decapsulator::why_not_in_kernel() const {
  if (!opener_) return opener_lacks_;
  if (std::none_of(admission_.ends.begin(), admission_.ends.end(), [](const TunnelEnd& e) { return e.is_bare(); }))
    return "the kernel's part is for ipip only";
  return opener_->links() == 0 ? "somebody filters at ingress" : std::string{};
}

std::string Decapsulator::status() const {
  std::string text = fmt::format("pid {}\ninterface {}\nway {}\ninput {}\n", ::getpid(), injector_->name(),
                                 injector_->description(), input_);
  if (const std::string why = why_not_in_kernel(); !why.empty()) text += fmt::format("user_space {}\n", why);
  for (const IpAddress& vip : admission_.vips.addresses()) text += fmt::format("vip {}\n", format_as(vip));
  for (const TunnelEnd& end : admission_.ends) text += fmt::format("tunnel {}\n", format_as(end));
  return text + counters();
}

}  // namespace director::realserver
