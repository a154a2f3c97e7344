// Network::route against the plainest reading of its rules: own addresses, then the longest prefix, then the lowest metric.
#include <gtest/gtest.h>

#include <random>

#include "director/core/hop.h"

namespace director {
namespace {

struct Plain {
  std::vector<Route> routes;
  std::vector<Prefix> own[2];

  /// The route that decides; nothing: none, or an address of ours (`local`).
  const Route* find(const IpAddress& to, bool& local) const {
    for (const auto& addresses : own)
      for (const Prefix& p : addresses)
        if (p.address == to) {
          local = true;
          return nullptr;
        }
    const Route* best = nullptr;
    for (const Route& r : routes) {
      if (!r.destination.contains(to)) continue;
      if (best == nullptr || r.destination.length > best->destination.length ||
          (r.destination.length == best->destination.length && r.metric < best->metric))
        best = &r;
    }
    return best;
  }
};

TEST(Routes, AreFoundAsByTheRules) {
  const std::uint32_t seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random{seed};
  const auto below = [&](std::uint32_t n) { return std::uniform_int_distribution<std::uint32_t>{0, n - 1}(random); };
  const auto address = [&](bool v4) {  // few bits differ, so that prefixes hold them
    if (v4) return IpAddress::v4(0x0a000000U | below(4) << 16U | below(4) << 8U | below(8));
    return IpAddress::v6({0x20, 0x01, 0, static_cast<std::uint8_t>(below(3)), 0, 0, 0, static_cast<std::uint8_t>(below(3)), 0, 0, 0, 0, 0,
                          0, 0, static_cast<std::uint8_t>(below(4))});
  };
  for (int round = 0; round < 200; ++round) {
    Network network;
    Plain plain;
    SetRoutes told;
    std::uint32_t metric = 0;
    for (std::uint32_t device = 0; device < 2; ++device) {
      network.apply(SetDevice{DeviceId{device}, "eth", {}, 1500 + device, true, Stack::own});
      for (const bool v4 : {true, false}) plain.own[device].push_back({address(v4), static_cast<std::uint8_t>(v4 ? 32 : 128)});
      network.apply(SetAddresses{DeviceId{device}, plain.own[device]});
    }
    for (std::uint32_t n = below(12); n > 0; --n) {
      const bool v4 = below(2) == 0;
      const auto length = static_cast<std::uint8_t>(v4 ? below(5) * 8 : below(9) * 16);
      const Prefix destination{Prefix{address(v4), length}.network(), length};
      told.routes.push_back({destination, DeviceId{below(2)}, {}, 1000 + n, below(2) * 100 + metric++, {}});
    }
    plain.routes = told.routes;
    network.apply(told);
    for (int asked = 0; asked < 100; ++asked) {
      const IpAddress to = address(below(2) == 0);
      bool local = false;
      const Route* const expected = plain.find(to, local);
      const RouteTo* const way = network.route(to);
      ASSERT_EQ(way != nullptr, local || expected != nullptr) << format_as(to);
      if (way == nullptr) continue;
      ASSERT_EQ(way->local, local) << format_as(to);
      if (local) continue;
      ASSERT_EQ(network.hop(way->hop).egress, expected->device) << format_as(to);
      ASSERT_EQ(network.hop(way->hop).via, to);
      ASSERT_EQ(way->mtu, expected->mtu) << format_as(to);
    }
  }
}

}  // namespace
}  // namespace director
