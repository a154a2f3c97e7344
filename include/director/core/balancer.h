// Balancer: the core behind its three doors, process(frame, now), apply(change, now) and expire(now).
//
// Pure: it cannot open, read, print or ask the time. A recording of the three doors is a full replay. One thread.
//
// Glossary, as in LVS: a *virtual service* (Service) is an address and port clients know (the VIP); a *real server* does the work; a
// *scheduler* picks one for each new *connection*; the *forwarding method* (masq, tunnel, direct) says how its packets get there.
//
// The way of a packet through process() is in director/core/balancer.cpp, top to bottom.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "director/base/result.h"
#include "director/core/change.h"
#include "director/core/connection.h"
#include "director/core/counters.h"
#include "director/core/fragment.h"
#include "director/core/hop.h"
#include "director/core/local.h"
#include "director/core/outbox.h"
#include "director/core/real_server.h"
#include "director/core/service.h"
#include "director/core/tunables.h"
#include "director/core/verdict.h"
#include "director/net/frame.h"
#include "director/net/packet.h"

namespace director {

/// Where ours departs from the kernel's IPVS on purpose, which of the two (tests/golden/departures.md lists them).
enum class Policy : std::uint8_t { improved, kernel };

class Balancer {
 public:
  struct Options {
    Policy policy = Policy::improved;
    std::uint64_t seed = 0;                    ///< of hashes and IP IDs; secret in the field, fixed in a replay
    std::size_t max_connections = 16'000'000;  ///< more are refused (Reason::table_full)
    bool announce = true;                      ///< gratuitous ARP for the virtual addresses; a replay sends none
  };
  explicit Balancer(const Options& options);
  ~Balancer();
  Balancer(const Balancer&) = delete;
  Balancer& operator=(const Balancer&) = delete;

  // --- the three doors
  /// Decides about one frame and rewrites it in place. The caller transmits it, drops it or leaves it to the host, as the
  /// verdict says, and transmits what is in outbox() afterwards. Counts the verdict's reason itself.
  Verdict process(Frame& frame, Instant now) noexcept;
  /// All of the change or nothing of it.
  Result<void, Refusal> apply(const Change& change, Instant now);
  /// Ends what is due: connections, fragments, neighbours, rates. Returns how many connections ended.
  /// Cheap when nothing is due; call when next_deadline() has come.
  std::size_t expire(Instant now) noexcept;
  /// When expire() has something to do next; kNever: not before another frame or change comes.
  [[nodiscard]] Instant next_deadline() const;

  /// Frames the core made; the caller transmits and clears them after each call of a door, or each batch.
  [[nodiscard]] Outbox& outbox() { return outbox_; }

  // --- for those who watch
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] Counters& counters() { return counters_; }  ///< devices count their reasons here too
  [[nodiscard]] const TrafficMeter& traffic() const { return traffic_; }
  /// All services, in the order they were added.
  [[nodiscard]] std::vector<const Service*> services() const;
  [[nodiscard]] const Service* find_service(const ServiceKey& key) const;
  [[nodiscard]] const Timeouts& timeouts() const { return timeouts_; }
  [[nodiscard]] const Tunables& tunables() const { return tunables_; }
  [[nodiscard]] Policy policy() const { return options_.policy; }
  [[nodiscard]] const Network& network() const { return network_; }

  /// A row of ipvsadm -Lnc.
  struct ConnectionRow {
    Protocol protocol;
    Endpoint client, virtual_, real;
    State state;
    Duration remaining;  ///< until it expires
    bool is_template = false;  ///< persistence: client port 0
    bool assured = false;      ///< of a template
  };
  void for_each_connection(Instant now, const std::function<void(const ConnectionRow&)>& visit) const;
  /// The connection a packet of this flow belongs to, in either direction.
  [[nodiscard]] std::optional<ConnectionRow> find_connection(const FlowKey& flow, Instant now);
  [[nodiscard]] std::size_t connection_count() const { return connections_.size(); }
  /// The "size=" of ipvsadm -L: buckets of the connection table.
  [[nodiscard]] std::size_t bucket_count() const { return connections_.bucket_count(); }

  /// Every virtual address once, for the guard and for those who announce.
  [[nodiscard]] std::vector<IpAddress> virtual_addresses() const;
  /// Counts every applied change of services or servers: what a watcher polls to see that the table changed.
  [[nodiscard]] std::uint64_t generation() const { return generation_; }

 private:
  // The way of a packet, in the order it is walked (balancer.cpp).
  Verdict decide(Frame& frame, Instant now);
  Verdict arp(Frame& frame, const PacketView& view, Instant now);
  Verdict ip(Frame& frame, PacketView& view, Instant now);
  Verdict transport(Frame& frame, const PacketView& view, Instant now);
  Reason read_options(Frame& frame, const PacketView& view, Instant now);
  void process_later_fragments(Instant now);
  Verdict icmp(Frame& frame, const PacketView& view, Instant now);
  Verdict icmp_error(Frame& frame, const PacketView& view, Instant now);
  Verdict relay_icmp_error(Connection& connection, Frame& frame, const PacketView& view, const QuotedPacket& quoted,
                           Instant now);
  Verdict schedule_icmp(Frame& frame, const PacketView& view, const QuotedPacket& quoted, bool checksum_true, Instant now);
  Verdict tunnel_error(Frame& frame, const PacketView& view, Instant now);
  Verdict request(Connection* connection, Frame& frame, const PacketView& view, Instant now);
  Verdict reply(Connection& connection, Frame& frame, const PacketView& view, Instant now);
  Verdict schedule(Frame& frame, const PacketView& view, Instant now);
  Verdict stray(Frame& frame, const PacketView& view, Instant now);
  Verdict to_own_stack(Frame& frame, const PacketView& view, Instant now);

  // Forwarding: the last steps, shared by packets and ICMP errors about them.
  Verdict forward_request(Connection& connection, Frame& frame, const PacketView& view, Instant now);
  Verdict forward_to_hop(Frame& frame, const PacketView& view, const RouteTo& way, Instant now);
  Verdict cut_and_tunnel(Frame& frame, const PacketView& view, const Tunnel& tunnel, const RouteTo& way, Instant now);
  Verdict fragment_to_hop(Frame& frame, std::size_t network, const RouteTo& way, Instant now);
  Verdict route_plainly(Frame& frame, const PacketView& view, Instant now);
  Verdict deliver_here(Connection& connection, Frame& frame, const PacketView& view, Instant now);

  // Refusals and answers.
  Verdict refuse_unserved(Frame& frame, const PacketView& view, Instant now);
  Verdict no_server(Frame& frame, const PacketView& view, Instant now);
  Verdict server_gone(Connection& connection, Frame& frame, const PacketView& view, Instant now);
  Verdict answer_reset(Frame& frame, const PacketView& view, Instant now);
  Verdict answer_icmp(Frame& frame, const PacketView& view, IcmpError error, const IpAddress& source, Reason why,
                      Instant now);
  Verdict answer_client(const Connection& connection, Frame& frame, const PacketView& view, IcmpError error, Reason why,
                        Instant now);
  Verdict send_own(Frame& frame, const IpAddress& to, Instant now, Reason why);

  // Connections and their bookkeeping.
  Connection* open(Service& service, RealServer& server, const FlowKey& flow, Instant now);
  void close(Connection& connection, Instant now);
  void left(const Connection& connection, Instant now);
  void advance(Connection& connection, const PacketView& view, Direction direction, Instant now);
  void count_in(RealServer& server, const Frame& frame, const PacketView& view);
  void count_out(RealServer& server, const Frame& frame, const PacketView& view);
  void count_made(RealServer& server, const Frame& frame);
  const RouteTo* way_to(RealServer& server);
  const RouteTo* way_to_client(Connection& connection, RouteTo& room);

  // Services.
  Service* service_for(const FlowKey& flow);
  Service* exact_service(const ServiceKey& key) const;
  [[nodiscard]] bool is_virtual(const IpAddress& a) const { return virtual_.contains(a); }
  [[nodiscard]] bool speaks_for(const IpAddress& vip, DeviceId device) const;
  [[nodiscard]] bool has_usable_server(const IpAddress& vip) const;
  [[nodiscard]] const RealServer* nat_server_at(const FlowKey& from_server) const;
  Result<void, Refusal> change(const AddService& c, Instant now);
  Result<void, Refusal> change(const EditService& c, Instant now);
  Result<void, Refusal> change(const DeleteService& c, Instant now);
  Result<void, Refusal> change(const ClearServices& c, Instant now);
  Result<void, Refusal> change(const AddServer& c, Instant now);
  Result<void, Refusal> change(const EditServer& c, Instant now);
  Result<void, Refusal> change(const DeleteServer& c, Instant now);
  Result<void, Refusal> change(const ZeroCounters& c, Instant now);
  Result<void, Refusal> change(const SetTimeouts& c, Instant now);
  Result<void, Refusal> change(const SetTunable& c, Instant now);
  Result<void, Refusal> change(const SetDevice& c, Instant now);
  Result<void, Refusal> change(const SetAddresses& c, Instant now);
  Result<void, Refusal> change(const SetRoutes& c, Instant now);
  Result<void, Refusal> change(const SetNeighbour& c, Instant now);
  Result<void, Refusal> change(const SetForwarding& c, Instant now);
  RealServer& room_for(const ServiceKey& service, const Endpoint& endpoint);
  void remove_service(std::size_t position, Instant now);
  void remove_server(Service& service, std::size_t position, Instant now);
  void end_connections_of_removed(Instant now);
  void forget_soon(RealServer& server, Instant now);
  void forget_removed(Instant now);
  void announce(Instant now);
  void announce_soon(Instant now);
  void tick_rates(Instant now);
  [[nodiscard]] ZeroChecksum zero_checksum() const {
    return options_.policy == Policy::kernel ? ZeroChecksum::filled : ZeroChecksum::stays;
  }
  /// IP IDs of packets the director makes: unique enough (RFC 6864), not guessable by counting.
  std::uint16_t next_ip_id() {
    ip_id_ = ip_id_ * 1664525U + 1013904223U;
    return static_cast<std::uint16_t>(ip_id_ >> 16U);
  }

  struct ServiceHash {
    std::size_t operator()(const ServiceKey& k) const;
  };
  struct AddressHash {
    std::size_t operator()(const IpAddress& a) const;
  };

  Options options_;
  Network network_;
  ConnectionTable connections_;
  FragmentTable fragments_;
  Outbox outbox_;
  Counters counters_;
  TrafficMeter traffic_;
  Timeouts timeouts_;
  Tunables tunables_;
  bool forwarding_ = false;
  std::vector<std::unique_ptr<Service>> services_;                    // in the order they were added
  std::unordered_map<ServiceKey, Service*, ServiceHash> service_index_;
  std::unordered_map<IpAddress, std::uint32_t, AddressHash> virtual_;  // virtual addresses, and how many services each has
  std::vector<std::unique_ptr<RealServer>> reals_;                     // by RealId; holes are free
  struct Forgotten {
    RealId server;
    Instant at;  // when its row is freed, unless it was used again since
  };
  std::deque<Forgotten> forgotten_;  // removed servers without connections, the oldest first
  std::uint64_t generation_ = 0;
  std::uint32_t ip_id_;
  std::int64_t until_drop_ = 0;  // drop_packet: connections to be
  Instant next_tick_ = kNever;
  Instant next_announcement_ = kNever;
  int announcements_left_ = 0;
  std::vector<Outbox::Entry*> later_fragments_;  // released by the first fragment in hand
};

}  // namespace director
