// VS/NAT: copy an endpoint, add two differences.
#include "director/forward/nat.h"

#include "director/net/icmp.h"
#include "director/net/ip_header.h"

namespace director {
namespace {

/// A UDP checksum of 0 means "none": it stays, and a computed 0 is sent as 0xffff (RFC 768).
Be16 translated(Be16 field, const ChecksumDelta& delta, bool udp) {
  if (udp && field == Be16{0}) return field;
  const Be16 result = delta.applied_to(field);
  return udp && result == Be16{0} ? Be16{0xffff} : result;
}

AddressEnd address_end(NatEnd end) { return end == NatEnd::target ? AddressEnd::target : AddressEnd::source; }

/// REQUIRES: a whole UDP datagram, its addresses already translated.
Be16 computed_udp_checksum(std::span<const std::byte> bytes, const PacketView& view) {
  const auto datagram = bytes.subspan(view.transport);
  const Be16 sum = pseudo_header_sum(address_at(bytes, view.network, view.family, AddressEnd::source),
                                     address_at(bytes, view.network, view.family, AddressEnd::target), Protocol::udp,
                                     datagram.size())
                       .add(datagram)
                       .field();
  return sum == Be16{0} ? Be16{0xffff} : sum;
}

}  // namespace

Nat::Nat(NatEnd which, const Endpoint& before, const Endpoint& after, ZeroChecksum zero)
    : replacement(after), end(which), zero_checksum(zero) {
  ChecksumSum difference;
  difference.replace(before.address, after.address);
  address_delta = ChecksumDelta{difference};
  difference.replace(before.port.wire, after.port.wire);
  endpoint_delta = ChecksumDelta{difference};
}

Reason apply(const Nat& nat, Frame& frame, const PacketView& view) {
  const auto bytes = frame.bytes();
  if (!view.later_fragment) {  // a later fragment's share of the checksum stands in the first
    if (!view.has_transport) return Reason::truncated_transport;
    auto& ports = header_at<PortsHeader>(bytes, view.transport);
    (nat.end == NatEnd::target ? ports.target : ports.source) = nat.replacement.port;
    if (view.is_tcp() || view.is_udp()) {
      auto& field = view.is_tcp() ? header_at<TcpHeader>(bytes, view.transport).checksum
                                  : header_at<UdpHeader>(bytes, view.transport).checksum;
      // A partial checksum is the pseudo-header's sum: it knows addresses only; the ports are summed when it is finished.
      field = frame.offload.checksum == Offload::Checksum::partial ? nat.address_delta.applied_to_partial(field)
                                                                   : translated(field, nat.endpoint_delta, view.is_udp());
    }
  }
  put_address(bytes, view.network, address_end(nat.end), nat.replacement.address);
  if (view.family == Family::ipv4) {
    auto& checksum = header_at<Ipv4Header>(bytes, view.network).checksum;
    checksum = nat.address_delta.applied_to(checksum);
  }
  if (nat.zero_checksum == ZeroChecksum::filled && view.is_udp() && !view.fragment) {
    auto& udp = header_at<UdpHeader>(bytes, view.transport);
    if (udp.checksum == Be16{0} && frame.offload.checksum == Offload::Checksum::complete)
      udp.checksum = computed_udp_checksum(bytes, view);
  }
  return Reason::none;
}

void translate_icmp_error(const Nat& nat, Frame& frame, const PacketView& view, const QuotedPacket& quoted) {
  const auto bytes = frame.bytes();
  const AddressEnd end = address_end(nat.end);
  // The error may come from a router on the way: what is replaced need not be the connection's own address.
  const IpAddress before = address_at(bytes, view.network, view.family, end);
  put_address(bytes, view.network, end, nat.replacement.address);
  if (view.family == Family::ipv4) {
    auto& checksum = header_at<Ipv4Header>(bytes, view.network).checksum;
    checksum = ChecksumDelta{ChecksumSum{}.replace(before, nat.replacement.address)}.applied_to(checksum);
  }

  const std::size_t inside = view.transport + sizeof(IcmpHeader);
  // What was the packet's target is the quoted packet's source: errors quote what was sent the other way.
  put_address(bytes, inside, end == AddressEnd::target ? AddressEnd::source : AddressEnd::target, nat.replacement.address);
  fill_ip_checksum(bytes, inside, view.family);
  if (quoted.has_ports) {
    auto& ports = header_at<PortsHeader>(bytes, inside + quoted.header_length);
    (nat.end == NatEnd::target ? ports.source : ports.target) = nat.replacement.port;
  }
  fill_icmp_checksum(bytes, view);
}

}  // namespace director
