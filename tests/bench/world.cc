// The director under test, its network and its flows.
#include "world.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include <fmt/format.h>

#include "director/net/checksum.h"
#include "director/net/ip_header.h"

namespace director::bench {
namespace {

const MacAddress kOwnMac[2] = {*MacAddress::parse("02:00:00:00:00:02"), *MacAddress::parse("02:00:00:00:01:02")};
const MacAddress kGatewayMac = *MacAddress::parse("02:00:00:00:00:fe");
const MacAddress kServerMac = *MacAddress::parse("02:00:00:00:00:11");
constexpr DeviceId kFront{0};
constexpr DeviceId kBack{1};
constexpr std::size_t kNetwork = sizeof(EthernetHeader);
constexpr std::size_t kFrameLength = 64;

/// The same place in either family: 10.9.<net>.<host>, fd00:0:0:<net>::<host>.
IpAddress place(Family family, std::uint8_t net, std::uint8_t host) {
  if (family == Family::ipv4) return IpAddress::v4(0x0a090000U | std::uint32_t{net} << 8U | host);
  return IpAddress::v6({0xfd, 0, 0, 0, 0, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, host});
}
Prefix subnet(Family family, std::uint8_t net, std::uint8_t host) {
  return {place(family, net, host), static_cast<std::uint8_t>(family == Family::ipv4 ? 24 : 64)};
}

}  // namespace

std::string name_of(Method method) {
  switch (method) {
    case Method::masq: return "nat";
    case Method::tunnel: return "tun";
    case Method::direct: return "dr";
  }
  return {};
}

std::string name_of(Family family) { return family == Family::ipv4 ? "ipv4" : "ipv6"; }

Batch::Batch() : storage_(std::make_unique<std::byte[]>(kBatch * (kHeadroom + kMaxFrame))) {
  for (std::size_t i = 0; i < kBatch; ++i)
    frames_[i].storage = {storage_.get() + i * (kHeadroom + kMaxFrame), kHeadroom + kMaxFrame};
}

World::World(const Shape& shape) : balancer({Policy::improved, 0x5eed, 40'000'000, false}), shape_(shape) {
  const Family family = shape.family;
  vip_ = {place(family, 0, 100), Port::of(80)};
  elsewhere_ = place(family, 0, 99);
  tell(SetDevice{kFront, "front", kOwnMac[0], 1500, true, Stack::host});
  tell(SetDevice{kBack, "back", kOwnMac[1], 1500, true, Stack::host});
  tell(SetAddresses{kFront, {subnet(family, 0, 2)}});
  tell(SetAddresses{kBack, {subnet(family, 1, 2)}});
  const IpAddress gateway = place(family, 0, 254);
  const Prefix anywhere{family == Family::ipv4 ? IpAddress{} : IpAddress::v6({}), 0};
  tell(SetRoutes{{Route{anywhere, kFront, gateway, 0, 0, {}}}});
  tell(SetNeighbour{kFront, gateway, kGatewayMac, true});
  // Ten years: so that benches may let short time-outs pass, thousands of times, and keep what is established.
  tell(SetTimeouts{87600h, {}, {}});
  const ServiceKey key{Protocol::tcp, vip_, 0};
  tell(AddService{{key, "rr", {}, {}, 0, Be32{0xffffffffU}, false, {}, {}}});
  for (std::uint8_t i = 0; i < kServers; ++i) {
    ServerConfig server;
    server.endpoint = {place(family, 1, static_cast<std::uint8_t>(11 + i)), Port::of(shape.method == Method::masq ? 8080 : 80)};
    server.method = shape.method;
    tell(SetNeighbour{kBack, server.endpoint.address, kServerMac, true});
    tell(AddServer{key, server});
  }
  open(shape.flows);
}

void World::tell(const Change& change) {
  if (!balancer.apply(change, now)) throw std::runtime_error("a change was refused");
}

void World::open(std::size_t count) {
  Frame& frame = batch_[0];
  for (const std::uint64_t end = flows_ + count; flows_ < end; ++flows_) {
    write_request(frame, flows_, TcpHeader::kSyn);
    require(balancer.process(frame, now), Action::transmit);
    if (shape_.method == Method::masq) {
      server_of_[flows_ % kServers] = {address_at(frame.bytes(), kNetwork, shape_.family, AddressEnd::target), Port::of(8080)};
      write_reply(frame, flows_, TcpHeader::kSyn | TcpHeader::kAck);
      require(balancer.process(frame, now), Action::transmit);
    }
    write_request(frame, flows_, TcpHeader::kAck);
    require(balancer.process(frame, now), Action::transmit);
  }
}

Endpoint World::client(std::uint64_t n) const {
  const auto host = static_cast<std::uint32_t>(n >> 4U);
  const auto port = Port::of(static_cast<std::uint16_t>(1024 + (n & 15U) * 4001));
  if (shape_.family == Family::ipv4) return {IpAddress::v4(0x14000000U + host), port};
  const auto b = std::bit_cast<std::array<std::uint8_t, 4>>(Be32{host});
  return {IpAddress::v6({0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, b[0], b[1], b[2], b[3]}), port};
}

void World::write_request(Frame& frame, std::uint64_t n, std::uint8_t tcp_flags) const {
  write(frame, client(n), vip_, kFront, tcp_flags);
}

void World::write_reply(Frame& frame, std::uint64_t n, std::uint8_t tcp_flags) const {
  write(frame, server_of_[n % kServers], client(n), kBack, tcp_flags);
}

void World::write_foreign(Frame& frame, std::uint64_t n) const {
  write(frame, client(n), {elsewhere_, vip_.port}, kFront, TcpHeader::kAck);
}

void World::write(Frame& frame, const Endpoint& from, const Endpoint& to, DeviceId ingress, std::uint8_t tcp_flags) const {
  const std::size_t transport = kNetwork + ip_header_size(shape_.family);
  frame.start = kHeadroom;
  frame.resize(std::max(kFrameLength, transport + sizeof(TcpHeader)));
  frame.ingress = ingress;
  frame.offload = {};
  const auto bytes = frame.bytes();
  header_at<EthernetHeader>(bytes, 0) = {kOwnMac[ingress.index], ingress == kFront ? kGatewayMac : kServerMac, {}};
  set_ether_type(bytes, shape_.family);
  write_ip_header(bytes, kNetwork, {from.address, to.address}, {Protocol::tcp, 64, 0, true, 0});
  auto& tcp = header_at<TcpHeader>(bytes, transport);
  tcp = {from.port, to.port, Be32{1000}, Be32{2000}, 5U << 4U, tcp_flags, Be16{1024}, Be16{0}, Be16{0}};
  const auto segment = bytes.subspan(transport);
  tcp.checksum = pseudo_header_sum(from.address, to.address, Protocol::tcp, segment.size()).add(segment).field();
}

void World::require(const Verdict& verdict, Action action, Reason reason) {
  if (verdict.action != action || verdict.reason != reason)
    throw std::runtime_error(fmt::format("the bench measures something else: a verdict was {}", director::name_of(verdict.reason)));
}

std::size_t World::expire_all() {
  std::size_t ended = 0;
  while (balancer.next_deadline() <= now) ended += balancer.expire(now);
  return ended;
}

namespace {
std::unique_ptr<World> kept;
Shape kept_shape;
}  // namespace

World& world_of(const Shape& shape) {
  if (kept == nullptr || kept_shape != shape) {
    kept.reset();  // first: two large tables need not fit
    kept = std::make_unique<World>(shape);
    kept_shape = shape;
  }
  return *kept;
}

void forget_world() { kept.reset(); }

}  // namespace director::bench
