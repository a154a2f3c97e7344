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
#include "director/net/sctp.h"

namespace director {

struct PacketView {
  enum class Kind : std::uint8_t {
    arp,
    neighbour,  ///< ICMPv6 that keeps the link together: neighbour discovery (RFC 4861), queries for listeners (RFC 2710)
    ip,
  };

  Kind kind = Kind::ip;
  Family family = Family::ipv4;
  std::uint8_t ttl = 0;             ///< hop limit
  std::uint8_t tos = 0;             ///< traffic class
  std::uint8_t tcp_flags = 0;       ///< with has_transport and TCP
  std::optional<SctpEvent> sctp_event;  ///< what SCTP says; nothing: no whole chunk header is there
  bool dont_fragment = false;       ///< of IPv6 always: routers don't fragment it
  bool fragment = false;            ///< any piece of a fragmented packet
  bool later_fragment = false;      ///< one without the transport header
  bool more_fragments = false;
  bool source_routed = false;       ///< IPv6: a routing header says that this isn't the last stop
  bool has_ports = false;           ///< the flow's ports were read from this packet
  bool has_transport = false;       ///< the whole fixed transport header is there (TCP 20, UDP 8, SCTP 12, ICMP 8 bytes)
  std::uint16_t fragment_offset = 0;   ///< in bytes
  std::uint16_t fragment_header = 0;   ///< IPv6: offset of the fragment header from the frame's first byte; 0: none
  std::uint32_t fragment_id = 0;
  std::uint32_t network = 0;        ///< offset of the IP (or ARP) header from the frame's first byte
  std::uint32_t transport = 0;      ///< offset of what follows the IP header, its options and extension headers
  std::uint32_t ip_length = 0;      ///< IP header and payload; of a super-frame: of the whole
  FlowKey flow;                     ///< ports are 0 unless has_ports
  std::uint32_t flow_hash = 0;      ///< where the connection table files the flow, once somebody has asked; 0: nobody has

  [[nodiscard]] bool is_tcp() const { return flow.protocol == Protocol::tcp; }
  [[nodiscard]] bool is_sctp() const { return flow.protocol == Protocol::sctp; }
  [[nodiscard]] bool is_udp() const { return flow.protocol == Protocol::udp; }
  [[nodiscard]] bool is_icmp() const {
    return flow.protocol == (family == Family::ipv4 ? Protocol::icmp : Protocol::icmpv6);
  }
  [[nodiscard]] std::uint32_t payload_length() const { return ip_length - (transport - network); }
};

/// Checks the frame and says what it holds. Cuts Ethernet padding off the frame.
/// On success every offset and length of the view lies inside the frame, and so does the Offload's checksum field.
Result<PacketView, Reason> parse_packet(Frame& frame);
/// The view parse_packet() would give, of a plain frame: whole, no IP options or extension headers, TCP or UDP with its header, no
/// super-frame. False: anything else, right or wrong. Touches nothing: padding is still there.
[[nodiscard]] bool read_plain(const Frame& frame, PacketView& view);

/// The packet an ICMP error quotes (RFC 792: IP header and at least 8 bytes), as far as it can be read.
struct QuotedPacket {
  Family family = Family::ipv4;
  std::size_t header_length = 0;  ///< of the quoted IP header with its extension headers: its payload starts there
  bool dont_fragment = false;
  bool later_fragment = false;
  bool has_ports = false;
  FlowKey flow;
};
/// `quoted` begins with the quoted IP header, of either family. Nothing: too short or not IP.
std::optional<QuotedPacket> parse_quoted(std::span<const std::byte> quoted);

/// The extension headers of an IPv6 packet, walked (RFC 8200, 4).
struct ExtensionChain {
  std::size_t end = 0;       ///< where the transport, or the piece of a fragment, begins
  Protocol protocol{};       ///< what is there
  std::size_t fragment = 0;  ///< where the fragment header is; 0: none
  bool source_routed = false;
};
/// Walks from `at`, where a header of kind `first` is, as far as there are extension headers; behind the fragment header of a later
/// fragment there is nothing to be read. `bytes` end with the packet.
Result<ExtensionChain, Reason> walk_extensions(std::span<const std::byte> bytes, std::size_t at, Protocol first);

/// The most extension headers a packet may have (RFC 8504, 5.3, lets a host draw the line there).
inline constexpr int kMostExtensions = 8;

}  // namespace director
