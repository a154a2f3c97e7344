// Events: what the log tells of changes, and of what goes wrong while packets pass.
//
// The core logs nothing; a Watch looks at it, at most once a second, and compares with what it saw before. Pure: events are values,
// report.h writes them. Their messages are for people's alerts and don't change: director.8 lists them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "director/core/balancer.h"
#include "director/core/change.h"
#include "director/log.h"

namespace director {

struct Event {
  log::Level level = log::Level::info;
  std::string message;
  std::vector<log::Field> fields;
};

/// What a change that was made is called; nothing: it is about the network, which others tell.
[[nodiscard]] std::optional<Event> event_of(const Change& change);

class Watch {
 public:
  explicit Watch(const Balancer& balancer);
  /// When due() wants to be called; kNever: not before something happens.
  [[nodiscard]] Instant next_deadline() const { return next_; }
  /// What has happened. Call whenever the loop has settled: mostly there is nothing to look at.
  std::vector<Event> due(Instant now);

  static constexpr Duration kEvery = 1s;
  /// About one server, service, neighbour or reason so long nothing more is told; then what is true by then.
  static constexpr Duration kRest = 10s;

 private:
  /// Something that is well or isn't, and what was told of it last.
  struct Condition {
    bool is_bad = false;
    std::optional<Instant> told;
  };
  struct SeenService {
    ServiceKey key;
    bool had_servers = false;
    Condition condition{};
    std::uint64_t look = 0;
  };
  struct SeenServer {
    ServiceKey service;
    Endpoint endpoint;
    Condition condition{};
  };
  struct Loss {
    std::uint64_t told_frames = 0;
    std::optional<Instant> told;
  };
  /// What changes whenever something happens that is looked at.
  struct Traces {
    std::array<std::uint64_t, kReasonCount> reasons{};
    std::uint64_t generation = 0, packets = 0, connections = 0;
    std::uint32_t neighbours = 0;
    std::uint64_t health = 0;
    std::int64_t defences = 0;
    friend bool operator==(const Traces&, const Traces&) = default;
  };

  [[nodiscard]] Traces traces() const;
  void look(Instant now);
  void look_at_services(Instant now);
  void look_at_server(const Service& service, const RealServer& server, Instant now);
  void look_at_health(const Service& service, const RealServer& server, Instant now);
  void look_at_neighbour(const RealServer& server, Instant now);
  void look_at_reasons(Instant now);
  void look_at_defences(Instant now);
  /// Whether the condition has turned and may be told now.
  bool turned(Condition& condition, bool is_bad, Instant now);
  void tell(log::Level level, std::string message, std::vector<log::Field> fields);

  const Balancer& balancer_;
  Traces seen_;
  Instant next_ = kNever;
  Instant not_before_{};
  std::uint64_t looks_ = 0;
  bool waiting_ = false;  // something has turned that may not be told yet
  std::unordered_map<const Service*, SeenService> services_;
  using SeenServers = std::unordered_map<std::uint32_t, SeenServer>;  // by RealId: those that were once
  bool turned(SeenServers& servers, const Service& service, const RealServer& server, bool is_bad, Instant now);
  SeenServers full_, failed_;
  std::unordered_map<std::uint32_t, Condition> neighbours_;  // by HopId: those that were lost
  std::array<Loss, kReasonCount> losses_{};
  std::array<Condition, 3> defences_{};
  std::vector<Event> events_;
};

}  // namespace director
