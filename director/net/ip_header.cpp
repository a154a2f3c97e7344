// One function per change, two layouts.
#include "director/net/ip_header.h"

#include <cstring>

#include "director/net/checksum.h"

namespace director {
namespace {

constexpr std::size_t address_offset(Family family, AddressEnd end) {
  if (family == Family::ipv4)
    return end == AddressEnd::source ? offsetof(Ipv4Header, source) : offsetof(Ipv4Header, target);
  return end == AddressEnd::source ? offsetof(Ipv6Header, source) : offsetof(Ipv6Header, target);
}

}  // namespace

void write_ip_header(std::span<std::byte> bytes, std::size_t network, const IpFields& fields) {
  if (fields.target.family() == Family::ipv4) {
    // Field by field, and summed from the same values: what has just been written isn't read again.
    auto& ip = header_at<Ipv4Header>(bytes, network);
    ip.version_ihl = 0x45;
    ip.tos = fields.tos;
    ip.total_length = Be16{static_cast<std::uint16_t>(bytes.size() - network)};
    ip.id = Be16{fields.id};
    ip.fragment = Be16{fields.dont_fragment ? Ipv4Header::kDontFragment : std::uint16_t{0}};
    ip.ttl = fields.ttl;
    ip.protocol = fields.protocol;
    ip.source = fields.source.v4_wire();
    ip.target = fields.target.v4_wire();
    const auto word = [](unsigned upper, unsigned lower) { return Be16{static_cast<std::uint16_t>(upper << 8U | lower)}; };
    ip.checksum = ChecksumSum{}
                      .add(word(0x45, fields.tos))
                      .add(ip.total_length)
                      .add(ip.id)
                      .add(ip.fragment)
                      .add(word(fields.ttl, static_cast<std::uint8_t>(fields.protocol)))
                      .add(fields.source)
                      .add(fields.target)
                      .field();
    return;
  }
  header_at<Ipv6Header>(bytes, network) = {Be32{6U << 28U | std::uint32_t{fields.tos} << 20U},
                                           Be16{static_cast<std::uint16_t>(bytes.size() - network - sizeof(Ipv6Header))},
                                           fields.protocol,
                                           fields.ttl,
                                           fields.source.bytes(),
                                           fields.target.bytes()};
}

void set_ip_length(std::span<std::byte> bytes, std::size_t network, Family family) {
  const std::size_t length = bytes.size() - network;
  if (family == Family::ipv4) {
    header_at<Ipv4Header>(bytes, network).total_length = Be16{static_cast<std::uint16_t>(length)};
    fill_ip_checksum(bytes, network, family);
  } else {
    header_at<Ipv6Header>(bytes, network).payload_length = Be16{static_cast<std::uint16_t>(length - sizeof(Ipv6Header))};
  }
}

void lower_ttl(std::span<std::byte> bytes, std::size_t network, Family family) {
  if (family == Family::ipv6) {
    --header_at<Ipv6Header>(bytes, network).hop_limit;
    return;
  }
  auto& ip = header_at<Ipv4Header>(bytes, network);
  --ip.ttl;
  constexpr ChecksumDelta kOneLess{ChecksumSum{}.replace(Be16{0x0100}, Be16{0})};  // TTL is the upper byte of its word
  ip.checksum = kOneLess.applied_to(ip.checksum);
}

void put_address(std::span<std::byte> bytes, std::size_t network, AddressEnd end, const IpAddress& address) {
  const Family family = address.family();
  const std::size_t at = network + address_offset(family, end);
  if (family == Family::ipv4) {
    header_at<Be32>(bytes, at) = address.v4_wire();
  } else {
    header_at<std::array<std::uint8_t, 16>>(bytes, at) = address.bytes();
  }
}

IpAddress address_at(std::span<const std::byte> bytes, std::size_t network, Family family, AddressEnd end) {
  const std::size_t at = network + address_offset(family, end);
  if (family == Family::ipv4) return IpAddress::v4(header_at<Be32>(bytes, at));
  return IpAddress::v6(header_at<std::array<std::uint8_t, 16>>(bytes, at));
}

std::uint8_t tos_at(std::span<const std::byte> bytes, std::size_t network, Family family) {
  return family == Family::ipv4 ? header_at<Ipv4Header>(bytes, network).tos
                                : header_at<Ipv6Header>(bytes, network).traffic_class();
}

std::uint8_t ttl_at(std::span<const std::byte> bytes, std::size_t network, Family family) {
  return family == Family::ipv4 ? header_at<Ipv4Header>(bytes, network).ttl
                                : header_at<Ipv6Header>(bytes, network).hop_limit;
}

void fill_ip_checksum(std::span<std::byte> bytes, std::size_t network, Family family) {
  if (family == Family::ipv6) return;
  auto& ip = header_at<Ipv4Header>(bytes, network);
  ip.checksum = Be16{0};
  ip.checksum = ChecksumSum{}.add(bytes.subspan(network, ip.header_length())).field();
}

void set_ether_type(std::span<std::byte> frame, Family family) {
  header_at<EthernetHeader>(frame, 0).type = Be16{static_cast<std::uint16_t>(ether_type(family))};
}

}  // namespace director
