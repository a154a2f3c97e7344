// Change: everything that can be told to the core, as values.
//
// Rules file, control socket, health checks and netlink all speak Change; Balancer::apply() is the one door. The words are those
// of ipvsadm(8) and of rtnetlink(7).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "director/base/id.h"
#include "director/base/result.h"
#include "director/base/time.h"
#include "director/core/classifier.h"
#include "director/core/health.h"
#include "director/core/service_policy.h"
#include "director/net/address.h"

namespace director {

// --- Services and real servers ------------------------------------------------------------------------------------

/// What names a virtual service: protocol, address and port, or (mark != 0) a class of packets, the successor of the kernel's
/// fwmark: then protocol and endpoint are unset but for the address's family.
struct ServiceKey {
  Protocol protocol = Protocol::tcp;
  Endpoint endpoint;
  std::uint32_t mark = 0;

  [[nodiscard]] Family family() const { return endpoint.address.family(); }
  friend bool operator==(const ServiceKey&, const ServiceKey&) = default;
};

/// The key of a class's service.
[[nodiscard]] constexpr ServiceKey class_key(std::uint32_t mark, Family family) {
  return {Protocol::tcp, {family == Family::ipv4 ? IpAddress{} : IpAddress::v6({}), {}}, mark};
}

/// ipvsadm -b: bits as in linux/ip_vs.h (IP_VS_SVC_F_SCHED1..3). sh: 1 = sh-fallback, 2 = sh-port; mh likewise.
struct SchedulerFlags {
  bool flag1 = false;
  bool flag2 = false;
  bool flag3 = false;
  friend bool operator==(const SchedulerFlags&, const SchedulerFlags&) = default;
};

struct ServiceConfig {
  ServiceKey key;
  std::string scheduler = "wlc";  ///< a name of schedule/schedulers.def
  SchedulerFlags flags;
  Duration persistence{};            ///< 0: not persistent
  std::uint8_t netmask_length = 0;   ///< IPv6 persistence granularity, 0: whole address
  Be32 netmask{0xffffffffU};         ///< IPv4 persistence granularity, need not be contiguous
  bool one_packet = false;           ///< -o
  std::string persistence_engine;    ///< --pe, empty: none
  ServicePolicy policy{};            ///< beyond ipvsadm
  friend bool operator==(const ServiceConfig&, const ServiceConfig&) = default;
};

enum class Method : std::uint8_t { masq, tunnel, direct };  ///< -m, -i, -g

enum class TunnelType : std::uint8_t { ipip, gue, gre };
enum class TunnelChecksum : std::uint8_t { none, on, remote };  ///< --tun-nocsum, --tun-csum, --tun-remcsum

struct ServerConfig {
  Endpoint endpoint;  ///< for direct and tunnel the port is the service's
  Method method = Method::direct;
  std::uint32_t weight = 1;  ///< 0: quiesced, old connections live, no new ones
  std::uint32_t upper_threshold = 0;  ///< -x, 0: none
  std::uint32_t lower_threshold = 0;  ///< -y, 0: three quarters of the upper
  TunnelType tunnel_type = TunnelType::ipip;
  Port tunnel_port;
  TunnelChecksum tunnel_checksum = TunnelChecksum::none;
  std::optional<HealthCheck> check{};  ///< beyond ipvsadm
  friend bool operator==(const ServerConfig&, const ServerConfig&) = default;
};

/// Where a server's check asks: where its clients' packets go. REQUIRES: config.check
[[nodiscard]] inline Endpoint asked_by_check(const ServiceKey& service, const ServerConfig& config) {
  Endpoint asked = config.method == Method::masq ? config.endpoint : service.endpoint;
  if (config.check->port != Port{}) asked.port = config.check->port;
  return asked;
}

struct AddService { ServiceConfig config; };
struct EditService { ServiceConfig config; };  ///< replaces all of it
struct DeleteService { ServiceKey key; };      ///< with its real servers
struct ClearServices {};
struct AddServer { ServiceKey service; ServerConfig config; };
struct EditServer { ServiceKey service; ServerConfig config; };  ///< replaces all of it
struct DeleteServer { ServiceKey service; Endpoint endpoint; };
struct SetClasses { std::vector<ClassRule> rules; };  ///< all rules of all classes, in this order
struct AddClassRule { ClassRule rule; };              ///< behind all others
struct DeleteClass { std::uint32_t mark = 0; };       ///< all its rules
struct ZeroCounters { std::optional<ServiceKey> service; };  ///< -Z, nothing: all
struct SetTimeouts { Duration tcp{}, tcp_fin{}, udp{}; };    ///< --set, 0 keeps
struct SetTunable { std::string name; std::int64_t value = 0; };  ///< net.ipv4.vs.*, core/tunables.def

// --- The sync daemon -----------------------------------------------------------------------------------------------

enum class SyncRole : std::uint8_t { master, backup };  ///< tells other directors of connections; takes over theirs

/// ipvsadm --start-daemon. What is 0 or nothing takes the kernel's default.
struct StartDaemon {
  SyncRole role = SyncRole::master;
  std::string interface = "eth0";     ///< of a device
  std::uint8_t sync_id = 0;           ///< a backup with 0 listens to all
  std::uint16_t maximum_length = 0;   ///< of a message; 0: an Ethernet frame's
  std::optional<IpAddress> group;     ///< nothing: kSyncGroup
  Port port;                          ///< 0: kSyncPort
  std::uint8_t ttl = 0;               ///< 0: 1
};
inline constexpr std::uint32_t kSyncGroup = 0xe0000051;  // 224.0.0.81
inline constexpr std::uint16_t kSyncPort = 8848;
struct StopDaemon { SyncRole role = SyncRole::master; };

// --- What the director knows of the network ------------------------------------------------------------------------

/// Whose the addresses of a device are.
enum class Stack : std::uint8_t {
  host,  ///< a kernel's: it answers ARP and echo for them; the director answers for its virtual addresses alone
  own,   ///< nobody else's: the director is a host of its own behind this device (tap, replay)
};

/// A device appeared or its properties changed.
struct SetDevice {
  DeviceId device;
  std::string name;
  MacAddress mac;
  std::uint32_t mtu = 1500;  ///< largest IP packet, without the Ethernet header
  bool up = true;
  Stack stack = Stack::host;
};
/// The device's addresses, all of them (replaces what was known).
struct SetAddresses { DeviceId device; std::vector<Prefix> addresses; };

struct Route {
  Prefix destination;           ///< 0.0.0.0/0: default
  DeviceId device;              ///< none: not a device of the director's, unreachable from here
  std::optional<IpAddress> via;  ///< gateway; nothing: on-link
  std::uint32_t mtu = 0;        ///< 0: the device's
  std::uint32_t metric = 0;     ///< lower wins among equal prefixes
  std::optional<IpAddress> source;  ///< preferred source address
  friend bool operator==(const Route&, const Route&) = default;
};
/// The whole routing table (replaces what was known). Connected subnets need not be in it, they follow from SetAddresses.
struct SetRoutes { std::vector<Route> routes; };

/// What somebody else knows of a neighbour (the kernel's table, a static entry of a replay).
struct SetNeighbour {
  DeviceId device;
  IpAddress address;
  std::optional<MacAddress> mac;  ///< nothing: it was removed or has failed
  bool permanent = false;         ///< never asked for, never forgotten
};
/// Whether the director's own host forwards packets that belong to no connection (net.ipv4.ip_forward); Stack::own only.
struct SetForwarding { bool on = true; };

/// A shortcut (core/shortcut.h) has carried packets of this flow, as they arrive, past the core.
struct Carried {
  FlowKey flow;
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;  ///< of IP packets
  Instant last;             ///< when the last of them came
  bool let_go = false;      ///< the shortcut was idle and has ended
};

using Change = std::variant<AddService, EditService, DeleteService, ClearServices, AddServer, EditServer, DeleteServer,
                            SetClasses, AddClassRule, DeleteClass, ZeroCounters, SetTimeouts, SetTunable, StartDaemon,
                            StopDaemon, SetDevice, SetAddresses, SetRoutes, SetNeighbour, SetForwarding, Carried>;

/// Why a Change was refused. vsadm prints them in ipvsadm's words (ip_vs_ctl.c, libipvs.c ipvs_strerror).
enum class Refusal : std::uint8_t {
  service_exists,      ///< EEXIST of -A
  no_such_service,     ///< ESRCH of -E, -D, -Z
  service_not_defined, ///< ESRCH of -a, -e, -d
  server_exists,       ///< EEXIST of -a
  no_such_server,      ///< ENOENT of -e, -d
  no_such_scheduler,   ///< ENOENT of -A, -E
  out_of_range,        ///< ERANGE: lower threshold above upper, weight above INT_MAX
  invalid,             ///< EINVAL: address not unicast, families that can't mix, netmask
  no_such_tunable,
  class_exists,   ///< the rule is there already
  no_such_class,
  no_such_device,      ///< ENODEV of --start-daemon
  daemon_runs,         ///< EEXIST of --start-daemon
  no_daemon,           ///< ESRCH of --stop-daemon
};

}  // namespace director
