// The way back in: hands decapsulated packets to this host's own stack, as if they had arrived on an
// interface of ours.
//
// Two ways, each with an interface that a firewall or tcpdump can name and that dies with the process, kill
// -9 included:
//   TUN    needs /dev/net/tun (root's in small containers);
//   veth   needs nothing but CAP_NET_ADMIN: packets are sent into the far end, which lies in a network
//   namespace of the
//          process's own, so that it vanishes with it. Where making a namespace isn't allowed the far end is
//          in this one and a kill -9 leaves the pair; the next start takes it away.
// Both carry the offload description, so that partial checksums and super-frames get in as they are.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "director/net/frame.h"
#include "director/realserver/rtnetlink.h"

namespace director::realserver {

class Injector {
 public:
  Injector() = default;
  Injector(const Injector&) = delete;
  Injector& operator=(const Injector&) = delete;
  virtual ~Injector() = default;

  /// Hands over packets that start at their IP header and have headroom for a link header; adds to `refused` the
  /// places of those that the kernel wouldn't have.
  virtual void inject(std::span<Frame* const> packets, std::vector<std::size_t>& refused) = 0;

  [[nodiscard]] LinkId link() const { return link_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& description() const { return description_; }

 protected:
  LinkId link_ = 0;
  std::string name_;         ///< the interface packets appear on
  std::string description_;  ///< "TUN", "veth": for people
};

/// Its interface is named so unless that name is taken.
inline constexpr const char* kTunnelInterface = "vs-tun0";

/// The best way that is open to this process, its interface up and with rp_filter 0. Throws Failure.
[[nodiscard]] std::unique_ptr<Injector> make_injector(RtNetlink& kernel);

/// Takes away the veth pair that a killed process left (see above). REQUIRES: no decapsulator runs in this namespace.
void remove_left_pair(RtNetlink& kernel);

// The two ways; nullptr when it isn't open to this process.
[[nodiscard]] std::unique_ptr<Injector> make_tun_injector(RtNetlink& kernel);
[[nodiscard]] std::unique_ptr<Injector> make_veth_injector(RtNetlink& kernel);

}  // namespace director::realserver
