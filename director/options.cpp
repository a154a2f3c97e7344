// The daemon's options, described once for command line and INI file (Boost.Program_options).
#include "director/options.h"

#include <fmt/format.h>

#include <boost/program_options.hpp>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "director/base/startup_error.h"
#include "director/core/tunables.h"
#include "director/rules.h"

namespace director {
namespace {

namespace po = boost::program_options;

constexpr const char* kDefaultControl = "/run/director/control.sock";

using Texts = std::vector<std::string>;

/// What both the command line and the file of --config take.
po::options_description settings() {
  po::options_description all("What to run");
  auto add = all.add_options();
  add("device", po::value<Texts>()->composing()->value_name("SPEC"),
      "[NAME=]KIND:INTERFACE[,key=value...], repeatable. packet:eth0 works on an existing interface and "
      "learns its "
      "addresses, routes and neighbours from the kernel; tap:lb0 makes a TAP interface and is a host of its "
      "own behind "
      "it, with the keys bridge, mac, address (repeatable), gateway, mtu");
  add("rules", po::value<std::string>()->value_name("FILE"),
      "services and real servers, as ipvsadm-save -n prints them; read again on SIGHUP");
  add("control", po::value<std::string>()->value_name("PATH"),
      "unix socket for vsadm; default $DIRECTOR_CONTROL, else /run/director/control.sock");
  add("guard", po::value<std::string>()->value_name("on|off"),
      "keep the host's own stack out of what the director forwards, by an nftables table that ends with the "
      "process; "
      "default on");
  add("accelerate", po::value<std::string>()->value_name("tc|off"),
      "let the kernel repeat, at the interface, what the director decided for a big established flow (NAT, "
      "direct routing; packet devices, Linux 6.6); default tc, without effect where the kernel can't");
  add("policy", po::value<std::string>()->value_name("improved|kernel"),
      "where the director departs from the kernel's IPVS on purpose: its own way (default) or exactly the "
      "kernel's");
  add("tune", po::value<Texts>()->composing()->value_name("NAME=VALUE"),
      "one of the kernel's net.ipv4.vs.* knobs, repeatable");
  add("pcap", po::value<std::string>()->value_name("FILE"),
      "record all frames as pcapng, each with its fate as a comment, and all else that director replay FILE needs");
  add("proc-dir", po::value<std::string>()->value_name("DIR"),
      "keep DIR/net/ip_vs, ip_vs_conn, ip_vs_stats, ... as the kernel has them below /proc/net, for exporters that "
      "read those: prometheus-node-exporter --path.procfs=DIR");
  add("http", po::value<std::string>()->value_name("ADDRESS:PORT"),
      "serve a status page (/), metrics for Prometheus (/metrics), /healthz and JSON (/api) there, to be looked at only; off unless given");
  add("log-level", po::value<std::string>()->value_name("LEVEL"), "error, warning, info (default) or debug");
  add("log-format", po::value<std::string>()->value_name("logfmt|json"), "of the lines on standard error");
  return all;
}

po::options_description actions() {
  po::options_description all("Other");
  auto add = all.add_options();
  add("config", po::value<std::string>()->value_name("FILE"),
      "any of the options above, as INI: device = packet:eth0");
  add("check", "read options and files, say what is wrong with them, and do nothing");
  add("json", "with --check: what is wrong as JSON, {\"problems\": [{\"file\", \"line\", \"column\", \"message\"}]}");
  add("help", "this text");
  add("version", "the version");
  return all;
}

/// Complains about one option; the caller adds where it stood.
[[noreturn]] void refuse(const std::string& sentence) {
  throw std::invalid_argument(sentence);
}

template <typename E>
E one_of(const po::variables_map& given, const char* option,
         std::initializer_list<std::pair<std::string_view, E>> words, E otherwise) {
  if (given.count(option) == 0) return otherwise;
  const auto& text = given[option].as<std::string>();
  std::string known;
  for (const auto& [word, value] : words) {
    if (word == text) return value;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", word);
  }
  refuse(fmt::format("--{} is one of {}, not \"{}\"", option, known, text));
}

std::vector<SetTunable> parse_tunable(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) refuse(fmt::format("--tune takes NAME=VALUE, not \"{}\"", text));
  const std::string name = text.substr(0, equals);
  if (find_tunable(name) == nullptr) {
    std::string known;
    for (const TunableInfo& knob : kTunables) known += fmt::format("{}{}", known.empty() ? "" : ", ", knob.name);
    refuse(fmt::format("--tune {}: there is no knob \"{}\", only {}", text, name, known));
  }
  auto knobs = read_tunable(name, std::string_view{text}.substr(equals + 1));
  if (!knobs) refuse(fmt::format("--tune {}", knobs.error().message));
  return *knobs;
}

Endpoint parse_http(const std::string& text) {
  const auto wrong = [&](std::string_view why) {
    refuse(fmt::format("--http takes ADDRESS:PORT, for instance 127.0.0.1:9101 or [::1]:9101, not \"{}\": {}", text, why));
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) wrong("there is no port");
  std::string_view host = std::string_view{text}.substr(0, colon);
  const std::string_view port = std::string_view{text}.substr(colon + 1);
  const bool brackets = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (brackets) host = host.substr(1, host.size() - 2);
  const auto address = IpAddress::parse(host);
  if (!address) wrong(host.empty() ? "there is no address" : "the address is no IP address in numbers");
  if (address->is_v4() == brackets) wrong(brackets ? "brackets are for IPv6" : "an IPv6 address stands in brackets");
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc{} || end != port.data() + port.size() || number == 0) wrong("the port is a number from 1 to 65535");
  return {*address, Port::of(number)};
}

DeviceSpec parse_device(const std::string& text) {
  auto spec = DeviceSpec::parse(text);
  if (!spec) refuse(spec.error().message);
  if (const auto good = check_device(*spec); !good) refuse(good.error().message);
  return *spec;
}

/// Throws std::invalid_argument.
Config to_config(const po::variables_map& given) {
  const auto text = [&](const char* option) {
    return given.count(option) != 0 ? given[option].as<std::string>() : std::string{};
  };
  Config config;
  std::set<std::string> names;
  std::set<std::string> interfaces;
  if (given.count("device") != 0) {
    for (const std::string& device : given["device"].as<Texts>()) {
      config.devices.push_back(parse_device(device));
      if (!names.insert(config.devices.back().name).second)
        refuse(fmt::format("--device {}: there is already a device of that name", device));
      if (!interfaces.insert(config.devices.back().interface).second)
        refuse(fmt::format("--device {}: the interface is already a device", device));
    }
  }
  config.rules = text("rules");
  config.control = text("control");
  if (config.control.empty()) {
    const char* environment = std::getenv("DIRECTOR_CONTROL");
    config.control = environment != nullptr && *environment != '\0' ? environment : kDefaultControl;
  }
  config.guard = one_of(given, "guard", {{"on", Guard::on}, {"off", Guard::off}}, Guard::on);
  config.accelerate =
      one_of(given, "accelerate", {{"tc", Accelerate::tc}, {"off", Accelerate::off}}, Accelerate::tc);
  config.policy =
      one_of(given, "policy", {{"improved", Policy::improved}, {"kernel", Policy::kernel}}, Policy::improved);
  if (given.count("tune") != 0)
    for (const std::string& knob : given["tune"].as<Texts>()) 
      for (SetTunable& set : parse_tunable(knob)) config.tunables.push_back(std::move(set));
  config.pcap = text("pcap");
  config.proc_dir = text("proc-dir");
  if (given.count("http") != 0) config.http = parse_http(text("http"));
  using log::Level;
  config.log_level = one_of(
      given, "log-level",
      {{"error", Level::error}, {"warning", Level::warning}, {"info", Level::info}, {"debug", Level::debug}},
      Level::info);
  using log::Format;
  config.log_format =
      one_of(given, "log-format", {{"logfmt", Format::logfmt}, {"json", Format::json}}, Format::logfmt);
  return config;
}

/// Reads the INI file. A mistake in it is told as the file's, so it is judged alone first.
po::parsed_options read_config_file(const std::string& file, const po::options_description& known) {
  std::ifstream in(file);
  if (!in)
    throw StartupError(ExitCode::configuration,
                       fmt::format("{}: can't be read; give --config a file that can", file));
  try {
    const auto parsed = po::parse_config_file(in, known);
    po::variables_map alone;
    po::store(parsed, alone);
    to_config(alone);
    return parsed;
  } catch (const std::exception& error) {
    throw StartupError(ExitCode::configuration, fmt::format("{}: {}", file, error.what()));
  }
}

}  // namespace

std::string usage() {
  std::ostringstream out;
  out << "director: layer-4 load balancing the LVS way, in user space\n\n"
         "  director --device packet:eth0 --rules web.rules\n"
         "  director explain --rules web.rules PACKET   what becomes of a packet and why, no device, no privilege\n"
         "  director replay FILE|DIR -w OUT.pcap        the core over a recording or a capture, no device, no privilege\n\n"
      << settings() << "\n"
      << actions()
      << "\nExit codes: 0 ok, 1 failed at run time, 2 usage, 3 configuration, 4 the machine lacks "
         "something.\n";
  return out.str();
}

Options parse_options(const std::vector<std::string>& words) {
  const auto in_file = settings();
  po::options_description all;
  all.add(in_file).add(actions());
  try {
    namespace style = po::command_line_style;
    po::variables_map given;
    po::store(po::command_line_parser(words)
                  .options(all)
                  .style(style::unix_style & ~style::allow_guessing)
                  .positional({})
                  .run(),
              given);
    if (given.count("help") != 0) return {Task::help, {}, {}};
    if (given.count("version") != 0) return {Task::version, {}, {}};
    if (given.count("config") != 0)
      po::store(read_config_file(given["config"].as<std::string>(), in_file), given);

    Options options;
    options.config = to_config(given);
    if (given.count("check") != 0) options.task = Task::check;
    if (given.count("json") != 0) options.told = Told::as_json;
    if (options.told == Told::as_json && options.task != Task::check) refuse("--json goes with --check");
    if (options.task == Task::run && options.config.devices.empty())
      refuse("at least one --device is needed, for instance --device packet:eth0");
    return options;
  } catch (const StartupError&) {
    throw;
  } catch (const std::exception& error) {
    throw StartupError(ExitCode::usage, fmt::format("{}; see director --help", error.what()));
  }
}

}  // namespace director
