// The checksum of ICMP messages, in both families.
#include "director/net/icmp.h"

#include "director/net/checksum.h"
#include "director/net/ip_header.h"

namespace director {
namespace {

ChecksumSum sum_of(std::span<const std::byte> frame, const PacketView& view) {
  const auto message = frame.subspan(view.transport);
  ChecksumSum sum;
  if (view.family == Family::ipv6)
    sum = pseudo_header_sum(address_at(frame, view.network, view.family, AddressEnd::source),
                            address_at(frame, view.network, view.family, AddressEnd::target), Protocol::icmpv6,
                            message.size());
  return sum.add(message);
}

}  // namespace

bool icmp_checksum_true(std::span<const std::byte> frame, const PacketView& view) {
  return sum_of(frame, view).folded() == 0xffff;
}

void fill_icmp_checksum(std::span<std::byte> frame, const PacketView& view) {
  auto& icmp = header_at<IcmpHeader>(frame, view.transport);
  icmp.checksum = Be16{0};
  icmp.checksum = sum_of(frame, view).field();
}

}  // namespace director
