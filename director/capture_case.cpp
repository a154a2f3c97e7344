// Reading a capture case: JSON and rules in, Changes and steps out. Every error says where it is and what was expected there.
#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "director/class_text.h"
#include "director/core/tunables.h"
#include "director/net/packet.h"
#include "director/replay.h"
#include "director/rules.h"

namespace director {
namespace {

using Json = nlohmann::json;
constexpr DeviceId kDevice{0};
constexpr std::string_view kIpvsKnobs = "net.ipv4.vs.";

/// Thrown inside this file only; load_case() returns it.
struct BadCase : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename... Args>
[[noreturn]] void bad(fmt::format_string<Args...> form, Args&&... args) {
  throw BadCase(fmt::format(form, std::forward<Args>(args)...));
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in) bad("{}: cannot be read: {}", path, std::strerror(errno));
  return text.str();
}

bool exists(const std::string& path) {
  return std::ifstream(path).good();
}

Json read_json(const std::string& path) {
  try {
    return Json::parse(read_file(path));
  } catch (const Json::parse_error& error) {
    bad("{}: not JSON: {}", path, error.what());
  }
}

/// A value of a JSON file and the way to it, for messages: case.json: director.mac.
class Node {
 public:
  Node(const Json& json, std::string where) : json_(&json), where_(std::move(where)) {}

  [[nodiscard]] bool has(std::string_view name) const { return json_->is_object() && json_->contains(name); }
  [[nodiscard]] Node at(std::string_view name, std::string_view expected) const {
    const std::string where = where_ + (where_.ends_with(": ") ? "" : ".") + std::string{name};
    if (!has(name)) bad("{} is missing: expected {}", where, expected);
    return {json_->at(std::string{name}), where};
  }
  [[nodiscard]] std::vector<Node> items(std::string_view expected) const {
    if (!json_->is_array()) wrong(expected);
    std::vector<Node> nodes;
    for (std::size_t i = 0; i < json_->size(); ++i)
      nodes.emplace_back((*json_)[i], fmt::format("{}[{}]", where_, i));
    return nodes;
  }
  [[nodiscard]] std::vector<std::pair<std::string, Node>> members(std::string_view expected) const {
    if (!json_->is_object()) wrong(expected);
    std::vector<std::pair<std::string, Node>> nodes;
    for (const auto& [name, value] : json_->items())
      nodes.emplace_back(name, Node{value, fmt::format("{}[\"{}\"]", where_, name)});
    return nodes;
  }
  [[nodiscard]] std::string text(std::string_view expected) const {
    if (!json_->is_string()) wrong(expected);
    return json_->get<std::string>();
  }
  [[nodiscard]] std::int64_t integer(std::int64_t least, std::int64_t most, std::string_view expected) const {
    if (!json_->is_number_integer() || json_->get<std::int64_t>() < least ||
        json_->get<std::int64_t>() > most)
      wrong(expected);
    return json_->get<std::int64_t>();
  }
  [[nodiscard]] Duration seconds() const {
    constexpr double kMost = 1e9;
    if (!json_->is_number() || !(json_->get<double>() >= 0) || json_->get<double>() > kMost)
      wrong("a number of seconds");
    return Duration{static_cast<Duration::rep>(std::llround(json_->get<double>() * 1e9))};
  }
  [[nodiscard]] bool is_integer() const { return json_->is_number_integer(); }
  [[nodiscard]] bool is_text() const { return json_->is_string(); }
  [[nodiscard]] std::string dump() const { return json_->dump(); }
  [[nodiscard]] const std::string& where() const { return where_; }

  template <typename T>
  T parsed(std::optional<T> (*parse)(std::string_view), std::string_view expected) const {
    const std::optional<T> value = parse(text(expected));
    if (!value) wrong(expected);
    return *value;
  }

  [[noreturn]] void wrong(std::string_view expected) const {
    bad("{}: expected {}, found {}", where_, expected, json_->dump());
  }

 private:
  const Json* json_;
  std::string where_;
};

constexpr std::string_view kAddress = "an IP address such as \"10.9.0.1\"";
constexpr std::string_view kPrefix = "an address with its prefix length such as \"10.9.0.2/24\"";
constexpr std::string_view kMac = "a MAC address such as \"02:00:00:00:00:02\"";

// --- the network ----------------------------------------------------------------------------------------------------

/// What case.json says of addresses and routes, until all of it is read.
struct Links {
  std::vector<Prefix> addresses;
  std::vector<Route> routes;
};

/// One line of `ip`, as iproute2 takes it: what replays need of it.
void apply_ip_line(const std::string& line, const std::string& where, Links& links) {
  constexpr std::string_view kExpected =
      "route add|replace|del PREFIX [via A] [dev D] [mtu N] [metric N] [src A], or address add|del PREFIX "
      "dev D";
  std::istringstream in(line);
  std::string object;
  std::string verb;
  std::string name;
  in >> object >> verb >> name;
  const auto wrong = [&]() { bad("{}: \"{}\": expected {}", where, line, kExpected); };
  const auto prefix =
      name == "default" ? Prefix{IpAddress{}, 0} : Prefix::parse(name).value_or(Prefix{IpAddress{}, 255});
  if (prefix.length == 255) wrong();
  if (object == "address" || object == "addr") {
    std::erase_if(links.addresses, [&](const Prefix& p) { return p == prefix; });
    if (verb == "add") links.addresses.push_back(prefix);
    if (verb != "add" && verb != "del") wrong();
    return;
  }
  if (object != "route" || (verb != "add" && verb != "replace" && verb != "del")) wrong();
  Route route;
  route.destination = prefix;
  route.device = kDevice;
  std::string key;
  std::string value;
  while (in >> key >> value) {
    const auto address = IpAddress::parse(value);
    std::uint32_t number = 0;
    const bool is_number =
        std::from_chars(value.data(), value.data() + value.size(), number).ec == std::errc{};
    if (key == "via" && address)
      route.via = address;
    else if (key == "src" && address)
      route.source = address;
    else if (key == "mtu" && is_number)
      route.mtu = number;
    else if (key == "metric" && is_number)
      route.metric = number;
    else if (key != "dev")
      wrong();
  }
  if (verb != "add")
    std::erase_if(links.routes, [&](const Route& r) { return r.destination == route.destination; });
  if (verb != "del") links.routes.push_back(route);
}

/// One knob by the kernel's full name. One that means nothing here is left alone, with a warning.
std::vector<SetTunable> read_knob(const std::string& name, const Node& value, CaptureCase& into) {
  const std::string_view knob = std::string_view{name}.substr(std::min(kIpvsKnobs.size(), name.size()));
  if (!name.starts_with(kIpvsKnobs) || find_tunable(knob) == nullptr) {
    into.warnings.push_back(fmt::format("{}: {}: no such knob here, left alone", value.where(), name));
    return {};
  }
  auto knobs = read_tunable(knob, value.is_text() ? value.text("") : value.dump());
  if (!knobs) value.wrong(knobs.error().message);
  return *knobs;
}

void read_sysctls(const Node& node, CaptureCase& into) {
  for (const auto& [name, value] :
       node.members("an object of knobs such as {\"net.ipv4.vs.sloppy_tcp\": 1}")) {
    for (SetTunable& knob : read_knob(name, value, into)) into.setup.emplace_back(std::move(knob));
  }
}

void read_case(const Node& root, CaptureCase& into) {
  if (root.has("description")) into.description = root.at("description", "").text("a sentence");
  into.from_kernel = root.has("kernel");

  const Node director = root.at("director", "an object with mac, address and mtu");
  SetDevice device;
  device.device = kDevice;
  device.name = director.has("interface") ? director.at("interface", "").text("the interface's name") : "e0";
  device.mac = director.at("mac", kMac).parsed(&MacAddress::parse, kMac);
  device.mtu =
      static_cast<std::uint32_t>(director.at("mtu", "a number of bytes").integer(68, 65535, "68 to 65535"));
  device.stack = Stack::own;
  Links links;
  links.addresses.push_back(director.at("address", kPrefix).parsed(&Prefix::parse, kPrefix));
  if (director.has("address6"))
    links.addresses.push_back(director.at("address6", kPrefix).parsed(&Prefix::parse, kPrefix));
  if (root.has("vips"))
    for (const Node& vip : root.at("vips", "").items("an array of addresses"))
      links.addresses.push_back(vip.parsed(&Prefix::parse, kAddress));
  if (root.has("routes"))
    for (const Node& node : root.at("routes", "").items("an array of routes")) {
      Route route;
      route.destination = node.at("dst", kPrefix).parsed(&Prefix::parse, kPrefix);
      route.device = kDevice;
      if (node.has("via")) route.via = node.at("via", kAddress).parsed(&IpAddress::parse, kAddress);
      if (node.has("mtu"))
        route.mtu = static_cast<std::uint32_t>(node.at("mtu", "").integer(68, 65535, "68 to 65535"));
      links.routes.push_back(route);
    }
  if (root.has("ip"))
    for (const Node& line : root.at("ip", "").items("an array of iproute2 lines"))
      apply_ip_line(line.text("an iproute2 line"), line.where(), links);

  into.setup.emplace_back(std::move(device));
  into.setup.emplace_back(SetAddresses{kDevice, std::move(links.addresses)});
  into.setup.emplace_back(SetRoutes{std::move(links.routes)});
  for (const auto& [address, mac] :
       root.at("neighbours", "an object of addresses and their MACs").members("an object")) {
    const auto ip = IpAddress::parse(address);
    if (!ip) bad("{}: expected {}, found \"{}\"", mac.where(), kAddress, address);
    into.setup.emplace_back(SetNeighbour{kDevice, *ip, mac.parsed(&MacAddress::parse, kMac), true});
  }
  bool forwarding = true;
  if (root.has("host_sysctl"))
    for (const auto& [name, value] : root.at("host_sysctl", "").members("an object of knobs"))
      if (name == "net.ipv4.ip_forward") forwarding = value.integer(0, 1, "0 or 1") == 1;
  into.setup.emplace_back(SetForwarding{forwarding});
  if (root.has("sysctl")) read_sysctls(root.at("sysctl", ""), into);
}

// --- rules ----------------------------------------------------------------------------------------------------------

void read_rules(const std::string& path, CaptureCase& into) {
  auto rules = parse_rules(read_file(path));
  if (!rules) throw BadCase(rules.error().in(path));
  for (Rule& rule : *rules) into.setup.push_back(std::move(rule.change));
}

// --- marks ----------------------------------------------------------------------------------------------------------

std::vector<Node> one_or_more(const Node& node) {
  return node.is_text() || node.is_integer() ? std::vector<Node>{node} : node.items("an array");
}

/// {"family": "ip", "daddr": "10.9.0.100-10.9.0.115", "proto": "tcp", "dport": [80, 443], "mark": 7}: which frames carry a mark when they
/// arrive. All that match a frame are carried out, as a firewall does: the last one decides.
ClassRule read_mark(const Node& node) {
  ClassRule rule;
  rule.mark = static_cast<std::uint32_t>(node.at("mark", "a number").integer(0, UINT32_MAX, "a 32-bit number"));
  if (node.has("family")) rule.family = node.at("family", "").text("ip or ip6") == "ip6" ? Family::ipv6 : Family::ipv4;
  if (node.has("proto")) {
    const Node name = node.at("proto", "");
    const std::string protocol = name.text("tcp, udp or sctp");
    if (protocol == "tcp") rule.protocol = Protocol::tcp;
    else if (protocol == "udp") rule.protocol = Protocol::udp;
    else if (protocol == "sctp") rule.protocol = Protocol::sctp;
    else name.wrong("tcp, udp or sctp");
  }
  const auto addresses = [&](std::string_view name, std::vector<AddressRange>& into) {
    constexpr std::string_view kExpected = "an address, a prefix or a range A-B";
    if (node.has(name))
      for (const Node& item : one_or_more(node.at(name, kExpected)))
        into.push_back(item.parsed(&parse_address_range, kExpected));
  };
  addresses("daddr", rule.targets);
  addresses("saddr", rule.sources);
  const auto ports = [&](std::string_view name, std::vector<PortRange>& into) {
    constexpr std::string_view kExpected = "a port, or a range \"A-B\"";
    if (node.has(name))
      for (const Node& item : one_or_more(node.at(name, kExpected))) {
        if (item.is_text()) {
          into.push_back(item.parsed(&parse_port_range, kExpected));
        } else {
          const auto port = static_cast<std::uint16_t>(item.integer(0, 65535, kExpected));
          into.push_back({port, port});
        }
      }
  };
  ports("dport", rule.target_ports);
  ports("sport", rule.source_ports);
  return rule;
}

void read_marks(const Node& root, CaptureCase& into) {
  into.marks.assign(into.frames.size(), 0);
  if (!root.has("marks")) return;
  for (const Node& node : root.at("marks", "").items("an array of which frames have which mark")) {
    const ClassRule rule = read_mark(node);
    for (std::size_t i = 0; i < into.frames.size(); ++i) {
      std::vector<std::byte> bytes = into.frames[i].bytes;
      Frame frame;
      frame.storage = bytes;
      frame.resize(bytes.size());
      const auto view = parse_packet(frame);
      if (view && view->kind == PacketView::Kind::ip && rule.matches(view->flow)) into.marks[i] = rule.mark;
    }
  }
}

// --- steps ----------------------------------------------------------------------------------------------------------

/// Knobs of a sysctl step: {"name": N, "value": V}, or {"set": {N: V}}.
void read_sysctl_step(const Node& node, CaptureCase& into) {
  const auto add = [&](const std::string& name, const Node& value) {
    for (SetTunable& knob : read_knob(name, value, into)) into.steps.emplace_back(SysctlStep{std::move(knob)});
  };
  if (node.has("name")) return add(node.at("name", "").text("a knob's name"), node.at("value", "its value"));
  for (const auto& [name, value] :
       node.at("set", "name and value, or set: {name: value}").members("an object of knobs"))
    add(name, value);
}

void read_step(const Node& node, CaptureCase& into) {
  const std::string op =
      node.at("op", "what to do: frame, admin, sysctl, sleep, conns or list").text("a word");
  if (op == "frame") {
    FrameStep step;
    for (const Node& index : node.at("in", "indexes of frames").items("an array of indexes of frames"))
      step.frames.push_back(static_cast<std::size_t>(index.integer(
          0, static_cast<std::int64_t>(into.frames.size()) - 1, "the index of a frame in in.pcap")));
    if (node.has("note")) step.note = node.at("note", "").text("words");
    step.state_wanted = node.has("state");
    into.steps.emplace_back(std::move(step));
  } else if (op == "admin") {
    AdminStep step{node.at("cmd", "a command line").text("a command line")};
    if (!Replay::knows(step.command))
      into.warnings.push_back(
          fmt::format("{}: {}: neither ipvsadm nor cat /proc/net/ip_vs..., left out", node.where(), step.command));
    into.steps.emplace_back(std::move(step));
  } else if (op == "sysctl") {
    read_sysctl_step(node, into);
  } else if (op == "sleep") {
    into.steps.emplace_back(SleepStep{node.at("seconds", "a number of seconds").seconds(),
                                        node.has("out") && !node.at("out", "").items("an array of frames").empty()});
  } else if (op == "conns" || op == "list") {
    into.steps.emplace_back(ListStep{op == "conns" ? ListStep::What::connections : ListStep::What::services});
  } else if (op != "late") {  // late: frames the kernel sent after the last step; nothing to do for it
    node.at("op", "").wrong("frame, admin, sysctl, sleep, conns, list or late");
  }
}

void read_timeouts(const Node& node, CaptureCase& into) {
  const auto seconds = [&](std::string_view name) {
    return node.has(name) ? node.at(name, "").seconds() : Duration{};
  };
  into.setup.emplace_back(SetTimeouts{seconds("tcp"), seconds("tcpfin"), seconds("udp")});
}

}  // namespace

Result<CaptureCase> load_case(const std::string& folder) {
  CaptureCase loaded;
  loaded.folder = folder;
  const auto file = [&](std::string_view name) { return fmt::format("{}/{}", folder, name); };
  try {
    const Json json = read_json(file("case.json"));
    const Node root{json, file("case.json") + ": "};
    if (!json.is_object()) root.wrong("an object");
    read_case(root, loaded);
    read_rules(file("rules"), loaded);
    auto frames = read_pcap(file("in.pcap"));
    if (!frames) return Failure{frames.error()};
    loaded.frames = std::move(*frames);
    // Of a recording, what came: what left is what the replay makes anew.
    std::erase_if(loaded.frames, [](const CapturedFrame& f) { return f.direction == CapturedFrame::Direction::outbound; });
    read_marks(root, loaded);
    if (exists(file("steps.json"))) {
      const Json steps = read_json(file("steps.json"));
      for (const Node& step : Node{steps, file("steps.json") + ": "}.items("an array of steps"))
        read_step(step, loaded);
    } else {
      if (root.has("timeouts")) read_timeouts(root.at("timeouts", ""), loaded);
      for (std::size_t i = 0; i < loaded.frames.size(); ++i)
        loaded.steps.emplace_back(FrameStep{{i}, {}, false});
    }
  } catch (const BadCase& error) {
    return fail(error.what());
  }
  return loaded;
}

}  // namespace director
