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

void set_ip_length(std::span<std::byte> bytes, std::size_t network, Family family) {
  const std::size_t length = bytes.size() - network;
  if (family == Family::ipv4) {
    header_at<Ipv4Header>(bytes, network).total_length = Be16{static_cast<std::uint16_t>(length)};
    fill_ip_checksum(bytes, network, family);
  } else {
    header_at<Ipv6Header>(bytes, network).payload_length = Be16{static_cast<std::uint16_t>(length - sizeof(Ipv6Header))};
  }
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

void fill_ip_checksum(std::span<std::byte> bytes, std::size_t network, Family family) {
  if (family == Family::ipv6) return;
  auto& ip = header_at<Ipv4Header>(bytes, network);
  ip.checksum = Be16{0};
  ip.checksum = ChecksumSum{}.add(bytes.subspan(network, ip.header_length())).field();
}

}  // namespace director
