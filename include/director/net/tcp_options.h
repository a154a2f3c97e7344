// TCP options, as far as somebody on the way has to touch them (RFC 9293, 3.2).
#pragma once

#include <cstdint>

#include "director/net/frame.h"
#include "director/net/packet.h"

namespace director {

/// Lowers the maximum segment size a SYN offers to `most`, if it offers more. The checksum follows by difference; a partial one doesn't
/// cover options yet. True if something changed; malformed options are left alone.
/// REQUIRES: view.has_transport, TCP, the first or only fragment.
bool lower_mss(Frame& frame, const PacketView& view, std::uint16_t most);

}  // namespace director
