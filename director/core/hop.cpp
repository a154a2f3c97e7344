// Devices, routes and neighbours. hop.h says what is what.
#include "director/core/hop.h"

#include <algorithm>
#include <cstring>

#include "director/core/counters.h"
#include "director/core/neighbour.h"
#include "director/net/headers.h"
#include "director/net/ip_header.h"

namespace director {

std::size_t Network::KeyHash::operator()(const Key& k) const { return AddressHash{}(k.address) + k.device.index; }

void write_arp(Frame& frame, std::uint16_t operation, const MacAddress& to, const MacAddress& sender_mac,
               const IpAddress& sender, const MacAddress& target_mac, const IpAddress& target) {
  frame.resize(sizeof(EthernetHeader) + sizeof(ArpHeader));
  const auto bytes = frame.bytes();
  header_at<EthernetHeader>(bytes, 0) = {to, sender_mac, Be16{static_cast<std::uint16_t>(EtherType::arp)}};
  header_at<ArpHeader>(bytes, sizeof(EthernetHeader)) = {
      Be16{1},   Be16{static_cast<std::uint16_t>(EtherType::ipv4)}, 6, 4, Be16{operation}, sender_mac, sender.v4_wire(),
      target_mac, target.v4_wire()};
  frame.offload = {};
}

// --- what is told ---------------------------------------------------------------------------------------------------

void Network::apply(const SetDevice& change) {
  if (change.device.index >= interfaces_.size()) interfaces_.resize(change.device.index + 1);
  Interface& i = interfaces_[change.device.index];
  i.name = change.name;
  i.mac = change.mac;
  i.mtu = change.mtu;
  i.up = change.up;
  i.stack = change.stack;
  i.known = true;
  rebuild_paths();
}

void Network::apply(const SetAddresses& change) {
  if (change.device.index >= interfaces_.size()) interfaces_.resize(change.device.index + 1);
  interfaces_[change.device.index].addresses = change.addresses;
  rebuild_paths();
}

void Network::apply(const SetRoutes& change) {
  told_ = change.routes;
  rebuild_paths();
}

void Network::apply(const SetNeighbour& change, Instant now, Outbox& outbox) {
  const HopId id = hop_to(change.device, change.address);
  if (!id) return;
  Hop& hop = hops_[id.index];
  if (change.mac) {
    if (hop.mac != *change.mac) ++neighbour_generation_;
    hop.mac = *change.mac;
    hop.permanent = change.permanent;
    hop.state = Hop::State::reachable;
    hop.asked = 0;
    hop.next = now + kMakeSure;
    if (!hop.permanent) wake_at(hop.next);
    release(hop, outbox);
  } else if (hop.permanent) {
    hop.permanent = false;  // from now on we look after it
    hop.next = now;
    wake_at(now);
  }
}

void Network::rebuild_paths() {
  paths_.clear();
  for (const Route& route : told_) paths_.push_back({route, {}, 0});
  for (std::uint32_t i = 0; i < interfaces_.size(); ++i) {
    for (const Prefix& p : interfaces_[i].addresses) {
      if (p.length == (p.address.is_v4() ? 32 : 128)) continue;
      paths_.push_back({{{p.network(), p.length}, DeviceId{i}, {}, 0, 0, p.address}, {}, 0});
    }
  }
  std::stable_sort(paths_.begin(), paths_.end(), [](const Route& a, const Route& b) {
    return a.destination.length != b.destination.length ? a.destination.length > b.destination.length
                                                        : a.metric < b.metric;
  });
  std::vector<Path> own;
  for (std::uint32_t i = 0; i < interfaces_.size(); ++i)
    for (const Prefix& p : interfaces_[i].addresses)
      own.push_back({{{p.address, static_cast<std::uint8_t>(p.address.is_v4() ? 32 : 128)}, DeviceId{i}, {}, 0, 0, {}},
                     {{}, true, 65535, p.address},
                     0});
  paths_.insert(paths_.begin(), own.begin(), own.end());
  matches_.clear();
  for (const Path& path : paths_) matches_.emplace_back(path.destination);
  ++generation_;
}

// --- what is asked --------------------------------------------------------------------------------------------------

const Interface* Network::find(DeviceId id) const {
  return id.index < interfaces_.size() && interfaces_[id.index].known ? &interfaces_[id.index] : nullptr;
}

bool Network::owns(const IpAddress& a) const {
  return std::any_of(interfaces_.begin(), interfaces_.end(), [&](const Interface& i) { return i.owns(a); });
}

bool Network::on_link(DeviceId device, const IpAddress& a) const {
  const Interface* i = find(device);
  return i != nullptr &&
         std::any_of(i->addresses.begin(), i->addresses.end(), [&](const Prefix& p) { return p.contains(a); });
}

bool Network::on_link_anywhere(const IpAddress& a) const {
  for (std::uint32_t i = 0; i < interfaces_.size(); ++i)
    if (on_link(DeviceId{i}, a)) return true;
  return false;
}

Network::Match::Match(const Prefix& p) : bits(std::bit_cast<Words>(p.network().bytes())), is_v4(p.address.is_v4()) {
  const auto last = std::bit_cast<Words>(p.broadcast().bytes());
  mask = {~(bits[0] ^ last[0]), ~(bits[1] ^ last[1])};
}

const RouteTo* Network::route(const IpAddress& to, DeviceId scope) {
  const auto words = std::bit_cast<Words>(to.bytes());
  const bool is_v4 = to.is_v4();
  const bool scoped = scope && !is_v4 && to.is_link_local();
  for (std::size_t i = 0; i < matches_.size(); ++i) {
    if (!matches_[i].holds(words, is_v4)) continue;
    Path& path = paths_[i];
    if (path.to.local) return &path.to;
    if (scoped && path.device != scope) continue;
    const Interface* out = find(path.device);
    if (out == nullptr) return nullptr;
    if (!out->up) continue;
    if (!path.via || path.found != generation_) {
      path.to = follow(path, path.via.value_or(to), to.family());
      path.found = generation_;  // after: follow() may make a hop
    }
    if (!path.to.hop) return nullptr;
    if (!path_mtu_.empty())
      if (const auto learnt = path_mtu_.find(to); learnt != path_mtu_.end() && learnt->second.mtu < path.to.mtu) {
        found_ = path.to;
        found_.mtu = learnt->second.mtu;
        found_.learnt = true;
        return &found_;
      }
    return &path.to;
  }
  return nullptr;
}

RouteTo Network::follow(const Route& route, const IpAddress& via, Family family) {
  const Interface& out = interfaces_[route.device.index];
  RouteTo way{hop_to(route.device, via), false, route.mtu != 0 ? std::min(route.mtu, out.mtu) : out.mtu, {}};
  if (route.source) {
    way.source = *route.source;
  } else {  // the address in the next hop's subnet, else the device's first of the family
    const Prefix* best = nullptr;
    for (const Prefix& p : out.addresses)
      if (p.address.family() == family && (best == nullptr || (p.contains(via) && !best->contains(via)))) best = &p;
    if (best != nullptr) way.source = best->address;
  }
  return way;
}

void Network::learn_path_mtu(const IpAddress& to, std::uint32_t mtu, Instant now) {
  // Less is no link today, and an attacker's way to make us send crumbs.
  constexpr std::uint32_t kLeastIpv4 = 552;  // net.ipv4.route.min_pmtu
  mtu = std::max(mtu, to.is_v4() ? kLeastIpv4 : least_mtu(Family::ipv6));
  const auto known = path_mtu_.find(to);
  if (known == path_mtu_.end() ? path_mtu_.size() >= kMostHops : known->second.mtu <= mtu) return;
  path_mtu_[to] = {mtu, now + 10min};
  wake_at(now + 10min);
  ++generation_;
}

HopId Network::hop_to(DeviceId device, const IpAddress& via) {
  const Key key{device, via};
  if (const auto known = hop_index_.find(key); known != hop_index_.end()) return known->second;
  std::uint32_t index = 0;
  while (hops_.size() >= kMostHops && index < hops_.size() && hops_[index].state != Hop::State::unused) ++index;
  if (hops_.size() < kMostHops) {
    index = static_cast<std::uint32_t>(hops_.size());
    hops_.emplace_back();
  } else if (index == hops_.size()) {
    return {};
  } else {
    hop_index_.erase({hops_[index].egress, hops_[index].via});
    ++generation_;  // somebody may remember what this row was
  }
  hops_[index] = Hop{};
  hops_[index].egress = device;
  hops_[index].via = via;
  hop_index_.emplace(key, HopId{index});
  return HopId{index};
}

// --- neighbours -----------------------------------------------------------------------------------------------------

Verdict Network::let_wait(Frame& frame, Hop& hop, Instant now, Outbox& outbox, Counters& counters) {
  if (hop.state == Hop::State::failed && now < hop.next) return Verdict::drop(Reason::neighbour_failed);
  if (hop.waiting.size() >= kMostWaiting) {  // the newest wait, as in the kernel (neighbour.c, __neigh_event_send)
    hop.waiting.erase(hop.waiting.begin());
    counters.count(Reason::neighbour_overflow);
  }
  const auto bytes = frame.bytes();
  hop.waiting.push_back({{bytes.begin(), bytes.end()}, frame.offload, frame.ingress});
  if (hop.state != Hop::State::asking) {
    hop.state = Hop::State::asking;
    hop.asked = 0;
    ask(hop, now, outbox);
  }
  return Verdict::drop(Reason::neighbour_waits);
}

void Network::ask(Hop& hop, Instant now, Outbox& outbox) {
  const Interface& out = interfaces_[hop.egress.index];
  hop.next = now + kAskAgain;
  wake_at(hop.next);
  ++hop.asked;
  if (!out.up) return;
  // No address: 0.0.0.0 or :: is a probe (RFC 5227; RFC 4862, 5.4.2) and still gets an answer.
  const Prefix* speaker = nullptr;
  for (const Prefix& p : out.addresses)
    if (p.address.family() == hop.via.family() && (speaker == nullptr || (p.contains(hop.via) && !speaker->contains(hop.via))))
      speaker = &p;
  const IpAddress sender = speaker != nullptr ? speaker->address : IpAddress{};
  // To the MAC we knew first (unicast poll, RFC 1122, 2.3.2.1; RFC 4861, 7.3), then to everybody.
  const bool poll = hop.state == Hop::State::reachable && hop.asked == 1;
  if (hop.via.is_v4())
    write_arp(outbox.add(64, hop.egress), ArpHeader::kRequest, poll ? hop.mac : kBroadcastMac, out.mac, sender, {},
              hop.via);
  else
    write_solicitation(outbox.add(128, hop.egress), out.mac, sender, hop.via, poll ? std::optional{hop.mac} : std::nullopt);
}

void Network::learn(DeviceId device, const IpAddress& address, const MacAddress& mac, Claim claim, Instant now,
                    Outbox& outbox) {
  const auto known = hop_index_.find(Key{device, address});
  if (known == hop_index_.end() || mac.is_group()) return;
  Hop& hop = hops_[known->second.index];
  if (hop.permanent) return;
  if (claim == Claim::careful && hop.state == Hop::State::reachable && hop.mac != mac) {
    hop.next = now;
    wake_at(now);
    return;
  }
  if (hop.mac != mac) ++neighbour_generation_;
  hop.mac = mac;
  hop.state = Hop::State::reachable;
  hop.asked = 0;
  hop.next = now + kMakeSure;
  wake_at(hop.next);
  release(hop, outbox);
}

void Network::release(Hop& hop, Outbox& outbox) {
  for (Hop::Waiting& w : hop.waiting) {
    Frame& frame = outbox.add(w.bytes.size(), hop.egress);
    frame.resize(w.bytes.size());
    std::memcpy(frame.bytes().data(), w.bytes.data(), w.bytes.size());
    frame.offload = w.offload;
    frame.ingress = w.ingress;
    header_at<EthernetHeader>(frame.bytes(), 0).target = hop.mac;
  }
  hop.waiting.clear();
}

void Network::expire(Instant now, Outbox& outbox, Counters& counters) {
  if (now < next_) return;
  next_ = kNever;
  for (Hop& hop : hops_) {
    if (hop.permanent || hop.state == Hop::State::unused) continue;
    if (hop.next > now) {
      wake_at(hop.next);
      continue;
    }
    switch (hop.state) {
      case Hop::State::asking:
      case Hop::State::reachable:
        if (hop.state == Hop::State::reachable && hop.asked == 0 && !hop.used) {
          // Nobody sent there for a while: ask again when somebody does. The row stays: others keep its id.
          hop.state = Hop::State::unused;
          ++neighbour_generation_;
          break;
        }
        hop.used = false;
        if (hop.asked < kMostAsked) {
          ask(hop, now, outbox);
          break;
        }
        counters.count(Reason::neighbour_failed, hop.waiting.size());
        hop.waiting.clear();
        hop.state = Hop::State::failed;
        ++neighbour_generation_;
        hop.next = now + kFailedFor;  // after that the next frame asks anew
        wake_at(hop.next);
        break;
      case Hop::State::failed: hop.state = Hop::State::unused; break;
      case Hop::State::unused: break;
    }
  }
  const std::size_t before = path_mtu_.size();
  std::erase_if(path_mtu_, [&](const auto& entry) { return entry.second.until <= now; });
  if (path_mtu_.size() != before) ++generation_;
  for (const auto& [to, learnt] : path_mtu_) wake_at(learnt.until);
}

}  // namespace director
