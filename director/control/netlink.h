// Netlink: what the kernel knows of the network (links, addresses, routes, neighbours), told to the core as
// Change, at the start and whenever it changes.
//
// For packet: devices only; a tap is a host of its own and says itself what it is. Only reads: nothing of the
// kernel's is changed here. Events may be lost when they come too fast (ENOBUFS); then everything is asked
// for again. Source: rtnetlink(7).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "director/base/time.h"
#include "director/core/change.h"

struct mnl_socket;
struct nlmsghdr;

namespace director {

class Netlink {
 public:
  struct Watched {
    DeviceId device;
    std::string interface;
  };
  using Tell = std::function<void(const Change&, Instant)>;
  /// The interface of a device came, went or changed; index 0: there is none now.
  using LinkSeen = std::function<void(DeviceId, unsigned index, bool up)>;

  /// `other_routes` (those of devices that know their own) are part of every SetRoutes. Throws StartupError.
  Netlink(const std::vector<Watched>& watched, std::vector<Route> other_routes, Tell tell,
          LinkSeen link_seen);
  ~Netlink();

  /// Asks for everything and tells it.
  void start(Instant now);
  /// Readable when the kernel has something to say.
  [[nodiscard]] int descriptor() const;
  void ready(Instant now);
  /// When due() wants to be called: a burst of route changes is read once.
  [[nodiscard]] Instant next_deadline() const;
  void due(Instant now);

  /// Every address the host answers to, on whatever interface.
  [[nodiscard]] std::vector<IpAddress> host_addresses() const;
  /// Counts changes of host_addresses() and of interfaces' indexes: what a watcher polls.
  [[nodiscard]] std::uint64_t generation() const { return generation_; }

 private:
  struct Link {
    std::string name;
    MacAddress mac;
    std::uint32_t mtu = 0;
    bool up = false;
  };
  struct Device {
    DeviceId id;
    std::string interface;  // the name it was given by; a renamed interface is followed by its index
    unsigned index = 0;
    SetDevice told;
    std::vector<Prefix> told_addresses;
  };
  struct Neighbour {
    MacAddress mac;
    bool permanent = false;
    friend bool operator==(const Neighbour&, const Neighbour&) = default;
  };
  using NeighbourKey = std::pair<DeviceId, IpAddress>;
  struct SocketCloser {
    void operator()(mnl_socket* s) const;
  };
  using Socket = std::unique_ptr<mnl_socket, SocketCloser>;

  static Socket open(unsigned groups);
  static int handle(const nlmsghdr* message, void* self);
  void learn_everything(Instant now);
  void dump(std::uint16_t type, std::uint8_t family);
  void on_link(const nlmsghdr* message);
  void on_address(const nlmsghdr* message);
  void on_route(const nlmsghdr* message);
  void on_neighbour(const nlmsghdr* message);
  void learn_routes(Instant now);
  void tell(const Change& fact) { tell_(fact, now_); }
  void tell_devices();
  void tell_device(Device& device);
  [[nodiscard]] DeviceId device_of(unsigned index) const;

  std::vector<Device> devices_;
  std::vector<Route> other_routes_;
  Tell tell_;
  LinkSeen link_seen_;
  Socket events_;
  Socket requests_;  // answers to dumps, apart from the events
  std::map<unsigned, Link> links_;
  std::map<unsigned, std::vector<Prefix>> addresses_;
  std::map<NeighbourKey, Neighbour> neighbours_;
  std::set<NeighbourKey> seen_;  // neighbours of the dump being read
  std::vector<Route> routes_;    // of the dump being read
  std::vector<Route> told_routes_;
  bool routes_changed_ = false;
  std::uint64_t generation_ = 1;
  Instant now_{};
  Instant routes_read_{};
};

}  // namespace director
