// VS/NAT for SCTP: ports change, and a CRC with them.
#include "director/forward/sctp_nat.h"

#include <array>

#include "director/net/sctp.h"

namespace director {

Reason apply_to_sctp(const Nat& nat, Frame& frame, const PacketView& view) {
  if (view.later_fragment) return apply(nat, frame, view);
  if (view.payload_length() < sizeof(SctpHeader)) return Reason::truncated_transport;
  const auto ports = [&] { return header_at<std::array<std::byte, sizeof(PortsHeader)>>(frame.bytes(), view.transport); };
  const auto before = ports();
  const Port present = nat.end == NatEnd::target ? view.flow.target.port : view.flow.source.port;
  const bool changes = present != nat.replacement.port;
  if (changes && view.fragment) return Reason::sctp_fragment;
  if (const Reason r = apply(nat, frame, view); r != Reason::none || !changes) return r;

  const auto packet = frame.bytes().subspan(view.transport);
  if (nat.zero_checksum == ZeroChecksum::filled) {
    store_sctp_checksum(packet, true_sctp_checksum(packet));
    return Reason::none;
  }
  auto difference = ports();
  for (std::size_t i = 0; i < difference.size(); ++i) difference[i] ^= before[i];
  store_sctp_checksum(packet, stored_sctp_checksum(packet) ^ crc32c_change(difference, packet.size() - difference.size()));
  return Reason::none;
}

void finish_sctp_checksum(Frame& frame, const PacketView& view) {
  if (frame.offload.checksum != Offload::Checksum::partial || view.payload_length() < sizeof(SctpHeader)) return;
  const auto packet = frame.bytes().subspan(view.transport);
  store_sctp_checksum(packet, true_sctp_checksum(packet));
  frame.offload.checksum = Offload::Checksum::complete;
}

}  // namespace director
