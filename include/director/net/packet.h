// parse_packet: the one door between bytes and beliefs. After it, lengths are not doubted again.
//
// A PacketView says where the headers are and holds what everyone asks for. It is a copy: it stays true after the frame
// was rewritten only as far as nobody moved the headers.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "director/base/result.h"
#include "director/core/verdict.h"
#include "director/net/address.h"
#include "director/net/frame.h"
#include "director/net/headers.h"

namespace director {

struct PacketView {
  enum class Kind : std::uint8_t { arp, ip };

  Kind kind = Kind::ip;
  Family family = Family::ipv4;
  std::uint8_t ttl = 0;
  std::uint8_t tos = 0;
  std::uint8_t tcp_flags = 0;       ///< with has_transport and TCP
  bool dont_fragment = false;
  bool fragment = false;            ///< any piece of a fragmented packet
  bool later_fragment = false;      ///< one without the transport header
  bool has_ports = false;           ///< the flow's ports were read from this packet
  bool has_transport = false;       ///< the whole fixed transport header is there (TCP 20, UDP 8, ICMP 8 bytes)
  std::uint16_t fragment_id = 0;
  std::uint32_t network = 0;        ///< offset of the IP (or ARP) header from the frame's first byte
  std::uint32_t transport = 0;      ///< offset of what follows the IP header
  std::uint32_t ip_length = 0;      ///< IP header and payload; of a super-frame: of the whole
  FlowKey flow;                     ///< ports are 0 unless has_ports

  [[nodiscard]] bool is_tcp() const { return flow.protocol == Protocol::tcp; }
  [[nodiscard]] bool is_udp() const { return flow.protocol == Protocol::udp; }
  [[nodiscard]] std::uint32_t payload_length() const { return ip_length - (transport - network); }
};

/// Checks the frame and says what it holds. Cuts Ethernet padding off the frame.
/// On success every offset and length of the view lies inside the frame, and so does the Offload's checksum field.
Result<PacketView, Reason> parse_packet(Frame& frame);

/// The packet an ICMP error quotes (RFC 792: IP header and at least 8 bytes), as far as it can be read.
struct QuotedPacket {
  std::size_t header_length = 0;  ///< of the quoted IP header: its payload starts there
  bool dont_fragment = false;
  bool later_fragment = false;
  bool has_ports = false;
  FlowKey flow;
};
/// `quoted` begins with the quoted IP header. Nothing: too short or not IP.
std::optional<QuotedPacket> parse_quoted(std::span<const std::byte> quoted);

}  // namespace director
