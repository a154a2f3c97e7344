// The pieces a packet's way is made of, each alone: the parser, NAT, the tunnel, the Ethernet header.
//
// Each works on batches of 64 packets of different flows, in the cache, as a device's frames are after the kernel has copied them.
#include <array>
#include <vector>

#include "director/core/hop.h"
#include "director/forward/nat.h"
#include "director/forward/tunnel.h"
#include "director/net/packet.h"
#include "suites.h"
#include "world.h"

namespace director::bench {
namespace {

void parse(benchmark::State& state, const Options&, Family family) {
  const World world({Method::direct, family, 0});
  Batch batch;
  for (std::size_t i = 0; i < kBatch; ++i) world.write_request(batch[i], i, TcpHeader::kAck);
  measure_packets(state, [] {}, [&] {
    for (Frame& frame : batch.frames()) {
      const auto view = parse_packet(frame);
      benchmark::DoNotOptimize(view);
    }
  });
}

/// 64 frames and what the parser says of them, written anew for each batch.
struct Parsed {
  explicit Parsed(Family family) : world({Method::direct, family, 0}) { write(); }
  void write() {
    for (std::size_t i = 0; i < kBatch; ++i) {
      world.write_request(batch[i], i, TcpHeader::kAck);
      views[i] = *parse_packet(batch[i]);
    }
  }
  World world;
  Batch batch;
  std::array<PacketView, kBatch> views;
};

void nat(benchmark::State& state, const Options&, Family family, NatEnd end) {
  Parsed packets(family);
  const Endpoint server{family == Family::ipv4 ? *IpAddress::parse("10.9.1.11") : *IpAddress::parse("fd00:0:0:1::11"), Port::of(8080)};
  std::vector<Nat> recipes;
  for (const PacketView& view : packets.views)
    recipes.emplace_back(end, end == NatEnd::target ? view.flow.target : view.flow.source, server);
  measure_packets(state, [&] { packets.write(); }, [&] {
    for (std::size_t i = 0; i < kBatch; ++i)
      benchmark::DoNotOptimize(apply(recipes[i], packets.batch[i], packets.views[i]));
  });
}

void tunnel(benchmark::State& state, const Options&, Family family, TunnelType type) {
  Parsed packets(family);
  const bool v4 = family == Family::ipv4;
  ServerConfig server;
  server.endpoint.address = v4 ? *IpAddress::parse("10.9.1.11") : *IpAddress::parse("fd00:0:0:1::11");
  server.tunnel_type = type;
  server.tunnel_port = Port::of(6080);
  const OuterHeaders outer{v4 ? *IpAddress::parse("10.9.1.2") : *IpAddress::parse("fd00:0:0:1::2"), server, true};
  measure_packets(state, [&] { packets.write(); }, [&] {
    for (std::size_t i = 0; i < kBatch; ++i)
      benchmark::DoNotOptimize(encapsulate(packets.batch[i], packets.views[i], outer, Port::of(40000), 0));
  });
}

/// All that direct routing does, and the last step of the others.
void seal(benchmark::State& state, const Options&, Family family) {
  Parsed packets(family);
  Outbox outbox;
  Counters counters;
  Network network;
  const IpAddress server = *IpAddress::parse("10.9.1.11");
  network.apply(SetDevice{DeviceId{0}, "back", *MacAddress::parse("02:00:00:00:01:02"), 1500, true, Stack::host});
  network.apply(SetAddresses{DeviceId{0}, {*Prefix::parse("10.9.1.2/24")}});
  network.apply(SetNeighbour{DeviceId{0}, server, *MacAddress::parse("02:00:00:00:00:11"), true}, packets.world.now, outbox);
  const HopId hop = network.route(server)->hop;
  measure_packets(state, [&] { packets.write(); }, [&] {
    for (Frame& frame : packets.batch.frames()) {
      const Verdict verdict = network.seal(frame, hop, packets.world.now, outbox, counters);
      benchmark::DoNotOptimize(verdict);
    }
  });
}

}  // namespace

void add_piece_benches(const Options& options) {
  const auto add = [&](const std::string& name, auto function, auto... arguments) {
    auto* const bench = benchmark::RegisterBenchmark(
        name.c_str(), [=](benchmark::State& state) { function(state, options, arguments...); });
    bench->UseManualTime();
    if (options.rounds > 0) bench->Iterations(options.rounds);
  };
  for (const Family family : {Family::ipv4, Family::ipv6}) {
    add("parse/" + name_of(family), parse, family);
    add("forward/nat_request/" + name_of(family), nat, family, NatEnd::target);
    add("forward/nat_reply/" + name_of(family), nat, family, NatEnd::source);
    add("forward/tun_ipip/" + name_of(family), tunnel, family, TunnelType::ipip);
    add("forward/tun_gre/" + name_of(family), tunnel, family, TunnelType::gre);
    add("forward/tun_gue/" + name_of(family), tunnel, family, TunnelType::gue);
    add("forward/dr/" + name_of(family), seal, family);
  }
}

}  // namespace director::bench
