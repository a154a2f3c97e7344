// Class rules as text: "7 tcp dport 80,443,8000-8099 daddr 10.9.0.100,10.9.1.0/24", behind --class.
//
// Pure. Used by the command line's grammar (command_line.h), by listings and by what prints rules.
//
//   CLASS [tcp|udp|sctp|any] [dport PORTS] [daddr ADDRESSES] [sport PORTS] [saddr ADDRESSES] [-6]
//
// PORTS: numbers and ranges A-B, separated by commas. ADDRESSES: addresses, prefixes A/n and ranges A-B, likewise. The family is that
// of the addresses; a rule without any is IPv4, with -6 IPv6.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "director/base/result.h"
#include "director/core/classifier.h"

namespace director {

struct BadClass {
  std::string message;
  std::size_t word = 0;  ///< which of the words is to blame
};

/// `words` are those behind the class's number.
Result<ClassRule, BadClass> parse_class(std::uint32_t mark, std::span<const std::string> words);

/// What parse_class() reads, with the number in front: "7 tcp dport 80".
std::string format_as(const ClassRule& rule);

/// "80,443,8000-8099" or, of the other, "10.9.0.100,10.9.1.0/24"; used for capture cases as well.
std::optional<PortRange> parse_port_range(std::string_view text);
std::optional<AddressRange> parse_address_range(std::string_view text);

}  // namespace director
