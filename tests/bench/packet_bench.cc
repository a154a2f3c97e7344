// process(): whole batches of 64 packets through the balancer, at tables of every size.
//
// The flows of a batch are drawn at random from all there are, so at a million of them every packet's connection is cold, and its frame
// warm, as after a device's receive(). Where packets make connections, those end again outside what is timed, by their time-out.
#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include "suites.h"
#include "world.h"

namespace director::bench {
namespace {

enum class Kind : std::uint8_t {
  request,  // of an established connection, from the client
  reply,    // from the real server (NAT)
  fresh,    // a SYN that starts a connection
  stray,    // to the virtual service, of no connection, no SYN: refused with a RST
  foreign,  // to an address that isn't virtual: looked up, and left to the host
};

struct Fate {
  Action action;
  Reason reason;
};
constexpr Fate fate_of(Kind kind) {
  switch (kind) {
    case Kind::stray: return {Action::transmit, Reason::refused_reset};
    case Kind::foreign: return {Action::pass, Reason::not_ours};
    default: return {Action::transmit, Reason::none};
  }
}

/// How many packets in a hundred are of which kind; the rest are requests.
struct Mix {
  std::string name;
  int reply = 0, fresh = 0, stray = 0, foreign = 0;
};

void process(benchmark::State& state, const Options&, const Shape& shape, const Mix& mix) {
  World& world = world_of(shape);
  Batch batch;
  Random random;
  // The same order in every batch: what comes is shuffled, how much of it is not.
  std::array<Kind, kBatch> kinds;
  kinds.fill(Kind::request);
  std::size_t at = 0;
  for (const auto& [kind, percent] : {std::pair{Kind::reply, mix.reply}, {Kind::fresh, mix.fresh}, {Kind::stray, mix.stray},
                                      {Kind::foreign, mix.foreign}})
    for (std::size_t n = (kBatch * static_cast<std::size_t>(percent) + 50) / 100; n > 0; --n) kinds[at++] = kind;
  for (std::size_t i = kBatch - 1; i > 0; --i) std::swap(kinds[i], kinds[random.below(i + 1)]);

  std::uint64_t next = shape.flows;
  const std::uint64_t most = shape.flows + std::max<std::uint64_t>(kBatch * kBatches, shape.flows / 8);
  std::array<Verdict, kBatch> verdicts;
  const auto prepare = [&] {
    world.now += 10us;
    world.balancer.outbox().clear();
    if (next + kBatch > most) {  // the new ones' time-outs pass; what is established stays for years
      world.now += 130s;
      world.expire_all();
      next = shape.flows;
    }
    for (std::size_t i = 0; i < kBatch; ++i) {
      const std::uint64_t known = random.below(shape.flows);
      const std::uint64_t unknown = kFirstStray + random.below(kStrays);
      switch (kinds[i]) {
        case Kind::request: world.write_request(batch[i], known, TcpHeader::kAck); break;
        case Kind::reply: world.write_reply(batch[i], known, TcpHeader::kAck); break;
        case Kind::fresh: world.write_request(batch[i], next++, TcpHeader::kSyn); break;
        case Kind::stray: world.write_request(batch[i], unknown, TcpHeader::kAck); break;
        case Kind::foreign: world.write_foreign(batch[i], unknown); break;
      }
    }
  };
  measure_packets(state, prepare, [&] {
    const auto seen = world.balancer.look_ahead(batch.frames());
    for (std::size_t i = 0; i < kBatch; ++i) verdicts[i] = world.balancer.process(batch[i], seen[i], world.now);
  });
  for (std::size_t i = 0; i < kBatch; ++i) World::require(verdicts[i], fate_of(kinds[i]).action, fate_of(kinds[i]).reason);
  world.now += 130s;
  world.expire_all();
  if (world.balancer.connection_count() != shape.flows) throw std::runtime_error("the table isn't what it was");
}

}  // namespace

void add_packet_benches(const Options& options) {
  for (const std::size_t flows : {1U, 10'000U, 1'000'000U, 10'000'000U}) {
    if (flows > options.most_flows) continue;
    for (const Family family : {Family::ipv4, Family::ipv6}) {
      for (const Method method : {Method::masq, Method::tunnel, Method::direct}) {
        const Shape shape{method, family, flows};
        const auto add = [&](const Mix& mix) {
          const std::string name = fmt::format("process/{}/{}/{}/flows:{}", mix.name, name_of(method), name_of(family), flows);
          auto* const bench = benchmark::RegisterBenchmark(
              name.c_str(), [=](benchmark::State& state) { process(state, options, shape, mix); });
          bench->UseManualTime();
          if (options.rounds > 0) bench->Iterations(options.rounds);
        };
        add({.name = "request"});
        if (method == Method::masq) add({.name = "reply", .reply = 100});
        add({.name = "new", .fresh = 100});
        if (method == Method::tunnel) continue;
        add({.name = "stray", .stray = 100});
        add({.name = "foreign", .foreign = 100});
        add({.name = "mix", .reply = method == Method::masq ? 45 : 0, .fresh = 5, .stray = 5});
      }
    }
  }
}

}  // namespace director::bench
