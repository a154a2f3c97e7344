// net.ipv4.conf.* and net.ipv6.conf.*: the kernel's settings per interface, by /proc/sys and, for a single
// interface's IPv4, by netlink.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "director/realserver/conf_plan.h"
#include "director/realserver/failure.h"
#include "director/realserver/rtnetlink.h"

namespace director::realserver {

/// "net.ipv4.conf.all.arp_ignore". A dot in an interface's name is written as a slash, as sysctl(8) does.
[[nodiscard]] std::string conf_name(std::string_view scope, std::string_view key,
                                    Family family = Family::ipv4);

/// The IPv4 key's value in every scope there is.
[[nodiscard]] ConfValues read_conf(std::string_view key);
[[nodiscard]] std::optional<int> read_sysctl(std::string_view name);
[[nodiscard]] AllScope all_scope();
/// What to say when a container's /proc/sys stands in the way of a setting netlink can't make.
[[nodiscard]] Failure read_only_setting(const std::string& name, int value);
/// By /proc/sys; an interface's value by netlink where /proc/sys is read-only. Throws Failure with the cure.
void write_sysctl(RtNetlink& kernel, const std::string& name, int value);

}  // namespace director::realserver
