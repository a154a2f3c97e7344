// See the header.
#include "director/realserver/proc_conf.h"

#include <fmt/format.h>
#include <linux/ip.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace director::realserver {
namespace {

constexpr std::string_view kRoot = "/proc/sys/net/ipv4/conf";
constexpr std::string_view kPrefix = "net.ipv4.conf.";
constexpr std::string_view kPrefix6 = "net.ipv6.conf.";

/// sysctl(8): dots separate, and a slash stands for a dot inside a name.
std::string path_of(std::string_view name) {
  std::string path{name};
  for (char& c : path) c = c == '.' ? '/' : c == '/' ? '.' : c;
  return "/proc/sys/" + path;
}

struct Setting {
  std::string_view key;
  std::uint16_t number;
};
constexpr std::array kSettings{
    Setting{"arp_ignore", IPV4_DEVCONF_ARP_IGNORE},
    Setting{"arp_announce", IPV4_DEVCONF_ARP_ANNOUNCE},
    Setting{"rp_filter", IPV4_DEVCONF_RP_FILTER},
};

/// An interface's own setting by netlink, which a read-only /proc/sys does not stop.
bool write_by_netlink(RtNetlink& kernel, std::string_view name, int value) {
  if (!name.starts_with(kPrefix)) return false;
  const std::string_view rest = name.substr(kPrefix.size());
  const std::size_t dot = rest.rfind('.');
  if (dot == std::string_view::npos) return false;
  std::string interface { rest.substr(0, dot) };
  std::replace(interface.begin(), interface.end(), '/', '.');
  const auto link = kernel.link(interface);
  const auto* const setting = std::find_if(kSettings.begin(), kSettings.end(),
                                           [&](const Setting& s) { return s.key == rest.substr(dot + 1); });
  if (!link || setting == kSettings.end()) return false;
  kernel.set_ipv4_conf(link->id, setting->number, static_cast<std::uint32_t>(value));
  return true;
}

}  // namespace

std::string conf_name(std::string_view scope, std::string_view key, Family family) {
  std::string safe{scope};
  std::replace(safe.begin(), safe.end(), '.', '/');
  return fmt::format("{}{}.{}", family == Family::ipv4 ? kPrefix : kPrefix6, safe, key);
}

std::optional<int> read_sysctl(std::string_view name) {
  std::ifstream in(path_of(name));
  int value = 0;
  return in >> value ? std::optional{value} : std::nullopt;
}

ConfValues read_conf(std::string_view key) {
  ConfValues values;
  std::error_code ignored;
  for (const auto& scope : std::filesystem::directory_iterator(kRoot, ignored)) {
    const std::string name = scope.path().filename();
    if (const auto value = read_sysctl(conf_name(name, key))) values[name] = *value;
  }
  return values;
}

AllScope all_scope() {
  const std::string path = path_of(conf_name("all", "arp_ignore"));
  return ::access(path.c_str(), W_OK) == 0 ? AllScope::writable : AllScope::read_only;
}

Failure read_only_setting(const std::string& name, int value) {
  return {
      ExitCode::lacking,
      fmt::format("{} must be {} and /proc/sys is read-only here: start the container with --sysctl {}={}",
                  name, value, name, value)};
}

void write_sysctl(RtNetlink& kernel, const std::string& name, int value) {
  const std::string path = path_of(name);
  errno = 0;
  std::ofstream out(path);
  out << value << std::endl;
  if (out) return;
  const int why = errno;
  if (why == ENOENT) throw Failure(ExitCode::failed, fmt::format("{}: no such setting", name));
  if (write_by_netlink(kernel, name, value)) return;
  if (::access(path.c_str(), W_OK) != 0 && errno == EROFS) {
    throw read_only_setting(name, value);
  }
  throw lacks_privilege(fmt::format("set {}={}", name, value));
}

}  // namespace director::realserver
