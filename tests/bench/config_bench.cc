// What changes of the configuration cost: many services, and Maglev's table.
#include <array>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "director/core/scheduler.h"
#include "suites.h"
#include "world.h"

namespace director::bench {
namespace {

constexpr Instant kNow{1000s};

IpAddress host(std::uint32_t first, std::size_t n) { return IpAddress::v4(first + static_cast<std::uint32_t>(n)); }

ServiceKey service_key(std::size_t n) {
  return {Protocol::tcp, {host(0x0a0a0000U, n / 4), Port::of(static_cast<std::uint16_t>(80 + n % 4))}, 0};
}

std::unique_ptr<Balancer> with_services(std::size_t services, std::size_t servers, const std::string& scheduler) {
  auto balancer = std::make_unique<Balancer>(Balancer::Options{Policy::improved, 7, 100'000, false});
  const auto tell = [&](const Change& change) {
    if (!balancer->apply(change, kNow)) throw std::runtime_error("a change was refused");
  };
  for (std::size_t n = 0; n < services; ++n) {
    const ServiceKey key = service_key(n);
    tell(AddService{{key, scheduler, {}, {}, 0, Be32{0xffffffffU}, false, {}, {}}});
    for (std::size_t i = 0; i < servers; ++i) {
      ServerConfig server;
      server.endpoint = {host(0x0b000000U, n * servers + i), Port::of(8080)};
      server.method = Method::masq;
      tell(AddServer{key, server});
    }
  }
  return balancer;
}

/// All services and servers of a rules file, one change after another.
void apply_services(benchmark::State& state, std::size_t services, std::size_t servers, const std::string& scheduler) {
  for (auto _ : state) {
    const auto begin = cpu_time();
    const auto balancer = with_services(services, servers, scheduler);
    const auto took = cpu_time() - begin;
    state.SetIterationTime(std::chrono::duration<double>(took).count());
    if (balancer->services().size() != services) throw std::runtime_error("services are missing");
  }
}

/// Which service is a new flow for? Asked about known and unknown virtual addresses, in no order.
void find_service(benchmark::State& state, std::size_t services, bool known) {
  const auto balancer = with_services(services, 1, "rr");
  Random random;
  std::array<FlowKey, kBatch> flows;
  const auto prepare = [&] {
    for (FlowKey& flow : flows) {
      Endpoint target = service_key(random.below(services)).endpoint;
      if (!known) target.port = Port::of(9999);
      flow = {{host(0x14000000U, random.below(1'000'000)), Port::of(4000)}, target, Protocol::tcp};
    }
  };
  std::size_t found = 0;
  measure_packets(state, prepare, [&] {
    for (const FlowKey& flow : flows) found += balancer->find_service(flow, 0) != nullptr ? 1 : 0;
  });
  if ((found != 0) != known) throw std::runtime_error("services were found that aren't there, or not found that are");
}

/// The table of a service with Maglev hashing is filled anew when its servers change.
void rebuild(benchmark::State& state, std::int64_t index, std::size_t servers) {
  const auto scheduler = make_scheduler("mh", {});
  Tunables tunables;
  tunables.mh_tab_index = index;
  scheduler->tuned(tunables, {});
  std::vector<RealServer> all(servers);
  std::vector<RealServer*> list;
  for (std::size_t i = 0; i < servers; ++i) {
    all[i].config.endpoint = {host(0x0b000000U, i), Port::of(8080)};
    all[i].last_weight = all[i].config.weight = 1;
    list.push_back(&all[i]);
  }
  for (auto _ : state) {
    const auto begin = cpu_time();
    scheduler->servers_changed(list);
    const auto took = cpu_time() - begin;
    state.SetIterationTime(std::chrono::duration<double>(took).count());
  }
  state.counters["slots"] = static_cast<double>(scheduler->slots().size());
}

}  // namespace

void add_config_benches(const Options& options) {
  for (const std::size_t services : {1U, 10'000U}) {
    for (const bool known : {true, false}) {
      const std::string name = fmt::format("find_service/{}/services:{}", known ? "hit" : "miss", services);
      auto* const bench =
          benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { find_service(state, services, known); });
      bench->UseManualTime();
      if (options.rounds > 0) bench->Iterations(options.rounds);
    }
  }
  for (const auto& [scheduler, services] : {std::pair{"rr", 10'000U}, {"rr", 1'000U}, {"mh", 1'000U}}) {  // mh fills a table each time
    const std::string name = fmt::format("apply/{}/services:{}/servers:10", scheduler, services);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { apply_services(state, services, 10, scheduler); })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMillisecond);
  }
  for (const auto& [index, slots] : {std::pair{12, 4093}, {16, 65521}}) {
    for (const std::size_t servers : {10U, 100U, 1000U}) {
      const std::string name = fmt::format("maglev/rebuild/slots:{}/servers:{}", slots, servers);
      benchmark::RegisterBenchmark(name.c_str(), [=, index = index](benchmark::State& state) { rebuild(state, index, servers); })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
}

}  // namespace director::bench
