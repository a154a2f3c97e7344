// Which of the kernel's per-interface IPv4 settings (net.ipv4.conf.SCOPE.KEY) a real server has to change:
// decided here, read and written elsewhere (director/realserver/proc_conf.h).
//
// SCOPE is "all", "default" or an interface. For the three keys used here the kernel takes the larger of
// "all" and the interface's own value (linux/inetdevice.h: IN_DEV_ARP_IGNORE, IN_DEV_ARP_ANNOUNCE,
// IN_DEV_RPFILTER).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace director::realserver {

/// One key's values by scope.
using ConfValues = std::map<std::string, int, std::less<>>;

struct ConfChange {
  std::string scope;
  int value = 0;
  friend bool operator==(const ConfChange&, const ConfChange&) = default;
};

/// Whether this process may change the scope "all"; a container's /proc/sys is often read-only, while an
/// interface's own value can still be set by netlink.
enum class AllScope : std::uint8_t { writable, read_only };

/// What holds for an interface: the larger of its own value and that of "all"; a scope without a value counts
/// 0.
[[nodiscard]] int effective(const ConfValues& values, std::string_view interface);

/// arp_ignore: whether a host answers ARP for an address that lives on another interface (lo). Only these
/// values keep it quiet: 1 and 2 (answer only for the interface's own addresses), 8 (never answer).
/// Documentation/networking/ip-sysctl.rst.
[[nodiscard]] bool keeps_quiet(int arp_ignore);
/// arp_announce: 2, so that a VIP never stands as sender in an ARP request of this host.
inline constexpr int kAnnounceBest = 2;

[[nodiscard]] std::vector<ConfChange> plan_arp_ignore(const ConfValues& values,
                                                      std::span<const std::string> links, AllScope all);
[[nodiscard]] std::vector<ConfChange> plan_arp_announce(const ConfValues& values,
                                                        std::span<const std::string> links, AllScope all);

/// rp_filter must be 0 where tunnelled packets appear: they come from clients whom this host reaches by
/// another interface. If "all" must come down for that, every other interface (and "default") is first raised
/// to what "all" gave it.
[[nodiscard]] std::vector<ConfChange> plan_rp_filter(const ConfValues& values, std::string_view tunnel);

}  // namespace director::realserver
