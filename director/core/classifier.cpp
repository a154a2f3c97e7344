// Classes of packets: a list of rules, the first that matches decides.
#include "director/core/classifier.h"

#include <algorithm>

namespace director {
namespace {

/// A list that isn't there excludes nothing.
template <typename Range, typename Value>
bool among(const std::vector<Range>& ranges, const Value& value) {
  return ranges.empty() || std::ranges::any_of(ranges, [&](const Range& r) { return r.contains(value); });
}

bool may_be_classed(Protocol p) { return p == Protocol::tcp || p == Protocol::udp || p == Protocol::sctp; }

}  // namespace

bool ClassRule::matches(const FlowKey& flow) const {
  if (flow.target.address.family() != family) return false;
  if (protocol ? flow.protocol != *protocol : !may_be_classed(flow.protocol)) return false;
  return among(target_ports, flow.target.port) && among(targets, flow.target.address) &&
         among(source_ports, flow.source.port) && among(sources, flow.source.address);
}

bool ClassRule::aims_at(const IpAddress& target) const {
  return target.family() == family && among(targets, target);
}

std::uint32_t Classifier::classify(const FlowKey& flow) const {
  for (const ClassRule& rule : rules_)
    if (rule.matches(flow)) return rule.mark;
  return 0;
}

bool Classifier::aims_at(const IpAddress& target) const {
  return std::ranges::any_of(rules_, [&](const ClassRule& r) { return r.aims_at(target); });
}

std::vector<IpAddress> Classifier::addresses_of(std::uint32_t mark, Family family) const {
  std::vector<IpAddress> addresses;
  for (const ClassRule& rule : rules_) {
    if (rule.mark != mark || rule.family != family) continue;
    for (const AddressRange& range : rule.targets)
      if (range.is_host() && std::ranges::find(addresses, range.first) == addresses.end())
        addresses.push_back(range.first);
  }
  return addresses;
}

}  // namespace director
