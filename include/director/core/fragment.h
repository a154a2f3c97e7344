// FragmentTable: which flow the pieces of a fragmented packet belong to. Later fragments carry no ports: they follow their first
// fragment; those that come before it wait. Nothing is reassembled: real servers do that.
//
// Pieces that overlap are an attack on whoever puts them together: the packet they are of is given up (RFC 5722), in both families. A
// piece that comes twice passes twice.
//
// Bounded: at most kMostPackets packets of kMostPieces pieces are known at a time and kMostWaiting pieces wait in all; the oldest
// packets make room.
// Source: RFC 791, 3.2 and RFC 8200, 4.5 (identification); RFC 6274, 3.2 on what attackers do with it.
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
  /// What only the first fragment says.
  struct Owner {
    Port source, target;
    Protocol protocol;  ///< of IPv6, later fragments may begin with an extension header
  };

  /// Whether a piece of the packet has come before.
  [[nodiscard]] bool knows(const PacketView& view) const { return entries_.contains(key_of(view)); }
  /// Takes note of the bytes this piece covers. Reason::fragment_overlap: it overlaps another, or one did before;
  /// Reason::bad_fragment: one of too many.
  [[nodiscard]] Reason cover(const PacketView& view, Instant now);
  /// Whose packet this later fragment belongs to; nothing: its first fragment has not come.
  [[nodiscard]] std::optional<Owner> find(const PacketView& view) const;
  /// Notes a first fragment. Returns the later ones that were waiting for it.
  std::vector<Waiting> learn(const PacketView& view, Instant now);
  /// Keeps a copy of a later fragment until its first comes.
  void keep(const PacketView& view, const Frame& frame, Instant now);
  void expire(Instant now);
  [[nodiscard]] Instant next_deadline() const { return order_.empty() ? kNever : order_.front().until; }

  static constexpr Duration kLifetime = std::chrono::seconds(30);  // net.ipv4.ipfrag_time
  static constexpr std::size_t kMostPackets = 16384;
  static constexpr std::size_t kMostWaiting = 256;
  static constexpr std::size_t kMostPieces = 256;  // of one packet; 64 KiB in pieces of 1280 bytes are 53

 private:
  struct Key {
    IpAddress source, target;
    std::uint32_t id;
    Protocol protocol;  ///< of IPv6 unset: there the addresses and the ID name the packet
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& k) const;
  };
  struct Entry {
    std::optional<Owner> owner;
    std::vector<Waiting> waiting;
    struct Piece {
      std::uint32_t begin, end;
    };
    std::vector<Piece> pieces;  // by begin
    std::uint32_t covered = 0;  // bytes
    std::uint32_t length = 0;   // of the whole, once the last piece has come
    bool given_up = false;      // pieces overlapped
    std::uint64_t serial = 0;
  };
  struct Order {
    Key key;
    std::uint64_t serial;
    Instant until;
  };
  static Key key_of(const PacketView& view) {
    return {view.flow.source.address, view.flow.target.address, view.fragment_id,
            view.family == Family::ipv4 ? view.flow.protocol : Protocol::ip};
  }
  Entry& entry_of(const Key& key, Instant now);
  void give_up(Entry& entry);
  void forget_oldest();

  std::unordered_map<Key, Entry, KeyHash> entries_;
  std::deque<Order> order_;  // by age, which is by deadline
  std::size_t waiting_ = 0;
  std::uint64_t serial_ = 0;
};

}  // namespace director
