// io/event_loop: frames of a batch leave in order, deadlines and signals wake it, an idle loop sleeps.
// Devices in memory.
#include "director/io/event_loop.h"

#include <gtest/gtest.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <numeric>

#include "director/io/memory_device.h"
#include "director/io/recorder.h"
#include "director/net/format.h"

namespace director {
namespace {

constexpr MacAddress kDirectorMac{{2, 0, 0, 0, 0, 2}};
constexpr MacAddress kClientMac{{2, 0, 0, 0, 0, 1}};
constexpr MacAddress kServerMac{{2, 0, 0, 0, 0, 11}};

/// A director with one memory device on 10.9.0.0/24, a service at 10.9.0.100:80 and one server, 10.9.0.11.
class EventLoopTest : public ::testing::Test {
 protected:
  EventLoopTest() : balancer_({.seed = 1, .announce = false}) {
    auto device = std::make_unique<MemoryDevice>(DeviceContext{DeviceId{0}, &balancer_.counters()});
    device_ = device.get();
    devices_.push_back(std::move(device));
  }

  void serve(Method method) {
    tell(SetDevice{DeviceId{0}, "eth0", kDirectorMac, 1500, true, Stack::own});
    tell(SetAddresses{DeviceId{0}, {*Prefix::parse("10.9.0.2/24")}});
    tell(SetNeighbour{DeviceId{0}, *IpAddress::parse("10.9.0.1"), kClientMac, true});
    tell(SetNeighbour{DeviceId{0}, *IpAddress::parse("10.9.0.11"), kServerMac, true});
    const ServiceKey key{Protocol::tcp, {*IpAddress::parse("10.9.0.100"), Port::of(80)}, 0};
    ServiceConfig service;
    service.key = key;
    service.scheduler = "rr";
    tell(AddService{service});
    ServerConfig server;
    server.endpoint = {*IpAddress::parse("10.9.0.11"), Port::of(80)};
    server.method = method;
    tell(AddServer{key, server});
  }
  void tell(const Change& change) { ASSERT_TRUE(balancer_.apply(change, Instant{})); }
  void push(const char* line) {
    const auto frame = build_frame(line, kClientMac, kDirectorMac);
    ASSERT_TRUE(frame) << frame.error().message;
    device_->push(frame->bytes, frame->offload);
  }
  std::vector<std::string> sent() {
    std::vector<std::string> lines;
    for (const auto& record : device_->take_sent())
      lines.push_back(packet_line(record.bytes, Detail::full, record.offload));
    return lines;
  }

  Balancer balancer_;
  MemoryDevice* device_ = nullptr;
  std::vector<std::unique_ptr<Device>> devices_;
};

TEST_F(EventLoopTest, ForwardsAFrame) {
  serve(Method::direct);
  EventLoop loop(balancer_, devices_, nullptr);
  push("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]");
  loop.run_once();
  const auto records = device_->take_sent();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_TRUE(std::equal(kServerMac.bytes.begin(), kServerMac.bytes.end(),
                         reinterpret_cast<const std::uint8_t*>(records[0].bytes.data())));
}

TEST_F(EventLoopTest, KeepsAFlowInOrderWhereTheCoreMakesFrames) {
  serve(Method::tunnel);
  EventLoop loop(balancer_, devices_, nullptr);
  push("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S] seq=99");
  push(
      "tcp 10.9.0.1:4000 > 10.9.0.100:80 [A] seq=100 len=3000 gso=1000 csum=partial");  // cut into the outbox
  push("tcp 10.9.0.1:4000 > 10.9.0.100:80 [A] seq=3100 len=10");                        // goes in place
  loop.run_once();
  std::vector<std::string> sequences;
  for (const std::string& line : sent()) {
    const std::size_t at = line.find("seq=");
    ASSERT_NE(at, std::string::npos) << line;
    sequences.push_back(line.substr(at, line.find_first_of(" )", at) - at));
  }
  EXPECT_EQ(sequences, (std::vector<std::string>{"seq=99", "seq=100", "seq=1100", "seq=2100", "seq=3100"}));
}

TEST_F(EventLoopTest, SendsNoneOfTheMadeFramesThatWaitForAMacAddress) {
  serve(Method::tunnel);
  const ServiceKey key = balancer_.services()[0]->key();
  tell(DeleteServer{key, balancer_.services()[0]->servers[0]->config.endpoint});
  ServerConfig silent;
  silent.endpoint = {*IpAddress::parse("10.9.0.12"), Port::of(80)};
  silent.method = Method::tunnel;
  tell(AddServer{key, silent});
  EventLoop loop(balancer_, devices_, nullptr);
  push("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S] seq=99");
  push("tcp 10.9.0.1:4000 > 10.9.0.100:80 [A] seq=100 len=2000 gso=1000 csum=partial");
  loop.run_once();
  const auto lines = sent();
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].substr(0, 3), "arp");
}

/// A fragment that overtook its first one comes into the outbox with it, and goes nowhere when that one is nobody's.
TEST_F(EventLoopTest, SendsNothingOfWhatTheCoreThoughtBetterOf) {
  serve(Method::direct);
  EventLoop loop(balancer_, devices_, nullptr);
  push("ip 10.9.0.1 > 10.9.0.100 udp id=7 offset=1480 len=128");
  push("udp 10.9.0.1:4000 > 10.9.0.100:81 id=7 mf ulen=1608 len=1472");
  push("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]");
  loop.run_once();
  const auto lines = sent();
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].find("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]"), 0U) << lines[0];
}

TEST_F(EventLoopTest, CountsItsBatchesAndTurns) {
  serve(Method::direct);
  EventLoop loop(balancer_, devices_, nullptr);
  for (const char* port : {"4000", "4001", "4002"})
    push(("tcp 10.9.0.1:" + std::string{port} + " > 10.9.0.100:80 [S]").c_str());
  loop.run_once();
  const LoopStatistics& counted = loop.statistics();
  ASSERT_EQ(counted.devices.size(), 1U);
  EXPECT_EQ(counted.devices[0].received.sum, 3U);
  EXPECT_EQ(counted.devices[0].received.buckets[2], 1U) << "one batch of 3 or 4";
  EXPECT_EQ(counted.devices[0].sent.sum, 3U);
  EXPECT_EQ(std::accumulate(counted.turns.buckets.begin(), counted.turns.buckets.end(), std::uint64_t{0}), 1U);
  EXPECT_GT(counted.turns.sum, 0U);
}

TEST_F(EventLoopTest, SendsWhatChangesMadeTheCoreSay) {
  EventLoop loop(balancer_, devices_, nullptr);
  serve(Method::direct);
  loop.flush(Instant{});
  EXPECT_TRUE(sent().empty());  // announce is off, neighbours are known
  tell(SetNeighbour{DeviceId{0}, *IpAddress::parse("10.9.0.11"), {}, false});
  push("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]");
  loop.run_once();
  const auto lines = sent();
  EXPECT_TRUE(
      std::any_of(lines.begin(), lines.end(), [](const std::string& l) { return l.starts_with("arp "); }));
}

TEST_F(EventLoopTest, WakesAtADeadlineAndNotBefore) {
  EventLoop loop(balancer_, devices_, nullptr);
  const auto begin = std::chrono::steady_clock::now();
  bool asked = false;
  Instant woken{};
  loop.wake_at([&] {
    asked = true;
    return woken == Instant{} ? Instant{begin.time_since_epoch() + 30ms} : kNever;
  });
  loop.on_settled([&](Instant now) { woken = now; });
  loop.run_once();
  EXPECT_TRUE(asked);
  EXPECT_GE(woken.time_since_epoch(), begin.time_since_epoch() + 30ms);
}

TEST_F(EventLoopTest, SleepsOnceItsDeadlinesAreBehindIt) {
  EventLoop loop(balancer_, devices_, nullptr);
  const Instant due{std::chrono::steady_clock::now().time_since_epoch() + 5ms};
  int wake_ups = 0;
  Instant last{};
  loop.wake_at([&] { return last < due ? due : kNever; });
  loop.on_settled([&](Instant now) {
    ++wake_ups;
    last = now;
  });
  loop.on_signal(SIGALRM, [&](Instant) { loop.stop(); });
  const itimerval alarm{{0, 0}, {0, 50'000}};
  setitimer(ITIMER_REAL, &alarm, nullptr);
  loop.run();
  EXPECT_EQ(wake_ups, 2);  // the deadline and the signal
}

TEST_F(EventLoopTest, ServesPartsAndSignals) {
  EventLoop loop(balancer_, devices_, nullptr);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  std::string heard;
  loop.watch(ends[0], [&](Instant) {
    char c = 0;
    ASSERT_EQ(read(ends[0], &c, 1), 1);
    heard += c;
  });
  loop.on_signal(SIGUSR1, [&](Instant) { heard += '1'; });
  loop.on_signal(SIGUSR2, [&](Instant) { loop.stop(); });
  ASSERT_EQ(write(ends[1], "p", 1), 1);
  loop.run_once();
  kill(getpid(), SIGUSR1);
  loop.run_once();
  kill(getpid(), SIGUSR2);
  loop.run();
  EXPECT_EQ(heard, "p1");
  close(ends[0]);
  close(ends[1]);
}

TEST_F(EventLoopTest, RecordsEachFrameWithItsFate) {
  const std::string file = ::testing::TempDir() + "fate." + std::to_string(getpid()) + ".pcapng";
  {
    Recorder recorder(file, {"eth0"});
    serve(Method::direct);
    EventLoop loop(balancer_, devices_, &recorder);
    push("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]");
    push("tcp 10.9.0.1:4000 > 10.9.0.100:80 [S] csum=bad iplen=19");
    loop.run_once();
  }
  std::ifstream in(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  std::remove(file.c_str());
  ASSERT_GE(bytes.size(), 28U);
  // Every block is closed by its length, and they fill the file: what a reader walks along.
  std::vector<std::uint32_t> types;
  for (std::size_t at = 0; at < bytes.size();) {
    std::uint32_t type = 0, length = 0, again = 0;
    ASSERT_LE(at + 12, bytes.size());
    std::memcpy(&type, bytes.data() + at, 4);
    std::memcpy(&length, bytes.data() + at + 4, 4);
    ASSERT_TRUE(length % 4 == 0 && length >= 12 && at + length <= bytes.size()) << at;
    std::memcpy(&again, bytes.data() + at + length - 4, 4);
    EXPECT_EQ(length, again);
    types.push_back(type);
    at += length;
  }
  EXPECT_EQ(types, (std::vector<std::uint32_t>{0x0a0d0d0a, 1, 6, 6, 6}));
  EXPECT_NE(bytes.find("sent to eth0: forwarded as it should be"), std::string::npos);
  EXPECT_NE(bytes.find("dropped: "), std::string::npos);
}

}  // namespace
}  // namespace director
