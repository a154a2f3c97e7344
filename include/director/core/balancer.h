// Balancer: the core behind its three doors, process(frame, now), apply(change, now) and expire(now).
//
// Pure: it cannot open, read, print or ask the time. A recording of the three doors is a full replay. One thread.
//
// Glossary, as in LVS: a *virtual service* (Service) is an address and port clients know (the VIP); a *real server* does the work; a
// *scheduler* picks one for each new *connection*; the *forwarding method* (masq, tunnel, direct) says how its packets get there.
//
// The way of a packet through process() is in director/core/balancer.cpp, top to bottom.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "director/base/result.h"
#include "director/core/change.h"
#include "director/core/connection.h"
#include "director/core/counters.h"
#include "director/core/explanation.h"
#include "director/core/fragment.h"
#include "director/core/hop.h"
#include "director/core/local.h"
#include "director/core/neighbour.h"
#include "director/core/outbox.h"
#include "director/core/persistence.h"
#include "director/core/real_server.h"
#include "director/core/service.h"
#include "director/core/shortcut.h"
#include "director/core/sync.h"
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
    bool announce = true;                      ///< gratuitous ARP and ND for the virtual addresses; a replay sends none
    bool short_way = true;                     ///< off: every packet walks all of the way; a test compares the two
  };
  explicit Balancer(const Options& options);
  ~Balancer();
  Balancer(const Balancer&) = delete;
  Balancer& operator=(const Balancer&) = delete;

  /// Hears of every call of apply(), and without a change of expire(), before anything comes of it. With the frames that is a recording.
  using Listener = std::function<void(const Change*, Instant)>;
  void listen(Listener listener) { listener_ = std::move(listener); }
  [[nodiscard]] const Options& options() const { return options_; }

  // --- the three doors
  /// Decides about one frame and rewrites it in place. The caller transmits it, drops it or leaves it to the host, as the
  /// verdict says, and transmits what is in outbox() afterwards. Counts the verdict's reason itself.
  Verdict process(Frame& frame, Instant now) noexcept;
  /// The same, and tells how it came to that.
  Verdict explain(Frame& frame, Instant now, Explanation& to);
  /// What can be seen of a frame before its turn. True until somebody touches the frame.
  struct Glimpse {
    PacketView view;
    bool plain = false;  ///< the view is whole
    ConnectionTable::Place place = ConnectionTable::kNowhere;  ///< where its connection may stand
  };
  /// Looks ahead at frames that will be processed next: reads them, and what they need of a large table comes nearer, for all at once.
  /// Decides nothing. Valid until the next call.
  [[nodiscard]] std::span<const Glimpse> look_ahead(std::span<const Frame> batch);
  /// The same decision, with the glimpse of this frame.
  Verdict process(Frame& frame, const Glimpse& seen, Instant now) noexcept;
  /// All of the change or nothing of it.
  Result<void, Refusal> apply(const Change& change, Instant now);
  /// Ends what is due: connections, fragments, neighbours, rates. Returns how many connections ended.
  /// Cheap when nothing is due; call when next_deadline() has come.
  std::size_t expire(Instant now) noexcept;
  /// When expire() has something to do next; kNever: not before another frame or change comes.
  [[nodiscard]] Instant next_deadline() const;

  /// Frames the core made; the caller transmits and clears them after each call of a door, or each batch.
  [[nodiscard]] Outbox& outbox() { return outbox_; }

  /// From now on connections offer shortcuts, and somebody follows the news after each batch of calls.
  void offer_shortcuts();
  [[nodiscard]] ShortcutNews& shortcut_news() { return shortcut_news_; }
  /// Connections that have a shortcut, in one direction or both.
  [[nodiscard]] std::size_t shortcut_count() const { return with_shortcuts_.size(); }

  // --- for those who watch
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] Counters& counters() { return counters_; }  ///< devices count their reasons here too
  [[nodiscard]] const TrafficMeter& traffic() const { return traffic_; }
  /// All services, in the order they were added.
  [[nodiscard]] std::vector<const Service*> services() const;
  [[nodiscard]] const Service* find_service(const ServiceKey& key) const;
  /// The service a packet that starts this flow is for; `mark`: the class it was given outside, 0: none.
  [[nodiscard]] const Service* find_service(const FlowKey& flow, std::uint32_t mark) const { return service_for(flow, mark); }
  /// The real server that was chosen last, for a connection or a single datagram, since it was asked last; nothing: none was.
  [[nodiscard]] std::optional<Endpoint> take_choice() { return std::exchange(last_choice_, std::nullopt); }
  [[nodiscard]] const Timeouts& timeouts() const { return timeouts_; }
  [[nodiscard]] const Tunables& tunables() const { return tunables_; }
  [[nodiscard]] Policy policy() const { return options_.policy; }
  [[nodiscard]] const Network& network() const { return network_; }
  /// By which device packets from there come, if they come the way answers go.
  [[nodiscard]] std::optional<DeviceId> device_towards(const IpAddress& address);
  [[nodiscard]] const Classifier& classes() const { return classes_; }
  /// The sync daemon of that role, if it runs.
  [[nodiscard]] const std::optional<SyncDaemon>& sync_daemon(SyncRole role) const { return sync_.daemon(role); }

  /// A row of ipvsadm -Lnc.
  struct ConnectionRow {
    Protocol protocol;
    Endpoint client, virtual_, real;
    State state;
    Duration remaining;  ///< until it expires
    bool is_template = false;  ///< persistence: client port 0
    bool assured = false;      ///< of a template
    std::string_view engine{}, engine_data{};  ///< of a template: "sip" and the Call-ID
    bool from_sync = false;    ///< another director told us of it
  };
  void for_each_connection(Instant now, const std::function<void(const ConnectionRow&)>& visit) const;
  /// The same for `count` rows of the table from `first` on, so that a big table can be gone through bit by bit. Returns the row to
  /// go on with; 0: that was the last.
  std::size_t for_some_connections(std::size_t first, std::size_t count, Instant now,
                                   const std::function<void(const ConnectionRow&)>& visit) const;
  /// The connection a packet of this flow belongs to, in either direction.
  [[nodiscard]] std::optional<ConnectionRow> find_connection(const FlowKey& flow, Instant now);
  [[nodiscard]] std::size_t connection_count() const { return connections_.size(); }
  /// How many there may be.
  [[nodiscard]] std::size_t connection_limit() const { return connections_.most(); }
  /// The "size=" of ipvsadm -L: buckets of the connection table.
  [[nodiscard]] std::size_t bucket_count() const { return connections_.bucket_count(); }

  /// Every virtual address once, for the guard and for those who announce.
  [[nodiscard]] std::vector<IpAddress> virtual_addresses() const;
  /// Counts every applied change of services or servers: what a watcher polls to see that the table changed.
  [[nodiscard]] std::uint64_t generation() const { return generation_; }
  /// Health checks' verdicts that have turned.
  [[nodiscard]] std::uint64_t health_turns() const { return health_.turns; }

 private:
  /// What may start a connection: what the protocol begins with, or anything (a connection that has lost its server).
  enum class Start : std::uint8_t { beginning, anything };

  // The way of a packet, in the order it is walked (balancer.cpp).
  void glimpse(const Frame& frame, Glimpse& seen) const;
  struct ShortWay {  // short_way.cpp
    Connection* connection;
    RealServer* server;
    const Forwarder* forwarder;
    const RouteTo* way;
    Direction direction;
  };
  bool find_short_way(const Frame& frame, const Glimpse& seen, Instant now, ShortWay& found);
  Verdict take_short_way(Frame& frame, const PacketView& view, const ShortWay& short_way, Instant now);
  Verdict decide(Frame& frame, const PacketView* plain, Instant now);
  Verdict arp(Frame& frame, const PacketView& view, Instant now);
  Verdict neighbour(Frame& frame, const PacketView& view, Instant now);
  [[nodiscard]] std::vector<IpAddress> listened_groups(DeviceId device) const;
  bool report_groups(DeviceId device, const NeighbourMessage& query);
  Verdict ip(Frame& frame, PacketView& view, Instant now);
  Verdict transport(Frame& frame, const PacketView& view, Instant now);
  Reason follow_fragments(Frame& frame, PacketView& view, Instant now);
  Reason read_options(Frame& frame, const PacketView& view, Instant now);
  void process_later_fragments(Instant now);
  Verdict icmp(Frame& frame, const PacketView& view, Instant now);
  Verdict relay_error(Frame& frame, const PacketView& view, Instant now);
  Verdict relay_icmp_error(Connection& connection, Frame& frame, const PacketView& view, const QuotedPacket& quoted,
                           Instant now);
  Verdict schedule_icmp(Frame& frame, const PacketView& view, const QuotedPacket& quoted, bool checksum_true, Instant now);
  /// One of our own tunnel packets, as an ICMP error quotes it.
  struct QuotedTunnel {
    Connection* connection = nullptr;
    QuotedPacket outer, inner;
    std::size_t inner_at = 0;  // from the beginning of the quotation
  };
  std::optional<QuotedTunnel> find_tunnel(std::span<const std::byte> quoted, const QuotedPacket& outer);
  Verdict tunnel_error(Frame& frame, const PacketView& view, const QuotedTunnel& tunnel, Instant now);
  Verdict request(Connection* connection, Frame& frame, const PacketView& view, Instant now);
  Verdict start_anew(Connection& old, Frame& frame, const PacketView& view, Instant now, Start start = Start::beginning);
  Verdict reply(Connection& connection, Frame& frame, const PacketView& view, Instant now);
  Verdict schedule(Service& service, Frame& frame, const PacketView& view, Instant now, Start start = Start::beginning);
  Verdict go_past(Service& service, Frame& frame, const PacketView& view, Instant now);
  Verdict send_one_packet(Service& service, RealServer& server, Frame& frame, const PacketView& view, Instant now);
  Verdict stray(Frame& frame, const PacketView& view, Instant now);
  Verdict to_own_stack(Frame& frame, const PacketView& view, Instant now);

  // Forwarding: the last steps, shared by packets and ICMP errors about them.
  Verdict forward_request(Connection& connection, Frame& frame, const PacketView& view, Instant now);
  Verdict seal(Frame& frame, const RouteTo& way, Instant now);
  Verdict forward_to_hop(Frame& frame, const PacketView& view, const RouteTo& way, Instant now);
  [[nodiscard]] std::size_t mtu_inside(const RouteTo& way, std::size_t overhead, Family inner) const;
  Reason put_in_tunnel(Frame& frame, const PacketView& view, const RealServer& server, const FlowKey& flow) {
    return encapsulate(frame, view, server.outer, server.outer.type == TunnelType::gue ? gue_port(flow) : Port{}, next_ip_id());
  }
  [[nodiscard]] Port gue_port(const FlowKey& flow) const;
  void clamp_mss(Frame& frame, const PacketView& view, const OuterHeaders& outer, std::size_t path_mtu) const;
  Verdict tunnel_to_hop(Frame& frame, const PacketView& view, const RealServer& server, const FlowKey& flow, const RouteTo& way, Instant now);
  Verdict cut_and_tunnel(Frame& frame, const PacketView& view, const RealServer& server, const FlowKey& flow, const RouteTo& way, Instant now);
  Verdict fragment_to_hop(Frame& frame, std::size_t network, const RouteTo& way, Instant now);
  Verdict route_plainly(Frame& frame, const PacketView& view, Instant now);
  Verdict deliver_here(Connection& connection, Frame& frame, const PacketView& view, Instant now);

  // Refusals and answers.
  Verdict refuse_unserved(Frame& frame, const PacketView& view, Instant now);
  Verdict refuse(Frame& frame, const PacketView& view, Instant now);
  Verdict no_server(Service& service, Frame& frame, const PacketView& view, Instant now);
  Verdict server_gone(Connection& connection, Frame& frame, const PacketView& view, Instant now);
  Verdict server_quiesced(Connection& connection, Frame& frame, const PacketView& view, Instant now);
  Verdict reset_both(Connection& connection, Frame& frame, const PacketView& view, Instant now);
  Verdict answer_reset(Frame& frame, const PacketView& view, Instant now);
  Verdict answer_icmp(Frame& frame, const PacketView& view, IcmpError error, const IpAddress& source, Reason why,
                      Instant now);
  Verdict answer_client(const Connection& connection, Frame& frame, const PacketView& view, IcmpError error, Reason why,
                        Instant now);
  Verdict send_own(Frame& frame, const IpAddress& to, Instant now, Reason why);

  // Connections and their bookkeeping.
  /// The server of a new connection, and the template that chose it.
  struct Choice {
    RealServer* server = nullptr;
    TemplateId affinity;
  };
  RealServer* pick(Service& service, const FlowKey& flow, Instant now);
  Result<Choice, Reason> choose(Service& service, const FlowKey& flow, std::span<const std::byte> payload, Instant now);
  [[nodiscard]] Endpoint real_endpoint(const Service& service, const RealServer& server, const FlowKey& flow) const;
  [[nodiscard]] RecipeKey recipe_key(const RealServer& server, const FlowKey& flow, const Endpoint& real) const;
  [[nodiscard]] RealServer& server_of(const Connection& c) const { return *reals_[connections_.recipe(c).server.index]; }
  Connection* open(Service& service, const Choice& choice, const FlowKey& flow, Instant now);
  template <typename Open>
  Connection* open_or_make_room(Instant now, Open open) {
    Connection* c = open();
    if (c == nullptr && make_room(now)) c = open();
    return c;
  }
  void count_connection(Service& service, RealServer& server);
  void close(Connection& connection, Instant now);
  /// What is left of a connection when it has ended.
  struct Departure {
    RealId server;
    TemplateId affinity;
    State state;
    bool counted;
    bool is_template;
  };
  Departure departure(Connection& connection);
  void left(const Departure& connection, Instant now);
  Ending judge(Connection& connection, Instant now);

  // Persistence (persistence.cpp).
  /// `only`: the server that is meant already; a template of another one isn't followed.
  Result<Choice, Reason> choose_persistent(Service& service, const FlowKey& flow, std::span<const std::byte> payload,
                                           Instant now, RealServer* only = nullptr);
  Connection* find_template(const FlowKey& key, std::string_view call_id);
  Connection* open_template(const FlowKey& key, std::string_view call_id, RealServer& server, const Endpoint& real,
                            Instant deadline, Instant now);
  Connection* open_from_server(Frame& frame, const PacketView& view, Instant now);
  [[nodiscard]] bool template_holds(const Connection& model) const;
  void drop_template(Connection& model, Instant now);
  Ending judge_template(Connection& model, Instant now);
  void end_templates_of(const RealServer& server, Instant now);
  void assure_template(const Connection& connection);
  void advance(Connection& connection, const PacketView& view, Direction direction, Instant now);
  void count_in(RealServer& server, const Frame& frame, const PacketView& view);
  void count_out(RealServer& server, const Frame& frame, const PacketView& view);
  void count_made(RealServer& server, const Frame& frame);
  void count_traffic(RealServer& server, Direction direction, std::uint64_t packets, std::uint64_t bytes);
  // Ways; nullptr: there is none. One that is no server's own is true until the next is asked for.
  const RouteTo* way_to(RealServer& server);
  const RouteTo* way_of(const Connection& connection, RealServer& server);  ///< of its packets from the client
  const RouteTo* way_to_client(const Connection& connection);

  // Synchronisation (synchronise.cpp).
  void tell_backups(Connection& connection, Instant now);
  void tell_backups_of_template(TemplateId id, Instant now);
  [[nodiscard]] bool is_due_to_be_told(Connection& connection, Instant now);
  [[nodiscard]] SyncRecord record_of(const Connection& connection) const;
  void tell(const SyncRecord& record, Instant now);
  void send_sync_message();
  [[nodiscard]] bool is_sync_message(const Frame& frame, const PacketView& view) const;
  Verdict receive_sync(const Frame& frame, const PacketView& view, Instant now);
  Reason adopt(const SyncRecord& record, Instant now);
  Reason adopt_template(const SyncRecord& record, Instant now);
  RealServer* server_of_sync(const SyncRecord& record);
  /// A backup that leaves the traffic to its master (net.ipv4.vs.backup_only).
  [[nodiscard]] bool stands_by() const;
  // Health checks (health.cpp).
  void follow_check(RealServer& server, const std::optional<HealthCheck>& before, Instant now);
  void give_up_check(RealServer& server);
  [[nodiscard]] Instant next_check() const;
  void check_health(Instant now);
  void start_check(RealServer& server, Instant now);
  [[nodiscard]] IpAddress own_address(const IpAddress& preferred, Family family) const;
  void send_check(RealServer& server, std::uint8_t flags, std::string_view text, Instant now);
  [[nodiscard]] RealServer* checked_by(const PacketView& view) const;
  Verdict hear_check(RealServer& server, const Frame& frame, const PacketView& view, Instant now);
  void conclude(RealServer& server, bool passed, std::string says);
  void leave_pool(RealServer& server);
  void rejoin_pool(RealServer& server);

  // Defences (defence.cpp).
  [[nodiscard]] std::int64_t free_pages() const;
  bool make_room(Instant now);
  void force_out(Connection& c, Instant now);
  void defend(Instant now);
  void drop_entries(Instant now);
  bool may_be_dropped(const Connection& c, Instant now);
  bool refused_by_defence();

  // Shortcuts (core/shortcuts.cpp).
  [[nodiscard]] bool can_be_shortcut(const Forwarder& forwarder, const ServerConfig& server) const;
  void offer_shortcut(Connection& c, Direction direction, const PacketView& view, DeviceId ingress, const RouteTo& way);
  void close_shortcuts(Connection& c);
  void end_stale_shortcuts();

  // What an explanation is told (core/explain.cpp).
  [[nodiscard]] bool explains() const { return __builtin_expect(explanation_ != nullptr, 0) != 0; }
  void tell_step(std::string_view topic, std::string says, std::vector<std::pair<std::string_view, std::string>> facts = {});
  void tell_unreadable(const Frame& frame, Reason reason);
  void tell_packet(const Frame& frame, const PacketView& view);
  void tell_connection(const Connection& connection, Direction direction, Instant now);
  void tell_opened(const Connection& connection);
  void tell_service(const Service* service, const FlowKey& flow, std::uint32_t mark);
  void tell_template(const Connection* model, const FlowKey& key);
  void tell_candidates(const Service& service, const FlowKey& flow);
  void tell_pick(const Service& service, const RealServer* taken);
  void tell_state(const Connection& connection, State before);
  void tell_forwarding(const Connection& connection, Direction direction, const Frame& frame);
  void tell_hop(const RouteTo& way);
  void tell_verdict(const Verdict& verdict);

  // Services.
  void settle_timeouts(Service& service) const;
  Service* service_for(const FlowKey& flow, std::uint32_t mark) const;
  Service* exact_service(const ServiceKey& key) const;
  [[nodiscard]] bool is_virtual(const IpAddress& a) const { return virtual_.contains(a); }
  /// Whether a packet to this address may start a connection.
  [[nodiscard]] bool may_be_served(const IpAddress& a) const {
    return is_virtual(a) || (!classes_.empty() && classes_.aims_at(a));
  }
  void take_address(const IpAddress& address, Instant now);
  void leave_address(const IpAddress& address);
  void set_classes(std::vector<ClassRule> rules, Instant now);
  [[nodiscard]] ConnectionRow row_of(const Connection& c, Instant now) const;
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
  Result<void, Refusal> change(const SetClasses& c, Instant now);
  Result<void, Refusal> change(const AddClassRule& c, Instant now);
  Result<void, Refusal> change(const DeleteClass& c, Instant now);
  Result<void, Refusal> change(const ZeroCounters& c, Instant now);
  Result<void, Refusal> change(const SetTimeouts& c, Instant now);
  Result<void, Refusal> change(const SetTunable& c, Instant now);
  Result<void, Refusal> change(const StartDaemon& c, Instant now);
  Result<void, Refusal> change(const StopDaemon& c, Instant now);
  Result<void, Refusal> change(const SetDevice& c, Instant now);
  Result<void, Refusal> change(const SetAddresses& c, Instant now);
  Result<void, Refusal> change(const SetRoutes& c, Instant now);
  Result<void, Refusal> change(const SetNeighbour& c, Instant now);
  Result<void, Refusal> change(const SetForwarding& c, Instant now);
  Result<void, Refusal> change(const Carried& c, Instant now);
  RealServer& room_for(const ServiceKey& service, const Endpoint& endpoint);
  void remove_service(std::size_t position, Instant now);
  void remove_server(Service& service, std::size_t position, Instant now);
  void end_connections_of_removed(Instant now);
  void forget_soon(RealServer& server, Instant now);
  void forget_removed(Instant now);
  void announce(Instant now);
  void announce_soon(Instant now);
  void tick_rates(Instant now);
  /// IP IDs of packets the director makes: unique enough (RFC 6864), not guessable by counting.
  std::uint16_t next_ip_id() {
    ip_id_ = ip_id_ * 1664525U + 1013904223U;
    return static_cast<std::uint16_t>(ip_id_ >> 16U);
  }

  struct ServiceHash {
    std::size_t operator()(const ServiceKey& k) const;
  };

  Options options_;
  Listener listener_;
  Network network_;
  ConnectionTable connections_;
  TemplateTable templates_;
  Classifier classes_;
  FragmentTable fragments_;
  std::vector<Glimpse> glimpses_;  // of the batch in hand
  Outbox outbox_;
  Counters counters_;
  TrafficMeter traffic_;
  Timeouts timeouts_;
  Tunables tunables_;
  Synchronisation sync_;
  HealthSchedule health_;
  bool forwarding_ = false;
  std::vector<std::unique_ptr<Service>> services_;                    // in the order they were added
  std::unordered_map<ServiceKey, Service*, ServiceHash> service_index_;
  std::unordered_map<IpAddress, std::uint32_t, AddressHash> virtual_;  // virtual addresses, and how many services each has
  std::vector<std::unique_ptr<RealServer>> reals_;                     // by RealId
  std::vector<std::uint32_t> free_reals_;                              // rows of reals_ nobody has
  std::unordered_set<std::uint32_t> removed_;                          // and those of removed servers, which may come back
  struct Forgotten {
    RealId server;
    Instant at;  // when its row is freed, unless it was used again since
  };
  std::deque<Forgotten> forgotten_;  // removed servers without connections, the oldest first
  std::uint64_t generation_ = 0;
  std::size_t engines_ = 0;  // services with a persistence engine
  static constexpr Duration kRateInterval = std::chrono::seconds(TrafficMeter::kIntervalSeconds);
  std::optional<Endpoint> last_choice_;
  std::uint32_t ip_id_;
  std::int64_t until_drop_ = 0;  // drop_packet: connections to be
  std::int64_t drop_rate_ = 0;   // drop_packet 2: of how many one is refused
  std::array<std::uint32_t, 9> drop_countdown_{0, 1, 2, 3, 4, 5, 6, 7, 8};  // drop_entry: by packets it had
  Instant next_defence_ = kNever;
  Instant next_tick_ = kNever;
  Instant next_announcement_ = kNever;
  int announcements_left_ = 0;
  Explanation* explanation_ = nullptr;  // who wants to know, during explain()
  bool offers_shortcuts_ = false;
  ShortcutNews shortcut_news_;
  std::unordered_set<std::uint32_t> with_shortcuts_;  // connections
  struct Facts {                                      // what every shortcut was made from
    std::uint32_t routes = 0;
    std::uint32_t neighbours = 0;
    std::uint64_t services = 0;
    bool has_backups = false;  // who are told by packets that walk
    bool copies_df = true;
    friend bool operator==(const Facts&, const Facts&) = default;
  } shortcut_facts_;
  [[nodiscard]] Facts shortcut_facts() const {
    return {network_.generation(), network_.neighbour_generation(), generation_, sync_.daemon(SyncRole::master).has_value(),
            tunables_.pmtu_disc != 0};
  }
  std::vector<Outbox::Entry*> later_fragments_;  // released by the first fragment in hand
};

}  // namespace director
