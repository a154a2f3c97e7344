// Neighbour discovery and multicast listener reports: the messages, read and written. Who is asked and told when is the business of
// Network (hop.h) and Balancer.
//
// Sources: RFC 4861 (solicitations, advertisements), RFC 2710 and RFC 3810 (listeners, versions 1 and 2), RFC 3590 (their source).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "director/core/outbox.h"
#include "director/core/verdict.h"
#include "director/net/address.h"
#include "director/net/frame.h"
#include "director/net/packet.h"

namespace director {

struct NeighbourMessage {
  enum class Kind : std::uint8_t { solicitation, advertisement, query };

  Kind kind = Kind::solicitation;
  IpAddress target;               ///< whom it is about; of a query the group, :: for all
  std::optional<MacAddress> mac;  ///< of a solicitation's sender, of an advertisement's target
  bool replaces = true;           ///< of an advertisement: override what is known
  int version = 2;                ///< of a query
};

/// Reads a packet of Kind::neighbour and checks it as RFC 4861, 7.1, and RFC 3810, 6.2, demand. Nothing: it isn't valid.
[[nodiscard]] std::optional<NeighbourMessage> read_neighbour(std::span<const std::byte> frame, const PacketView& view);

/// "Who has `target`?", from `source`, to the group of the target; with `known` to that MAC alone, to see if it is still there.
void write_solicitation(Frame& frame, const MacAddress& mac, const IpAddress& source, const IpAddress& target,
                        std::optional<MacAddress> known);
/// "`target` is at `mac`", to `asker`; to everybody when the asker has no address (yet), as unsolicited news too. `frame` may be the
/// question itself. `router`: the target forwards packets of others.
void write_advertisement(Frame& frame, const MacAddress& mac, const IpAddress& target, bool router, const IpAddress& asker,
                         const MacAddress& asker_mac);

/// RFC 3810, 5.2.12. "Exclude nobody" means: we listen.
enum class ListenerRecord : std::uint8_t { is_exclude = 2, to_exclude = 4 };
/// "We listen to these groups", as version 2 says it, in as many messages as are needed.
void write_listener_reports(Outbox& outbox, DeviceId device, const MacAddress& mac, const IpAddress& source,
                            ListenerRecord record, std::span<const IpAddress> groups);
/// The same to a querier of version 1, one group a message.
void write_listener_report1(Frame& frame, const MacAddress& mac, const IpAddress& source, const IpAddress& group);

}  // namespace director
