// See the header. One function a line of the report, in the order a packet meets the things: who draws it
// here (ARP), the tunnel, the address, the way back.
#include "director/realserver/check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "director/io/unique_fd.h"
#include "director/realserver/conf_plan.h"
#include "director/realserver/decapsulate.h"
#include "director/realserver/ledger_file.h"
#include "director/realserver/neighbour_probe.h"
#include "director/realserver/proc_conf.h"
#include "director/realserver/rtnetlink.h"
#include "director/realserver/setup.h"
#include "director/realserver/status.h"

namespace director::realserver {
namespace {

enum class Verdict : std::uint8_t { ok, fix, unknown };

class Report {
 public:
  explicit Report(Notation notation) : notation_(notation) {}
  /// What the next lines are about.
  void begin(const IpAddress& vip, Mode mode) {
    if (notation_ == Notation::text) fmt::print("{} ({})\n", format_as(vip), format_as(mode));
    about_ = {{"vip", format_as(vip)}, {"mode", format_as(mode)}};
  }
  void end() const {
    if (notation_ == Notation::json) fmt::print("{}\n", nlohmann::ordered_json{{"checks", lines_}}.dump(2));
  }
  void ok(std::string_view topic, const std::string& text) { line(Verdict::ok, topic, text); }
  void fix(std::string_view topic, const std::string& text) { line(Verdict::fix, topic, text); }
  void unknown(std::string_view topic, const std::string& text) { line(Verdict::unknown, topic, text); }
  [[nodiscard]] ExitCode exit_code() const {
    return worst_ == Verdict::ok    ? ExitCode::ok
           : worst_ == Verdict::fix ? ExitCode::failed
                                    : ExitCode::lacking;
  }

 private:
  void line(Verdict verdict, std::string_view topic, const std::string& text) {
    constexpr std::array<std::string_view, 3> kWords{"ok", "fix", "?"};
    const std::string_view word = kWords[static_cast<std::size_t>(verdict)];
    if (notation_ == Notation::text) {
      fmt::print("  {:<4}{:<13} {}\n", word, topic, text);
    } else {
      nlohmann::ordered_json line = about_;
      line.update({{"check", topic}, {"verdict", verdict == Verdict::unknown ? "unknown" : word}, {"text", text}});
      lines_.push_back(std::move(line));
    }
    if (worst_ != Verdict::fix) worst_ = std::max(worst_, verdict);
    if (verdict == Verdict::fix) worst_ = Verdict::fix;
  }
  Notation notation_;
  nlohmann::ordered_json about_;
  nlohmann::ordered_json lines_ = nlohmann::ordered_json::array();
  Verdict worst_ = Verdict::ok;
};

using Macs = std::set<MacAddress>;

std::string list(const Macs& macs) {
  std::vector<std::string> texts;
  for (const MacAddress& m : macs) texts.push_back(format_as(m));
  return fmt::format("{}", fmt::join(texts, ", "));
}

std::uint8_t host_length(const IpAddress& a) {
  return static_cast<std::uint8_t>(a.wire().size() * 8);
}

/// Everything the lines below look at, read once.
class Checker {
 public:
  Checker(const Options& options, Report& report)
      : options_(options), report_(report), links_(kernel_.links()), addresses_(kernel_.addresses()) {}

  void check(const Service& service) {
    const Mode mode = service.mode;
    const IpAddress& vip = service.vip;
    report_.begin(vip, mode);
    check_address(mode, vip);
    if (vip.is_v4()) {
      check_sysctls();
    } else {
      check_advertisements(vip);
      if (mode == Mode::dr) check_ipv6(inputs());
    }
    check_neighbours(mode, vip);
    if (mode == Mode::tun) check_tunnel(service);
    check_way_back(vip);
    check_mtu(service);
  }

 private:
  // --- lines -----------------------------------------------------------------------------------------------

  void check_address(Mode mode, const IpAddress& vip) {
    const std::string host = format_as(Prefix{vip, host_length(vip)});
    bool on_lo = false;
    for (const LinkAddress& a : addresses_) {
      if (a.prefix.address != vip) continue;
      const std::string name = name_of(a.link);
      if (name == "lo" && a.prefix.length == host_length(vip)) {
        on_lo = true;
        continue;
      }
      report_.fix("address", fmt::format("{} on {}: ip address del {} dev {}", format_as(a.prefix), name,
                                         format_as(a.prefix), name));
    }
    if (on_lo) {
      report_.ok("address", host + " on lo");
    } else {
      report_.fix("address", fmt::format("not on lo: realserver up --mode {} --vip {}", format_as(mode),
                                         format_as(vip)));
    }
  }

  /// What this host itself would answer can't be asked from the outside; the kernel's settings decide it.
  void check_sysctls() {
    const ConfValues ignore = read_conf("arp_ignore");
    const ConfValues announce = read_conf("arp_announce");
    for (const Link& link : inputs()) {
      const int i = effective(ignore, link.name);
      if (keeps_quiet(i)) {
        report_.ok("arp_ignore", fmt::format("{} on {}", i, link.name));
      } else {
        report_.fix("arp_ignore",
                    fmt::format("{} on {}, this host answers ARP for the VIP: sysctl -w {}=1", i, link.name,
                                conf_name(i > 2 ? link.name : "all", "arp_ignore")));
      }
      const int a = effective(announce, link.name);
      if (a >= kAnnounceBest) {
        report_.ok("arp_announce", fmt::format("{} on {}", a, link.name));
      } else {
        report_.fix("arp_announce",
                    fmt::format("{} on {}, the VIP can stand in ARP requests of this host: sysctl -w {}=2", a,
                                link.name, conf_name("all", "arp_announce")));
      }
    }
  }

  /// IPv6 has no arp_ignore and needs none: an address of lo is never advertised on another link, whatever the
  /// settings there (ndisc_recv_ns() in the kernel's net/ipv6/ndisc.c), except by a host that is told to be a
  /// proxy for it.
  void check_advertisements(const IpAddress& vip) {
    const auto entries = kernel_.proxied();
    for (const Link& link : inputs()) {
      const bool entry = std::any_of(entries.begin(), entries.end(), [&](const LinkAddress& e) {
        return e.link == link.id && e.prefix.address == vip;
      });
      const bool proxy = setting6("all", "proxy_ndp") != 0 || setting6(link.name, "proxy_ndp") != 0;
      if (entry && proxy && setting6(link.name, "forwarding") != 0) {
        report_.fix("nd",
                    fmt::format("as a proxy this host answers solicitations for the VIP on {}: ip neigh del "
                                "proxy {} dev {}",
                                link.name, format_as(vip), link.name));
      } else {
        report_.ok("nd", fmt::format("an address of lo is not advertised on {}", link.name));
      }
    }
  }

  /// Docker and others start without IPv6 on some links, or on all.
  void check_ipv6(const std::vector<Link>& links) {
    for (const Link& link : links) {
      const std::string name = conf_name(link.name, "disable_ipv6", Family::ipv6);
      if (read_sysctl(name).value_or(1) != 0)
        report_.fix("ipv6", fmt::format("off on {}: sysctl -w {}=0", link.name, name));
    }
  }

  void check_neighbours(Mode mode, const IpAddress& vip) {
    const std::string_view topic = vip.is_v4() ? "arp" : "neighbours";
    for (const Link& link : inputs()) {
      const auto macs = who_has(link, vip);
      if (!macs) {
        report_.unknown(topic, "not asked: CAP_NET_RAW is needed to send the question (run it as root)");
        return;
      }
      directors_[link.id].insert(macs->begin(), macs->end());
      const bool local = on_link(link, vip);
      if (macs->size() > 1) {
        report_.fix(
            topic,
            fmt::format("{} hosts answer for {} on {}: {}; all but the director must be silent: on those "
                        "that are real servers, realserver up",
                        macs->size(), format_as(vip), link.name, list(*macs)));
      } else if (macs->size() == 1) {
        report_.ok(topic, fmt::format("{} alone answers for {} on {}: the director", list(*macs),
                                      format_as(vip), link.name));
      } else if (mode == Mode::dr && local) {
        report_.fix(
            topic,
            fmt::format("nobody answers for {} on {}: start the director on this link (director --device "
                        "packet:... --rules ...)",
                        format_as(vip), link.name));
      } else {
        report_.ok(topic, fmt::format("nobody answers for {} on {}, nor has to{}", format_as(vip), link.name,
                                      local ? ": tunnels come from anywhere"
                                            : ", where it isn't a neighbour's address"));
      }
    }
  }

  void check_tunnel(const Service& service) {
    const IpAddress& vip = service.vip;
    std::vector<TunnelEnd> ends = service.ends();
    const bool bare = std::any_of(ends.begin(), ends.end(), [](const TunnelEnd& e) { return e.is_bare(); });
    const auto kernels = bare ? kernel_tunnel(kernel_, vip.family()) : std::nullopt;
    if (kernels) std::erase_if(ends, [](const TunnelEnd& e) { return e.is_bare(); });
    const auto own = decapsulator_status();
    const std::string up =
        fmt::format("realserver up --mode tun --vip {}{} --daemon", format_as(vip), tunnel_words(service));
    std::string interface;
    if (kernels) {
      interface = kernels->name;
      if (kernels->up) {
        report_.ok("tunnel", fmt::format("{}, the kernel's {} module", interface, kernels->kind));
      } else {
        report_.fix("tunnel", fmt::format("{} is down: ip link set {} up", interface, interface));
      }
    }
    if (!ends.empty() && !own) {
      report_.fix("tunnel", fmt::format("no decapsulator runs, and this kernel has none: {}", up));
      return;
    }
    if (!ends.empty()) {
      interface = own->interface;
      const bool serves = std::find(own->vips.begin(), own->vips.end(), format_as(vip)) != own->vips.end();
      const auto closed = std::find_if(ends.begin(), ends.end(), [&](const TunnelEnd& e) {
        return std::find(own->tunnels.begin(), own->tunnels.end(), format_as(e)) == own->tunnels.end();
      });
      if (!serves) {
        report_.fix("tunnel",
                    fmt::format("the decapsulator (PID {}) doesn't serve this VIP: {}", own->pid, up));
      } else if (closed != ends.end()) {
        report_.fix("tunnel",
                    fmt::format("the decapsulator (PID {}) doesn't open {}: {}", own->pid, format_as(*closed), up));
      } else {
        report_.ok("tunnel", describe(*own));
      }
    }
    if (!vip.is_v4()) {  // which has no rp_filter
      if (const auto link = kernel_.link(interface)) check_ipv6({*link});
      return;
    }
    const ConfValues filter = read_conf("rp_filter");
    const int value = effective(filter, interface);
    if (value == 0) {
      report_.ok("rp_filter", fmt::format("0 on {}", interface));
    } else {
      const bool all = filter.count("all") != 0 && filter.at("all") != 0;
      report_.fix("rp_filter",
                  fmt::format("{} on {}, packets out of the tunnel are dropped: sysctl -w {}=0", value,
                              interface, conf_name(all ? "all" : interface, "rp_filter")));
    }
  }

  void check_way_back(const IpAddress& vip) {
    const auto to =
        options_.client && options_.client->family() == vip.family() ? options_.client : std::nullopt;
    const auto route = to ? kernel_.route_to(*to, vip) : kernel_.default_route(vip.family());
    if (to && !route) {
      report_.fix("way back",
                  fmt::format("no route to {}: ip route add {} via ROUTER", format_as(*to), format_as(*to)));
      return;
    }
    const std::string whom = to ? format_as(*to) : "clients";
    if (!route) {
      report_.ok("way back",
                 fmt::format("no default route: only clients on this host's own subnets{} can be answered",
                             subnets(vip.family())));
      return;
    }
    const std::string by = name_of(route->link);
    if (!route->gateway) {
      report_.ok("way back", fmt::format("to {} directly by {}", whom, by));
      return;
    }
    const Link* const link = find(route->link);
    const auto gateway = link == nullptr ? std::nullopt : who_has(*link, *route->gateway);
    const Macs& directors = directors_[route->link];
    const bool through_director =
        gateway && std::any_of(gateway->begin(), gateway->end(),
                               [&](const MacAddress& m) { return directors.contains(m); });
    const std::string text = fmt::format("to {} by {} on {}", whom, format_as(*route->gateway), by);
    if (through_director) {
      report_.fix(
          "way back",
          fmt::format("{}, which is the director ({}): only VS/NAT replies go there: ip route replace "
                      "{} via ROUTER dev {}",
                      text, list(*gateway), to ? format_as(*to) : "default", by));
    } else if (gateway && gateway->empty()) {
      report_.fix("way back",
                  fmt::format("{}, but {} doesn't answer there: correct the route or start the router", text,
                              format_as(*route->gateway)));
    } else {
      report_.ok("way back", text);
    }
  }

  void check_mtu(const Service& service) {
    const Mode mode = service.mode;
    const IpAddress& vip = service.vip;
    constexpr std::uint32_t kLeast4 = 576;   // RFC 791: what every host must take
    constexpr std::uint32_t kLeast6 = 1280;  // RFC 8200, 5
    std::uint32_t overhead = 0;
    for (const TunnelEnd& end : service.ends()) overhead = std::max(overhead, most_overhead(end));
    const std::uint32_t least = (vip.is_v4() ? kLeast4 : kLeast6) + overhead;
    for (const Link& link : inputs()) {
      if (link.mtu < least) {
        report_.fix("mtu", fmt::format("{} on {}, too small: ip link set {} mtu 1500", link.mtu, link.name,
                                       link.name));
      } else if (mode == Mode::tun) {
        report_.ok(
            "mtu",
            fmt::format(
                "{} on {}: tunnelled packets up to {} bytes; the director tells senders of longer ones",
                link.mtu, link.name, link.mtu - overhead));
      } else {
        report_.ok("mtu", fmt::format("{} on {}", link.mtu, link.name));
      }
    }
  }

  // --- what they ask ---------------------------------------------------------------------------------------

  /// The links packets for the VIP can come from: the one named, else all that speak ARP and have an address.
  [[nodiscard]] std::vector<Link> inputs() const {
    std::vector<Link> found;
    for (const Link& l : links_) {
      const bool wanted = options_.interface ? l.name == *options_.interface
                                             : l.ethernet && l.up && !l.enslaved && !l.name.starts_with("vs-") &&
                                                   std::any_of(addresses_.begin(), addresses_.end(), [&](const LinkAddress& a) {
                                                     return a.link == l.id && !a.link_local;
                                                   });
      if (wanted) found.push_back(l);
    }
    return found;
  }
  [[nodiscard]] static int setting6(std::string_view scope, std::string_view key) {
    return read_sysctl(conf_name(scope, key, Family::ipv6)).value_or(0);
  }
  [[nodiscard]] const Link* find(LinkId id) const {
    const auto at = std::find_if(links_.begin(), links_.end(), [&](const Link& l) { return l.id == id; });
    return at == links_.end() ? nullptr : &*at;
  }
  [[nodiscard]] std::string name_of(LinkId id) const {
    const Link* const link = find(id);
    return link == nullptr ? "?" : link->name;
  }
  [[nodiscard]] bool on_link(const Link& link, const IpAddress& a) const {
    return std::any_of(addresses_.begin(), addresses_.end(), [&](const LinkAddress& own) {
      return own.link == link.id && own.prefix.length < host_length(a) && own.prefix.contains(a);
    });
  }
  [[nodiscard]] std::string subnets(Family family) const {
    std::vector<std::string> found;
    for (const LinkAddress& a : addresses_) {
      if (a.prefix.address.family() != family || a.link_local || a.prefix.address.is_loopback()) continue;
      if (a.prefix.length == host_length(a.prefix.address)) continue;
      found.push_back(format_as(Prefix{a.prefix.network(), a.prefix.length}));
    }
    return found.empty() ? "" : fmt::format(" ({})", fmt::join(found, ", "));
  }
  /// An address of the link to ask with: link-local for IPv6, as the kernel does.
  [[nodiscard]] IpAddress source_on(const Link& link, const IpAddress& asked) const {
    IpAddress source = asked.is_v4() ? IpAddress{} : IpAddress::v6({});
    for (const LinkAddress& a : addresses_) {
      if (a.link != link.id || a.prefix.address.family() != asked.family()) continue;
      if (source.is_unspecified() || a.link_local) source = a.prefix.address;
    }
    return source;
  }

  /// Everybody who says on this link that the address is his. None if asking isn't allowed.
  std::optional<Macs> who_has(const Link& link, const IpAddress& asked) {
    const auto [at, fresh] = asked_.try_emplace({link.id, asked});
    if (fresh) at->second = ask(link, asked);
    return at->second;
  }

  [[nodiscard]] std::optional<Macs> ask(const Link& link, const IpAddress& asked) const {
    Macs macs;
    if (!link.ethernet || !link.up) return macs;
    const UniqueFd fd{::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)};
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_protocol = Be16{static_cast<std::uint16_t>(probe_type(asked))}.raw();
    to.sll_ifindex = link.id;
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) return {};

    constexpr int kQuestions = 3;
    constexpr std::chrono::milliseconds kWait{
        100};  // after each; a second host that answers is often the slower
    const auto question = probe_frame(link.mac, source_on(link, asked), asked);
    for (int i = 0; i < kQuestions; ++i) {
      if (::send(fd.get(), question.data(), question.size(), 0) < 0) break;
      const auto end = std::chrono::steady_clock::now() + kWait;
      while (true) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
        pollfd readable{fd.get(), POLLIN, 0};
        if (left.count() <= 0 || ::poll(&readable, 1, static_cast<int>(left.count())) <= 0) break;
        std::array<std::byte, 2048> frame;
        sockaddr_ll from{};
        socklen_t size = sizeof from;
        const ssize_t n =
            ::recvfrom(fd.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
        if (n <= 0 || from.sll_pkttype == PACKET_OUTGOING) continue;
        if (const auto mac = claimed_by(std::span{frame}.first(static_cast<std::size_t>(n)), asked))
          macs.insert(*mac);
      }
    }
    return macs;
  }

  /// The most a tunnel of that kind adds, in IPv4: GRE's checksum counted in, GUE's remote checksum not.
  static std::uint32_t most_overhead(const TunnelEnd& end) {
    constexpr std::uint32_t kIpv4 = 20;
    switch (end.kind) {
      case TunnelEnd::Kind::ipip:
      case TunnelEnd::Kind::sit:
        return kIpv4;
      case TunnelEnd::Kind::gre:
        return kIpv4 + 8;
      case TunnelEnd::Kind::gue:
        break;
    }
    return kIpv4 + 12;
  }

  /// The options of `up` that name a service's tunnels.
  static std::string tunnel_words(const Service& service) {
    std::string words;
    for (const TunnelEnd& end : service.tunnels) {
      const bool gue = end.kind == TunnelEnd::Kind::gue;
      words += gue ? fmt::format(" --tun-type gue --tun-port {}", end.port.host())
                   : fmt::format(" --tun-type {}", end.is_bare() ? "ipip" : "gre");
    }
    return words;
  }

  static std::string describe(const DecapsulatorStatus& own) {
    std::uint64_t delivered = 0;
    std::uint64_t dropped = 0;
    std::vector<std::string> why;
    for (const auto& [name, count] : own.counts) {
      if (name == kFates[0].name) {
        delivered = count;
      } else {
        dropped += count;
        why.push_back(fmt::format("{} {}", name, count));
      }
    }
    const std::string where =
        own.user_space.empty() ? "in the kernel" : fmt::format("in user space ({})", own.user_space);
    return fmt::format("{} ({}), PID {}, {} from {}, opened {}: {} packets in, {} dropped{}", own.interface, own.way,
                       own.pid, fmt::join(own.tunnels, ", "), own.input, where, delivered, dropped,
                       why.empty() ? "" : fmt::format(" ({})", fmt::join(why, ", ")));
  }

  const Options& options_;
  Report& report_;
  RtNetlink kernel_;
  std::vector<Link> links_;
  std::vector<LinkAddress> addresses_;
  std::map<LinkId, Macs> directors_;                                   ///< who answers for the VIPs, by link
  std::map<std::pair<LinkId, IpAddress>, std::optional<Macs>> asked_;  ///< answers so far
};

}  // namespace

ExitCode check(const Options& options) {
  const Ledger ledger = LedgerFile::peek(options.state);
  std::vector<Service> services;
  for (const Service& s : ledger.services) {
    const bool asked = options.vips.empty() ||
                       std::find(options.vips.begin(), options.vips.end(), s.vip) != options.vips.end();
    if (asked && (!options.mode || s.mode == *options.mode)) services.push_back(s);
  }
  for (const IpAddress& vip : options.vips) {  // set up by other means, or not at all
    const bool known =
        std::any_of(services.begin(), services.end(), [&](const Service& s) { return s.vip == vip; });
    if (!known) services.push_back({options.mode.value_or(Mode::dr), vip, options.tunnels});
  }
  if (services.empty()) {
    throw Failure(ExitCode::failed, "no VIP is set up here: realserver up, or name one with --vip");
  }
  Report report(options.notation);
  Checker checker(options, report);
  for (const Service& s : services) checker.check(s);
  report.end();
  return report.exit_code();
}

}  // namespace director::realserver
