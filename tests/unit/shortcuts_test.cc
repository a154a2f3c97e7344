// When the core offers a shortcut, what is in it, and what ends it.
#include <gtest/gtest.h>


#include "director/core/balancer.h"
#include "director/net/format.h"

namespace director {
namespace {

const MacAddress kClientMac = *MacAddress::parse("02:00:00:00:00:01");
const MacAddress kOwnMac = *MacAddress::parse("02:00:00:00:00:02");
const MacAddress kServerMac = *MacAddress::parse("02:00:00:00:00:11");
const ServiceKey kService{Protocol::tcp, {*IpAddress::parse("10.9.0.100"), Port::of(80)}, 0};
const Endpoint kServer{*IpAddress::parse("10.9.0.11"), Port::of(8080)};
constexpr int kEnough = 70;  // packets, more than have to walk

class Shortcuts : public testing::Test {
 protected:
  void begin(Method method, TunnelType type = TunnelType::ipip) {
    tell(SetDevice{DeviceId{0}, "eth0", kOwnMac, 1500, true, Stack::own});
    tell(SetAddresses{DeviceId{0}, {*Prefix::parse("10.9.0.2/24")}});
    tell(SetNeighbour{DeviceId{0}, *IpAddress::parse("10.9.0.1"), kClientMac, true});
    tell(SetNeighbour{DeviceId{0}, kServer.address, kServerMac, true});
    tell(AddService{{kService, "rr", {}, {}, 0, Be32{0xffffffffU}, false, {}}});
    ServerConfig server;
    server.endpoint = method == Method::masq ? kServer : Endpoint{kServer.address, Port::of(80)};
    server.method = method;
    server.tunnel_type = type;
    tell(AddServer{kService, server});
    balancer_.offer_shortcuts();
    news().clear();
  }
  void tell(const Change& change) { ASSERT_TRUE(balancer_.apply(change, now_)); }
  ShortcutNews& news() { return balancer_.shortcut_news(); }

  void send(const std::string& line, int times = 1) {
    for (int i = 0; i < times; ++i) {
      const auto built = build_frame(line, kClientMac, kOwnMac);
      ASSERT_TRUE(built) << built.error().message;
      std::vector<std::byte> room(kHeadroom + kMaxFrame);
      Frame frame = frame_in(room, built->bytes, built->offload);
      frame.ingress = DeviceId{0};
      (void)balancer_.process(frame, now_);
      balancer_.outbox().clear();
    }
  }
  void client(const std::string& what, int times = 1) { send("tcp 10.9.0.1:4000 > 10.9.0.100:80 " + what, times); }
  void server(const std::string& what, int times = 1) { send("tcp 10.9.0.11:8080 > 10.9.0.1:4000 " + what, times); }
  void establish() {
    client("[S]");
    server("[SA]");
    client("[A]");
  }
  /// A connection by NAT that has just been offered one each way.
  void offer_both() {
    begin(Method::masq);
    establish();
    client("[A]", kEnough);
    server("[A]");
    ASSERT_EQ(news().opened.size(), 2U);
  }

  Balancer balancer_{{Policy::improved, 7, 1000, false}};
  Instant now_{1000s};
};

TEST_F(Shortcuts, NatOffersOneEachWayAfterTheFirstPackets) {
  begin(Method::masq);
  establish();
  client("[A] len=10", 3);
  EXPECT_TRUE(news().empty()) << "short connections walk";
  client("[A] len=10", kEnough);
  server("[A] len=10", 2);
  ASSERT_EQ(news().opened.size(), 2U);
  const Shortcut& there = news().opened[0];
  EXPECT_EQ(there.rewrite, Shortcut::Rewrite::target);
  EXPECT_EQ(there.replacement, kServer);
  EXPECT_EQ(there.to, kServerMac);
  EXPECT_EQ(there.from, kOwnMac);
  EXPECT_EQ(there.here, kOwnMac);
  EXPECT_EQ(there.mtu, 1500U);
  EXPECT_EQ(format_as(there.flow.target), "10.9.0.100:80");
  const Shortcut& back = news().opened[1];
  EXPECT_EQ(back.rewrite, Shortcut::Rewrite::source);
  EXPECT_EQ(format_as(back.replacement), "10.9.0.100:80");
  EXPECT_EQ(format_as(back.flow.source), "10.9.0.11:8080");
  EXPECT_EQ(back.to, kClientMac);
}

TEST_F(Shortcuts, DirectRoutingChangesOnlyTheMac) {
  begin(Method::direct);
  client("[S]");
  client("[A]", kEnough);
  ASSERT_EQ(news().opened.size(), 1U);
  EXPECT_EQ(news().opened[0].rewrite, Shortcut::Rewrite::nothing);
  EXPECT_EQ(news().opened[0].to, kServerMac);
}

TEST_F(Shortcuts, ATunnelPutsAHeaderInFront) {
  begin(Method::tunnel);
  client("[S]");
  client("[A]", kEnough);
  ASSERT_EQ(news().opened.size(), 1U);
  const Shortcut& there = news().opened[0];
  EXPECT_EQ(there.rewrite, Shortcut::Rewrite::nothing);
  ASSERT_TRUE(there.tunnel);
  EXPECT_EQ(format_as(there.tunnel->local), "10.9.0.2");
  EXPECT_EQ(there.tunnel->remote, kServer.address);
  EXPECT_EQ(there.to, kServerMac);
  EXPECT_EQ(there.mtu, 1480U) << "of what goes into it";
}

TEST_F(Shortcuts, ATunnelIsOfferedOneThoughOnlySuperFramesCome) {
  begin(Method::tunnel);
  client("[S]");
  client("[A] csum=partial gso=1000 len=4000", kEnough);
  ASSERT_EQ(news().opened.size(), 1U);
}

TEST_F(Shortcuts, OtherTunnelsWalk) {
  for (const TunnelType type : {TunnelType::gre, TunnelType::gue}) {
    begin(Method::tunnel, type);
    client("[S]");
    client("[A]", kEnough);
    EXPECT_TRUE(news().opened.empty());
    tell(DeleteService{kService});
  }
}

TEST_F(Shortcuts, TunnelsThatDoNotCopyDfWalk) {
  begin(Method::tunnel);
  client("[S]");
  client("[A]", kEnough);
  news().clear();
  tell(SetTunable{"pmtu_disc", 0});
  EXPECT_TRUE(news().all_closed);
  news().clear();
  client("[A]", kEnough);
  EXPECT_TRUE(news().empty());
}

TEST_F(Shortcuts, WhoIsNotEstablishedWalks) {
  begin(Method::masq);
  client("[S]", kEnough);
  EXPECT_TRUE(news().opened.empty());
}

TEST_F(Shortcuts, AFinEndsBothAndNoneComesBack) {
  ASSERT_NO_FATAL_FAILURE(offer_both());
  news().clear();
  client("[FA]");
  EXPECT_EQ(news().closed.size(), 2U);
  news().clear();
  server("[A]", kEnough);
  EXPECT_TRUE(news().empty());
}

TEST_F(Shortcuts, WhatEndsBeforeItWasToldIsNeverOpened) {
  ASSERT_NO_FATAL_FAILURE(offer_both());
  client("[FA]");  // in the same batch: who is told what closed first would keep it open
  EXPECT_TRUE(news().opened.empty());
  news().clear();

  // The next connection of the same ports.
  client("[R]");
  establish();
  client("[A]", kEnough);
  EXPECT_EQ(news().opened.size(), 1U);
}

TEST_F(Shortcuts, AllEndWhenServersOrNeighboursChangeAndAreOfferedAnew) {
  begin(Method::masq);
  establish();
  client("[A]", kEnough);
  ASSERT_EQ(news().opened.size(), 1U);
  news().clear();
  ServerConfig quiesced;
  quiesced.endpoint = kServer;
  quiesced.method = Method::masq;
  quiesced.weight = 0;
  tell(EditServer{kService, quiesced});
  EXPECT_TRUE(news().all_closed);
  news().clear();
  client("[A]");
  ASSERT_EQ(news().opened.size(), 1U) << "weight 0 keeps old connections";
  news().clear();

  const MacAddress moved = *MacAddress::parse("02:00:00:00:00:12");
  tell(SetNeighbour{DeviceId{0}, kServer.address, moved, true});
  EXPECT_TRUE(news().all_closed);
  news().clear();
  client("[A]");
  ASSERT_EQ(news().opened.size(), 1U);
  EXPECT_EQ(news().opened[0].to, moved);
}

TEST_F(Shortcuts, ANeighbourHeardAgainIsNoNews) {
  begin(Method::masq);
  establish();
  client("[A]", kEnough);
  news().clear();
  tell(SetNeighbour{DeviceId{0}, kServer.address, kServerMac, true});
  EXPECT_TRUE(news().empty());
}

TEST_F(Shortcuts, WhatWasCarriedCountsAndKeepsTheConnection) {
  begin(Method::masq);
  establish();
  client("[A]", kEnough);
  const FlowKey flow = news().opened.at(0).flow;
  const auto before = balancer_.traffic().total;
  now_ += 10min;
  tell(Carried{flow, 1000, 1'500'000, now_});
  EXPECT_EQ(balancer_.traffic().total.in_packets, before.in_packets + 1000);
  EXPECT_EQ(balancer_.traffic().total.in_bytes, before.in_bytes + 1'500'000);
  const auto row = balancer_.find_connection(flow, now_);
  ASSERT_TRUE(row);
  EXPECT_EQ(row->remaining, 15min);
}

TEST_F(Shortcuts, WhoIsLetGoIsOfferedOneAgain) {
  ASSERT_NO_FATAL_FAILURE(offer_both());
  const FlowKey there = news().opened[0].flow;
  const FlowKey back = news().opened[1].flow;
  news().clear();
  tell(Carried{there, 0, 0, {}, true});
  EXPECT_EQ(balancer_.shortcut_count(), 1U) << "the other way goes on";
  tell(Carried{back, 0, 0, {}, true});
  EXPECT_EQ(balancer_.shortcut_count(), 0U);
  EXPECT_TRUE(news().empty()) << "who let go needn't be told";
  client("[A]");
  server("[A]");
  EXPECT_EQ(news().opened.size(), 2U);
}

TEST_F(Shortcuts, AnExpiredConnectionEndsItsOwn) {
  begin(Method::masq);
  establish();
  client("[A]", kEnough);
  news().clear();
  now_ += 20min;
  while (balancer_.connection_count() != 0) balancer_.expire(now_);
  EXPECT_TRUE(news().all_closed || news().closed.size() == 1U);
}

}  // namespace
}  // namespace director
