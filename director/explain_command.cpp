// Words, then a network made up around the rules, then the packets one after another.
#include "director/explain_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <set>

#include "director/base/startup_error.h"
#include "director/explain.h"
#include "director/io/pcap_file.h"
#include "director/net/headers.h"
#include "director/option_words.h"
#include "director/plan.h"
#include "director/rules_file.h"

namespace director {
namespace {

constexpr std::string_view kUsage =
    "usage: director explain [--rules FILE] [--policy improved|kernel] [--address A]... [--json] PACKET...|CAPTURE\n"
    "  PACKET             packet text, in quotes: 'tcp 10.0.0.1:4000 > 10.9.0.100:80 [S]'; several are a conversation,\n"
    "                     one after another\n"
    "  CAPTURE            a pcap or pcapng file: what came to the director, frame by frame\n"
    "  --address A        an address of the director's own, from which tunnels begin\n"
    "  --rules FILE       services and servers\n"
    "  --policy improved|kernel\n"
    "                     kernel: exactly the kernel's IPVS\n"
    "  --json             the same for programs\n"
    "Everybody is taken to be on the link of one device; vsadm explain asks a running director, which knows better.\n";

constexpr DeviceId kDevice{0};
constexpr MacAddress kMac{{0x02, 0, 0, 0, 0, 0x02}};
constexpr Instant kStart{std::chrono::hours{1}};

struct ExplainOptions {
  bool help = false;
  bool json = false;
  std::string rules;
  Policy policy = Policy::improved;
  std::vector<IpAddress> addresses;
  std::vector<std::string> rest;
};

IpAddress parse_address(OptionWords& words) {
  const std::string text = words.value();
  const auto address = IpAddress::parse(text);
  if (!address) words.refuse(fmt::format("--address: \"{}\" isn't an IP address", text));
  return *address;
}

ExplainOptions parse_explain_options(const std::vector<std::string>& argv) {
  ExplainOptions options;
  OptionWords words{"explain", kUsage, argv};
  while (words.next()) {
    if (words.name == "-h" || words.name == "--help") options.help = true;
    else if (words.name == "--json") options.json = true;
    else if (words.name == "--rules") options.rules = words.value();
    else if (words.name == "--policy") options.policy = words.policy();
    else if (words.name == "--address") options.addresses.push_back(parse_address(words));
    else options.rest.push_back(words.argument());
  }
  if (options.rest.empty() && !options.help) words.refuse("which packet?");
  return options;
}

/// Somebody's MAC, told from the address so that a reader finds it again: 02:00 and the address's last four bytes.
MacAddress made_up_mac(const IpAddress& address) {
  const auto bytes = address.bytes();
  MacAddress mac{{0x02, 0, 0, 0, 0, 0}};
  std::copy(bytes.end() - 4, bytes.end(), mac.bytes.begin() + 2);
  return mac;
}

class Offline {
 public:
  explicit Offline(const ExplainOptions& options) : balancer_(core_options(options)), now_(kStart) {
    // From the ranges for documentation (RFC 5737, RFC 3849): nobody's.
    std::vector<Prefix> addresses{{*IpAddress::parse("192.0.2.254"), 32}, {*IpAddress::parse("2001:db8:ffff::fe"), 128}};
    for (const IpAddress& own : options.addresses) {
      std::erase_if(addresses, [&](const Prefix& p) { return p.address.family() == own.family() && p.address != own; });
      addresses.push_back({own, static_cast<std::uint8_t>(own.is_v4() ? 32 : 128)});
    }
    std::vector<Route> routes;
    for (const Prefix& p : addresses)
      routes.push_back({{p.address.is_v4() ? IpAddress::v4(0) : IpAddress::v6({}), 0}, kDevice, {}, 0, 0, p.address});
    device(kMac);
    tell(SetAddresses{kDevice, std::move(addresses)});
    tell(SetRoutes{std::move(routes)});
    const auto rules = plan_first_rules(balancer_, options.rules);
    if (const auto done = apply_all(balancer_, rules, now_); !done) throw StartupError(ExitCode::configuration, done.error().message);
    for (const Service* service : balancer_.services())
      for (const RealServer* server : service->servers) know(server->config.endpoint.address);
    balancer_.outbox().clear();
  }

  Explained explain_packet(const std::string& text) {
    const auto built = build_frame(text, {}, {});
    if (!built) throw StartupError(ExitCode::usage, built.error().message);
    know_who_sent(built->bytes, {});
    auto one = explain_text(balancer_, text, now_);
    if (!one) throw StartupError(ExitCode::usage, one.error().message);
    next(now_ + std::chrono::milliseconds{1});
    return std::move(*one);
  }

  /// As it came: its MAC addresses are true.
  Explained explain_frame(const CapturedFrame& captured) {
    next(std::max(now_, kStart + captured.time));
    std::vector<std::byte> room(kHeadroom + std::max<std::size_t>(kMaxFrame, captured.bytes.size()));
    Frame frame = frame_in(room, captured.bytes, captured.offload);
    frame.ingress = kDevice;
    if (captured.bytes.size() >= sizeof(EthernetHeader)) {
      const auto& ethernet = header_at<EthernetHeader>(frame.bytes(), 0);
      if (!ethernet.target.is_group() && ethernet.target != mac_) device(ethernet.target);
      know_who_sent(captured.bytes, ethernet.source);
    }
    return explain(balancer_, frame, now_);
  }

 private:
  static Balancer::Options core_options(const ExplainOptions& options) {
    Balancer::Options core;
    core.policy = options.policy;
    core.seed = 1;
    core.announce = false;
    return core;
  }

  void tell(const Change& change) { (void)balancer_.apply(change, now_); }

  void device(const MacAddress& mac) {
    mac_ = mac;
    SetDevice device;
    device.device = kDevice;
    device.name = "eth0";
    device.mac = mac;
    tell(device);
  }

  void know(const IpAddress& address, std::optional<MacAddress> mac = {}) {
    if (address.is_unspecified() || address.is_multicast()) return;
    if (!mac && !known_.insert(format_as(address)).second) return;
    tell(SetNeighbour{kDevice, address, mac.value_or(made_up_mac(address)), true});
  }

  void know_who_sent(std::span<const std::byte> bytes, std::optional<MacAddress> mac) {
    if (const auto source = source_of(bytes)) know(*source, mac);
  }

  void next(Instant time) {
    now_ = time;
    while (balancer_.next_deadline() <= now_) balancer_.expire(now_);
    balancer_.outbox().clear();
  }

  Balancer balancer_;
  Instant now_;
  MacAddress mac_;
  std::set<std::string> known_;
};

bool is_file(const std::string& word) { return word.find(' ') == std::string::npos && access(word.c_str(), F_OK) == 0; }

}  // namespace

int explain_command(const std::vector<std::string>& words) {
  const ExplainOptions options = parse_explain_options(words);
  if (options.help) {
    fmt::print("{}", kUsage);
    return 0;
  }
  Offline offline(options);
  std::vector<Explained> all;
  if (options.rest.size() == 1 && is_file(options.rest[0])) {
    const auto frames = read_pcap(options.rest[0]);
    if (!frames) throw StartupError(ExitCode::configuration, frames.error().message);
    for (const CapturedFrame& frame : *frames)
      if (frame.direction != CapturedFrame::Direction::outbound) all.push_back(offline.explain_frame(frame));
  } else {
    for (const std::string& packet : packets_in(options.rest)) all.push_back(offline.explain_packet(packet));
  }
  if (options.json) {
    fmt::print("{}", explanation_json(all));
    return 0;
  }
  const bool plain = isatty(STDOUT_FILENO) == 0 || std::getenv("NO_COLOR") != nullptr;
  for (const Explained& one : all)
    fmt::print("{}{}", &one == all.data() ? "" : "\n", explanation_text(one, plain ? Colour::off : Colour::on));
  return 0;
}

}  // namespace director
