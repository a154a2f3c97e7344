// See the header.
#include "director/realserver/setup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <functional>
#include <system_error>

#include "director/realserver/conf_plan.h"
#include "director/realserver/control_socket.h"
#include "director/realserver/decapsulator.h"
#include "director/realserver/ledger_file.h"
#include "director/realserver/proc_conf.h"
#include "director/realserver/status.h"

namespace director::realserver {
namespace {

constexpr const char* kAbsent = "absent";
constexpr const char* kPresent = "present";
constexpr const char* kDown = "down";
constexpr const char* kUp = "up";
constexpr std::string_view kOnLo = "@lo";

/// Without it nothing here can work, and what fails first would name a symptom.
void demand_privilege() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return;
  if ((sets[0].effective & (1U << CAP_NET_ADMIN)) == 0) throw lacks_privilege("set up a real server");
}

void say(const std::string& line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

// --- the kernel's tunnels ----------------------------------------------------------------------------------

/// Each module makes a catch-all interface of this name when it is loaded; where a namespace has none, one is
/// made.
struct KernelTunnel {
  Family inner;
  const char* kind;
  const char* given_name;
  const char* own_name;
};
constexpr std::array kKernelTunnels{
    KernelTunnel{Family::ipv4, "ipip", "tunl0", "vs-ipip0"},
    KernelTunnel{Family::ipv6, "sit", "sit0", "vs-sit0"},
};

const KernelTunnel& tunnel_for(Family inner) {
  return kKernelTunnels[inner == Family::ipv4 ? 0 : 1];
}

// --- changes -----------------------------------------------------------------------------------------------

/// Makes changes and unmakes them. Each is written down before it is made: a crash in between leaves a note,
/// never an unknown change.
class Workshop {
 public:
  Workshop(RtNetlink& kernel, LedgerFile& file) : kernel_(kernel), file_(file) {}

  /// Brings `what` to `wanted`; nothing happens if it is so already.
  void ensure(const Need& need, Change::Kind kind, const std::string& what, const std::string& wanted) {
    const std::string now = current(kind, what);
    if (now == wanted) return;
    const Change change{need, kind, what, now, wanted};
    file_.ledger.changes.push_back(change);
    file_.save();
    make(kind, what, wanted);
    say(format_as(change));
  }

  void undo_unneeded() {
    auto& changes = file_.ledger.changes;
    while (const auto at = file_.ledger.latest_unneeded()) {
      const Change change = changes[*at];
      const std::string now = current(change.kind, change.what);
      if (now == change.after) {
        make(change.kind, change.what, change.before);
        say(format_as(Change{change.need, change.kind, change.what, change.after, change.before}));
      } else if (now != change.before) {
        say(fmt::format("{}: is {} now, not the {} that `up` set: left alone", change.what, now,
                        change.after));
      }
      changes.erase(changes.begin() + static_cast<std::ptrdiff_t>(*at));
      file_.save();
    }
  }

 private:
  std::string current(Change::Kind kind, const std::string& what) {
    switch (kind) {
      case Change::Kind::sysctl: {
        const auto value = read_sysctl(what);
        return value ? fmt::format("{}", *value) : kAbsent;
      }
      case Change::Kind::address: {
        const Prefix wanted = prefix_of(what);
        const auto addresses = kernel_.addresses();
        return std::any_of(addresses.begin(), addresses.end(),
                           [&](const LinkAddress& a) { return a.link == lo() && a.prefix == wanted; })
                   ? kPresent
                   : kAbsent;
      }
      case Change::Kind::link: {
        const auto link = kernel_.link(what);
        return !link ? kAbsent : link->up ? kUp : kDown;
      }
    }
    return kAbsent;
  }

  void make(Change::Kind kind, const std::string& what, const std::string& wanted) {
    try {
      switch (kind) {
        case Change::Kind::sysctl:
          write_sysctl(kernel_, what, std::stoi(wanted));
          return;
        case Change::Kind::address:
          if (wanted == kPresent) kernel_.add_address(lo(), prefix_of(what).address);
          if (wanted == kAbsent) kernel_.remove_address(lo(), prefix_of(what).address);
          return;
        case Change::Kind::link:
          make_link(what, wanted);
          return;
      }
    } catch (const std::system_error& e) {
      const int why = e.code().value();
      if (why == EPERM || why == EACCES) throw lacks_privilege(fmt::format("make {} {}", what, wanted));
      throw Failure(ExitCode::failed,
                    fmt::format("{} could not be made {}: {}", what, wanted, e.code().message()));
    }
  }

  void make_link(const std::string& name, const std::string& wanted) {
    auto link = kernel_.link(name);
    if (wanted == kAbsent) {
      if (link) kernel_.remove_link(link->id);
      return;
    }
    if (!link) {
      for (const KernelTunnel& t : kKernelTunnels)
        if (name == t.own_name) kernel_.add_tunnel(t.kind, name);
      link = kernel_.link(name);
    }
    if (link) kernel_.set_up(link->id, wanted == kUp);
  }

  [[nodiscard]] LinkId lo() {
    const auto link = kernel_.link("lo");
    return link ? link->id : 1;
  }
  static Prefix prefix_of(const std::string& what) {
    const auto prefix = Prefix::parse(std::string_view{what}.substr(0, what.find('@')));
    if (!prefix)
      throw Failure(ExitCode::failed, fmt::format("the ledger speaks of {}, which is no address", what));
    return *prefix;
  }

  RtNetlink& kernel_;
  LedgerFile& file_;
};

// --- what up wants -----------------------------------------------------------------------------------------

/// A VIP on a link would be answered for by ARP there, whatever the sysctls say; with a shorter prefix on lo
/// its whole network would count as this host's own.
void refuse_misplaced(RtNetlink& kernel, const std::vector<IpAddress>& vips) {
  const auto links = kernel.links();
  for (const LinkAddress& a : kernel.addresses()) {
    if (std::find(vips.begin(), vips.end(), a.prefix.address) == vips.end()) continue;
    const auto link = std::find_if(links.begin(), links.end(), [&](const Link& l) { return l.id == a.link; });
    const std::string name = link == links.end() ? "?" : link->name;
    if (name == "lo" && a.prefix.length == a.prefix.address.wire().size() * 8) continue;
    throw Failure(
        ExitCode::failed,
        fmt::format("{} is on {} already, where it can't stay on a real server: ip address del {} dev {}",
                    format_as(a.prefix), name, format_as(a.prefix), name));
  }
}

void quiet_arp(RtNetlink& kernel, Workshop& workshop) {
  std::vector<std::string> links;
  for (const Link& l : kernel.links())
    if (l.ethernet) links.push_back(l.name);
  const Need need{Need::While::any, {}};
  for (const ConfChange& c : plan_arp_ignore(read_conf("arp_ignore"), links, all_scope())) {
    workshop.ensure(need, Change::Kind::sysctl, conf_name(c.scope, "arp_ignore"), fmt::format("{}", c.value));
  }
  for (const ConfChange& c : plan_arp_announce(read_conf("arp_announce"), links, all_scope())) {
    workshop.ensure(need, Change::Kind::sysctl, conf_name(c.scope, "arp_announce"),
                    fmt::format("{}", c.value));
  }
}

void allow_tunnelled_sources(Workshop& workshop, const std::string& tunnel) {
  const auto plan = plan_rp_filter(read_conf("rp_filter"), tunnel);
  const bool all =
      std::any_of(plan.begin(), plan.end(), [](const ConfChange& c) { return c.scope == "all"; });
  if (all && all_scope() == AllScope::read_only) throw read_only_setting(conf_name("all", "rp_filter"), 0);
  for (const ConfChange& c : plan) {
    workshop.ensure({Need::While::tun, {}}, Change::Kind::sysctl, conf_name(c.scope, "rp_filter"),
                    fmt::format("{}", c.value));
  }
}

/// The kernel's tunnel for this family, made and up; false if this kernel has none.
bool use_kernel_tunnel(RtNetlink& kernel, Workshop& workshop, Family inner) {
  const Need need{Need::While::tun, {}};
  auto link = kernel_tunnel(kernel, inner);
  std::string name = link ? link->name : tunnel_for(inner).own_name;
  if (!link) {
    try {  // whether the kernel can is known by trying; the workshop makes it again, on the record
      kernel.add_tunnel(tunnel_for(inner).kind, name);
    } catch (const std::system_error& e) {
      const int why = e.code().value();
      if (why == EPERM || why == EACCES) throw lacks_privilege("make a tunnel interface");
      if (why != EEXIST) return false;  // EOPNOTSUPP: no such module
      throw Failure(
          ExitCode::failed,
          fmt::format("an interface of kind {} that isn't called {} takes all tunnels here: "
                      "remove it or rename it (ip -d link show type {})",
                      tunnel_for(inner).kind, tunnel_for(inner).given_name, tunnel_for(inner).kind));
    }
    if (link = kernel.link(name); link) kernel.remove_link(link->id);
  }
  workshop.ensure(need, Change::Kind::link, name, kUp);
  allow_tunnelled_sources(workshop, name);
  say(fmt::format("{}: the kernel's {} module takes packets out of the tunnel", name,
                  tunnel_for(inner).kind));
  return true;
}

/// Of a service's tunnels those that only realserver's own decapsulator can open: what the kernel's
/// ipip and sit open is left to them.
std::vector<TunnelEnd> own_ends(RtNetlink& kernel, const Service& service) {
  std::vector<TunnelEnd> own = service.ends();
  if (kernel_tunnel(kernel, service.vip.family())) std::erase_if(own, [](const TunnelEnd& e) { return e.is_bare(); });
  return own;
}

/// What realserver's own decapsulator has to do.
Served own_work(RtNetlink& kernel, const Ledger& ledger) {
  Served own;
  for (const Service& service : ledger.services) {
    const std::vector<TunnelEnd> ends = own_ends(kernel, service);
    if (ends.empty()) continue;
    own.vips.push_back(service.vip);
    own.ends.insert(own.ends.end(), ends.begin(), ends.end());
  }
  std::sort(own.ends.begin(), own.ends.end());
  own.ends.erase(std::unique(own.ends.begin(), own.ends.end()), own.ends.end());
  return own;
}

std::vector<std::string> words(const std::vector<IpAddress>& vips) {
  std::vector<std::string> texts;
  for (const IpAddress& vip : vips) texts.push_back(format_as(vip));
  return texts;
}

std::string serve_request(const Served& served) {
  std::vector<std::string> all = words(served.vips);
  for (const TunnelEnd& end : served.ends) all.push_back(format_as(end));
  return fmt::format("serve {}", fmt::join(all, " "));
}

void demand_ok(const std::optional<std::string>& reply) {
  if (reply && *reply != "ok")
    throw Failure(ExitCode::failed, fmt::format("the decapsulator says: {}", *reply));
}

/// Everything but the VIPs themselves.
void prepare(RtNetlink& kernel, LedgerFile& file, const Options& options) {
  refuse_misplaced(kernel, options.vips);
  Workshop workshop(kernel, file);
  if (std::any_of(options.vips.begin(), options.vips.end(), [](const IpAddress& v) { return v.is_v4(); })) {
    quiet_arp(kernel, workshop);
  }
  if (*options.mode == Mode::dr) return;
  bool own = std::any_of(options.tunnels.begin(), options.tunnels.end(), [](const TunnelEnd& t) { return !t.is_bare(); });
  const bool bare = options.tunnels.empty() || std::any_of(options.tunnels.begin(), options.tunnels.end(),
                                                           [](const TunnelEnd& t) { return t.is_bare(); });
  for (const Family family : {Family::ipv4, Family::ipv6}) {
    const bool wanted = std::any_of(options.vips.begin(), options.vips.end(),
                                    [&](const IpAddress& v) { return v.family() == family; });
    if (bare && wanted && !use_kernel_tunnel(kernel, workshop, family)) own = true;
  }
  if (!own) return;
  const auto running = decapsulator_status();
  allow_tunnelled_sources(workshop, running ? running->interface : kTunnelInterface);
}

/// Docker and others start without IPv6 on lo, where a VIP could not even be written down then.
void allow_ipv6(Workshop& workshop, const std::string& interface) {
  const std::string name = conf_name(interface, "disable_ipv6", Family::ipv6);
  if (read_sysctl(name).value_or(0) == 0) return;
  workshop.ensure({Need::While::any, {}}, Change::Kind::sysctl, name, "0");
}

/// The same where our own tunnel's packets come out. The interface goes with its process, so nothing has to be
/// put back.
void allow_ipv6_out_of(RtNetlink& kernel, const std::string& tunnel) {
  const std::string name = conf_name(tunnel, "disable_ipv6", Family::ipv6);
  if (read_sysctl(name).value_or(0) == 0) return;
  if (all_scope() == AllScope::read_only) {  // the interface has its setting from here
    throw read_only_setting(conf_name("default", "disable_ipv6", Family::ipv6), 0);
  }
  write_sysctl(kernel, name, 0);
}

/// Last of all: this host never answers ARP for a VIP, not for a moment, and a VIP on lo means that it is
/// served. `tunnel`: the interface of our own decapsulator, empty if none is needed.
void publish(RtNetlink& kernel, LedgerFile& file, const Options& options, const std::string& tunnel) {
  Workshop workshop(kernel, file);
  workshop.ensure({Need::While::any, {}}, Change::Kind::link, "lo", kUp);
  for (const IpAddress& vip : options.vips) {
    if (!vip.is_v4()) {
      allow_ipv6(workshop, "lo");
      if (!tunnel.empty()) allow_ipv6_out_of(kernel, tunnel);
    }
    const Prefix host{vip, static_cast<std::uint8_t>(vip.wire().size() * 8)};
    workshop.ensure({Need::While::vip, vip}, Change::Kind::address, format_as(host) + std::string{kOnLo},
                    kPresent);
  }
}

// --- the decapsulator's life -------------------------------------------------------------------------------

/// Runs `condition` until it holds or the deadline is over.
template <typename Condition>
bool wait_until(Condition condition, std::chrono::milliseconds deadline) {
  constexpr int kPause = 10;  // ms
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    ::poll(nullptr, 0, kPause);
  }
  return true;
}

/// Called with the interface that packets come out of.
using WhenReady = std::function<void(const std::string& tunnel)>;

std::string own_tunnel() {
  const auto running = decapsulator_status();
  return running ? running->interface : std::string{};
}

std::string introduction(const Decapsulator& d, const Options& options, const Served& served) {
  std::vector<std::string> ends;
  for (const TunnelEnd& end : served.ends) ends.push_back(format_as(end));
  return fmt::format("decapsulator: PID {}, {} from {} to {} ({})", ::getpid(), fmt::join(ends, ", "),
                     options.interface.value_or("all interfaces"), d.injector().name(),
                     d.injector().description());
}

ExitCode run_in_foreground(ControlSocket control, const Options& options, const Served& served,
                           const WhenReady& when_ready) {
  Decapsulator decapsulator(std::move(control), options.interface, served);
  when_ready(decapsulator.injector().name());
  say(introduction(decapsulator, options, served) + "; Ctrl-C ends it, `realserver down` puts back the rest");
  decapsulator.run();
  say("decapsulator: ended\n" + decapsulator.counters());
  return ExitCode::ok;
}

/// The child's word to the parent: its exit code, then a sentence.
void report(int fd, ExitCode code, const std::string& sentence) {
  const std::string text = static_cast<char>(code) + sentence;
  if (::write(fd, text.data(), text.size()) < 0) ::_exit(static_cast<int>(ExitCode::failed));
}

[[noreturn]] void live_as_daemon(UniqueFd parent, ControlSocket control, const Options& options,
                                 const Served& served) {
  ::setsid();
  if (::chdir("/") != 0) ::_exit(static_cast<int>(ExitCode::failed));
  try {
    Decapsulator decapsulator(std::move(control), options.interface, served);
    const UniqueFd nowhere{::open("/dev/null", O_RDWR | O_CLOEXEC)};
    for (const int standard : {0, 1, 2}) ::dup2(nowhere.get(), standard);
    report(parent.get(), ExitCode::ok, introduction(decapsulator, options, served));
    parent = UniqueFd{};
    decapsulator.run();
  } catch (const Failure& failure) {
    report(parent.get(), failure.code(), failure.what());
  } catch (const std::exception& e) {
    report(parent.get(), ExitCode::failed, e.what());
  }
  ::_exit(0);
}

ExitCode run_in_background(ControlSocket control, const Options& options, const Served& served,
                           const WhenReady& when_ready) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::system_error(errno, std::system_category(), "pipe");
  UniqueFd from_child{ends[0]};
  UniqueFd to_parent{ends[1]};
  const pid_t child = ::fork();
  if (child < 0) throw std::system_error(errno, std::system_category(), "fork");
  if (child == 0) {
    from_child = UniqueFd{};
    live_as_daemon(std::move(to_parent), std::move(control), options, served);
  }
  to_parent = UniqueFd{};
  std::string word;
  std::array<char, 512> part;
  for (ssize_t n = 0; (n = ::read(from_child.get(), part.data(), part.size())) > 0;) {
    word.append(part.data(), static_cast<std::size_t>(n));
  }
  if (word.empty()) throw Failure(ExitCode::failed, "the decapsulator died before it could say why");
  const auto code = static_cast<ExitCode>(word.front());
  if (code != ExitCode::ok) throw Failure(code, word.substr(1));
  when_ready(own_tunnel());
  say(word.substr(1));
  return ExitCode::ok;
}

/// Tells a running decapsulator what is left for it, or to end when nothing is.
void keep_decapsulator_for(RtNetlink& kernel, const Served& left) {
  const auto running = decapsulator_status();
  if (!running) {
    remove_left_pair(kernel);
    return;
  }
  if (!left.vips.empty()) {
    demand_ok(ask_decapsulator(serve_request(left)));
    return;
  }
  demand_ok(ask_decapsulator("stop"));
  constexpr std::chrono::seconds kPatience{5};
  const bool ended =
      wait_until([&] { return !decapsulator_runs() && !kernel.link(running->interface); }, kPatience);
  if (!ended)
    throw Failure(ExitCode::failed, fmt::format("the decapsulator (PID {}) does not end", running->pid));
  say(fmt::format("decapsulator: PID {} ended, {} is gone", running->pid, running->interface));
}

/// Takes services out of the ledger and undoes what only they needed. False if none of them was there.
bool withdraw(RtNetlink& kernel, LedgerFile& file, const std::vector<Service>& services) {
  auto& served = file.ledger.services;
  const auto rest = std::remove_if(served.begin(), served.end(), [&](const Service& s) {
    return std::any_of(services.begin(), services.end(), [&](const Service& gone) { return gone.same(s); });
  });
  const bool found = rest != served.end();
  served.erase(rest, served.end());
  const bool tunnelled =
      std::any_of(services.begin(), services.end(), [](const Service& s) { return s.mode == Mode::tun; });
  if (tunnelled) keep_decapsulator_for(kernel, own_work(kernel, file.ledger));
  file.save();
  Workshop(kernel, file).undo_unneeded();
  return found;
}

/// Further tunnels for a service that has some; none named: bare ones.
void extend(Service& service, const std::vector<TunnelEnd>& tunnels) {
  const bool only_bare = tunnels.empty() || tunnels == std::vector{TunnelEnd{}};
  if (service.tunnels.empty() && only_bare) return;
  if (service.tunnels.empty()) service.tunnels.push_back({});
  const auto add = [&](const TunnelEnd& end) {
    if (std::find(service.tunnels.begin(), service.tunnels.end(), end) == service.tunnels.end())
      service.tunnels.push_back(end);
  };
  if (tunnels.empty()) add({});
  for (const TunnelEnd& end : tunnels) add(end);
}

}  // namespace

std::optional<Link> kernel_tunnel(RtNetlink& kernel, Family inner) {
  const KernelTunnel& t = tunnel_for(inner);
  for (const char* name : {t.given_name, t.own_name}) {
    auto link = kernel.link(name);
    if (link && link->kind == t.kind) return link;
  }
  return {};
}

ExitCode up(const Options& options) {
  demand_privilege();
  RtNetlink kernel;
  if (options.interface && !kernel.link(*options.interface)) {
    throw Failure(ExitCode::usage,
                  fmt::format("--interface {}: no such interface (see: ip link)", *options.interface));
  }
  std::vector<Service> fresh;     // what to take back if this goes wrong
  std::vector<Service> extended;  // and how those were that it goes on with
  const WhenReady publish_vips = [&](const std::string& tunnel) {
    LedgerFile file(options.state);
    publish(kernel, file, options, tunnel);
  };
  try {
    Served own;
    {
      LedgerFile file(options.state);
      for (const IpAddress& vip : options.vips) {
        const Service service{*options.mode, vip, options.tunnels};
        if (Service* known = file.ledger.find(service)) {
          extended.push_back(*known);
          extend(*known, options.tunnels);
          continue;
        }
        fresh.push_back(service);
        file.ledger.services.push_back(service);
      }
      file.save();
      prepare(kernel, file, options);
      if (*options.mode == Mode::tun) own = own_work(kernel, file.ledger);
    }  // whoever comes next may have the ledger while the decapsulator runs
    auto control = own.vips.empty() ? std::nullopt : ControlSocket::open();
    if (!control) {
      if (!own.vips.empty()) demand_ok(ask_decapsulator(serve_request(own)));
      publish_vips(own.vips.empty() ? std::string{} : own_tunnel());
      say(fmt::format("{}: ready", fmt::join(words(options.vips), ", ")));
      return ExitCode::ok;
    }
    return options.running == Running::daemon
               ? run_in_background(std::move(*control), options, own, publish_vips)
               : run_in_foreground(std::move(*control), options, own, publish_vips);
  } catch (...) {
    LedgerFile file(options.state);
    for (const Service& before : extended)
      if (Service* now = file.ledger.find(before)) *now = before;
    withdraw(kernel, file, fresh);
    throw;
  }
}

ExitCode down(const Options& options) {
  demand_privilege();
  RtNetlink kernel;
  LedgerFile file(options.state);
  std::vector<Service> services;
  for (const IpAddress& vip : options.vips) services.push_back({*options.mode, vip, {}});

  if (!withdraw(kernel, file, services)) say("nothing to put back: `up` has changed nothing here for that");
  return ExitCode::ok;
}

}  // namespace director::realserver
