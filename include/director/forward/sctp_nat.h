// VS/NAT for SCTP: as nat.h, with the checksum SCTP has.
#pragma once

#include "director/forward/nat.h"

namespace director {

/// Rewrites addresses and port in place and keeps the CRC32c as true, or as wrong, as it was; with ZeroChecksum::filled, the kernel's way,
/// it is computed anew when the port changes. The checksum is complete before and after: see finish_sctp_checksum().
/// Reason::truncated_transport; Reason::sctp_fragment: the port of a fragmented packet would have to change, whose checksum nobody
/// can work out who doesn't hold all of it.
[[nodiscard]] Reason apply_to_sctp(const Nat& nat, Frame& frame, const PacketView& view);

/// A sender's kernel may have left the checksum to the device, which for SCTP no offload description can say on the way out: it is computed
/// here. Nothing to do, nothing done.
void finish_sctp_checksum(Frame& frame, const PacketView& view);

}  // namespace director
