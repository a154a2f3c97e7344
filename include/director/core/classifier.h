// Classifier: which packets belong to a class service (-f N), in place of the firewall marks of the kernel's IPVS.
//
// A class is a number and the rules that put packets into it: "--class 7 tcp dport 80,443 daddr 10.9.0.100". All rules of all classes
// stand in one list, and the first that matches decides, as in a firewall. A rule is asked only about a packet that starts a
// connection; the connection remembers. What a rule doesn't mention matches everything.
//
// A destination that is a single address is a virtual address like any other: the director answers ARP and ND for it, and ping,
// while a service of the class exists. A prefix or a range says "routed to us": nobody is told about it.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "director/net/address.h"

namespace director {

/// From `first` to `last`, both of one family and both included.
struct AddressRange {
  IpAddress first, last;
  [[nodiscard]] bool contains(const IpAddress& a) const {
    return a.family() == first.family() && first <= a && a <= last;
  }
  [[nodiscard]] bool is_host() const { return first == last; }
  friend bool operator==(const AddressRange&, const AddressRange&) = default;
};

struct PortRange {
  std::uint16_t first = 0, last = 0;
  [[nodiscard]] bool contains(Port p) const { return first <= p.host() && p.host() <= last; }
  friend bool operator==(const PortRange&, const PortRange&) = default;
};

struct ClassRule {
  std::uint32_t mark = 0;              ///< the class: N of -f N
  Family family = Family::ipv4;
  std::optional<Protocol> protocol;    ///< nothing: TCP, UDP and SCTP
  std::vector<AddressRange> targets;   ///< daddr; none: any
  std::vector<PortRange> target_ports;  ///< dport
  std::vector<AddressRange> sources;   ///< saddr
  std::vector<PortRange> source_ports;  ///< sport

  [[nodiscard]] bool matches(const FlowKey& flow) const;
  [[nodiscard]] bool aims_at(const IpAddress& target) const;
  friend bool operator==(const ClassRule&, const ClassRule&) = default;
};

class Classifier {
 public:
  /// The class of a packet that starts a flow; 0: none.
  [[nodiscard]] std::uint32_t classify(const FlowKey& flow) const;
  /// Whether packets to this address may belong to a class.
  [[nodiscard]] bool aims_at(const IpAddress& target) const;
  /// The addresses of a class that are the director's own, in the order of the rules, each once.
  [[nodiscard]] std::vector<IpAddress> addresses_of(std::uint32_t mark, Family family) const;

  [[nodiscard]] bool empty() const { return rules_.empty(); }
  [[nodiscard]] const std::vector<ClassRule>& rules() const { return rules_; }
  void set(std::vector<ClassRule> rules) { rules_ = std::move(rules); }

 private:
  std::vector<ClassRule> rules_;
};

}  // namespace director
