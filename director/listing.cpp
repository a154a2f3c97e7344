// The tables, top to bottom: order, names, cells, rows, listings. Widths and texts: ipvsadm 1.31.
#include "director/listing.h"

#include <fmt/format.h>

#include "director/class_text.h"

#include <array>

#include "director/rules.h"

namespace director {
namespace {

// --- order -------------------------------------------------------------------------------------------------------------

/// ipvsadm subtracts 32 bits from 32 bits into an int, so that of two addresses more than half the space apart the higher comes
/// first: 192.168.0.1 before 10.0.0.1. People compare its listings with ours, so it is the same here.
int wrapping_difference(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::int32_t>(a - b);
}

/// An address as ipvsadm compares it: 32 bits at a time, IPv4 in the first.
std::array<std::uint32_t, 4> comparable(const IpAddress& a) {
  std::array<std::uint32_t, 4> words{};
  std::size_t i = 0;
  for (const std::uint8_t byte : a.wire()) {
    words[i / 4] = words[i / 4] << 8U | byte;
    ++i;
  }
  return words;
}

int compare(const Endpoint& a, const Endpoint& b) {
  const auto x = comparable(a.address);
  const auto y = comparable(b.address);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (x[i] != y[i]) return wrapping_difference(x[i], y[i]);
  return a.port.host() - b.port.host();
}

int compare(const ServiceKey& a, const ServiceKey& b) {
  if (a.mark != b.mark) return wrapping_difference(a.mark, b.mark);
  if (a.family() != b.family()) return a.family() < b.family() ? -1 : 1;
  if (a.protocol != b.protocol) return a.protocol < b.protocol ? -1 : 1;
  return compare(a.endpoint, b.endpoint);
}

/// A merge sort, halves as qsort(3) of the GNU library makes them: the comparison above is no order (it may go round in a circle),
/// which std::sort may not be given.
template <typename T, typename Compare>
void merge_sort(std::span<T> items, Compare compare_items) {
  if (items.size() < 2) return;
  const std::size_t half = items.size() / 2;
  merge_sort(items.first(half), compare_items);
  merge_sort(items.subspan(half), compare_items);
  std::vector<T> merged;
  std::size_t left = 0;
  std::size_t right = half;
  while (left < half && right < items.size())
    merged.push_back(compare_items(items[left], items[right]) <= 0 ? items[left++] : items[right++]);
  merged.insert(merged.end(), items.begin() + static_cast<long>(left),
                items.begin() + static_cast<long>(half));
  std::copy(merged.begin(), merged.end(), items.begin());
}

// --- names ---------------------------------------------------------------------------------------------------------------

/// "10.9.0.100:80", or with names "www.example:http". IPv6 addresses stay numbers, as ipvsadm leaves them.
std::string endpoint_text(const Endpoint& e, Protocol protocol, Addresses addresses, Lookups& lookups) {
  if (addresses == Addresses::numeric) return format_as(e);
  std::string host = format_as(e.address);
  if (e.address.is_v4()) {
    host = lookups.name_of(e.address).value_or(host);
  } else {
    host = fmt::format("[{}]", host);
  }
  return fmt::format("{}:{}", host,
                     lookups.service_of(e.port, protocol).value_or(std::to_string(e.port.host())));
}

/// The protocol whose port names a service's ports have; a class of packets has none.
Protocol port_protocol(const ServiceKey& key) {
  return key.mark == 0 ? key.protocol : Protocol::ip;
}

/// "TCP  10.9.0.100:80", "FWM  7 IPv6". IPv4 is cut at the column's end.
std::string service_name(const ServiceKey& key, Addresses addresses, Lookups& lookups) {
  if (key.mark != 0) return fmt::format("FWM  {}{}", key.mark, key.family() == Family::ipv6 ? " IPv6" : "");
  std::string name = fmt::format("{:<4} {}", format_as(key.protocol),
                                 endpoint_text(key.endpoint, key.protocol, addresses, lookups));
  if (key.family() == Family::ipv4 && name.size() > 33) name.resize(33);
  return name;
}

std::string server_name(const Service& service, const RealServer& server, Addresses addresses,
                        Lookups& lookups) {
  std::string name = endpoint_text(server.config.endpoint, port_protocol(service.key()), addresses, lookups);
  if (server.config.endpoint.address.is_v4() && name.size() > 28) name.resize(28);
  return name;
}

// --- cells ---------------------------------------------------------------------------------------------------------------

/// A counter in nine columns, with a decimal suffix when it is too long; exact: all its digits behind at least one blank.
std::string number(std::uint64_t n, Numbers numbers) {
  if (numbers == Numbers::exact) return fmt::format(" {:>8}", n);
  if (n < 100'000'000) return fmt::format("{:>9}", n);
  if (n < 1'000'000'000) return fmt::format("{:>8}K", n / 1000);
  if (n < 100'000'000'000) return fmt::format("{:>8}M", n / 1'000'000);
  if (n < 100'000'000'000'000) return fmt::format("{:>8}G", n / 1'000'000'000);
  return fmt::format("{:>8}T", n / 1'000'000'000'000);
}

std::string numbers_of(const Traffic& t, Numbers numbers) {
  return number(t.connections, numbers) + number(t.in_packets, numbers) + number(t.out_packets, numbers) +
         number(t.in_bytes, numbers) + number(t.out_bytes, numbers);
}

std::string_view method_name(Method m) {
  return m == Method::masq ? "Masq" : m == Method::tunnel ? "Tunnel" : "Route";
}

/// "ipip", "gue:6080:r+c", "gre:+c", "n/a"
std::string tunnel_info(const ServerConfig& server) {
  static constexpr std::string_view kChecksum[] = {"-c", "+c", "r+c"};
  if (server.method != Method::tunnel) return "n/a";
  const std::string_view checksum = kChecksum[static_cast<std::size_t>(server.tunnel_checksum)];
  switch (server.tunnel_type) {
    case TunnelType::ipip:
      return "ipip";
    case TunnelType::gue:
      return fmt::format("gue:{}:{}", server.tunnel_port.host(), checksum);
    case TunnelType::gre:
      return fmt::format("gre:{}", checksum);
  }
  return {};
}

/// Behind a service's name: " sh (sh-port) persistent 360 mask 255.255.255.0 pe sip ops"
std::string flags_of(const ServiceConfig& service) {
  std::string text = " " + service.scheduler;
  if (const std::string flags = flags_text(service); !flags.empty()) text += fmt::format(" ({})", flags);
  if (service.persistence != Duration{}) {
    text += fmt::format(" persistent {}",
                        std::chrono::duration_cast<std::chrono::seconds>(service.persistence).count());
    if (service.key.family() == Family::ipv6) {
      if (service.netmask_length != 0) text += fmt::format(" mask {}", service.netmask_length);
    } else if (service.netmask != ServiceConfig{}.netmask) {
      text += " mask " + format_as(IpAddress::v4(service.netmask));
    }
    if (!service.persistence_engine.empty()) text += " pe " + service.persistence_engine;
  }
  if (service.one_packet) text += " ops";
  return text;
}

// --- rows ----------------------------------------------------------------------------------------------------------------

std::string title(View view) {
  static constexpr std::string_view kNumbers =
      "{:<33} {:>8} {:>8} {:>8} {:>8} {:>8}\n  -> RemoteAddress:Port\n";
  static constexpr std::string_view kService = "Prot LocalAddress:Port";
  switch (view) {
    case View::stats:
      return fmt::format(kNumbers, kService, "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes");
    case View::rate:
      return fmt::format(kNumbers, kService, "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS");
    case View::thresholds:
      return fmt::format("{:<33} {:<10} {:<10} {:<10} {:<10}\n  -> RemoteAddress:Port\n", kService,
                         "Uthreshold", "Lthreshold", "ActiveConn", "InActConn");
    case View::persistent_connections:
      return fmt::format("{:<33} {:<9} {:<11} {:<10} {:<10}\n  -> RemoteAddress:Port\n", kService, "Weight",
                         "PersistConn", "ActiveConn", "InActConn");
    case View::tunnels:
      return "Prot LocalAddress:Port Scheduler Flags\n"
             "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n";
    case View::plain:
      break;
  }
  return "Prot LocalAddress:Port Scheduler Flags\n"
         "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n";
}

std::string server_cells(const RealServer& server, const ListStyle& style) {
  const ServerConfig& config = server.config;
  switch (style.view) {
    case View::stats:
      return numbers_of(server.traffic.total, style.numbers);
    case View::rate: {
      const Traffic& rate = server.traffic.rate;  // the first three never get a suffix
      return fmt::format(" {:>8} {:>8} {:>8}{}{}", rate.connections, rate.in_packets, rate.out_packets,
                         number(rate.in_bytes, style.numbers), number(rate.out_bytes, style.numbers));
    }
    case View::thresholds:
      return fmt::format(" {:<10} {:<10} {:<10} {:<10}", config.upper_threshold, config.lower_threshold,
                         server.active, server.inactive);
    case View::persistent_connections:
      return fmt::format(" {:<9} {:<11} {:<10} {:<10}", config.weight, server.persistent, server.active,
                         server.inactive);
    case View::tunnels:
      return fmt::format(" {:<7} {:<13} {:<6} {:<10} {:<10}", method_name(config.method), tunnel_info(config),
                         config.weight, server.active, server.inactive);
    case View::plain:
      break;
  }
  return fmt::format(" {:<7} {:<6} {:<10} {:<10}", method_name(config.method), config.weight, server.active,
                     server.inactive);
}

void add_service(std::string& text, const Service& service, const ListStyle& style, Lookups& lookups) {
  const std::string name = service_name(service.key(), style.addresses, lookups);
  const auto out = std::back_inserter(text);
  if (style.view == View::stats) {
    fmt::format_to(out, "{:<33}{}\n", name, numbers_of(service.traffic.total, style.numbers));
  } else if (style.view == View::rate) {
    fmt::format_to(out, "{:<33}{}\n", name, numbers_of(service.traffic.rate, style.numbers));
  } else {
    fmt::format_to(out, "{}{}\n", name, flags_of(service.config));
  }
  for (const RealServer* server : in_order(service, style.order))
    fmt::format_to(out, "  -> {:<28}{}\n", server_name(service, *server, style.addresses, lookups),
                   server_cells(*server, style));
}

/// "-t www.example:http", as a rule names its service.
std::string service_option(const ServiceKey& key, Addresses addresses, Lookups& lookups) {
  std::string text = option_text(key);
  if (key.mark != 0) return text;
  return text.substr(0, text.find(' ') + 1) + endpoint_text(key.endpoint, key.protocol, addresses, lookups);
}

std::int64_t seconds(Duration d) {
  return std::chrono::duration_cast<std::chrono::seconds>(d).count();
}

}  // namespace

// --- listings ------------------------------------------------------------------------------------------------------------

std::vector<const Service*> in_order(ServiceList services, Order order) {
  std::vector<const Service*> all{services.begin(), services.end()};
  if (order == Order::sorted)
    merge_sort(std::span{all},
               [](const Service* a, const Service* b) { return compare(a->key(), b->key()); });
  return all;
}

std::vector<const RealServer*> in_order(const Service& service, Order order) {
  std::vector<const RealServer*> all{service.servers.begin(), service.servers.end()};
  if (order == Order::sorted)
    merge_sort(std::span{all}, [](const RealServer* a, const RealServer* b) {
      return compare(a->config.endpoint, b->config.endpoint);
    });
  return all;
}

std::string list_services(ServiceList services, std::size_t table_size, const ListStyle& style,
                          Lookups& lookups) {
  std::string text =
      fmt::format("IP Virtual Server version 1.2.1 (size={})\n", table_size) + title(style.view);
  for (const Service* service : in_order(services, style.order)) add_service(text, *service, style, lookups);
  return text;
}

std::string list_service(const Service& service, const ListStyle& style, Lookups& lookups) {
  std::string text = title(style.view);
  add_service(text, service, style, lookups);
  return text;
}

std::string list_connections(const Balancer& balancer, Instant now, const ListStyle& style,
                             Lookups& lookups) {
  std::string text = "IPVS connection entries\n";
  const auto out = std::back_inserter(text);
  fmt::format_to(out, "pro expire {:<11} {:<18} {:<18} {}", "state", "source", "virtual", "destination");
  if (style.view == View::persistent_connections)
    fmt::format_to(out, "{:8}{:<16} {}", "", "pe name", "pe_data");
  text += '\n';
  balancer.for_each_connection(now, [&](const Balancer::ConnectionRow& row) {
    const auto name = [&](const Endpoint& e) {
      return endpoint_text(e, row.protocol, style.addresses, lookups);
    };
    const std::string_view state = !row.is_template ? name_of(row.state) : row.assured ? "ASSURED" : "NONE";
    const std::int64_t left = seconds(row.remaining);
    fmt::format_to(out, "{:<3} {:<6} {:<11} {:<18} {:<18} {}", format_as(row.protocol),
                   fmt::format("{:02}:{:02}", left / 60, left % 60), state, name(row.client),
                   name(row.virtual_), name(row.real));
    if (style.view == View::persistent_connections && !row.engine.empty())
      fmt::format_to(out, "        {:<16} {}", row.engine, row.engine_data);
    text += '\n';
  });
  return text;
}

std::string list_timeouts(const Timeouts& timeouts) {
  return fmt::format("Timeout (tcp tcpfin udp): {} {} {}\n", seconds(timeouts[State::established]),
                     seconds(timeouts[State::fin_wait]), seconds(timeouts[State::udp]));
}

std::string list_classes(const Classifier& classes) {
  std::string text = "Class Rule\n";
  for (const ClassRule& rule : classes.rules()) {
    const std::string words = format_as(rule);  // the number comes first
    const std::size_t blank = words.find(' ');
    fmt::format_to(std::back_inserter(text), "{:<5} {}\n", words.substr(0, blank), words.substr(blank + 1));
  }
  return text;
}

std::string list_daemons(const Balancer& balancer) {
  std::string text;
  for (const auto& [role, name] : {std::pair{SyncRole::master, "master"}, {SyncRole::backup, "backup"}}) {
    const auto& daemon = balancer.sync_daemon(role);
    if (!daemon) continue;
    const StartDaemon& s = daemon->settings;
    fmt::format_to(std::back_inserter(text),
                   "{} sync daemon (mcast={}, syncid={}, maxlen={}, group={}, port={}, ttl={})\n", name, s.interface,
                   s.sync_id, s.maximum_length, format_as(*s.group), s.port.host(), s.ttl);
  }
  return text;
}

std::string save_rules(ServiceList services, const Classifier& classes, const Timeouts& timeouts, const Save& save,
                       Lookups& lookups) {
  std::string text;
  const auto out = std::back_inserter(text);
  const auto changed = [&](State s) { return timeouts[s] != Timeouts{}[s]; };
  const bool any_changed = changed(State::established) || changed(State::fin_wait) || changed(State::udp);
  if (save.extras == Extras::included || (save.extras == Extras::restorable && any_changed))
    fmt::format_to(out, "--set {} {} {}\n", seconds(timeouts[State::established]),
                   seconds(timeouts[State::fin_wait]), seconds(timeouts[State::udp]));
  if (save.extras == Extras::included)
    for (const ClassRule& rule : classes.rules()) fmt::format_to(out, "--class {}\n", format_as(rule));
  for (const Service* service : in_order(services, Order::sorted)) {
    const ServiceKey& key = service->key();
    const std::string option = service_option(key, save.addresses, lookups);
    fmt::format_to(out, "{}\n", rule_text(service->config, option, save.extras));
    for (const RealServer* server : in_order(*service, Order::sorted))
      fmt::format_to(
          out, "{}\n",
          rule_text(server->config, option,
                    endpoint_text(server->config.endpoint, port_protocol(key), save.addresses, lookups),
                    save.extras));
  }
  return text;
}

std::string list_reasons(const Counters& counters) {
  std::string text;
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    if (counters[reason] != 0)
      fmt::format_to(std::back_inserter(text), "{:>12} {:<24} {}\n", counters[reason], name_of(reason),
                     text_of(reason));
  }
  return text;
}

std::string list_tunables(const Tunables& tunables) {
  std::string text;
  for (const TunableInfo& knob : kTunables)
    fmt::format_to(std::back_inserter(text), "{} = {}{}{}\n", knob.name, tunables.*(knob.value),
                   knob.has_effect ? "" : "   # no effect: ", knob.has_effect ? "" : knob.effect);
  return text;
}

}  // namespace director
