// One function for each file, in the order a reader of /proc/net meets them.
#include "director/proc_listing.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace director {
namespace {

/// IPv4 as one number, IPv6 in full: "0A090064", "fd00:0009:0000:0000:0000:0000:0000:0100" (the kernel's %pI6).
std::string address_text(const IpAddress& address) {
  std::string text;
  const auto bytes = address.wire();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (!address.is_v4() && i != 0 && i % 2 == 0) text += ':';
    if (address.is_v4())
      fmt::format_to(std::back_inserter(text), "{:02X}", bytes[i]);
    else
      fmt::format_to(std::back_inserter(text), "{:02x}", bytes[i]);
  }
  return text;
}

/// "0A090064:0050", "[fd00:...]:0050"
std::string endpoint_text(const Endpoint& e) {
  const std::string address = address_text(e.address);
  return e.address.is_v4() ? fmt::format("{}:{:04X}", address, e.port.host())
                           : fmt::format("[{}]:{:04X}", address, e.port.host());
}

std::int64_t seconds(Duration d) {
  return std::chrono::duration_cast<std::chrono::seconds>(d).count();
}

// --- ip_vs: services and servers (ip_vs_ctl.c, ip_vs_info_seq_show) -----------------------------------------------------------

std::string_view method_name(Method method) {
  switch (method) {
    case Method::masq:
      return "Masq";
    case Method::tunnel:
      return "Tunnel";
    case Method::direct:
      return "Route";
  }
  return {};
}

/// " persistent 30000 FFFFFF00": the time in jiffies, of which user space sees a hundred a second; of IPv6 the mask is a prefix
/// length, which the kernel turns round as if it were an address.
std::string persistence_text(const ServiceConfig& service) {
  if (service.persistence == Duration{}) return {};
  constexpr std::int64_t kJiffiesPerSecond = 100;
  const std::uint32_t length = service.netmask_length == 0 ? 128 : service.netmask_length;
  const std::uint32_t mask = service.key.family() == Family::ipv4 ? service.netmask.host() : length << 24U;
  return fmt::format("persistent {} {:08X}", seconds(service.persistence) * kJiffiesPerSecond, mask);
}

std::string services_text(const Balancer& balancer, Instant) {
  std::string text = fmt::format("IP Virtual Server version 1.2.1 (size={})\n", balancer.bucket_count());
  text +=
      "Prot LocalAddress:Port Scheduler Flags\n"
      "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
  const auto out = std::back_inserter(text);
  for (const Service* service : balancer.services()) {
    const ServiceConfig& config = service->config;
    const std::string_view one_packet = config.one_packet ? "ops " : "";
    if (config.key.mark != 0)
      fmt::format_to(out, "FWM  {:08X} {} {}", config.key.mark, config.scheduler, one_packet);
    else if (config.key.family() == Family::ipv4)
      fmt::format_to(out, "{}  {} {} {} ", format_as(config.key.protocol), endpoint_text(config.key.endpoint),
                     config.scheduler, one_packet);
    else  // the kernel shows no "ops" here
      fmt::format_to(out, "{}  {} {} ", format_as(config.key.protocol), endpoint_text(config.key.endpoint),
                     config.scheduler);
    fmt::format_to(out, "{}\n", persistence_text(config));
    for (const RealServer* server : service->servers)
      fmt::format_to(out, "  -> {}      {:<7} {:<6} {:<10} {:<10}\n", endpoint_text(server->config.endpoint),
                     method_name(server->config.method), server->config.weight, server->active,
                     server->inactive);
  }
  return text;
}

// --- ip_vs_conn, ip_vs_conn_sync: connections (ip_vs_conn.c) -----------------------------------------------------------------

std::string state_text(const Balancer::ConnectionRow& row) {
  if (row.is_template) return row.assured ? "ASSURED" : "NONE";
  return std::string{name_of(row.state)};
}

/// "TCP 0A090001 DAC1 0A090064 0050 0A09000C 0050": what both files begin a row with.
std::string flow_text(const Balancer::ConnectionRow& row) {
  const auto pair = [](const Endpoint& e) {
    return fmt::format("{} {:04X}", address_text(e.address), e.port.host());
  };
  return fmt::format("{:<3} {} {} {}", format_as(row.protocol), pair(row.client), pair(row.virtual_),
                     pair(row.real));
}

std::string connections_text(const Balancer& balancer, Instant now) {
  std::string text = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";
  balancer.for_each_connection(now, [&](const Balancer::ConnectionRow& row) {
    fmt::format_to(std::back_inserter(text), "{} {:<11} {:7}\n", flow_text(row), state_text(row),
                   seconds(row.remaining));
  });
  return text;
}

std::string connection_origins_text(const Balancer& balancer, Instant now) {
  std::string text = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n";
  balancer.for_each_connection(now, [&](const Balancer::ConnectionRow& row) {
    fmt::format_to(std::back_inserter(text), "{} {:<11} {:<6} {:7}\n", flow_text(row), state_text(row),
                   row.from_sync ? "SYNC" : "LOCAL",
                   seconds(row.remaining));
  });
  return text;
}

// --- ip_vs_stats, ip_vs_stats_percpu: counters (ip_vs_ctl.c) ------------------------------------------------------------------

std::string numbers_text(const Traffic& t) {
  return fmt::format("{:8X} {:8X} {:8X} {:16X} {:16X}", t.connections, t.in_packets, t.out_packets, t.in_bytes,
                     t.out_bytes);
}

std::string stats_text(const Balancer& balancer, Instant) {
  return fmt::format(
      "   Total Incoming Outgoing         Incoming         Outgoing\n"
      "   Conns  Packets  Packets            Bytes            Bytes\n"
      "{}\n\n"
      " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n"
      "{}\n",
      numbers_text(balancer.traffic().total), numbers_text(balancer.traffic().rate));
}

/// One thread is one processor.
std::string stats_by_processor_text(const Balancer& balancer, Instant) {
  const std::string total = numbers_text(balancer.traffic().total);
  return fmt::format(
      "       Total Incoming Outgoing         Incoming         Outgoing\n"
      "CPU    Conns  Packets  Packets            Bytes            Bytes\n"
      "{:3X} {}\n"
      "  ~ {}\n\n"
      "     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n"
      "    {}\n",
      0, total, total, numbers_text(balancer.traffic().rate));
}

// --- ip_vs_app: application helpers, of which there are none (ip_vs_app.c) -----------------------------------------------------

std::string helpers_text(const Balancer&, Instant) {
  return "prot port    usecnt name\n";
}

struct File {
  std::string_view name;
  std::string (*text)(const Balancer&, Instant);
};
constexpr std::array kFiles{
    File{"ip_vs", services_text},
    File{"ip_vs_conn", connections_text},
    File{"ip_vs_conn_sync", connection_origins_text},
    File{"ip_vs_stats", stats_text},
    File{"ip_vs_stats_percpu", stats_by_processor_text},
    File{"ip_vs_app", helpers_text},
};
constexpr auto kNames = [] {
  std::array<std::string_view, kFiles.size()> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kFiles[i].name;
  return names;
}();

}  // namespace

std::span<const std::string_view> proc_files() {
  return kNames;
}

std::optional<std::string> proc_text(std::string_view file, const Balancer& balancer, Instant now) {
  const auto* const found =
      std::find_if(kFiles.begin(), kFiles.end(), [&](const File& f) { return f.name == file; });
  if (found == kFiles.end()) return {};
  return found->text(balancer, now);
}

}  // namespace director
