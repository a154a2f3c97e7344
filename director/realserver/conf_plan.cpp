// See the header.
#include "director/realserver/conf_plan.h"

#include <algorithm>

namespace director::realserver {
namespace {

constexpr int kIgnoreForeign = 1;

int value_of(const ConfValues& values, std::string_view scope) {
  const auto at = values.find(scope);
  return at == values.end() ? 0 : at->second;
}

}  // namespace

int effective(const ConfValues& values, std::string_view interface) {
  return std::max(value_of(values, "all"), value_of(values, interface));
}

bool keeps_quiet(int arp_ignore) {
  return arp_ignore == 1 || arp_ignore == 2 || arp_ignore == 8;
}

std::vector<ConfChange> plan_arp_ignore(const ConfValues& values, std::span<const std::string> links,
                                        AllScope all) {
  std::vector<ConfChange> plan;
  ConfValues after = values;
  if (all == AllScope::writable && !keeps_quiet(value_of(values, "all"))) {
    plan.push_back({"all", kIgnoreForeign});
    after["all"] = kIgnoreForeign;
  }
  for (const std::string& link : links)
    if (!keeps_quiet(effective(after, link))) plan.push_back({link, kIgnoreForeign});
  return plan;
}

std::vector<ConfChange> plan_arp_announce(const ConfValues& values, std::span<const std::string> links,
                                          AllScope all) {
  std::vector<ConfChange> plan;
  if (value_of(values, "all") >= kAnnounceBest) return plan;
  if (all == AllScope::writable) return {{"all", kAnnounceBest}};
  for (const std::string& link : links)
    if (effective(values, link) < kAnnounceBest) plan.push_back({link, kAnnounceBest});
  return plan;
}

std::vector<ConfChange> plan_rp_filter(const ConfValues& values, std::string_view tunnel) {
  std::vector<ConfChange> plan;
  const int all = value_of(values, "all");
  if (all > 0) {
    for (const auto& [scope, value] : values)
      if (scope != "all" && scope != tunnel && value < all) plan.push_back({scope, all});
    plan.push_back({"all", 0});
  }
  if (value_of(values, tunnel) > 0) plan.push_back({std::string{tunnel}, 0});
  return plan;
}

}  // namespace director::realserver
