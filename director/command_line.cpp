// ipvsadm's grammar. In the order a line meets it: words (split_rule), options (OptionReader), their values
// (Draft), what goes with what (check_options), the finished command.
//
// The reader is our own and not Boost.Program_options because ipvsadm's grammar is popt's, and its refusals
// are part of the interface: the first option must be the command, options are judged one by one in the order
// given (the first wrong one decides the message), -p takes its value only when the next word isn't an
// option, a cluster like -Lnc is named whole in a complaint.
#include "director/command_line.h"

#include <fmt/format.h>

#include "director/class_text.h"
#include "director/duration_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>

namespace director {
namespace {

// --- Options
// -----------------------------------------------------------------------------------------------------------

/// What an option does to the command. Those from `numeric` on have ipvsadm's names in messages
/// (kOptionNames); they come in its order, which decides the first complaint when several are due.
enum class Tag : std::uint8_t {
  numeric,
  connection,
  service,
  scheduler,
  persistent,
  netmask,
  real_server,
  forward,
  weight,
  upper,
  lower,
  mcast_interface,
  timeout,
  daemon,
  stats,
  rate,
  thresholds,
  persistent_conn,
  nosort,
  sync_id,
  exact,
  one_packet,
  engine,
  flags,
  mcast_group,
  mcast_port,
  mcast_ttl,
  sync_maxlen,
  tun_info,
  tun_type,
  tun_port,
  tun_nocsum,
  tun_csum,
  tun_remcsum,
  json,
  extended,  // ours, like the next
  classes,
  no_server,
  server_gone,
  server_quiesced,
  check,
  inter,
  fall,
  rise,
  state_timeout,
  kNamed,    // behind here: not counted as options, or commands
  sort,
  ipv6,
  add_service,
  edit_service,
  delete_service,
  flush,
  list,
  add_server,
  delete_server,
  edit_server,
  set,
  start_daemon,
  stop_daemon,
  restore,
  save,
  zero,
  add_class,
  delete_class,
  help,
  version,
};
constexpr std::size_t kNamed = static_cast<std::size_t>(Tag::kNamed);
constexpr std::array<std::string_view, kNamed> kOptionNames{"numeric",
                                                            "connection",
                                                            "service-address",
                                                            "scheduler",
                                                            "persistent",
                                                            "netmask",
                                                            "real-server",
                                                            "forwarding-method",
                                                            "weight",
                                                            "u-threshold",
                                                            "l-threshold",
                                                            "mcast-interface",
                                                            "timeout",
                                                            "daemon",
                                                            "stats",
                                                            "rate",
                                                            "thresholds",
                                                            "persistent-conn",
                                                            "nosort",
                                                            "syncid",
                                                            "exact",
                                                            "ops",
                                                            "pe",
                                                            "sched-flags",
                                                            "mcast-group",
                                                            "mcast-port",
                                                            "mcast-ttl",
                                                            "sync-maxlen",
                                                            "tun-info",
                                                            "tun-type",
                                                            "tun-port",
                                                            "tun-nocsum",
                                                            "tun-csum",
                                                            "tun-remcsum",
                                                            "json",
                                                            "extended",
                                                            "classes",
                                                            "no-server",
                                                            "server-gone",
                                                            "server-quiesced",
                                                            "check",
                                                            "inter",
                                                            "fall",
                                                            "rise",
                                                            "timeout-STATE"};
static_assert(kOptionNames.back() == "timeout-STATE");

constexpr std::uint64_t bit(Tag t) {
  return std::uint64_t{1} << static_cast<unsigned>(t);
}
template <typename... T>
constexpr std::uint64_t bits(T... t) {
  return (bit(t) | ... | 0U);
}

enum class Argument : std::uint8_t { none, required, optional };

struct OptionSpec {
  char letter;  ///< 0: long only
  std::string_view name;
  Argument argument;
  Tag tag;
};
constexpr OptionSpec kOptions[] = {
    {'A', "add-service", Argument::none, Tag::add_service},
    {'E', "edit-service", Argument::none, Tag::edit_service},
    {'D', "delete-service", Argument::none, Tag::delete_service},
    {'C', "clear", Argument::none, Tag::flush},
    {'L', "list", Argument::none, Tag::list},
    {'l', "list", Argument::none, Tag::list},
    {'Z', "zero", Argument::none, Tag::zero},
    {'a', "add-server", Argument::none, Tag::add_server},
    {'e', "edit-server", Argument::none, Tag::edit_server},
    {'d', "delete-server", Argument::none, Tag::delete_server},
    {0, "set", Argument::none, Tag::set},
    {'h', "help", Argument::none, Tag::help},
    {'v', "version", Argument::none, Tag::version},
    {'R', "restore", Argument::none, Tag::restore},
    {'S', "save", Argument::none, Tag::save},
    {0, "start-daemon", Argument::required, Tag::start_daemon},
    {0, "stop-daemon", Argument::required, Tag::stop_daemon},
    {'t', "tcp-service", Argument::required, Tag::service},
    {'u', "udp-service", Argument::required, Tag::service},
    {0, "sctp-service", Argument::required, Tag::service},
    {'f', "fwmark-service", Argument::required, Tag::service},
    {'s', "scheduler", Argument::required, Tag::scheduler},
    {'p', "persistent", Argument::optional, Tag::persistent},
    {'M', "netmask", Argument::required, Tag::netmask},
    {'r', "real-server", Argument::required, Tag::real_server},
    {'m', "masquerading", Argument::none, Tag::forward},
    {'i', "ipip", Argument::none, Tag::forward},
    {'g', "gatewaying", Argument::none, Tag::forward},
    {'w', "weight", Argument::required, Tag::weight},
    {'x', "u-threshold", Argument::required, Tag::upper},
    {'y', "l-threshold", Argument::required, Tag::lower},
    {'n', "numeric", Argument::none, Tag::numeric},
    {'c', "connection", Argument::none, Tag::connection},
    {0, "mcast-interface", Argument::required, Tag::mcast_interface},
    {0, "syncid", Argument::required, Tag::sync_id},
    {0, "timeout", Argument::none, Tag::timeout},
    {0, "daemon", Argument::none, Tag::daemon},
    {0, "stats", Argument::none, Tag::stats},
    {0, "rate", Argument::none, Tag::rate},
    {0, "thresholds", Argument::none, Tag::thresholds},
    {0, "persistent-conn", Argument::none, Tag::persistent_conn},
    {0, "nosort", Argument::none, Tag::nosort},
    {0, "sort", Argument::none, Tag::sort},
    {'X', "exact", Argument::none, Tag::exact},
    {'6', "ipv6", Argument::none, Tag::ipv6},
    {'o', "ops", Argument::none, Tag::one_packet},
    {0, "pe", Argument::required, Tag::engine},
    {'b', "sched-flags", Argument::required, Tag::flags},
    {0, "mcast-group", Argument::required, Tag::mcast_group},
    {0, "mcast-port", Argument::required, Tag::mcast_port},
    {0, "mcast-ttl", Argument::required, Tag::mcast_ttl},
    {0, "sync-maxlen", Argument::required, Tag::sync_maxlen},
    {0, "tun-info", Argument::none, Tag::tun_info},
    {0, "tun-type", Argument::required, Tag::tun_type},
    {0, "tun-port", Argument::required, Tag::tun_port},
    {0, "tun-nocsum", Argument::none, Tag::tun_nocsum},
    {0, "tun-csum", Argument::none, Tag::tun_csum},
    {0, "tun-remcsum", Argument::none, Tag::tun_remcsum},
    // beyond ipvsadm
    {0, "json", Argument::none, Tag::json},
    {0, "extended", Argument::none, Tag::extended},
    {0, "class", Argument::required, Tag::add_class},
    {0, "delete-class", Argument::required, Tag::delete_class},
    {0, "classes", Argument::none, Tag::classes},
    {0, "no-server", Argument::required, Tag::no_server},
    {0, "server-gone", Argument::required, Tag::server_gone},
    {0, "server-quiesced", Argument::required, Tag::server_quiesced},
    {0, "check", Argument::required, Tag::check},
    {0, "inter", Argument::required, Tag::inter},
    {0, "fall", Argument::required, Tag::fall},
    {0, "rise", Argument::required, Tag::rise},
};

/// --timeout-STATE, in the order of the states.
constexpr std::string_view kTimeoutOptions[] = {
    "timeout-none",       "timeout-established", "timeout-syn-sent",   "timeout-syn-recv", "timeout-fin-wait",
    "timeout-time-wait",  "timeout-close",       "timeout-close-wait", "timeout-last-ack", "timeout-listen",
    "timeout-synack",     "timeout-udp",         "timeout-sctp-init1", "timeout-sctp-init",
    "timeout-sctp-cookie-sent", "timeout-sctp-cookie-replied", "timeout-sctp-cookie-wait", "timeout-sctp-cookie",
    "timeout-sctp-cookie-echoed", "timeout-sctp-established", "timeout-sctp-shutdown-sent",
    "timeout-sctp-shutdown-received", "timeout-sctp-shutdown-ack-sent", "timeout-sctp-rejected", "timeout-sctp-closed"};
static_assert(std::size(kTimeoutOptions) == kStateCount);
constexpr auto kTimeoutSpecs = [] {
  std::array<OptionSpec, kStateCount> specs{};
  for (std::size_t i = 0; i < kStateCount; ++i) specs[i] = {0, kTimeoutOptions[i], Argument::required, Tag::state_timeout};
  return specs;
}();

/// An option as it was met.
struct Option {
  const OptionSpec* spec = nullptr;
  std::optional<std::string> value;
};

/// Walks words as popt does: next() gives one option at a time, words that belong to none are collected.
class OptionReader {
 public:
  explicit OptionReader(std::span<const std::string> words) : words_(words) {}

  enum class Step : std::uint8_t { option, end, unknown, value_missing, value_unwanted };
  Step next(Option& option);

  /// The word consumed last: the one to name in a complaint.
  [[nodiscard]] const std::string& word() const { return words_[index()]; }
  [[nodiscard]] std::size_t index() const { return next_ == 0 ? 0 : next_ - 1; }
  [[nodiscard]] const std::vector<std::size_t>& others() const { return others_; }

 private:
  std::span<const std::string> words_;
  std::size_t next_ = 0;
  std::string_view cluster_;         // letters of a word not read yet: "nc" of -Lnc
  bool only_words_ = false;          // "--" was met
  std::vector<std::size_t> others_;  // words that belong to no option
};

OptionReader::Step OptionReader::next(Option& option) {
  option = {};
  std::optional<std::string_view> glued;  // the value in the option's own word
  if (cluster_.empty()) {
    for (;; ++next_) {
      if (next_ == words_.size()) return Step::end;
      const std::string& w = words_[next_];
      if (!only_words_ && w == "--") {
        only_words_ = true;
      } else if (only_words_ || w.size() < 2 || w[0] != '-') {
        others_.push_back(next_);
      } else {
        break;
      }
    }
    const std::string_view word = words_[next_++];
    if (word.starts_with("--")) {
      const std::size_t equals = word.find('=');
      const std::string_view name = word.substr(2, equals == word.npos ? word.npos : equals - 2);
      if (equals != word.npos) glued = word.substr(equals + 1);
      const auto look_in = [&](std::span<const OptionSpec> specs) {
        for (const OptionSpec& spec : specs)
          if (option.spec == nullptr && spec.name == name) option.spec = &spec;
      };
      look_in(kOptions);
      look_in(kTimeoutSpecs);
      if (option.spec == nullptr) return Step::unknown;
    } else {
      cluster_ = word.substr(1);
    }
  }
  if (option.spec == nullptr) {
    const char letter = cluster_.front();
    cluster_.remove_prefix(1);
    for (const OptionSpec& spec : kOptions)
      if (spec.letter == letter && letter != 0) option.spec = &spec;
    if (option.spec == nullptr) return Step::unknown;
    const bool assigned = cluster_.starts_with('=');
    if (assigned || (option.spec->argument != Argument::none && !cluster_.empty())) {
      glued = cluster_.substr(assigned ? 1 : 0);
      cluster_ = {};
    }
  }
  if (option.spec->argument == Argument::none) return glued ? Step::value_unwanted : Step::option;
  if (glued) {
    option.value = *glued;
  } else if (next_ == words_.size()) {
    if (option.spec->argument == Argument::required) return Step::value_missing;
  } else if (option.spec->argument == Argument::required || !words_[next_].starts_with('-')) {
    option.value = words_[next_++];
  }
  return Step::option;
}

// --- Values
// --------------------------------------------------------------------------------------------------------------

/// strtol(3)'s decimal grammar, the whole text: blanks and a sign may lead.
std::optional<std::int64_t> parse_number(std::string_view text, std::int64_t least, std::int64_t most) {
  while (!text.empty() && (text.front() == ' ' || (text.front() >= '\t' && text.front() <= '\r')))
    text.remove_prefix(1);
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most) return {};
  return value;
}

/// inet_aton(3)'s grammar: one to four numbers, decimal, octal (0..) or hexadecimal (0x..), the last fills
/// what is left.
std::optional<std::uint32_t> parse_aton(std::string_view text) {
  std::array<std::uint64_t, 4> parts{};
  std::size_t count = 0;
  for (;;) {
    const std::size_t dot = text.find('.');
    std::string_view part = text.substr(0, dot);
    int base = 10;
    if (part.starts_with("0x") || part.starts_with("0X")) {
      base = 16;
      part.remove_prefix(2);
    } else if (part.size() > 1 && part[0] == '0') {
      base = 8;
      part.remove_prefix(1);
    }
    if (count == 4) return {};
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), parts[count++], base);
    if (error != std::errc{} || end != part.data() + part.size()) return {};
    if (dot == text.npos) break;
    text.remove_prefix(dot + 1);
  }
  std::uint64_t host = parts[count - 1];
  if (host >> (8 * (5 - count)) != 0) return {};
  for (std::size_t i = 0; i + 1 < count; ++i) {
    if (parts[i] > 255) return {};
    host |= parts[i] << (24 - 8 * i);
  }
  return static_cast<std::uint32_t>(host);
}

/// An address with or without port; without: nothing in `port`.
struct Target {
  IpAddress address;
  std::optional<Port> port;
};

/// "host[:port]", "[v6]:port" or a bare v6; names go through lookups.
std::optional<Target> parse_target(std::string_view text, Protocol protocol, Lookups& lookups) {
  if (text.find_first_not_of("0123456789") == text.npos)
    return {};  // nothing, or a bare number: not 0.0.0.80
  Target target;
  std::optional<std::string_view> port;
  if (text.front() == '[') {
    const std::size_t bracket = text.find(']');
    if (bracket == text.npos || !text.substr(bracket + 1).starts_with(':')) return {};
    port = text.substr(bracket + 2);
    text = text.substr(1, bracket - 1);
  }
  const auto v6 = text.find(':') == text.npos ? std::nullopt : IpAddress::parse(text);
  if (v6) {
    target.address = *v6;
  } else {
    if (port) return {};  // brackets around something else
    if (const std::size_t colon = text.rfind(':'); colon != text.npos) {
      port = text.substr(colon + 1);
      text = text.substr(0, colon);
    }
    if (const auto host = parse_aton(text)) {
      target.address = IpAddress::v4(*host);
    } else if (const auto named = lookups.address_of(text); named && named->is_v4()) {
      target.address = *named;
    } else {
      return {};
    }
  }
  if (port) {
    if (const auto number = parse_number(*port, 0, 65535)) {
      target.port = Port::of(static_cast<std::uint16_t>(*number));
    } else if (const auto named = lookups.port_of(*port, protocol)) {
      target.port = *named;
    } else {
      return {};
    }
  }
  return target;
}

// --- The command as it grows
// ---------------------------------------------------------------------------------------------

constexpr std::string_view kWhatAddress = "expected HOST:PORT or [IPV6]:PORT";
constexpr std::string_view kWhatTimeout = "expected seconds from {} to 2678400";

/// Everything options can set, with ipvsadm's defaults.
struct Draft {
  std::uint64_t given = 0;  ///< bit(tag) of the named options met
  ServiceConfig service;
  std::string flags;  ///< -b's list
  ServerConfig server;
  bool server_port_given = false;
  HealthCheck check;
  ListStyle style;
  StartDaemon daemon;
  SetTimeouts timeouts;
};

using Outcome = Result<void, BadCommand>;

Failure<BadCommand> refuse(std::string message, std::string_view expected = {}) {
  return {BadCommand{std::move(message), 2, 0, std::string{expected}}};
}

/// `-b`'s list of flags; which may be used depends on the scheduler.
Outcome parse_flags(std::string_view list, std::string_view scheduler, SchedulerFlags& flags) {
  struct Name {
    std::string_view name, scheduler;
    bool SchedulerFlags::*flag;
  };
  static constexpr Name kNames[] = {
      {"flag-1", {}, &SchedulerFlags::flag1},    {"flag-2", {}, &SchedulerFlags::flag2},
      {"flag-3", {}, &SchedulerFlags::flag3},    {"sh-fallback", "sh", &SchedulerFlags::flag1},
      {"sh-port", "sh", &SchedulerFlags::flag2}, {"mh-fallback", "mh", &SchedulerFlags::flag1},
      {"mh-port", "mh", &SchedulerFlags::flag2},
  };
  flags = {};
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    const std::string_view name = list.substr(0, comma);
    list.remove_prefix(comma == list.npos ? list.size() : comma + 1);
    if (name.empty()) continue;
    const auto* const known =
        std::find_if(std::begin(kNames), std::end(kNames), [&](const Name& n) { return n.name == name; });
    if (known == std::end(kNames))
      return refuse(
          fmt::format("invalid scheduler flag `{}'", name),
          "expected sh-fallback, sh-port, mh-fallback, mh-port or flag-1 to flag-3, separated by commas");
    if (!known->scheduler.empty() && known->scheduler != scheduler)
      return refuse(fmt::format("incompatible scheduler flag `{}'", name),
                    fmt::format("it goes with -s {}", known->scheduler));
    flags.*known->flag = true;
  }
  return {};
}

Outcome set_service(Draft& draft, const OptionSpec& spec, const std::string& value, Lookups& lookups) {
  ServiceKey& key = draft.service.key;
  if (spec.letter == 'f') {
    const auto mark = parse_number(value, 1, UINT32_MAX);
    if (!mark)
      return refuse(fmt::format("invalid fwmark value `{}' specified", value), "expected 1 to 4294967295");
    key = {};
    key.mark = static_cast<std::uint32_t>(*mark);
    return {};
  }
  key.protocol = spec.letter == 't' ? Protocol::tcp : spec.letter == 'u' ? Protocol::udp : Protocol::sctp;
  const auto target = parse_target(value, key.protocol, lookups);
  if (!target) return refuse("illegal virtual server address[:port] specified", kWhatAddress);
  key.endpoint = {target->address, target->port.value_or(Port{})};
  if (!target->address.is_v4()) {
    draft.service.netmask_length = 0;
    draft.service.netmask = ServiceConfig{}.netmask;
  }
  return {};
}

Outcome set_netmask(ServiceConfig& service, const std::string& value, Lookups& lookups) {
  if (service.key.family() == Family::ipv6) {
    const auto length = parse_number(value, 1, 128);
    if (!length) return refuse("illegal ipv6 netmask specified", "expected a prefix length from 1 to 128");
    service.netmask_length = static_cast<std::uint8_t>(*length == 128 ? 0 : *length);
    return {};
  }
  if (const auto mask = parse_aton(value)) {
    service.netmask = Be32{*mask};
  } else if (const auto named = lookups.address_of(value); named && named->is_v4()) {
    service.netmask = named->v4_wire();
  } else {
    return refuse("illegal virtual server persistent mask specified", "expected a mask like 255.255.255.0");
  }
  return {};
}

Outcome set_mcast_group(StartDaemon& daemon, const std::string& value) {
  const auto group = IpAddress::parse(value);
  if (!group || !group->is_multicast())
    return refuse(
        fmt::format("invalid {} mcast-group `{}'", value.find(':') == value.npos ? "IPv4" : "IPv6", value),
        "expected a multicast address");
  daemon.group = group;
  return {};
}

/// A number into a field of whatever width.
template <typename T>
Outcome set_number(T& field, const std::string& value, std::int64_t least, std::int64_t most,
                   std::string_view name) {
  const auto number = parse_number(value, least, most);
  if (!number)
    return refuse(fmt::format("illegal {} specified", name),
                  fmt::format("expected a number from {} to {}", least, most));
  field = static_cast<T>(*number);
  return {};
}

Outcome set_seconds(Duration& field, const std::string& value, std::int64_t least) {
  const auto seconds = parse_number(value, least, kMaxTimeoutSeconds);
  if (!seconds)
    return refuse(fmt::format("invalid timeout value `{}' specified", value),
                  fmt::format(fmt::runtime(kWhatTimeout), least));
  field = std::chrono::seconds{*seconds};
  return {};
}

/// One word of several.
template <typename Choice>
Outcome set_choice(Choice& field, std::string_view value, std::string_view name,
                   std::initializer_list<std::pair<std::string_view, Choice>> choices) {
  std::string expected = "expected ";
  for (const auto& [word, choice] : choices) {
    if (word == value) {
      field = choice;
      return {};
    }
    if (!expected.ends_with(' ')) expected += " or ";
    expected += word;
  }
  return refuse(fmt::format("illegal {} specified", name), expected);
}

Outcome set_state_timeout(std::vector<StateTimeout>& timeouts, State state, std::string_view value) {
  const auto after = parse_duration(value);
  if (!after || *after < Duration{1s})
    return refuse(fmt::format("invalid timeout value `{}' specified", value), "expected 1s to 31 days, like 90s, 15m or 2h");
  const auto place = std::ranges::lower_bound(timeouts, state, {}, &StateTimeout::state);
  if (place != timeouts.end() && place->state == state)
    return refuse(fmt::format("multiple '{}' options specified", timeout_option(state)));
  timeouts.insert(place, {state, *after});
  return {};
}

constexpr std::int64_t kMostInARow = 100;  // --fall, --rise

/// Takes one option's value into the draft.
Outcome take(Draft& draft, const Option& option, Lookups& lookups) {
  const OptionSpec& spec = *option.spec;
  const std::string value = option.value.value_or("");
  if (spec.tag < Tag::kNamed) {
    if ((draft.given & bit(spec.tag)) != 0 && spec.tag != Tag::state_timeout)
      return refuse(
          fmt::format("multiple '{}' options specified", kOptionNames[static_cast<std::size_t>(spec.tag)]));
    draft.given |= bit(spec.tag);
  }
  ServiceConfig& service = draft.service;
  ServerConfig& server = draft.server;
  switch (spec.tag) {
    case Tag::service:
      return set_service(draft, spec, value, lookups);
    case Tag::ipv6:
      if (service.key.mark == 0) return refuse("-6 used before -f\n");
      service.key.endpoint.address = IpAddress::v6({});
      service.netmask_length = 0;
      service.netmask = ServiceConfig{}.netmask;
      return {};
    case Tag::scheduler:
      service.scheduler = value.empty() ? ServiceConfig{}.scheduler : value;
      return {};
    case Tag::persistent:
      if (option.value) return set_seconds(service.persistence, value, 1);
      service.persistence = 360s;  // libipvs, IPVS_SVC_PERSISTENT_TIMEOUT
      return {};
    case Tag::netmask:
      return set_netmask(service, value, lookups);
    case Tag::one_packet:
      service.one_packet = true;
      return {};
    case Tag::engine:
      service.persistence_engine = value;
      return {};
    case Tag::flags:
      draft.flags = value;  // judged last, when the scheduler is known
      return {};

    case Tag::real_server: {
      const auto target = parse_target(value, service.key.protocol, lookups);
      if (!target) return refuse("illegal real server address[:port] specified", kWhatAddress);
      server.endpoint = {target->address, target->port.value_or(Port{})};
      draft.server_port_given = target->port.has_value();
      return {};
    }
    case Tag::forward:
      server.method = spec.letter == 'm'   ? Method::masq
                      : spec.letter == 'i' ? Method::tunnel
                                           : Method::direct;
      return {};
    case Tag::weight:
      return set_number(server.weight, value, 0, kMaxWeight, "weight");
    case Tag::upper:
      return set_number(server.upper_threshold, value, 0, INT_MAX, "u_threshold");
    case Tag::lower:
      return set_number(server.lower_threshold, value, 0, INT_MAX, "l_threshold");
    case Tag::tun_type:
      if (value == "ipip")
        server.tunnel_type = TunnelType::ipip;
      else if (value == "gue")
        server.tunnel_type = TunnelType::gue;
      else if (value == "gre")
        server.tunnel_type = TunnelType::gre;
      else
        return refuse("illegal tunnel type specified", "expected ipip, gue or gre");
      return {};
    case Tag::tun_port: {
      std::uint16_t port = 0;
      if (auto bad = set_number(port, value, 1, 65535, "tunnel port"); !bad) return bad;
      server.tunnel_port = Port::of(port);
      return {};
    }
    case Tag::tun_nocsum:
      server.tunnel_checksum = TunnelChecksum::none;
      return {};
    case Tag::tun_csum:
      server.tunnel_checksum = TunnelChecksum::on;
      return {};
    case Tag::tun_remcsum:
      server.tunnel_checksum = TunnelChecksum::remote;
      return {};

    case Tag::mcast_interface:
      draft.daemon.interface = value.substr(0, 15);
      return {};
    case Tag::sync_id:
      return set_number(draft.daemon.sync_id, value, 0, 255, "syncid");
    case Tag::mcast_group:
      return set_mcast_group(draft.daemon, value);
    case Tag::mcast_port: {
      std::uint16_t port = 0;
      if (auto bad = set_number(port, value, 1, 65535, "mcast-port"); !bad) return bad;
      draft.daemon.port = Port::of(port);
      return {};
    }
    case Tag::mcast_ttl:
      return set_number(draft.daemon.ttl, value, 1, 255, "mcast-ttl");
    case Tag::sync_maxlen:
      return set_number(draft.daemon.maximum_length, value, 1, 65507, "sync-maxlen");

    case Tag::numeric:
      draft.style.addresses = Addresses::numeric;
      return {};
    case Tag::exact:
      draft.style.numbers = Numbers::exact;
      return {};
    case Tag::nosort:
      draft.style.order = Order::as_kept;
      return {};
    case Tag::stats:
      draft.style.view = std::min(draft.style.view, View::stats);
      return {};
    case Tag::rate:
      draft.style.view = std::min(draft.style.view, View::rate);
      return {};
    case Tag::thresholds:
      draft.style.view = std::min(draft.style.view, View::thresholds);
      return {};
    case Tag::persistent_conn:
      draft.style.view = std::min(draft.style.view, View::persistent_connections);
      return {};
    case Tag::tun_info:
      draft.style.view = std::min(draft.style.view, View::tunnels);
      return {};

    case Tag::no_server:
      return set_choice(service.policy.no_server, value, spec.name,
                        {{"rst", NoServer::reset}, {"icmp", NoServer::icmp}, {"drop", NoServer::drop}});
    case Tag::server_gone:
      return set_choice(service.policy.server_gone, value, spec.name,
                        {{"reset", ServerGone::reset}, {"drop", ServerGone::drop}, {"reschedule", ServerGone::reschedule}});
    case Tag::server_quiesced:
      return set_choice(service.policy.server_quiesced, value, spec.name,
                        {{"keep", ServerQuiesced::keep},
                         {"reset", ServerQuiesced::reset},
                         {"reschedule", ServerQuiesced::reschedule}});
    case Tag::state_timeout:
      return set_state_timeout(service.policy.timeouts, static_cast<State>(&spec - kTimeoutSpecs.data()), value);

    case Tag::check: {
      const auto check = parse_check(value);
      if (!check) return refuse(fmt::format("invalid check `{}' specified", value), check.error().message);
      draft.check.kind = check->kind;
      draft.check.port = check->port;
      draft.check.path = check->path;
      return {};
    }
    case Tag::inter: {
      const auto interval = parse_duration(value);
      if (!interval || *interval < Duration{100ms})
        return refuse(fmt::format("invalid interval `{}' specified", value), "expected 100ms to 31 days, like 2s or 500ms");
      draft.check.interval = *interval;
      return {};
    }
    case Tag::fall:
      return set_number(draft.check.fall, value, 1, kMostInARow, "fall");
    case Tag::rise:
      return set_number(draft.check.rise, value, 1, kMostInARow, "rise");

    case Tag::connection:
    case Tag::timeout:
    case Tag::daemon:
    case Tag::sort:  // the default; ipvsadm keeps it for old scripts
    case Tag::json:
    case Tag::extended:
    case Tag::classes:
    case Tag::kNamed:
      return {};
    case Tag::add_service:
    case Tag::edit_service:
    case Tag::delete_service:
    case Tag::flush:
    case Tag::list:
    case Tag::add_server:
    case Tag::delete_server:
    case Tag::edit_server:
    case Tag::set:
    case Tag::start_daemon:
    case Tag::stop_daemon:
    case Tag::restore:
    case Tag::save:
    case Tag::zero:
    case Tag::add_class:
    case Tag::delete_class:
    case Tag::help:
    case Tag::version:
      break;  // commands: the caller has refused them
  }
  return refuse(fmt::format("invalid option `--{}'", spec.name));
}

// --- What goes with what
// ---------------------------------------------------------------------------------------------------

/// Options a command must have, may have, and of which it may have one; all others are illegal with it.
struct Legal {
  Tag command;
  std::string_view name;  ///< in messages
  std::uint64_t required = 0, allowed = 0, exclusive = 0;
};
constexpr std::uint64_t kServiceOptions =
    bits(Tag::scheduler, Tag::persistent, Tag::netmask, Tag::one_packet, Tag::engine, Tag::flags, Tag::no_server,
         Tag::server_gone, Tag::server_quiesced, Tag::state_timeout);
constexpr std::uint64_t kTunnelOptions =
    bits(Tag::tun_type, Tag::tun_port, Tag::tun_nocsum, Tag::tun_csum, Tag::tun_remcsum);
constexpr std::uint64_t kCheckOptions = bits(Tag::check, Tag::inter, Tag::fall, Tag::rise);
constexpr std::uint64_t kServerOptions =
    bits(Tag::forward, Tag::weight, Tag::upper, Tag::lower) | kTunnelOptions | kCheckOptions;
constexpr Legal kLegal[] = {
    {Tag::add_service, "add-service", bits(Tag::service), kServiceOptions, 0},
    {Tag::edit_service, "edit-service", bits(Tag::service), kServiceOptions, 0},
    {Tag::delete_service, "delete-service", bits(Tag::service), 0, 0},
    {Tag::flush, "flush", 0, 0, 0},
    {Tag::list, "list", 0,
     bits(Tag::numeric, Tag::stats, Tag::rate, Tag::thresholds, Tag::persistent_conn, Tag::nosort,
          Tag::sync_id, Tag::exact, Tag::tun_info, Tag::json),
     bits(Tag::connection, Tag::service, Tag::timeout, Tag::daemon, Tag::classes)},
    {Tag::add_server, "add-server", bits(Tag::service, Tag::real_server), kServerOptions, 0},
    {Tag::edit_server, "edit-server", bits(Tag::service, Tag::real_server), kServerOptions, 0},
    {Tag::delete_server, "delete-server", bits(Tag::service, Tag::real_server), 0, 0},
    {Tag::set, "set", 0, 0, 0},
    {Tag::start_daemon, "start-daemon", 0,
     bits(Tag::mcast_interface, Tag::sync_id, Tag::mcast_group, Tag::mcast_port, Tag::mcast_ttl,
          Tag::sync_maxlen),
     0},
    {Tag::stop_daemon, "stop-daemon", 0, bits(Tag::sync_id), 0},
    {Tag::restore, "restore", 0, 0, 0},
    {Tag::save, "save", 0, bits(Tag::numeric, Tag::extended), 0},
    {Tag::zero, "zero", 0, bits(Tag::service), 0},
};

Outcome check_options(const Legal& legal, std::uint64_t given) {
  std::optional<std::size_t> chosen;
  for (std::size_t i = 0; i < kNamed; ++i) {
    const std::uint64_t one = std::uint64_t{1} << i;
    if ((given & one) == 0) {
      if ((legal.required & one) != 0)
        return refuse(fmt::format("You need to supply the '{}' option for the '{}' command", kOptionNames[i],
                                  legal.name));
      continue;
    }
    if ((legal.exclusive & one) != 0) {
      if (chosen)
        return refuse(fmt::format("The option '{}' conflicts with the '{}' option in the '{}' command",
                                  kOptionNames[i], kOptionNames[*chosen], legal.name));
      chosen = i;
    } else if (((legal.required | legal.allowed) & one) == 0) {
      return refuse(fmt::format("Illegal '{}' option with the '{}' command", kOptionNames[i], legal.name));
    }
  }
  return {};
}

Outcome check_service(const ServiceConfig& service) {
  if (service.key.mark == 0 && service.key.endpoint.port == Port{} && service.persistence == Duration{})
    return refuse("Zero port specified for non-persistent service", "expected a port, or -p");
  if (service.one_packet && service.key.mark == 0 && service.key.protocol != Protocol::udp)
    return refuse("One-Packet Scheduling is only for UDP virtual services");
  return {};
}

/// Tunnel options by type. REQUIRES: a tunnel
Outcome check_tunnel(TunnelType type, std::uint64_t given) {
  struct Rule {
    std::string_view name;
    std::uint64_t required, exclusive;
  };
  static constexpr Rule kRules[] = {
      {"ipip", 0, 0},
      {"gue", bits(Tag::tun_port), bits(Tag::tun_nocsum, Tag::tun_csum, Tag::tun_remcsum)},
      {"gre", 0, bits(Tag::tun_nocsum, Tag::tun_csum)},
  };
  const Rule& rule = kRules[static_cast<std::size_t>(type)];
  std::optional<Tag> chosen;
  const auto name = [](Tag t) { return kOptionNames[static_cast<std::size_t>(t)]; };
  for (const Tag tag : {Tag::tun_port, Tag::tun_nocsum, Tag::tun_csum, Tag::tun_remcsum}) {
    if ((given & bit(tag)) == 0) {
      if ((rule.required & bit(tag)) != 0)
        return refuse(
            fmt::format("You need to supply the '{}' option for the '{}' tunnel type", name(tag), rule.name));
      continue;
    }
    if ((rule.exclusive & bit(tag)) != 0) {
      if (chosen)
        return refuse(fmt::format("The option '{}' conflicts with the '{}' option in the '{}' tunnel type",
                                  name(tag), name(*chosen), rule.name));
      chosen = tag;
    } else if ((rule.required & bit(tag)) == 0) {
      return refuse(fmt::format("Illegal '{}' option with the '{}' tunnel type", name(tag), rule.name));
    }
  }
  return {};
}

/// A server's port follows its method and its service; families may differ through a tunnel only.
Outcome check_server(Draft& draft) {
  const ServiceKey& service = draft.service.key;
  ServerConfig& server = draft.server;
  if (service.mark == 0 && server.method != Method::masq) server.endpoint.port = service.endpoint.port;
  if (server.endpoint.address.family() != service.family() && server.method != Method::tunnel)
    return refuse("Different address family is allowed only for tunneling servers");
  if ((draft.given & kTunnelOptions) != 0 && server.method != Method::tunnel)
    return refuse("Tunnel options conflict with forward method", "expected -i with --tun-...");
  if ((draft.given & kCheckOptions) != 0) {
    if ((draft.given & bit(Tag::check)) == 0)
      return refuse("--inter, --fall and --rise say how --check is done", "expected --check tcp or --check http:/PATH");
    // A class has no address to ask at by the way of its packets; all ports are no port.
    if (service.mark != 0 && server.method != Method::masq)
      return refuse("--check asks at the virtual address, and a class has none", "expected -m, or the check of another program");
    if (server.endpoint.port == Port{} && draft.check.port == Port{})
      return refuse("--check asks at a port, and this server has none of its own", "expected --check tcp:PORT or http:PORT/PATH");
    server.check = draft.check;
  }
  if (server.method == Method::tunnel) return check_tunnel(server.tunnel_type, draft.given);
  return {};
}

Outcome check_listing(std::uint64_t given) {
  const auto any = [&](auto... tags) { return (given & bits(tags...)) != 0; };
  if ((any(Tag::connection, Tag::timeout, Tag::daemon) && any(Tag::stats, Tag::rate, Tag::thresholds)) ||
      (any(Tag::timeout, Tag::daemon) && any(Tag::persistent_conn)))
    return refuse("options conflicts in the list command");
  return {};
}

Result<Command, BadCommand> finish(Tag command, Draft& draft) {
  const auto service =
      (draft.given & bit(Tag::service)) != 0 ? std::optional{draft.service.key} : std::nullopt;
  const Notation notation = (draft.given & bit(Tag::json)) != 0 ? Notation::json : Notation::text;
  switch (command) {
    case Tag::add_service:
    case Tag::edit_service:
      if (auto ok = check_service(draft.service); !ok) return Failure{ok.error()};
      if (command == Tag::add_service) return Command{Change{AddService{draft.service}}};
      return Command{Change{EditService{draft.service}}};
    case Tag::delete_service:
      return Command{Change{DeleteService{draft.service.key}}};
    case Tag::flush:
      return Command{Change{ClearServices{}}};
    case Tag::add_server:
    case Tag::edit_server:
    case Tag::delete_server:
      if (!draft.server_port_given) draft.server.endpoint.port = draft.service.key.endpoint.port;
      if (command == Tag::delete_server)
        return Command{Change{DeleteServer{draft.service.key, draft.server.endpoint}}};
      if (auto ok = check_server(draft); !ok) return Failure{ok.error()};
      if (command == Tag::add_server) return Command{Change{AddServer{draft.service.key, draft.server}}};
      return Command{Change{EditServer{draft.service.key, draft.server}}};
    case Tag::zero:
      return Command{Change{ZeroCounters{service}}};
    case Tag::set:
      return Command{Change{draft.timeouts}};
    case Tag::list: {
      if (auto ok = check_listing(draft.given); !ok) return Failure{ok.error()};
      List list{List::Table::services, service, draft.style, notation};
      if ((draft.given & bit(Tag::connection)) != 0) list.table = List::Table::connections;
      if ((draft.given & bit(Tag::timeout)) != 0) list.table = List::Table::timeouts;
      if ((draft.given & bit(Tag::daemon)) != 0) list.table = List::Table::daemons;
      if ((draft.given & bit(Tag::classes)) != 0) list.table = List::Table::classes;
      return Command{list};
    }
    case Tag::save:
      return Command{Save{draft.style.addresses,
                          (draft.given & bit(Tag::extended)) != 0 ? Extras::included : Extras::restorable}};
    case Tag::restore:
      return Command{Restore{}};
    case Tag::start_daemon:
      return Command{Change{draft.daemon}};
    case Tag::stop_daemon:
      return Command{Change{StopDaemon{draft.daemon.role}}};
    default:
      return refuse("not a command");  // parse_command() has let commands through only
  }
}

}  // namespace

std::string_view timeout_option(State state) { return kTimeoutOptions[static_cast<std::size_t>(state)]; }

BadCommand try_help(std::string_view program) {
  return {fmt::format("Try `{0} -h' or '{0} --help' for more information.", program), 255, 0,
          "expected a command first: -A, -a, ..."};
}

Result<Command, BadCommand> parse_command(std::string_view program, std::span<const std::string> words,
                                          Lookups& lookups) {
  if (words.empty()) return Command{List{}};

  OptionReader reader{words};
  Option option;
  if (reader.next(option) != OptionReader::Step::option || option.spec->tag < Tag::add_service)
    return Failure{try_help(program)};
  const Tag command = option.spec->tag;
  if (command == Tag::help) return Command{Help{}};
  if (command == Tag::version) return Command{Version{}};
  const auto blame = [&](BadCommand bad) {
    bad.word = reader.index();
    return Failure{std::move(bad)};
  };

  if (command == Tag::add_class || command == Tag::delete_class) {
    const auto mark = parse_number(*option.value, 1, UINT32_MAX);
    if (!mark)
      return blame({fmt::format("invalid class `{}' specified", *option.value), 2, 0, "expected 1 to 4294967295"});
    const std::size_t first = reader.index() + 1;
    const auto rest = words.subspan(first);
    if (command == Tag::add_class) {
      auto rule = parse_class(static_cast<std::uint32_t>(*mark), rest);
      if (!rule) return Failure{BadCommand{rule.error().message, 2, first + rule.error().word, {}}};
      return Command{Change{AddClassRule{std::move(*rule)}}};
    }
    if (!rest.empty()) return Failure{BadCommand{fmt::format("unexpected argument {}", rest[0]), 2, first, {}}};
    return Command{Change{DeleteClass{static_cast<std::uint32_t>(*mark)}}};
  }

  Draft draft;
  if (command == Tag::start_daemon || command == Tag::stop_daemon) {
    if (option.value == "backup")
      draft.daemon.role = SyncRole::backup;
    else if (option.value != "master")
      return blame({command == Tag::start_daemon ? "illegal start-daemon parameter specified"
                                                 : "illegal start_daemon specified",
                    2, 0, "expected master or backup"});
  }

  OptionReader::Step step{};
  while ((step = reader.next(option)) == OptionReader::Step::option) {
    if (option.spec->tag >= Tag::add_service)
      return blame({fmt::format("invalid option `{}'", reader.word()), 2, 0, "one command a line"});
    if (auto ok = take(draft, option, lookups); !ok) return blame(ok.error());
  }
  if (step == OptionReader::Step::unknown)
    return blame({fmt::format("{}: unknown option", reader.word()), 255, 0, {}});
  if (step == OptionReader::Step::value_missing)
    return blame({fmt::format("{}: missing argument", reader.word()), 255, 0, {}});
  if (step == OptionReader::Step::value_unwanted)
    return blame({fmt::format("{}: option does not take an argument", reader.word()), 255, 0, {}});

  std::size_t used = 0;  // of the words that belong to no option
  if (command == Tag::set) {
    if (reader.others().size() < 3)
      return Failure{BadCommand{"--set option requires 3 timeout values", 2, words.size(),
                                "expected --set TCP TCPFIN UDP"}};
    for (Duration* field : {&draft.timeouts.tcp, &draft.timeouts.tcp_fin, &draft.timeouts.udp}) {
      const std::size_t at = reader.others()[used++];
      if (auto ok = set_seconds(*field, words[at], 0); !ok) {
        BadCommand bad = ok.error();
        bad.word = at;
        return Failure{std::move(bad)};
      }
    }
  }
  if (used < reader.others().size()) {
    const std::size_t at = reader.others()[used];
    return Failure{BadCommand{fmt::format("unexpected argument {}", words[at]), 2, at, {}}};
  }

  const auto at_end = [&](BadCommand bad) {
    bad.word = words.size();
    return Failure{std::move(bad)};
  };
  const auto* const legal = std::find_if(std::begin(kLegal), std::end(kLegal),
                                         [&](const Legal& l) { return l.command == command; });
  if (auto ok = parse_flags(draft.flags, draft.service.scheduler, draft.service.flags); !ok)
    return at_end(ok.error());
  if (auto ok = check_options(*legal, draft.given); !ok) return at_end(ok.error());
  auto finished = finish(command, draft);
  if (!finished) return at_end(finished.error());
  return finished;
}

// --- Typing it
// -----------------------------------------------------------------------------------------------------------

Unfinished read_unfinished(std::span<const std::string> words) {
  Unfinished line;
  OptionReader reader(words);
  Option option;
  std::uint64_t given = 0;
  const Legal* legal = nullptr;
  for (auto step = reader.next(option); step != OptionReader::Step::end; step = reader.next(option)) {
    if (option.spec == nullptr) continue;
    const Tag tag = option.spec->tag;
    if (tag > Tag::kNamed && line.command.empty()) {
      line.command = option.spec->name;
      legal = std::find_if(std::begin(kLegal), std::end(kLegal), [&](const Legal& l) { return l.command == tag; });
    }
    if (step == OptionReader::Step::value_missing) {
      line.value_of = option.spec->name;
      break;
    }
    if (tag < Tag::kNamed && tag != Tag::state_timeout) given |= bit(tag);
    line.given.emplace_back(option.spec->name, option.value.value_or(""));
  }

  const auto offer = [&](std::span<const OptionSpec> specs, auto wanted) {
    for (const OptionSpec& spec : specs)
      if (wanted(spec)) {
        const bool is_required = legal != nullptr && (legal->required & bit(spec.tag)) != 0;
        line.next.push_back({spec.letter, spec.name, is_required});
      }
  };
  if (line.command.empty()) {
    offer(kOptions, [](const OptionSpec& spec) { return spec.tag >= Tag::add_service; });
  } else if (legal != std::end(kLegal)) {
    std::uint64_t legal_now = (legal->required | legal->allowed) & ~given;
    if ((legal->exclusive & given) == 0) legal_now |= legal->exclusive;
    const auto fits = [&](const OptionSpec& spec) { return spec.tag < Tag::kNamed && (legal_now & bit(spec.tag)) != 0; };
    offer(kOptions, fits);
    offer(kTimeoutSpecs, fits);
  }
  return line;
}

}  // namespace director
