// Multicast: a host's membership of a group, so that its interface and its switch let the group's frames through.
//
// The frames themselves come through the device; this socket never reads. The kernel says so to the switch (IGMP, MLD) and to the
// interface's filter, and takes it back when the socket is closed.
#pragma once

#include <string>

#include "director/base/result.h"
#include "director/io/unique_fd.h"
#include "director/net/address.h"

namespace director {

class MulticastMembership {
 public:
  /// The error says which group, which interface and why.
  static Result<MulticastMembership> join(const std::string& interface, const IpAddress& group);

 private:
  explicit MulticastMembership(UniqueFd socket) : socket_(std::move(socket)) {}
  UniqueFd socket_;
};

}  // namespace director
