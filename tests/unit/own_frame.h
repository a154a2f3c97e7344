// OwnFrame: a frame with storage of its own, for tests that write packets byte by byte.
#pragma once

#include <vector>

#include "director/net/frame.h"

namespace director {

/// Empty behind headroom, from device 0, with room for the largest there is.
struct OwnFrame {
  std::vector<std::byte> room = std::vector<std::byte>(kHeadroom + kMaxFrame);
  Frame frame;

  OwnFrame() {
    frame.storage = room;
    frame.start = kHeadroom;
    frame.ingress = DeviceId{0};
  }
  OwnFrame(const OwnFrame&) = delete;
  OwnFrame& operator=(const OwnFrame&) = delete;
};

}  // namespace director
