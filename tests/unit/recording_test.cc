// Recording and journal: whatever a director with two devices was told and sent, `director --pcap` keeps, and a replay does again.
#include "director/recording.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "director/io/event_loop.h"
#include "director/io/memory_device.h"
#include "director/io/recorder.h"
#include "director/net/format.h"

namespace director {
namespace {

constexpr DeviceId kFront{0};
constexpr DeviceId kBack{1};
constexpr MacAddress kDirector{{2, 0, 0, 0, 0, 2}};
constexpr MacAddress kClient{{2, 0, 0, 0, 0, 1}};
constexpr MacAddress kServer{{2, 0, 0, 0, 1, 11}};
const ServiceKey kWeb{Protocol::tcp, {IpAddress::v4(0x0a090064), Port::of(80)}, 0};  // 10.9.0.100

ServerConfig server(std::uint32_t address, std::uint32_t weight) {
  ServerConfig config;
  config.endpoint = {IpAddress::v4(address), Port::of(8080)};
  config.method = Method::masq;
  config.weight = weight;
  return config;
}

/// A NAT director, its loop and its recording, as the daemon joins them.
class RecordingTest : public ::testing::Test {
 protected:
  RecordingTest()
      : path_(testing::TempDir() + "recording_test." + std::to_string(getpid()) + "." +
              ::testing::UnitTest::GetInstance()->current_test_info()->name()),
        balancer_({.seed = 0xfeedfacecafebeefU}) {
    for (const DeviceId id : {kFront, kBack}) devices_.push_back(std::make_unique<MemoryDevice>(DeviceContext{id, &balancer_.counters()}));
  }
  ~RecordingTest() override { std::filesystem::remove(path_); }

  /// A conversation with everything in it: an unknown neighbour, servers that come and go, refusals, what nobody serves.
  void record() {
    const std::vector<std::string> names{"front", "back"};
    Recorder recorder{path_, names};
    recorder.note(journal_line(Beginning{"1", names, recorder.wall_offset(), balancer_.options()}));
    balancer_.listen([&](const Change* change, Instant now) { recorder.note(journal_line(change, now)); });
    EventLoop loop{balancer_, devices_, &recorder};
    const auto told = [&](const Change& change) {
      const auto done = balancer_.apply(change, now_ += 1ms);
      loop.flush(now_);
      return static_cast<bool>(done);
    };
    const auto wake = [&](DeviceId device, const std::string& packet) {
      const auto frame = build_frame(packet, device == kFront ? kClient : kServer, kDirector);
      ASSERT_TRUE(frame) << frame.error().message;
      static_cast<MemoryDevice&>(*devices_[device.index]).push(frame->bytes, frame->offload);
      loop.run_once();
    };
    for (const DeviceId id : {kFront, kBack}) ASSERT_TRUE(told(SetDevice{id, id == kFront ? "eth0" : "eth1", kDirector, 1500, true, Stack::own}));
    ASSERT_TRUE(told(SetAddresses{kFront, {*Prefix::parse("10.9.0.2/24")}}));
    ASSERT_TRUE(told(SetAddresses{kBack, {*Prefix::parse("10.9.1.2/24")}}));
    ASSERT_TRUE(told(SetNeighbour{kFront, IpAddress::v4(0x0a090001), kClient, true}));
    ServiceConfig web;
    web.key = kWeb;
    web.scheduler = "rr";
    ASSERT_TRUE(told(AddService{web}));
    ASSERT_FALSE(told(AddService{web})) << "what is refused is recorded, too";
    ASSERT_TRUE(told(AddServer{kWeb, server(0x0a09010b, 1)}));
    ASSERT_TRUE(told(AddServer{kWeb, server(0x0a09010c, 1)}));

    wake(kFront, "tcp 10.9.0.1:4000 > 10.9.0.100:80 [S] seq=1");  // waits for the server's MAC
    ASSERT_TRUE(told(SetNeighbour{kBack, IpAddress::v4(0x0a09010b), kServer, true}));
    ASSERT_TRUE(told(SetNeighbour{kBack, IpAddress::v4(0x0a09010c), kServer, true}));
    wake(kFront, "tcp 10.9.0.1:4001 > 10.9.0.100:80 [S] seq=1");
    wake(kFront, "tcp 10.9.0.1:4002 > 10.9.0.100:80 [S] seq=1");
    wake(kFront, "tcp 10.9.0.1:4002 > 10.9.0.100:80 [A] seq=2 len=3000 gso=1000 csum=partial");
    ASSERT_TRUE(told(EditServer{kWeb, server(0x0a09010b, 0)}));
    wake(kFront, "tcp 10.9.0.1:4003 > 10.9.0.100:80 [S] seq=1");
    ASSERT_TRUE(told(EditServer{kWeb, server(0x0a09010c, 0)}));
    wake(kFront, "tcp 10.9.0.1:4004 > 10.9.0.100:80 [S] seq=1");  // nobody serves
    wake(kFront, "udp 10.9.0.1:4005 > 10.9.0.100:53 len=20");
    wake(kBack, "tcp 10.9.1.11:8080 > 10.9.0.1:4000 [SA] seq=9 ack=2");
    balancer_.expire(now_ + 60s);
  }

  [[nodiscard]] Result<Recording> open() const { return Recording::open(path_); }
  [[nodiscard]] std::string bytes() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(std::string_view text) const { std::ofstream(path_, std::ios::binary) << text; }

  std::string path_;
  Balancer balancer_;
  std::vector<std::unique_ptr<Device>> devices_;
  Instant now_{1ms};  // of the machine's life: what is told comes before what the loop sees
};

TEST_F(RecordingTest, IsDoneAgainToTheBit) {
  record();
  const auto frames = read_pcap(path_);
  ASSERT_TRUE(frames) << frames.error().message;
  std::vector<std::vector<std::byte>> sent_then;
  for (const CapturedFrame& frame : *frames)
    if (frame.direction == CapturedFrame::Direction::outbound) sent_then.push_back(frame.bytes);
  ASSERT_GE(sent_then.size(), 9U) << "announcements, ARP, requests, a refusal, a reply";

  auto recording = open();
  ASSERT_TRUE(recording) << recording.error().message;
  Rerun rerun{std::move(*recording), {}};
  std::vector<std::vector<std::byte>> sent_now;
  for (;;) {
    const auto outcome = rerun.next();
    ASSERT_TRUE(outcome) << outcome.error().message;
    if (!*outcome) break;
    for (const CapturedFrame& frame : (*outcome)->sent) sent_now.push_back(frame.bytes);
  }
  EXPECT_FALSE(rerun.difference()) << *rerun.difference();
  EXPECT_TRUE(sent_now == sent_then) << "the bytes";
  EXPECT_EQ(rerun.received(), 8U);
  EXPECT_EQ(rerun.sent(), sent_then.size());
  EXPECT_EQ(rerun.replay().decisions().size(), 5U);
  EXPECT_EQ(rerun.replay().decisions()[3], "10.9.0.1:4003 -> 10.9.1.12") << "weight 0 takes no new one";
  for (std::size_t i = 0; i < kReasonCount; ++i)
    EXPECT_EQ(rerun.replay().balancer().counters()[static_cast<Reason>(i)], balancer_.counters()[static_cast<Reason>(i)])
        << name_of(static_cast<Reason>(i));
}

TEST_F(RecordingTest, IsDoneAgainUpToWhereItIsCut) {
  record();
  const std::string whole = bytes();
  std::uint64_t most = 0;
  constexpr std::size_t kStep = 61;  // a prime, so that every place in a block has its turn
  for (std::size_t size = whole.size() % kStep; size <= whole.size(); size += kStep) {
    write(std::string_view{whole}.substr(0, size));
    auto recording = open();
    if (!recording) continue;
    Rerun rerun{std::move(*recording), {}};
    for (;;) {
      const auto outcome = rerun.next();
      ASSERT_TRUE(outcome) << size << ": " << outcome.error().message;
      if (!*outcome) break;
    }
    EXPECT_FALSE(rerun.difference()) << size << ": " << *rerun.difference();
    EXPECT_GE(rerun.received(), most) << size;
    most = rerun.received();
  }
  EXPECT_EQ(most, 8U);
}

TEST_F(RecordingTest, ADifferenceIsTold) {
  record();
  auto recording = open();
  ASSERT_TRUE(recording) << recording.error().message;
  Rerun rerun{std::move(*recording), Policy::kernel};
  for (;;) {
    const auto outcome = rerun.next();
    ASSERT_TRUE(outcome) << outcome.error().message;
    if (!*outcome) break;
  }
  ASSERT_TRUE(rerun.difference());
  EXPECT_NE(rerun.difference()->find("recorded was \"sent to front: refused with a TCP reset\", now it is "), std::string::npos)
      << *rerun.difference();
}

TEST_F(RecordingTest, WhatIsNoRecordingIsRefusedWithTheCure) {
  record();
  const std::string whole = bytes();
  { ASSERT_TRUE(PcapWriter::create(path_)); }
  EXPECT_NE(open().error().message.find("replayed from a folder with rules, case.json and in.pcap"), std::string::npos);
  std::string other = whole;
  other.replace(other.find("\"seed\""), 6, "\"sead\"");
  write(other);
  EXPECT_NE(open().error().message.find("key 'seed' not found; replay it with the version that recorded it"), std::string::npos)
      << open().error().message;
  other = whole;
  other.replace(other.find("\"EditServer\""), 12, "\"EditServed\"");
  write(other);
  auto recording = open();
  ASSERT_TRUE(recording) << recording.error().message;
  Rerun rerun{std::move(*recording), {}};
  auto outcome = rerun.next();
  while (outcome && *outcome) outcome = rerun.next();
  ASSERT_FALSE(outcome);
  EXPECT_NE(outcome.error().message.find("neither a change nor expire; replay it with the version that recorded it, 1"), std::string::npos)
      << outcome.error().message;
}

/// One of each, with nothing as it is by default.
TEST(Journal, KeepsEveryChange) {
  ServiceConfig service;
  service.key = {Protocol::udp, {*IpAddress::parse("2001:db8::1"), Port::of(53)}, 7};
  service.scheduler = "mh";
  service.flags = {true, false, true};
  service.persistence = 360s;
  service.netmask_length = 64;
  service.netmask = Be32{0xffffff00U};
  service.one_packet = true;
  service.persistence_engine = "sip";
  service.policy = {NoServer::icmp, ServerGone::reschedule, ServerQuiesced::reset, {{State::fin_wait, 2s}, {State::udp, 3ns}}};
  ServerConfig real = server(0x0a09010b, 12);
  real.upper_threshold = 9;
  real.lower_threshold = 4;
  real.tunnel_type = TunnelType::gue;
  real.tunnel_port = Port::of(6080);
  real.tunnel_checksum = TunnelChecksum::remote;
  real.check = HealthCheck{HealthCheck::Kind::http, Port::of(8080), "/ready", 500ms, 2, 4};
  ClassRule rule{7, Family::ipv6, Protocol::sctp, {{IpAddress::v4(1), IpAddress::v4(2)}}, {{1, 2}}, {}, {{3, 65535}}};
  const StartDaemon daemon{SyncRole::backup, "eth7", 3, 1400, *IpAddress::parse("ff02::1"), Port::of(8849), 2};
  const Route route{*Prefix::parse("10.9.0.2/24"), kBack, IpAddress::v4(9), 1400, 5, IpAddress::v4(8)};
  const std::vector<Change> changes{
      AddService{service}, EditService{service}, DeleteService{kWeb}, ClearServices{}, AddServer{kWeb, real}, EditServer{kWeb, real},
      DeleteServer{kWeb, real.endpoint}, SetClasses{{rule, {}}}, AddClassRule{rule}, DeleteClass{7}, ZeroCounters{kWeb}, SetTimeouts{1s, 2s, 3s},
      SetTunable{"sloppy_tcp", -1}, daemon, StopDaemon{SyncRole::backup}, SetDevice{kBack, "eth1", kServer, 9000, false, Stack::own},
      SetAddresses{kBack, {*Prefix::parse("fd00::2/64")}}, SetRoutes{{route, {}}}, SetNeighbour{kBack, IpAddress::v4(5), kServer, true},
      SetForwarding{false}, Carried{{real.endpoint, kWeb.endpoint, Protocol::tcp}, 1ULL << 60U, 2, Instant{77ns}}};
  ASSERT_EQ(changes.size(), std::variant_size_v<Change>);
  for (std::size_t i = 0; i < changes.size(); ++i) {
    ASSERT_EQ(changes[i].index(), i);
    const std::string line = journal_line(&changes[i], Instant{123456789123ns});
    const auto read = parse_call(line);
    ASSERT_TRUE(read) << line << ": " << read.error().message;
    EXPECT_EQ(read->at, Instant{123456789123ns});
    ASSERT_TRUE(read->change);
    EXPECT_EQ(read->change->index(), i);
    EXPECT_EQ(journal_line(&*read->change, read->at), line);
  }
  const auto back = [&](std::size_t i) { return *parse_call(journal_line(&changes[i], {}))->change; };
  EXPECT_EQ(std::get<AddService>(back(0)).config, service);
  EXPECT_EQ(std::get<AddServer>(back(4)).config, real);
  EXPECT_EQ(std::get<SetClasses>(back(7)).rules, (std::vector<ClassRule>{rule, {}}));
  EXPECT_EQ(std::get<SetRoutes>(back(17)).routes, (std::vector<Route>{route, {}}));
  EXPECT_EQ(*std::get<StartDaemon>(back(13)).group, *daemon.group);
  EXPECT_EQ(std::get<SetDevice>(back(15)).mac, kServer);
  EXPECT_FALSE(parse_call(journal_line(nullptr, Instant{1ns}))->change) << "expire";
}

TEST(Journal, RefusesWhatNobodyCouldHaveSaid) {
  EXPECT_FALSE(parse_call("{"));
  EXPECT_FALSE(parse_call(R"({"at":1})"));
  EXPECT_FALSE(parse_call(R"({"at":1,"SetForwarding":{}})"));
  EXPECT_FALSE(parse_call(R"({"at":1,"StopDaemon":{"role":2}})"));
  EXPECT_FALSE(parse_call(R"({"at":1,"SetAddresses":{"device":0,"addresses":["10.9.0.300/24"]}})"));
  EXPECT_FALSE(parse_call(R"({"at":1,"SetAddresses":{"device":4000000000,"addresses":[]}})"));
  EXPECT_TRUE(parse_call(R"({"at":1,"SetAddresses":{"device":1,"addresses":[]}})"));
}

}  // namespace
}  // namespace director
