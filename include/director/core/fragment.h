// FragmentTable: which flow the pieces of a fragmented packet belong to. Later fragments carry no ports: they follow their first
// fragment; those that come before it wait. Nothing is reassembled: real servers do that.
//
// Bounded: at most kMostPackets packets are known at a time and kMostWaiting pieces wait in all; the oldest make room.
// Source: RFC 791, 3.2 (identification); RFC 6274, 3.2 on what attackers do with it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "director/base/time.h"
#include "director/net/address.h"
#include "director/net/frame.h"
#include "director/net/packet.h"

namespace director {

class FragmentTable {
 public:
  struct Waiting {
    std::vector<std::byte> bytes;
    DeviceId ingress;
  };
  struct Ports {
    Port source, target;
  };

  /// The ports of the packet this later fragment belongs to; nothing: its first fragment has not come.
  [[nodiscard]] std::optional<Ports> find(const PacketView& view) const;
  /// Notes a first fragment. Returns the later ones that were waiting for it.
  std::vector<Waiting> learn(const PacketView& view, Instant now);
  /// Keeps a copy of a later fragment until its first comes.
  void keep(const PacketView& view, const Frame& frame, Instant now);
  void expire(Instant now);
  [[nodiscard]] Instant next_deadline() const { return order_.empty() ? kNever : order_.front().until; }

  static constexpr Duration kLifetime = std::chrono::seconds(30);  // net.ipv4.ipfrag_time
  static constexpr std::size_t kMostPackets = 16384;
  static constexpr std::size_t kMostWaiting = 256;

 private:
  struct Key {
    IpAddress source, target;
    std::uint16_t id;
    Protocol protocol;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& k) const;
  };
  struct Entry {
    std::optional<Ports> ports;
    std::vector<Waiting> waiting;
    std::uint64_t serial = 0;
  };
  struct Order {
    Key key;
    std::uint64_t serial;
    Instant until;
  };
  static Key key_of(const PacketView& view) {
    return {view.flow.source.address, view.flow.target.address, view.fragment_id, view.flow.protocol};
  }
  Entry& entry_of(const Key& key, Instant now);
  void forget_oldest();

  std::unordered_map<Key, Entry, KeyHash> entries_;
  std::deque<Order> order_;  // by age, which is by deadline
  std::size_t waiting_ = 0;
  std::uint64_t serial_ = 0;
};

}  // namespace director
