// Site: what stands where: the status page, /metrics, /healthz and /api.
//
// Answers are texts made from the core's numbers by the same code that vsadm's listings use. Making them costs the loop at most a
// twentieth of its time, however often somebody asks: what took long to make is kept for a while. Used by the daemon, through
// HttpServer.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "director/core/balancer.h"
#include "director/http/census.h"
#include "director/http/metrics.h"
#include "director/http/server.h"
#include "director/io/loop_statistics.h"

namespace director {

class Site {
 public:
  /// REQUIRES: balancer and statistics outlive the site.
  Site(const Balancer& balancer, const LoopStatistics& loop, std::string version, Instant now);

  [[nodiscard]] HttpAnswer answer(const HttpRequest& request, Instant now);
  /// When due() wants to be called; kNever: it doesn't.
  [[nodiscard]] Instant next_deadline() const { return census_.next_deadline(); }
  void due(Instant now) { census_.due(now); }

  static constexpr std::size_t kMostConnections = 1000;  ///< that /api/connections shows
  static constexpr std::size_t kUsualConnections = 100;  ///< unless it is asked for more or fewer
  static constexpr std::size_t kMostNeighbours = 256;    ///< that /api/status shows, those that failed first

 private:
  struct Kept {
    std::string text;
    Instant until{};
  };
  template <typename Make>
  HttpAnswer kept(Kept& one, Instant now, Make make);
  HttpAnswer metrics(Instant now);
  HttpAnswer connections(const HttpRequest& request, Instant now);
  [[nodiscard]] std::string status(Instant now);

  const Balancer& balancer_;
  const LoopStatistics& loop_;
  std::string version_;
  Instant started_;
  ConnectionCensus census_;
  Kept services_;
  Kept reasons_;
  Kept status_;
};

}  // namespace director
