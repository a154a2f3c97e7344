// The families, in the order they are printed: a line of kFamilies each, and how its samples are written.
#include "director/http/metrics.h"

#include <fmt/format.h>

#include <array>
#include <iterator>
#include <span>

#include "director/fate.h"

namespace director {
namespace {

using Snapshot = MetricsSnapshot;

/// Label values by the rules of the format: backslash, double quote and line feed are escaped.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

/// Where samples of one family go.
class Samples {
 public:
  Samples(std::string& out, std::string_view name) : out_(out), name_(name) {}

  void add(std::uint64_t value) { line("", "", fmt::format("{}", value)); }
  void add(double value) { line("", "", fmt::format("{}", value)); }
  /// `labels`: key="value" pairs, joined by commas.
  void add(std::string_view labels, std::uint64_t value) { line("", labels, fmt::format("{}", value)); }

  /// `unit`: how many of the histogram's values are one of the family's (seconds have 10^9 nanoseconds).
  template <std::size_t N>
  void add(std::string_view labels, const Histogram<N>& h, double unit) {
    std::uint64_t below = 0;
    const std::string_view comma = labels.empty() ? "" : ",";
    for (std::size_t i = 0; i <= N; ++i) {
      below += h.buckets[i];
      const std::string bound = i == N ? "+Inf" : fmt::format("{}", static_cast<double>(h.bounds[i]) / unit);
      line("_bucket", fmt::format("{}{}le=\"{}\"", labels, comma, bound), fmt::format("{}", below));
    }
    line("_sum", labels, fmt::format("{}", static_cast<double>(h.sum) / unit));
    line("_count", labels, fmt::format("{}", below));
  }

 private:
  void line(std::string_view suffix, std::string_view labels, std::string_view value) {
    const std::string_view open = labels.empty() ? "" : "{";
    const std::string_view close = labels.empty() ? "" : "}";
    fmt::format_to(std::back_inserter(out_), "{}{}{}{}{} {}\n", name_, suffix, open, labels, close, value);
  }

  std::string& out_;
  std::string_view name_;
};

constexpr std::string_view kMethods[] = {"masq", "tunnel", "direct"};

/// As node_exporter labels a server; it sorts labels by name, and has an empty address for a class.
std::string exporter_labels(const Snapshot& s, const Snapshot::ServerRow& server) {
  const ServiceKey& key = s.services[server.service].key;
  const bool is_class = key.mark != 0;
  return fmt::format(R"(local_address="{}",local_mark="{}",local_port="{}",proto="{}",remote_address="{}",remote_port="{}")",
                     is_class ? "" : format_as(key.endpoint.address), is_class ? fmt::format("{:08X}", key.mark) : "",
                     is_class ? 0 : key.endpoint.port.host(), is_class ? "FWM" : format_as(key.protocol),
                     format_as(server.endpoint.address), server.endpoint.port.host());
}

std::string service_labels(const Snapshot& s, std::size_t i) {
  return fmt::format("service=\"{}\"", service_label(s.services[i].key));
}
std::string server_labels(const Snapshot& s, std::size_t i) {
  const Snapshot::ServerRow& server = s.servers[i];
  return fmt::format(R"({},server="{}",method="{}")", service_labels(s, server.service), format_as(server.endpoint),
                     kMethods[static_cast<std::size_t>(server.method)]);
}

// --- samples -----------------------------------------------------------------------------------------------------------------

/// One member of the snapshot, of the whole or of a row.
template <auto kMember>
void plain(Samples& to, const Snapshot& s, std::size_t) {
  to.add(s.*kMember);
}
template <auto kMember>
void total(Samples& to, const Snapshot& s, std::size_t) {
  to.add(s.traffic.*kMember);
}
template <auto kMember>
void process(Samples& to, const Snapshot& s, std::size_t) {
  to.add(s.process.*kMember);
}
template <auto kMember>
void exporter(Samples& to, const Snapshot& s, std::size_t i) {
  to.add(exporter_labels(s, s.servers[i]), s.servers[i].*kMember);
}
template <auto kMember>
void service(Samples& to, const Snapshot& s, std::size_t i) {
  to.add(service_labels(s, i), s.services[i].*kMember);
}
template <auto kMember>
void service_traffic(Samples& to, const Snapshot& s, std::size_t i) {
  to.add(service_labels(s, i), s.services[i].traffic.*kMember);
}
template <auto kMember>
void server(Samples& to, const Snapshot& s, std::size_t i) {
  to.add(server_labels(s, i), std::uint64_t{s.servers[i].*kMember});
}
template <auto kMember>
void server_traffic(Samples& to, const Snapshot& s, std::size_t i) {
  to.add(server_labels(s, i), s.servers[i].traffic.*kMember);
}
template <auto kMember>
void batches(Samples& to, const Snapshot& s, std::size_t i) {
  to.add(fmt::format("device=\"{}\"", escaped(s.devices[i].name)), s.devices[i].batches.*kMember, 1);
}

template <Fate kFate>
void reasons(Samples& to, const Snapshot& s, std::size_t) {
  for (std::size_t i = 0; i < kReasonCount; ++i)
    if (const auto reason = static_cast<Reason>(i); fate_of(reason) == kFate)
      to.add(fmt::format("reason=\"{}\"", name_of(reason)), s.reasons[reason]);
}

/// Every state a protocol has, those without connections too: a gauge that comes and goes is hard to alert on.
void connections(Samples& to, const Snapshot& s, std::size_t) {
  constexpr std::array<std::string_view, ConnectionCounts::kRows> kProtocols{"TCP", "UDP", "SCTP"};
  for (std::size_t row = 0; row < kProtocols.size(); ++row) {
    for (std::size_t i = 0; i < kStateCount; ++i) {
      const auto state = static_cast<State>(i);
      const bool has = row == ConnectionCounts::udp    ? state == State::udp
                       : row == ConnectionCounts::sctp ? state == State::none || state > State::udp
                                                       : state < State::udp;
      const std::uint64_t count = s.connections.by_state[row][i];
      if (has || count != 0) to.add(fmt::format(R"(protocol="{}",state="{}")", kProtocols[row], name_of(state)), count);
    }
  }
}

void templates(Samples& to, const Snapshot& s, std::size_t) {
  to.add(s.connections.templates);
}
void usable(Samples& to, const Snapshot& s, std::size_t i) {
  to.add(server_labels(s, i), std::uint64_t{s.servers[i].usable ? 1U : 0U});
}
void healthy(Samples& to, const Snapshot& s, std::size_t i) {
  if (s.servers[i].checked) to.add(server_labels(s, i), std::uint64_t{s.servers[i].failed ? 0U : 1U});
}
void checks(Samples& to, const Snapshot& s, std::size_t i) {
  const Snapshot::ServerRow& server = s.servers[i];
  if (!server.checked) return;
  to.add(server_labels(s, i) + R"(,result="passed")", server.check_passes);
  to.add(server_labels(s, i) + R"(,result="failed")", server.check_failures);
}
void device_up(Samples& to, const Snapshot& s, std::size_t i) {
  to.add(fmt::format("device=\"{}\"", escaped(s.devices[i].name)), std::uint64_t{s.devices[i].up ? 1U : 0U});
}
void neighbours(Samples& to, const Snapshot& s, std::size_t) {
  to.add("state=\"reachable\"", s.reachable);
  to.add("state=\"asking\"", s.asking);
  to.add("state=\"failed\"", s.failed);
}
void service_count(Samples& to, const Snapshot& s, std::size_t) {
  to.add(std::uint64_t{s.services.size()});
}
void turns(Samples& to, const Snapshot& s, std::size_t) {
  to.add("", s.loop.turns, 1e9);
}
void build(Samples& to, const Snapshot& s, std::size_t) {
  to.add(fmt::format("version=\"{}\"", escaped(s.version)), std::uint64_t{1});
}

// --- families ----------------------------------------------------------------------------------------------------------------

enum class Rows : std::uint8_t { once, services, servers, devices };
enum class Type : std::uint8_t { counter, gauge, histogram };
constexpr std::string_view kTypes[] = {"counter", "gauge", "histogram"};

struct Metric {
  std::string_view name;
  Type type;
  std::string_view help;
  Rows rows;
  void (*write)(Samples&, const Snapshot&, std::size_t row);
};

using S = Snapshot;
using Row = Snapshot::ServerRow;
constexpr Metric kFamilies[] = {
    // node_exporter 1.5.0, collector/ipvs_linux.go
    {"node_ipvs_connections_total", Type::counter, "The total number of connections made.", Rows::once,
     total<&Traffic::connections>},
    {"node_ipvs_incoming_packets_total", Type::counter, "The total number of incoming packets.", Rows::once,
     total<&Traffic::in_packets>},
    {"node_ipvs_outgoing_packets_total", Type::counter, "The total number of outgoing packets.", Rows::once,
     total<&Traffic::out_packets>},
    {"node_ipvs_incoming_bytes_total", Type::counter, "The total amount of incoming data.", Rows::once, total<&Traffic::in_bytes>},
    {"node_ipvs_outgoing_bytes_total", Type::counter, "The total amount of outgoing data.", Rows::once, total<&Traffic::out_bytes>},
    {"node_ipvs_backend_connections_active", Type::gauge, "The current active connections by local and remote address.",
     Rows::servers, exporter<&Row::active>},
    {"node_ipvs_backend_connections_inactive", Type::gauge, "The current inactive connections by local and remote address.",
     Rows::servers, exporter<&Row::inactive>},
    {"node_ipvs_backend_weight", Type::gauge, "The current backend weight by local and remote address.", Rows::servers,
     exporter<&Row::weight>},

    // what becomes of packets
    {"director_packets_dropped_total", Type::counter, "Packets that ended in the director, by reason (vsadm reasons says them in words).",
     Rows::once, reasons<Fate::dropped>},
    {"director_packets_refused_total", Type::counter, "Packets that were refused and their sender told so, by reason.", Rows::once,
     reasons<Fate::refused>},
    {"director_packets_handled_total", Type::counter,
     "Packets that were forwarded, answered, kept or left to whom they belong, by reason; reason=\"none\" is plain forwarding.",
     Rows::once, reasons<Fate::handled>},

    // connections
    {"director_connections", Type::gauge, "Connections by protocol and state, templates apart.", Rows::once, connections},
    {"director_persistence_templates", Type::gauge, "Persistence templates: clients that are kept at their server.", Rows::once,
     templates},
    {"director_connection_table_entries", Type::gauge, "Entries of the connection table, templates among them.", Rows::once,
     plain<&S::connection_entries>},
    {"director_connection_table_limit_entries", Type::gauge, "How many entries the connection table may have.", Rows::once,
     plain<&S::connection_limit>},
    {"director_shortcut_connections", Type::gauge,
     "Connections whose packets the kernel carries past the director (--accelerate), in one direction or both.", Rows::once,
     plain<&S::shortcut_connections>},

    // services and servers
    {"director_services", Type::gauge, "Virtual services.", Rows::once, service_count},
    {"director_service_servers", Type::gauge, "Real servers of the service.", Rows::services, service<&S::ServiceRow::servers>},
    {"director_service_usable_servers", Type::gauge, "Real servers of the service that may get new connections.", Rows::services,
     service<&S::ServiceRow::usable>},
    {"director_service_connections_total", Type::counter, "Connections made to the service.", Rows::services,
     service_traffic<&Traffic::connections>},
    {"director_service_incoming_packets_total", Type::counter, "Packets from clients to the service.", Rows::services,
     service_traffic<&Traffic::in_packets>},
    {"director_service_outgoing_packets_total", Type::counter,
     "Packets from the service to clients; 0 where replies don't pass the director (tunnel, direct).", Rows::services,
     service_traffic<&Traffic::out_packets>},
    {"director_service_incoming_bytes_total", Type::counter, "Bytes of IP packets from clients to the service.", Rows::services,
     service_traffic<&Traffic::in_bytes>},
    {"director_service_outgoing_bytes_total", Type::counter,
     "Bytes of IP packets from the service to clients; 0 where replies don't pass the director.", Rows::services,
     service_traffic<&Traffic::out_bytes>},
    {"director_server_usable", Type::gauge, "Whether the real server may get new connections: its weight isn't 0, no threshold is reached and no check has failed.",
     Rows::servers, usable},
    {"director_server_healthy", Type::gauge, "Whether the real server passes its health check; servers without one have no sample.",
     Rows::servers, healthy},
    {"director_server_checks_total", Type::counter, "Health checks of the real server, by result.", Rows::servers, checks},
    {"director_server_persistent_clients", Type::gauge, "Persistence templates that lead to the real server.", Rows::servers,
     server<&Row::persistent>},
    {"director_server_connections_total", Type::counter, "Connections given to the real server.", Rows::servers,
     server_traffic<&Traffic::connections>},
    {"director_server_incoming_packets_total", Type::counter, "Packets from clients to the real server.", Rows::servers,
     server_traffic<&Traffic::in_packets>},
    {"director_server_outgoing_packets_total", Type::counter,
     "Packets from the real server to clients; 0 where replies don't pass the director.", Rows::servers,
     server_traffic<&Traffic::out_packets>},
    {"director_server_incoming_bytes_total", Type::counter, "Bytes of IP packets from clients to the real server.", Rows::servers,
     server_traffic<&Traffic::in_bytes>},
    {"director_server_outgoing_bytes_total", Type::counter,
     "Bytes of IP packets from the real server to clients; 0 where replies don't pass the director.", Rows::servers,
     server_traffic<&Traffic::out_bytes>},

    // network, loop, configuration
    {"director_neighbours", Type::gauge, "Next hops by what is known of their MAC address: failed means that nobody answers.",
     Rows::once, neighbours},
    {"director_device_up", Type::gauge, "Whether the device can send and receive.", Rows::devices, device_up},
    {"director_receive_batch_frames", Type::histogram, "Frames read from the device at once.", Rows::devices,
     batches<&LoopStatistics::Batches::received>},
    {"director_transmit_batch_frames", Type::histogram, "Frames handed to the device at once.", Rows::devices,
     batches<&LoopStatistics::Batches::sent>},
    {"director_loop_turn_seconds", Type::histogram,
     "Time from waking up to going to sleep again; the rate of the sum is the share of a processor the director uses.", Rows::once,
     turns},
    {"director_configuration_generation", Type::gauge, "Changes of services and servers since the start.", Rows::once,
     plain<&S::generation>},
    {"director_build_info", Type::gauge, "The version that runs; always 1.", Rows::once, build},

    // what every process tells
    {"process_start_time_seconds", Type::gauge, "Start time of the process since unix epoch in seconds.", Rows::once,
     process<&S::Process::started>},
    {"process_cpu_seconds_total", Type::counter, "Total user and system CPU time spent in seconds.", Rows::once,
     process<&S::Process::cpu_seconds>},
    {"process_resident_memory_bytes", Type::gauge, "Resident memory size in bytes.", Rows::once,
     process<&S::Process::resident_bytes>},
    {"process_virtual_memory_bytes", Type::gauge, "Virtual memory size in bytes.", Rows::once, process<&S::Process::virtual_bytes>},
    {"process_open_fds", Type::gauge, "Number of open file descriptors.", Rows::once, process<&S::Process::open_descriptors>},
    {"process_max_fds", Type::gauge, "Maximum number of open file descriptors.", Rows::once,
     process<&S::Process::most_descriptors>},
};

std::size_t row_count(const Snapshot& s, Rows rows) {
  switch (rows) {
    case Rows::services: return s.services.size();
    case Rows::servers: return s.servers.size();
    case Rows::devices: return s.devices.size();
    case Rows::once: break;
  }
  return 1;
}

}  // namespace

std::string service_label(const ServiceKey& key) {
  if (key.mark == 0) return fmt::format("{} {}", format_as(key.protocol), format_as(key.endpoint));
  return fmt::format("FWM {}{}", key.mark, key.family() == Family::ipv6 ? " IPv6" : "");
}

MetricsSnapshot take_snapshot(const Balancer& balancer, const LoopStatistics& loop, const ConnectionCounts& connections) {
  MetricsSnapshot s;
  s.traffic = balancer.traffic().total;
  for (const Service* service : balancer.services()) {
    MetricsSnapshot::ServiceRow row{service->key(), service->servers.size(), 0, service->traffic.total};
    for (const RealServer* server : service->servers) {
      if (server->usable()) ++row.usable;
      s.servers.push_back({s.services.size(), server->config.endpoint, server->config.method, server->config.weight, server->active,
                           server->inactive, server->persistent, server->usable(), server->health.has_value(), server->failed(),
                           server->health ? server->health->passes : 0, server->health ? server->health->failures : 0,
                           server->traffic.total});
    }
    s.services.push_back(row);
  }
  s.reasons = balancer.counters();
  s.connections = connections;
  s.connection_entries = balancer.connection_count();
  s.shortcut_connections = balancer.shortcut_count();
  s.connection_limit = balancer.connection_limit();
  for (const Hop& hop : balancer.network().hops()) {
    if (hop.state == Hop::State::reachable) ++s.reachable;
    if (hop.state == Hop::State::asking) ++s.asking;
    if (hop.state == Hop::State::failed) ++s.failed;
  }
  s.generation = balancer.generation();
  const auto& interfaces = balancer.network().interfaces();
  for (std::size_t i = 0; i < std::min(interfaces.size(), loop.devices.size()); ++i)
    s.devices.push_back({interfaces[i].name, interfaces[i].up, loop.devices[i]});
  s.loop = loop;
  return s;
}

bool MetricsText::write_some(std::string& out, std::size_t enough) {
  const std::span<const Metric> families{kFamilies};
  while (family_ < families.size() && out.size() < enough) {
    const Metric& f = families[family_];
    const std::size_t rows = row_count(snapshot_, f.rows);
    if (row_ == 0 && rows != 0)  // with the first row behind it, or it would be written again
      fmt::format_to(std::back_inserter(out), "# HELP {} {}\n# TYPE {} {}\n", f.name, f.help, f.name,
                     kTypes[static_cast<std::size_t>(f.type)]);
    Samples samples{out, f.name};
    if (row_ < rows) do {
      f.write(samples, snapshot_, row_);
    } while (++row_ < rows && out.size() < enough);
    if (row_ < rows) return true;
    ++family_;
    row_ = 0;
  }
  return family_ < families.size();
}

std::string metrics_text(MetricsSnapshot snapshot) {
  std::string text;
  MetricsText writer{std::move(snapshot)};
  while (writer.write_some(text, SIZE_MAX)) {
  }
  return text;
}

}  // namespace director
