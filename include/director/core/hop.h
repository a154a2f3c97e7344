// Network: what the director knows of devices, addresses, routes and neighbours, and how a frame gets its Ethernet header.
//
// A Hop is a neighbour on a device. Connections and real servers keep HopIds, so a neighbour that changes its MAC address is one row
// changed. The director resolves neighbours itself, by ARP or neighbour discovery, on every kind of device (RFC 826, RFC 4861); what a kernel knows comes in as
// SetNeighbour. A frame whose hop has no MAC yet is copied and waits; at most kMostWaiting frames a hop.
//
// Not here: which packets go where (balancer.cpp), answers to ARP (local.h).
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "director/base/id.h"
#include "director/base/time.h"
#include "director/core/change.h"
#include "director/core/counters.h"
#include "director/core/outbox.h"
#include "director/core/verdict.h"
#include "director/net/frame.h"
#include "director/net/headers.h"

namespace director {

/// A device as the core sees it.
struct Interface {
  std::string name;
  MacAddress mac;
  std::uint32_t mtu = 1500;
  bool known = false;
  bool up = false;
  Stack stack = Stack::host;
  std::vector<Prefix> addresses;

  [[nodiscard]] bool owns(const IpAddress& a) const {
    for (const Prefix& p : addresses)
      if (p.address == a) return true;
    return false;
  }
  /// The IPv6 address the device has on its own link, :: if it has none (yet).
  [[nodiscard]] IpAddress link_local_address() const {
    for (const Prefix& p : addresses)
      if (!p.address.is_v4() && p.address.is_link_local()) return p.address;
    return IpAddress::v6({});
  }
};

struct Hop {
  enum class State : std::uint8_t { unused, asking, reachable, failed };

  DeviceId egress;
  IpAddress via;  ///< the neighbour's address
  MacAddress mac;
  State state = State::unused;
  bool permanent = false;     ///< told so: never asked for, never forgotten
  bool used = false;          ///< since it was last looked at
  std::uint8_t asked = 0;     ///< requests since the last answer
  Instant next{};             ///< asking: when to ask again; reachable: when to make sure
  struct Waiting {
    std::vector<std::byte> bytes;
    Offload offload;
    DeviceId ingress;
  };
  std::vector<Waiting> waiting;
};

/// Where packets to an address go.
struct RouteTo {
  HopId hop;          ///< none when local
  bool local = false;  ///< an address of the director's own
  std::uint32_t mtu = 0;
  IpAddress source;    ///< the address the director speaks from on that way
  bool learnt = false;  ///< the MTU is one that learn_path_mtu() was told
};

class Network {
 public:
  void apply(const SetDevice& change);
  void apply(const SetAddresses& change);
  void apply(const SetRoutes& change);
  void apply(const SetNeighbour& change, Instant now, Outbox& outbox);

  /// Counts changes that can turn routes or HopIds; what was derived under another generation is to be derived again.
  [[nodiscard]] std::uint32_t generation() const { return generation_; }
  /// Counts changes of what seal() writes: a MAC address that changed or isn't known any more.
  [[nodiscard]] std::uint32_t neighbour_generation() const { return neighbour_generation_; }
  [[nodiscard]] const Interface* find(DeviceId id) const;
  [[nodiscard]] const std::vector<Interface>& interfaces() const { return interfaces_; }
  /// An address of one of the devices (never a virtual one).
  [[nodiscard]] bool owns(const IpAddress& a) const;
  /// A device's subnet holds it.
  [[nodiscard]] bool on_link(DeviceId device, const IpAddress& a) const;
  [[nodiscard]] bool on_link_anywhere(const IpAddress& a) const;

  /// The way to an address; nullptr: there is none. Longest prefix, then lowest metric; connected subnets come from the addresses.
  /// `scope`: the link that a link-local address means. True until the next call.
  const RouteTo* route(const IpAddress& to, DeviceId scope = {});
  /// A smaller MTU on the way to `to` than the route's, learnt from ICMP; forgotten after ten minutes (RFC 1191, 6.3;
  /// RFC 8201, 4).
  void learn_path_mtu(const IpAddress& to, std::uint32_t mtu, Instant now);
  /// Somebody sends there past seal(): the neighbour is in use.
  void keep_alive(HopId id) { hops_[id.index].used = true; }
  [[nodiscard]] const Hop& hop(HopId id) const { return hops_[id.index]; }
  [[nodiscard]] const std::vector<Hop>& hops() const { return hops_; }

  /// Writes the Ethernet header for this hop. Without a MAC yet: keeps a copy, asks, and says so (drop, neighbour_waits).
  Verdict seal(Frame& frame, HopId to, Instant now, Outbox& outbox, Counters& counters) {
    Hop& hop = hops_[to.index];
    const Interface& out = interfaces_[hop.egress.index];
    if (!out.up) return Verdict::drop(Reason::device_down);
    hop.used = true;
    auto& ethernet = header_at<EthernetHeader>(frame.bytes(), 0);
    ethernet.source = out.mac;
    if (hop.state != Hop::State::reachable) return let_wait(frame, hop, now, outbox, counters);
    ethernet.target = hop.mac;
    return Verdict::transmit(hop.egress);
  }
  /// How much a message about a neighbour says: `careful` doesn't replace another MAC that is in use, it only makes us ask
  /// (an advertisement without the override flag, RFC 4861, 7.2.5).
  enum class Claim : std::uint8_t { certain, careful };
  /// An ARP or ND message said that `address` is at `mac`; learnt only for hops in use (RFC 826's "merge").
  void learn(DeviceId device, const IpAddress& address, const MacAddress& mac, Claim claim, Instant now, Outbox& outbox);

  /// Asks again, makes sure, forgets. Frames that gave up waiting are handed to `unreachable`.
  void expire(Instant now, Outbox& outbox, Counters& counters);
  [[nodiscard]] Instant next_deadline() const { return next_; }

  static constexpr std::size_t kMostWaiting = 64;   ///< frames a hop (Linux: 101 packets' worth of bytes, unres_qlen_bytes)
  static constexpr std::size_t kMostHops = 65536;
  static constexpr std::uint8_t kMostAsked = 3;      ///< Linux: mcast_solicit, ucast_solicit
  static constexpr Duration kAskAgain = std::chrono::seconds(1);    ///< Linux: retrans_time_ms
  static constexpr Duration kMakeSure = std::chrono::seconds(30);   ///< Linux: base_reachable_time
  static constexpr Duration kFailedFor = std::chrono::seconds(3);

 private:
  struct Key {
    DeviceId device;
    IpAddress address;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& k) const;
  };
  struct PathMtu {
    std::uint32_t mtu = 0;
    Instant until;
  };

  /// A route, or an address of our own; and what it leads to: of a route through a gateway the same for all addresses, found out once.
  struct Path : Route {
    RouteTo to;
    std::uint32_t found = 0;  // under which generation
  };
  /// The addresses a path is for, as the walk through all of them compares: every reply to a client takes it.
  using Words = std::array<std::uint64_t, 2>;  // an address's, in the byte order of the wire
  struct Match {
    Words bits, mask;
    bool is_v4;

    explicit Match(const Prefix& p);
    [[nodiscard]] bool holds(const Words& a, bool a_is_v4) const {
      return a_is_v4 == is_v4 && (((a[0] ^ bits[0]) & mask[0]) | ((a[1] ^ bits[1]) & mask[1])) == 0;
    }
  };
  [[nodiscard]] RouteTo follow(const Route& route, const IpAddress& via, Family family);
  HopId hop_to(DeviceId device, const IpAddress& via);
  Verdict let_wait(Frame& frame, Hop& hop, Instant now, Outbox& outbox, Counters& counters);
  void ask(Hop& hop, Instant now, Outbox& outbox);
  static void release(Hop& hop, Outbox& outbox);
  void rebuild_paths();
  void wake_at(Instant t) {
    if (t < next_) next_ = t;
  }

  std::vector<Interface> interfaces_;  // by DeviceId
  std::vector<Route> told_;            // what SetRoutes said
  std::vector<Path> paths_;            // own addresses, then routes and connected subnets, best first
  std::vector<Match> matches_;         // of each path
  std::vector<Hop> hops_;
  std::unordered_map<Key, HopId, KeyHash> hop_index_;
  std::unordered_map<IpAddress, PathMtu, AddressHash> path_mtu_;
  RouteTo found_;  // by route(), where it is no path's own
  std::uint32_t generation_ = 1;
  std::uint32_t neighbour_generation_ = 1;
  Instant next_ = kNever;
};

/// Writes an ARP message into an empty frame. `to` is the Ethernet destination.
void write_arp(Frame& frame, std::uint16_t operation, const MacAddress& to, const MacAddress& sender_mac,
               const IpAddress& sender, const MacAddress& target_mac, const IpAddress& target);

}  // namespace director
