// World: a director with one virtual service, ten real servers and as many established connections as a bench wants, and the frames of
// their packets. Every frame is written anew, whole and true, outside what is timed; the balancer rewrites it in place.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "director/core/balancer.h"
#include "measure.h"

namespace director::bench {

struct Shape {
  Method method = Method::masq;
  Family family = Family::ipv4;
  std::size_t flows = 0;
  friend auto operator<=>(const Shape&, const Shape&) = default;
};
/// "nat/ipv4", for the names of benches.
[[nodiscard]] std::string name_of(Method method);
[[nodiscard]] std::string name_of(Family family);

/// 64 frames as a device would hand them over: with headroom, and room for a super-frame.
class Batch {
 public:
  Batch();
  [[nodiscard]] Frame& operator[](std::size_t i) { return frames_[i]; }
  [[nodiscard]] std::span<Frame> frames() { return frames_; }

 private:
  std::unique_ptr<std::byte[]> storage_;
  std::array<Frame, kBatch> frames_;
};

inline constexpr std::size_t kServers = 10;
/// Of these flows there is never a connection.
inline constexpr std::uint64_t kFirstStray = 200'000'000;
inline constexpr std::uint64_t kStrays = 60'000'000;

class World {
 public:
  explicit World(const Shape& shape);

  /// The connections from `flows()` on, to one in the state ESTABLISHED; throws when one can't be opened.
  void open(std::size_t count);
  [[nodiscard]] std::size_t flows() const { return flows_; }

  /// A segment of flow n, of 64 bytes (IPv6: 74, its headers need as much).
  void write_request(Frame& frame, std::uint64_t n, std::uint8_t tcp_flags) const;
  /// From the flow's real server. REQUIRES: n < flows(), NAT.
  void write_reply(Frame& frame, std::uint64_t n, std::uint8_t tcp_flags) const;
  /// To an address that isn't virtual.
  void write_foreign(Frame& frame, std::uint64_t n) const;

  /// Throws unless the verdict is that one.
  static void require(const Verdict& verdict, Action action, Reason reason = Reason::none);

  /// Ends connections that are due, as the event loop would, however many calls that takes; and how many they were.
  std::size_t expire_all();

  Balancer balancer;
  Instant now{1000s};

 private:
  [[nodiscard]] Endpoint client(std::uint64_t n) const;
  void write(Frame& frame, const Endpoint& from, const Endpoint& to, DeviceId ingress, std::uint8_t tcp_flags) const;
  void tell(const Change& change);

  Shape shape_;
  std::size_t flows_ = 0;
  Endpoint vip_;
  IpAddress elsewhere_;
  std::array<Endpoint, kServers> server_of_;  // of flow n: n % kServers, as round robin hands them out
  Batch batch_;
};

/// The one that was made last is kept: benches of the same shape follow one another.
[[nodiscard]] World& world_of(const Shape& shape);
void forget_world();

}  // namespace director::bench
