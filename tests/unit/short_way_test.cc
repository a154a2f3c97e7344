// The short way and the long one do the same: two directors, one of which knows only the long way, are sent the same random traffic
// while rules change and time passes. Verdicts, bytes, what else leaves, tables and counters are compared. The seed is printed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "director/command.h"
#include "director/net/format.h"
#include "director/net/packet.h"
#include "director/rules.h"

namespace director {
namespace {

constexpr DeviceId kDevice{0};
const MacAddress kOwnMac = *MacAddress::parse("02:00:00:00:00:02");
const MacAddress kOtherMac = *MacAddress::parse("02:00:00:00:00:01");
constexpr std::string_view kRules =
    "-A -t 10.9.0.100:80 -s rr\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.11:8080 -m\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.12 -g\n"
    "-a -t 10.9.0.100:80 -r 10.9.0.13 -i\n"
    "-A -u 10.9.0.100:53 -s rr -p 60\n"
    "-a -u 10.9.0.100:53 -r 10.9.0.11:5353 -m\n"
    "-a -u 10.9.0.100:53 -r 10.9.0.13 -i --tun-type gue --tun-port 6080\n"
    "-A -t [fd00::100]:80 -s rr\n"
    "-a -t [fd00::100]:80 -r [fd00::11]:8080 -m\n"
    "-a -t [fd00::100]:80 -r [fd00::12]:80 -g\n";

std::unique_ptr<Balancer> director(bool short_way) {
  auto balancer = std::make_unique<Balancer>(Balancer::Options{.policy = Policy::improved, .seed = 7, .max_connections = 1000, .announce = false, .short_way = short_way});
  const auto tell = [&](const Change& c) { ASSERT_TRUE(balancer->apply(c, Instant{1000s})); };
  tell(SetDevice{kDevice, "eth0", kOwnMac, 1500, true, Stack::own});
  tell(SetAddresses{kDevice, {*Prefix::parse("10.9.0.2/24"), *Prefix::parse("fd00::2/64")}});
  for (const std::string_view address : {"10.9.0.1", "10.9.0.11", "10.9.0.12", "10.9.0.13", "fd00::1", "fd00::11", "fd00::12"})
    tell(SetNeighbour{kDevice, *IpAddress::parse(address), kOtherMac, true});
  const auto rules = parse_rules(kRules);
  EXPECT_TRUE(rules);
  for (const Rule& rule : *rules) tell(rule.change);
  balancer->outbox().clear();
  return balancer;
}

class TwoDirectors : public testing::Test {
 protected:
  using Random = std::mt19937;
  std::uint32_t below(std::uint32_t n) { return std::uniform_int_distribution<std::uint32_t>{0, n - 1}(random_); }
  template <std::size_t N>
  std::string_view one_of(const std::array<std::string_view, N>& words) { return words[below(N)]; }

  /// Mostly what goes on in an established connection, from few clients so that they meet their connections again.
  std::string packet() {
    static constexpr std::array<std::string_view, 10> kFlags{"A", "A", "A", "PA", "PA", "S", "SA", "FA", "R", "U"};
    const bool v6 = below(4) == 0;
    const bool udp = !v6 && below(3) == 0;
    const std::string client = fmt::format("{}:{}", v6 ? "[fd00::1]" : "10.9.0.1", 4000 + below(6));
    const std::string vip = fmt::format("{}:{}", v6 ? "[fd00::100]" : "10.9.0.100", udp ? 53 : 80);
    const std::string server = fmt::format("{}:{}", v6 ? "[fd00::11]" : "10.9.0.11", udp ? 5353 : 8080);
    const bool reply = below(3) == 0;
    std::string text = fmt::format("{} {} > {}", udp ? "udp" : "tcp", reply ? server : client, reply ? client : vip);
    if (!udp) text += fmt::format(" [{}] seq={}", one_of(kFlags), below(1U << 30U));
    text += fmt::format(" ttl={} len={}", below(12) == 0 ? 1 : 64, below(10) == 0 ? 1440 + below(200) : below(200));
    if (!v6 && below(2) == 0) text += " df";
    if (below(8) == 0) text += fmt::format(" pad={}", 1 + below(20));
    if (below(6) == 0) text += " csum=partial";
    else if (udp && below(4) == 0) text += " csum=none";
    else if (below(20) == 0) text += " csum=bad";
    if (!v6 && below(20) == 0) text += " ipcsum=bad";
    if (!v6 && below(20) == 0) text += " options=01010101";
    if (!v6 && below(20) == 0) text += " mf";
    if (below(20) == 0) text += " dmac=02:00:00:00:00:09";
    return text;
  }
  std::string change() {
    switch (below(8)) {
      case 0: return "-e -t 10.9.0.100:80 -r 10.9.0.11:8080 -m -w 0";
      case 1: return "-e -t 10.9.0.100:80 -r 10.9.0.11:8080 -m -w 3";
      case 2: return "-d -t 10.9.0.100:80 -r 10.9.0.12";
      case 3: return "-a -t 10.9.0.100:80 -r 10.9.0.12 -g";
      case 4: return "--set 100 20 30";
      case 5: return "-e -u 10.9.0.100:53 -r 10.9.0.11:5353 -m -w 0";
      case 6: return "-e -u 10.9.0.100:53 -r 10.9.0.11:5353 -m -w 2";
      default: return "-Z";
    }
  }

  /// All that came of the frame, as a line for each thing.
  static std::string outcome(Balancer& balancer, const BuiltFrame& built, Instant now) {
    std::vector<std::byte> room(kHeadroom + kMaxFrame);
    Frame frame = frame_in(room, built.bytes, built.offload);
    frame.ingress = kDevice;
    const Verdict verdict = balancer.process(frame, now);
    std::string text = fmt::format("{} {} {}\n", static_cast<int>(verdict.action), verdict.egress.index, name_of(verdict.reason));
    if (verdict.action == Action::transmit) text += packet_line(frame.bytes(), Detail::full, frame.offload) + "\n";
    for (std::size_t i = 0; i < balancer.outbox().size(); ++i)
      text += packet_line(balancer.outbox()[i].frame.bytes(), Detail::full, balancer.outbox()[i].frame.offload) + "\n";
    balancer.outbox().clear();
    return text;
  }
  static std::string tables(Balancer& balancer, Instant now) {
    std::string text;
    for (const std::vector<std::string>& words : {std::vector<std::string>{"vsadm", "-Lnc"}, {"vsadm", "-Ln", "--stats", "--exact"}, {"vsadm", "reasons"}})
      text += run_command({words, {}}, balancer, now).out;
    return text;
  }
  static void type(Balancer& balancer, const std::string& line, Instant now) {
    std::vector<std::string> words{"vsadm"};
    for (std::string_view rest = line; !rest.empty();) {
      const std::size_t blank = std::min(rest.find(' '), rest.size());
      words.emplace_back(rest.substr(0, blank));
      rest.remove_prefix(std::min(blank + 1, rest.size()));
    }
    (void)run_command({words, {}}, balancer, now);
  }

  Random random_;
};

TEST_F(TwoDirectors, DoTheSame) {
  const std::uint32_t seed = std::random_device{}();
  fmt::print("seed {}\n", seed);
  random_.seed(seed);
  const auto quick = director(true);
  const auto thorough = director(false);
  Instant now{1000s};
  for (int i = 0; i < 20'000; ++i) {
    now += Duration{below(20) == 0 ? below(2'000'000'000) : below(2'000'000)};
    quick->expire(now);
    thorough->expire(now);
    if (below(200) == 0) {
      const std::string line = change();
      type(*quick, line, now);
      type(*thorough, line, now);
    }
    const std::string text = packet();
    const auto built = build_frame(text, kOtherMac, kOwnMac);
    ASSERT_TRUE(built) << text << ": " << built.error().message;
    ASSERT_EQ(outcome(*quick, *built, now), outcome(*thorough, *built, now)) << text << " seed " << seed << " step " << i;
    if (i % 500 == 0) { ASSERT_EQ(tables(*quick, now), tables(*thorough, now)) << text << " seed " << seed << " step " << i; }
  }
  EXPECT_EQ(tables(*quick, now), tables(*thorough, now));
}

/// What read_plain() says is what parse_packet() says.
TEST_F(TwoDirectors, ReadPlainPacketsAlike) {
  const std::uint32_t seed = std::random_device{}();
  fmt::print("seed {}\n", seed);
  random_.seed(seed);
  int plain = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string text = packet();
    auto built = build_frame(text, kOtherMac, kOwnMac);
    ASSERT_TRUE(built) << text;
    for (int hit = static_cast<int>(below(3)); hit > 0; --hit) built->bytes[below(static_cast<std::uint32_t>(std::min<std::size_t>(built->bytes.size(), 60)))] ^= std::byte{static_cast<std::uint8_t>(1U << below(8))};
    Frame frame;
    frame.storage = built->bytes;
    frame.resize(built->bytes.size());
    frame.offload = built->offload;
    PacketView seen;
    const bool is_plain = read_plain(frame, seen);
    const auto parsed = parse_packet(frame);
    if (!is_plain) continue;
    ++plain;
    ASSERT_TRUE(parsed) << text << " seed " << seed;
    const auto all = [](const PacketView& v) {
      return std::tuple{v.kind, v.family, v.ttl, v.tos, v.tcp_flags, v.dont_fragment, v.fragment, v.later_fragment, v.more_fragments, v.source_routed, v.has_ports,
                        v.has_transport, v.fragment_offset, v.fragment_header, v.fragment_id, v.network, v.transport, v.ip_length, v.flow.source, v.flow.target, v.flow.protocol};
    };
    ASSERT_TRUE(all(seen) == all(*parsed)) << text << " seed " << seed;
  }
  EXPECT_GT(plain, 5000);
}

}  // namespace
}  // namespace director
