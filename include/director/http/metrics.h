// Metrics: what /metrics says, in the text format of Prometheus (version 0.0.4).
//
// Values in, text out; pure. First the families of node_exporter's ipvs collector, with its names, labels and help, so that rules and
// dashboards made for the kernel's IPVS work; then the director's own, and the usual ones of a process. Base units: seconds, bytes.
// A label's values are bounded by what the operator configured (services, servers, devices) or by lists of the program (reasons, states).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "director/core/balancer.h"
#include "director/http/census.h"
#include "director/io/loop_statistics.h"

namespace director {

/// Numbers of one moment. Copied, so that a long text can be made in portions while the table goes on.
struct MetricsSnapshot {
  struct ServiceRow {
    ServiceKey key;
    std::uint64_t servers = 0;
    std::uint64_t usable = 0;  ///< servers that may get new connections
    Traffic traffic;
  };
  struct ServerRow {
    std::size_t service = 0;  ///< its place among `services`
    Endpoint endpoint;
    Method method = Method::direct;
    std::uint32_t weight = 0, active = 0, inactive = 0, persistent = 0;
    bool usable = false;
    bool checked = false, failed = false;         ///< its health check
    std::uint64_t check_passes = 0, check_failures = 0;
    Traffic traffic;
  };
  struct Device {
    std::string name;
    bool up = false;
    LoopStatistics::Batches batches;
  };
  /// Of the process, as the kernel tells.
  struct Process {
    double started = 0;  ///< seconds since 1970
    double cpu_seconds = 0;
    std::uint64_t resident_bytes = 0, virtual_bytes = 0;
    std::uint64_t open_descriptors = 0, most_descriptors = 0;
  };

  Traffic traffic;
  std::vector<ServiceRow> services;
  std::vector<ServerRow> servers;  ///< in the services' order
  Counters reasons;
  ConnectionCounts connections;
  std::uint64_t connection_entries = 0, connection_limit = 0;  ///< templates among them
  std::uint64_t shortcut_connections = 0;
  std::uint64_t reachable = 0, asking = 0, failed = 0;         ///< neighbours
  std::uint64_t generation = 0;
  std::vector<Device> devices;
  LoopStatistics loop;
  std::string version;
  Process process;
};

/// What the core and the loop know. `process` and `version` are left to the caller.
[[nodiscard]] MetricsSnapshot take_snapshot(const Balancer& balancer, const LoopStatistics& loop, const ConnectionCounts& connections);

/// Writes the text in portions.
class MetricsText {
 public:
  explicit MetricsText(MetricsSnapshot snapshot) : snapshot_(std::move(snapshot)) {}
  /// Appends lines until `out` holds `enough` bytes or the end has come; false: it has.
  bool write_some(std::string& out, std::size_t enough);

 private:
  MetricsSnapshot snapshot_;
  std::size_t family_ = 0;  // the next one
  std::size_t row_ = 0;     // and its next row
};

/// All of it at once.
[[nodiscard]] std::string metrics_text(MetricsSnapshot snapshot);

/// "TCP 10.9.0.100:80", "FWM 7", "FWM 7 IPv6": the label `service`.
[[nodiscard]] std::string service_label(const ServiceKey& key);

}  // namespace director
