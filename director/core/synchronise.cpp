// Synchronisation: who is told of a connection and when, and what is made of what others tell. sync.h has the messages.
// Source: ip_vs_sync.c (ip_vs_sync_conn_needed, ip_vs_sync_conn, ip_vs_proc_conn, start_sync_thread).
#include <algorithm>
#include <cstring>

#include "director/core/balancer.h"
#include "director/core/sync.h"
#include "director/net/checksum.h"
#include "director/net/headers.h"

namespace director {
namespace {

constexpr Failure<Refusal> refused(Refusal r) { return {r}; }

constexpr Duration kMostDelay = 2s;           // IPVS_SYNC_FLUSH_TIME: a record waits no longer for others
constexpr Duration kUntoldTimeout = 180s;     // of a record that says none and whose state has none
constexpr std::size_t kLeastForBackup = 1024;  // IP_VS_SYNC: a backup's buffer

std::size_t header_length(Family family) {
  return sizeof(UdpHeader) + (family == Family::ipv4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header));
}

/// RFC 1112, 6.4; RFC 2464, 7.
MacAddress multicast_mac(const IpAddress& group) {
  const auto g = group.wire();
  if (group.is_v4()) return {{0x01, 0x00, 0x5e, static_cast<std::uint8_t>(g[1] & 0x7fU), g[2], g[3]}};
  return {{0x33, 0x33, g[12], g[13], g[14], g[15]}};
}

/// A UDP datagram to a group, from the Ethernet header on.
void write_datagram(Frame& frame, const MacAddress& from, const FlowKey& flow, std::uint8_t ttl, std::uint16_t id,
                    std::span<const std::byte> payload) {
  const Family family = flow.target.address.family();
  const std::size_t length = sizeof(UdpHeader) + payload.size();
  frame.resize(sizeof(EthernetHeader) + header_length(family) + payload.size());
  frame.offload = {};
  const auto bytes = frame.bytes();
  const EtherType type = family == Family::ipv4 ? EtherType::ipv4 : EtherType::ipv6;
  header_at<EthernetHeader>(bytes, 0) = {multicast_mac(flow.target.address), from, Be16{static_cast<std::uint16_t>(type)}};
  std::size_t at = sizeof(EthernetHeader);
  if (family == Family::ipv4) {
    Ipv4Header ip{};
    ip.version_ihl = 0x45;
    ip.total_length = Be16{static_cast<std::uint16_t>(sizeof ip + length)};
    ip.id = Be16{id};
    ip.ttl = ttl;
    ip.protocol = Protocol::udp;
    ip.source = flow.source.address.v4_wire();
    ip.target = flow.target.address.v4_wire();
    header_at<Ipv4Header>(bytes, at) = ip;
    header_at<Ipv4Header>(bytes, at).checksum = ChecksumSum{}.add(bytes.subspan(at, sizeof ip)).field();
    at += sizeof ip;
  } else {
    header_at<Ipv6Header>(bytes, at) = {Be32{6U << 28U},
                                        Be16{static_cast<std::uint16_t>(length)},
                                        Protocol::udp,
                                        ttl,
                                        flow.source.address.bytes(),
                                        flow.target.address.bytes()};
    at += sizeof(Ipv6Header);
  }
  header_at<UdpHeader>(bytes, at) = {flow.source.port, flow.target.port, Be16{static_cast<std::uint16_t>(length)}, Be16{0}};
  std::memcpy(bytes.data() + at + sizeof(UdpHeader), payload.data(), payload.size());
  const Be16 sum = pseudo_header_sum(flow.source.address, flow.target.address, Protocol::udp, length).add(bytes.subspan(at)).field();
  header_at<UdpHeader>(bytes, at).checksum = sum == Be16{0} ? Be16{0xffff} : sum;  // RFC 768: 0 means none
}

/// What a backup is told of TCP: the states worth taking over, and the ends of those it was told of.
bool is_told(State state) {
  switch (state) {
    case State::established:
    case State::fin_wait:
    case State::close:
    case State::close_wait:
    case State::time_wait:
    case State::udp:
      return true;
    default:
      return false;
  }
}

/// A tunnel to the other address family: a message has one family for all of a record's addresses.
bool mixes_families(const ServiceKey& service, const ServerConfig& server) {
  return service.family() != server.endpoint.address.family();
}

}  // namespace

// --- the daemons ----------------------------------------------------------------------------------------------------------

Result<void, Refusal> Balancer::change(const StartDaemon& c, Instant now) {
  for (const auto& service : services_)
    for (const RealServer* server : service->servers)
      if (mixes_families(service->key(), server->config)) return refused(Refusal::invalid);
  const auto& all = network_.interfaces();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Interface& i) { return i.known && i.name == c.interface; });
  if (found == all.end()) return refused(Refusal::no_such_device);
  auto& daemon = sync_.daemon(c.role);
  if (daemon) return refused(Refusal::daemon_runs);

  daemon = SyncDaemon{c, DeviceId{static_cast<std::uint32_t>(found - all.begin())}};
  StartDaemon& settings = daemon->settings;
  if (!settings.group) settings.group = IpAddress::v4(kSyncGroup);
  if (settings.port == Port{}) settings.port = Port::of(kSyncPort);
  if (settings.ttl == 0) settings.ttl = 1;
  const bool backup = c.role == SyncRole::backup;
  const std::size_t headers = header_length(settings.group->family());
  const std::size_t mtu = backup ? std::clamp<std::size_t>(found->mtu, 1500, 65535) : 1500;
  const std::size_t wanted = settings.maximum_length != 0
                                 ? std::clamp(std::size_t{settings.maximum_length}, backup ? kLeastForBackup : 1, 65535 - headers)
                                 : mtu - headers;
  settings.maximum_length = static_cast<std::uint16_t>(wanted);
  ++generation_;
  (void)now;
  return {};
}

Result<void, Refusal> Balancer::change(const StopDaemon& c, Instant now) {
  auto& daemon = sync_.daemon(c.role);
  if (!daemon) return refused(Refusal::no_daemon);
  const bool stood_by = stands_by();
  daemon.reset();
  if (c.role == SyncRole::master) sync_.drop_message();  // as the kernel: what wasn't sent isn't
  if (stood_by) announce_soon(now);  // the virtual addresses are here now
  ++generation_;
  return {};
}

bool Balancer::stands_by() const { return tunables_.backup_only != 0 && sync_.daemon(SyncRole::backup).has_value(); }

// --- telling --------------------------------------------------------------------------------------------------------------

/// After a packet of the client's: is the connection, or the template, to be told of?
bool Balancer::is_due_to_be_told(Connection& c, Instant now) {
  if (!c.is_template && !is_told(c.state)) return false;
  if (c.affinity && !c.is_template && tunables_.sync_persist_mode != 0) return false;  // its template says enough
  const SyncTold before = sync_.told(connections_.id_of(c));
  bool renewed = false;  // told again, within the period of refreshing
  const bool ending = !c.is_template && c.state != before.state && c.state != State::established && c.state != State::udp;
  if (!ending) {
    const Duration refresh = std::chrono::seconds{tunables_.sync_refresh_period};
    const Instant until = now + c.timeout();
    if (refresh > Duration{}) {
      const Duration gap = until > before.until ? until - before.until : before.until - until;
      if (gap < std::min(refresh, std::max(c.timeout() / 2, Duration{10s}))) {
        if (before.again >= tunables_.sync_retries || now < before.until - c.timeout() + refresh / 8) return false;
        renewed = true;
      }
    }
    if (tunables_.sync_period > 0) {
      if (!c.is_template && c.in_packets % tunables_.sync_period != tunables_.sync_threshold) return false;
    } else if (refresh == Duration{} && c.in_packets != tunables_.sync_threshold) {
      return false;
    }
  }
  const auto again = renewed ? static_cast<std::uint8_t>(before.again + 1) : std::uint8_t{0};
  sync_.remember(connections_.id_of(c), {now + c.timeout(), c.state, again});
  return true;
}

/// Of a connection, and of the template that made it.
void Balancer::tell_backups(Connection& c, Instant now) {
  if (!sync_.daemon(SyncRole::master)) return;
  if (is_due_to_be_told(c, now)) tell(record_of(c), now);
  if (c.affinity && !c.is_template) tell_backups_of_template(c.affinity, now);
}

void Balancer::tell_backups_of_template(TemplateId id, Instant now) {
  Connection* model = id ? templates_[id].connection : nullptr;
  if (model == nullptr || !sync_.daemon(SyncRole::master)) return;
  ++model->in_packets;
  if (is_due_to_be_told(*model, now)) tell(record_of(*model), now);
}

SyncRecord Balancer::record_of(const Connection& c) const {
  const RealServer& server = server_of(c);
  static constexpr std::uint32_t kMethods[] = {0, 2, 3};  // IP_VS_CONN_F_MASQ, _TUNNEL, _DROUTE
  SyncRecord record;
  record.flow = connections_.flow(c);
  record.real = connections_.recipe(c).real;
  record.flags = kMethods[static_cast<std::size_t>(server.config.method)];
  record.mark = server.service_key.mark;
  record.timeout = c.timeout();
  if (c.is_template) {
    const TemplateTable::Row& own = templates_[c.affinity];
    record.flags |= sync_flag::kTemplate | sync_flag::kInactive;
    if (server.config.method != Method::masq) record.flags |= sync_flag::kNoOutput;
    record.state = own.assured ? 1 : 0;
    if (!own.call_id.empty()) record.engine = "sip";
    record.engine_data = own.call_id;
    return record;
  }
  if (c.input_only) record.flags |= sync_flag::kNoOutput;
  if (!is_active(c.state)) record.flags |= sync_flag::kInactive;
  record.state = sync_state(c.state);
  return record;
}

void Balancer::tell(const SyncRecord& record, Instant now) {
  const SyncDaemon& master = *sync_.daemon(SyncRole::master);
  const Interface& out = network_.interfaces()[master.device.index];
  const std::size_t fits = std::max<std::size_t>(out.mtu, 576) - header_length(master.settings.group->family());
  const std::size_t most = std::min<std::size_t>(master.settings.maximum_length, fits);
  if (sync_.message && !sync_.message->add(record, most)) send_sync_message();
  if (!sync_.message) {
    sync_.message.emplace(master.settings.sync_id);
    sync_.send_at = now + kMostDelay;
    (void)sync_.message->add(record, most);  // the first fits always
  }
}

void Balancer::send_sync_message() {
  const SyncDaemon& master = *sync_.daemon(SyncRole::master);
  const Interface& out = network_.interfaces()[master.device.index];
  const StartDaemon& settings = master.settings;
  const auto source = std::find_if(out.addresses.begin(), out.addresses.end(), [&](const Prefix& p) {
    return p.address.family() == settings.group->family() && !is_virtual(p.address);
  });
  if (!out.up || source == out.addresses.end()) {
    counters_.count(out.up ? Reason::no_route : Reason::device_down);
  } else {
    const auto payload = sync_.message->bytes();
    const FlowKey flow{{source->address, settings.port}, {*settings.group, settings.port}, Protocol::udp};
    Frame& frame = outbox_.add(sizeof(EthernetHeader) + header_length(settings.group->family()) + payload.size(), master.device);
    write_datagram(frame, out.mac, flow, settings.ttl, next_ip_id(), payload);
    counters_.count(Reason::sync_sent);
  }
  sync_.drop_message();
}

// --- being told -----------------------------------------------------------------------------------------------------------

/// A datagram to the group we listen to, as a backup.
bool Balancer::is_sync_message(const Frame& frame, const PacketView& view) const {
  const auto& backup = sync_.daemon(SyncRole::backup);
  constexpr std::uint16_t kMostPorts = 64;  // the kernel's master may use so many, one up from the other (sync_ports)
  return backup && view.kind == PacketView::Kind::ip && frame.ingress == backup->device && view.is_udp() &&
         view.flow.target.address == *backup->settings.group && view.has_transport && !view.fragment &&
         view.flow.target.port.host() - backup->settings.port.host() < kMostPorts &&
         view.flow.target.port.host() >= backup->settings.port.host();
}

Verdict Balancer::receive_sync(const Frame& frame, const PacketView& view, Instant now) {
  const auto datagram = frame.bytes().subspan(view.transport, view.payload_length());
  const UdpHeader udp = header_at<UdpHeader>(datagram, 0);
  if (frame.offload.checksum != Offload::Checksum::partial && udp.checksum != Be16{0}) {
    const IpAddress& from = view.flow.source.address;
    const auto sum = pseudo_header_sum(from, view.flow.target.address, Protocol::udp, datagram.size()).add(datagram);
    if (sum.folded() != 0xffff) return Verdict::drop(Reason::sync_malformed);
  }
  if (udp.length.host() < sizeof udp || udp.length.host() > datagram.size()) return Verdict::drop(Reason::sync_malformed);
  const SyncReading reading = read_sync_message(datagram.subspan(sizeof udp, udp.length.host() - sizeof udp));
  const std::uint8_t wanted = sync_.daemon(SyncRole::backup)->settings.sync_id;
  if (wanted != 0 && reading.sync_id != wanted) return Verdict::drop(Reason::sync_others);
  for (const SyncRecord& record : reading.records) counters_.count(adopt(record, now));
  return Verdict::drop(reading.whole ? Reason::sync_received : Reason::sync_malformed);
}

/// Makes one connection what another director says it is. A service or server that isn't here can't be taken over.
Reason Balancer::adopt(const SyncRecord& record, Instant now) {
  if (record.is_template()) return adopt_template(record, now);
  const auto state = state_of_sync(record.flow.protocol, record.state);
  if (!state) return Reason::sync_ignored;
  Connection* c = nullptr;
  if (const auto found = connections_.find(record.flow); found && found.direction == Direction::request) c = found.connection;
  if (c != nullptr && (connections_.recipe(*c).real != record.real || server_of(*c).removed())) {
    if ((record.flags & sync_flag::kInactive) != 0) return Reason::sync_ignored;  // the end of one that was replaced already
    close(*c, now);
    c = nullptr;
  }
  if (c == nullptr) {
    RealServer* server = server_of_sync(record);
    if (server == nullptr) return Reason::sync_ignored;
    const bool nat = server->config.method == Method::masq;
    if (nat && connections_.find({record.real, record.flow.source, record.flow.protocol})) return Reason::sync_ignored;
    c = connections_.open(record.flow.source, recipe_key(*server, record.flow, record.real), now + kUntoldTimeout);
    if (c == nullptr) return Reason::table_full;
    c->input_only = !nat;
    ++server->inactive;
    if (server->config.upper_threshold != 0 && server->connections() >= server->config.upper_threshold) server->overloaded = true;
  }
  RealServer& server = server_of(*c);
  if (is_active(*state) != is_active(c->state)) {
    ++(is_active(*state) ? server.active : server.inactive);
    --(is_active(*state) ? server.inactive : server.active);
  }
  c->state = *state;
  sync_.remember(connections_.id_of(*c), {{}, *state, 0});
  c->from_sync = true;
  c->in_packets = static_cast<std::uint32_t>(tunables_.sync_threshold);
  c->set_timeout(record.timeout > Duration{} ? record.timeout : timeouts_[*state]);
  connections_.set_deadline(*c, now + c->timeout());
  return Reason::sync_adopted;
}

/// Likewise a template. One that leads to another server than the master's gives way.
Reason Balancer::adopt_template(const SyncRecord& record, Instant now) {
  RealServer* server = server_of_sync(record);
  if (server == nullptr || server->service->config.persistence == Duration{}) return Reason::sync_ignored;
  const ServiceConfig& config = server->service->config;
  if (!record.engine_data.empty() && config.persistence_engine != record.engine) return Reason::sync_ignored;
  FlowKey key = record.flow;
  if (options_.policy == Policy::improved && config.key.mark == 0) key.target.port = config.key.endpoint.port;
  Connection* model = find_template(key, record.engine_data);
  if (model != nullptr && &server_of(*model) != server) {
    close(*model, now);
    model = nullptr;
  }
  if (model == nullptr) model = open_template(key, record.engine_data, *server, record.real, now + config.persistence, now);
  if (model == nullptr) return Reason::table_full;
  model->from_sync = true;
  model->in_packets = static_cast<std::uint32_t>(tunables_.sync_threshold);
  model->set_timeout(record.timeout > Duration{} ? record.timeout : kUntoldTimeout);
  templates_[model->affinity].assured = record.state == 1;
  connections_.set_deadline(*model, now + model->timeout());
  return Reason::sync_adopted;
}

RealServer* Balancer::server_of_sync(const SyncRecord& record) {
  const Service* service = record.mark != 0 ? exact_service(class_key(record.mark, record.flow.target.address.family()))
                                            : service_for(record.flow, 0);
  if (service == nullptr && record.is_template() && record.flow.target.port == Port{})  // the kernel's, of an FTP service
    service = exact_service({record.flow.protocol, {record.flow.target.address, Port::of(21)}, 0});
  if (service == nullptr) return nullptr;
  if (RealServer* server = service->find(record.real)) return server;
  for (RealServer* server : service->servers) {  // one that keeps the packet's port
    const Port port = server->config.endpoint.port;
    const bool any_port = port == Port{} || record.real.port == Port{};
    const bool own_port = server->config.method != Method::masq && port == service->key().endpoint.port;
    if (server->config.endpoint.address == record.real.address && (any_port || own_port)) return server;
  }
  return nullptr;
}

}  // namespace director
