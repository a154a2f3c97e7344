// Rules as text: files read line by line, services and servers written.
#include "director/rules.h"

#include <fmt/format.h>

#include <charconv>

#include "director/class_text.h"
#include "director/core/tunables.h"
#include "director/duration_text.h"

namespace director {

// --- Files of them
// ---------------------------------------------------------------------------------------------------------

Words split_rule(std::string_view line) {
  Words result;
  const auto blank = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  for (std::size_t i = 0; i < line.size();) {
    if (blank(line[i])) {
      ++i;
      continue;
    }
    if (line[i] == '#') break;
    const std::size_t begin = i;
    while (i < line.size() && !blank(line[i])) ++i;
    const std::string_view word = line.substr(begin, i - begin);
    result.end_column = i + 1;
    if (result.words.empty() && result.columns.empty() && (word == "ipvsadm" || word == "vsadm")) continue;
    result.words.emplace_back(word);
    result.columns.push_back(begin + 1);
  }
  return result;
}

std::string RulesError::in(std::string_view file) const {
  return fmt::format("{}:{}:{}: {}", file, line, column, message);
}

Result<std::vector<Rule>, RulesError> parse_rules(std::string_view text) {
  Lookups none;
  return parse_rules(text, none);
}

Result<std::vector<Rule>, RulesError> parse_rules(std::string_view text, Lookups& lookups) {
  std::vector<Rule> rules;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    const Words line = split_rule(text.substr(0, end));
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.words.empty()) continue;

    const auto error = [&](std::size_t word, std::string message) {
      const std::size_t column = word < line.columns.size() ? line.columns[word] : line.end_column;
      return Failure{RulesError{number, column, std::move(message)}};
    };
    const auto command = parse_command("vsadm", line.words, lookups);
    if (!command) {
      BadCommand bad = command.error();
      while (bad.message.ends_with('\n')) bad.message.pop_back();
      if (bad.exit_code == 255 && !bad.expected.empty())  // try -h: no help for a file
        return error(bad.word, fmt::format("'{}' begins no rule, {}", line.words[bad.word], bad.expected));
      return error(bad.word,
                   bad.expected.empty() ? bad.message : fmt::format("{}: {}", bad.message, bad.expected));
    }
    const Change* const change = std::get_if<Change>(&*command);
    const bool states_what_is = change != nullptr && (std::holds_alternative<AddService>(*change) ||
                                                      std::holds_alternative<AddServer>(*change) ||
                                                      std::holds_alternative<AddClassRule>(*change) ||
                                                      std::holds_alternative<SetTimeouts>(*change));
    if (!states_what_is)
      return error(0,
                   fmt::format("{} has no place in a rules file: expected -A, -a, --class or --set", line.words[0]));
    rules.push_back({*change, number, line.columns[0]});
  }
  return rules;
}

Result<std::vector<SetTunable>> read_tunable(std::string_view name, std::string_view value) {
  const auto read = [](std::string_view knob, std::string_view text) -> Result<SetTunable> {
    const TunableInfo* const info = find_tunable(knob);
    if (info == nullptr) return fail(fmt::format("{}: no such knob; vsadm tune lists them", knob));
    std::int64_t number = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || stop != end || number < info->least || number > info->most)
      return fail(fmt::format("{}: expected a number from {} to {}", knob, info->least, info->most));
    return SetTunable{std::string{knob}, number};
  };
  const std::size_t blank = name == "sync_threshold" ? value.find_first_of(" \t") : value.npos;
  const auto first = read(name, value.substr(0, blank));
  if (!first) return Failure{first.error()};
  if (blank == value.npos) return std::vector{*first};
  const auto second = read("sync_period", value.substr(blank + 1));
  if (!second) return Failure{second.error()};
  if (second->value != 0 && first->value >= second->value)
    return fail("sync_threshold: expected the first number below the second, or 0 for the second");
  return std::vector{*first, *second};
}

std::string_view text_of(Refusal refusal) {
  switch (refusal) {
    case Refusal::service_exists:
      return "Service already exists";
    case Refusal::no_such_service:
      return "No such service";
    case Refusal::service_not_defined:
      return "Service not defined";
    case Refusal::server_exists:
      return "Destination already exists";
    case Refusal::no_such_server:
      return "No such destination";
    case Refusal::no_such_scheduler:
      return "Scheduler or persistence engine not found";
    case Refusal::out_of_range:
      return "Numerical result out of range";
    case Refusal::invalid:
      return "Invalid operation.  Possibly wrong module version, address not unicast, ...";
    case Refusal::class_exists:
      return "Class rule already exists";
    case Refusal::no_such_class:
      return "No such class";
    case Refusal::no_such_tunable:
      return "No such knob";
    case Refusal::no_such_device:
      return "No such device";
    case Refusal::daemon_runs:
      return "Daemon has already run";
    case Refusal::no_daemon:
      return "No daemon is running";
  }
  return "refused";
}

// --- Writing it
// ------------------------------------------------------------------------------------------------------------

namespace {

std::string_view name_of(SyncRole role) {
  return role == SyncRole::master ? "master" : "backup";
}

std::string daemon_text(const StartDaemon& c) {
  std::string text = fmt::format("--start-daemon {} --mcast-interface {} --syncid {}", name_of(c.role), c.interface, c.sync_id);
  const auto out = std::back_inserter(text);
  if (c.maximum_length != 0) fmt::format_to(out, " --sync-maxlen {}", c.maximum_length);
  if (c.group) fmt::format_to(out, " --mcast-group {}", format_as(*c.group));
  if (c.port != Port{}) fmt::format_to(out, " --mcast-port {}", c.port.host());
  if (c.ttl != 0) fmt::format_to(out, " --mcast-ttl {}", c.ttl);
  return text;
}

}  // namespace

std::string command_text(const Change& change) {
  const auto seconds = [](Duration d) { return std::chrono::duration_cast<std::chrono::seconds>(d).count(); };
  // Adding and editing differ in their first word only.
  const auto edited = [](std::string_view command, const std::string& added) {
    return std::string{command} + added.substr(2);
  };
  if (const auto* c = std::get_if<AddService>(&change)) return rule_text(c->config);
  if (const auto* c = std::get_if<EditService>(&change)) return edited("-E", rule_text(c->config));
  if (const auto* c = std::get_if<DeleteService>(&change)) return "-D " + option_text(c->key);
  if (std::holds_alternative<ClearServices>(change)) return "-C";
  if (const auto* c = std::get_if<AddServer>(&change))
    return rule_text(c->service, c->config, Extras::included);
  if (const auto* c = std::get_if<EditServer>(&change))
    return edited("-e", rule_text(c->service, c->config, Extras::included));
  if (const auto* c = std::get_if<DeleteServer>(&change))
    return fmt::format("-d {} -r {}", option_text(c->service), format_as(c->endpoint));
  if (const auto* c = std::get_if<SetClasses>(&change)) {
    std::string text;
    for (const ClassRule& rule : c->rules) text += fmt::format("{}--class {}", text.empty() ? "" : "\n", format_as(rule));
    return text.empty() ? "no --class" : text;
  }
  if (const auto* c = std::get_if<AddClassRule>(&change)) return "--class " + format_as(c->rule);
  if (const auto* c = std::get_if<DeleteClass>(&change)) return fmt::format("--delete-class {}", c->mark);
  if (const auto* c = std::get_if<ZeroCounters>(&change))
    return c->service ? "-Z " + option_text(*c->service) : "-Z";
  if (const auto* c = std::get_if<SetTimeouts>(&change))
    return fmt::format("--set {} {} {}", seconds(c->tcp), seconds(c->tcp_fin), seconds(c->udp));
  if (const auto* c = std::get_if<StartDaemon>(&change)) return daemon_text(*c);
  if (const auto* c = std::get_if<StopDaemon>(&change)) return fmt::format("--stop-daemon {}", name_of(c->role));
  if (const auto* c = std::get_if<SetTunable>(&change)) return fmt::format("tune {}={}", c->name, c->value);
  return "(network)";
}

std::string option_text(const ServiceKey& key) {
  if (key.mark != 0) return fmt::format("-f {}{}", key.mark, key.family() == Family::ipv6 ? " -6" : "");
  const std::string_view option = key.protocol == Protocol::tcp   ? "-t"
                                  : key.protocol == Protocol::udp ? "-u"
                                                                  : "--sctp-service";
  return fmt::format("{} {}", option, format_as(key.endpoint));
}

std::string rule_text(const ServiceConfig& service, Extras extras) {
  return rule_text(service, option_text(service.key), extras);
}

std::string rule_text(const ServiceConfig& service, std::string_view service_option, Extras extras) {
  std::string text = fmt::format("-A {} -s {}", service_option, service.scheduler);
  const auto out = std::back_inserter(text);
  if (service.persistence != Duration{}) {
    fmt::format_to(out, " -p {}",
                   std::chrono::duration_cast<std::chrono::seconds>(service.persistence).count());
    if (service.key.family() == Family::ipv6) {
      if (service.netmask_length != 0) fmt::format_to(out, " -M {}", service.netmask_length);
    } else if (service.netmask != ServiceConfig{}.netmask) {
      fmt::format_to(out, " -M {}", format_as(IpAddress::v4(service.netmask)));
    }
  }
  if (!service.persistence_engine.empty()) fmt::format_to(out, " --pe {}", service.persistence_engine);
  if (service.one_packet) text += " -o";
  if (const std::string flags = flags_text(service); !flags.empty()) fmt::format_to(out, " -b {}", flags);
  if (extras != Extras::included) return text;
  static constexpr std::string_view kNoServer[] = {"", "rst", "icmp", "drop"};
  static constexpr std::string_view kGone[] = {"", "reset", "drop", "reschedule"};
  static constexpr std::string_view kQuiesced[] = {"", "reset", "reschedule"};
  const auto add = [&](std::string_view option, std::string_view word) {
    if (!word.empty()) fmt::format_to(out, " --{} {}", option, word);
  };
  add("no-server", kNoServer[static_cast<std::size_t>(service.policy.no_server)]);
  add("server-gone", kGone[static_cast<std::size_t>(service.policy.server_gone)]);
  add("server-quiesced", kQuiesced[static_cast<std::size_t>(service.policy.server_quiesced)]);
  for (const StateTimeout& t : service.policy.timeouts) add(timeout_option(t.state), duration_text(t.after));
  return text;
}

std::string flags_text(const ServiceConfig& service) {
  const bool hashing = service.scheduler == "sh" || service.scheduler == "mh";
  std::string text;
  const auto add = [&](bool set, std::string_view general, std::string_view own) {
    if (!set) return;
    if (!text.empty()) text += ',';
    text += hashing && !own.empty() ? fmt::format("{}-{}", service.scheduler, own) : std::string{general};
  };
  add(service.flags.flag1, "flag-1", "fallback");
  add(service.flags.flag2, "flag-2", "port");
  add(service.flags.flag3, "flag-3", {});
  return text;
}

std::string rule_text(const ServiceKey& service, const ServerConfig& server, Extras extras) {
  return rule_text(server, option_text(service), format_as(server.endpoint), extras);
}

std::string rule_text(const ServerConfig& server, std::string_view service_option, std::string_view endpoint,
                      Extras extras) {
  const std::string_view method = server.method == Method::masq     ? "-m"
                                  : server.method == Method::tunnel ? "-i"
                                                                    : "-g";
  std::string text = fmt::format("-a {} -r {} {} -w {}", service_option, endpoint, method, server.weight);
  const auto out = std::back_inserter(text);
  if (server.method == Method::tunnel) {
    static constexpr std::string_view kChecksum[] = {"--tun-nocsum", "--tun-csum", "--tun-remcsum"};
    const std::string_view checksum = kChecksum[static_cast<std::size_t>(server.tunnel_checksum)];
    switch (server.tunnel_type) {
      case TunnelType::ipip:
        text += " --tun-type ipip";
        break;
      case TunnelType::gue:
        fmt::format_to(out, " --tun-type gue --tun-port {} {}", server.tunnel_port.host(), checksum);
        break;
      case TunnelType::gre:
        fmt::format_to(out, " --tun-type gre {}", checksum);
        break;
    }
  }
  if (extras != Extras::left_out) {
    if (server.upper_threshold != 0) fmt::format_to(out, " -x {}", server.upper_threshold);
    if (server.lower_threshold != 0) fmt::format_to(out, " -y {}", server.lower_threshold);
  }
  if (extras == Extras::included && server.check) {
    const HealthCheck& check = *server.check;
    fmt::format_to(out, " --check {} --inter {} --fall {} --rise {}", check_text(check), duration_text(check.interval), check.fall,
                   check.rise);
  }
  return text;
}

}  // namespace director
