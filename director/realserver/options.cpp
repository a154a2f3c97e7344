// See the header.
#include "director/realserver/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>

#include "director/realserver/failure.h"
#include "director/realserver/ledger_file.h"

namespace director::realserver {
namespace {

namespace po = boost::program_options;

constexpr const char* kHelp =
    R"(realserver: prepares and checks this host as an LVS real server (VS/DR, VS/TUN)

  realserver up    --mode dr|tun --vip ADDRESS... [--tun-type TYPE]... [--tun-port PORT]
                   [--interface IF] [--daemon]
  realserver down  --mode dr|tun --vip ADDRESS...
  realserver check [--vip ADDRESS...] [--mode dr|tun] [--interface IF] [--client ADDRESS] [--json]

up     puts the VIP on lo, keeps this host from answering ARP for it (IPv6 is quiet by
       itself) and, for tun, sees to a decapsulator: the kernel's where it has one, else
       realserver's own, which stays in the foreground. Prints each change; saying it
       again changes nothing.
down   puts back what up changed.
check  who answers ARP or neighbour discovery for the VIP, the settings, the tunnel, the
       way back, the MTU: a line each, ok or what to do.

  --mode dr|tun      how packets reach this host: unchanged, or in an IP tunnel
  --vip ADDRESS      a virtual address, IPv4 or IPv6; repeatable
  --tun-type TYPE    what the tunnel is: ipip (default), gre or gue, as in the director's
                     rules; repeatable: several kinds at once. Checksums need no option
  --tun-port PORT    the UDP port of gue (default: 6080)
  --interface IF     the link to the director (default: all)
  --daemon           the decapsulator goes to the background once it works
  --client ADDRESS   check the way back to this client
  --json             what check finds, for programs
  --state DIR        where to remember what was changed (default: /run/realserver)
  --help, --version

Exit codes: 0 ok, 1 failed or something is to be done, 2 usage, 4 this machine or its
privileges lack something.
)";

Failure usage(const std::string& sentence) {
  return {ExitCode::usage, sentence + " (see: realserver --help)"};
}

std::optional<Command> parse_command(const std::string& word) {
  if (word == "up") return Command::up;
  if (word == "down") return Command::down;
  if (word == "check") return Command::check;
  if (word == "help") return Command::help;
  return {};
}

IpAddress parse_vip(const std::string& text) {
  const auto vip = IpAddress::parse(text);
  if (!vip) throw usage(fmt::format("--vip {}: expected an address, such as 10.9.0.100", text));
  if (vip->is_multicast() || vip->is_broadcast() || vip->is_loopback() || vip->is_unspecified()) {
    throw usage(fmt::format("--vip {}: no address a service can have", text));
  }
  return *vip;
}

/// --tun-type, each once; gue with the port.
std::vector<TunnelEnd> parse_tunnels(const po::variables_map& given) {
  std::vector<TunnelEnd> ends;
  bool gue = false;
  const Port port = given.count("tun-port") != 0 ? Port::of(given["tun-port"].as<std::uint16_t>()) : kGuePort;
  if (port == Port{}) throw usage("--tun-port 0: expected a port from 1 to 65535");
  if (given.count("tun-type") != 0) {
    for (const std::string& word : given["tun-type"].as<std::vector<std::string>>()) {
      TunnelEnd end;
      if (word == "gre") {
        end.kind = TunnelEnd::Kind::gre;
      } else if (word == "gue") {
        end = {TunnelEnd::Kind::gue, port};
        gue = true;
      } else if (word != "ipip") {
        throw usage(fmt::format("--tun-type {}: expected ipip, gre or gue", word));
      }
      if (std::find(ends.begin(), ends.end(), end) == ends.end()) ends.push_back(end);
    }
  }
  if (given.count("tun-port") != 0 && !gue) throw usage("--tun-port is for --tun-type gue");
  return ends;
}

Options take(const po::variables_map& given) {
  Options options;
  if (given.count("help") != 0) return options;
  if (given.count("version") != 0) {
    options.command = Command::version;
    return options;
  }
  if (given.count("command") == 0) throw usage("expected a command: up, down or check");
  const auto& words = given["command"].as<std::vector<std::string>>();
  const auto command = parse_command(words.front());
  if (!command) throw usage(fmt::format("{}: unknown command; expected up, down or check", words.front()));
  if (words.size() > 1) throw usage(fmt::format("{}: unexpected word", words[1]));
  options.command = *command;

  if (given.count("mode") != 0) {
    const auto& word = given["mode"].as<std::string>();
    options.mode = parse_mode(word);
    if (!options.mode) throw usage(fmt::format("--mode {}: expected dr or tun", word));
  }
  if (given.count("vip") != 0) {
    for (const std::string& text : given["vip"].as<std::vector<std::string>>()) {
      const IpAddress vip = parse_vip(text);
      if (std::find(options.vips.begin(), options.vips.end(), vip) == options.vips.end())
        options.vips.push_back(vip);
    }
  }
  options.tunnels = parse_tunnels(given);
  if (!options.tunnels.empty() && options.mode == Mode::dr) throw usage("--tun-type is for --mode tun");
  if (given.count("interface") != 0) options.interface = given["interface"].as<std::string>();
  if (given.count("client") != 0) {
    const auto& text = given["client"].as<std::string>();
    options.client = IpAddress::parse(text);
    if (!options.client) throw usage(fmt::format("--client {}: expected an address", text));
  }
  if (given.count("daemon") != 0) options.running = Running::daemon;
  if (given.count("json") != 0) {
    if (options.command != Command::check) throw usage("--json is for check");
    options.notation = Notation::json;
  }
  options.state = given["state"].as<std::string>();

  if (options.command == Command::up || options.command == Command::down) {
    if (!options.mode) throw usage("--mode dr or --mode tun is needed");
    if (options.vips.empty()) throw usage("--vip ADDRESS is needed");
  }
  return options;
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
  po::options_description description;
  description.add_options()                                                       //
      ("help,h", "")("version", "")("daemon", "")("json", "")                     //
      ("mode", po::value<std::string>())                                          //
      ("vip", po::value<std::vector<std::string>>()->composing())                 //
      ("tun-type", po::value<std::vector<std::string>>()->composing())            //
      ("tun-port", po::value<std::uint16_t>())                                    //
      ("interface", po::value<std::string>())                                     //
      ("client", po::value<std::string>())                                        //
      ("state", po::value<std::string>()->default_value(kDefaultStateDirectory))  //
      ("command", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("command", -1);
  try {
    po::variables_map given;
    po::store(po::command_line_parser(argc, argv).options(description).positional(positional).run(), given);
    return take(given);
  } catch (const po::error& e) {
    throw usage(e.what());
  }
}

const char* help_text() {
  return kHelp;
}

}  // namespace director::realserver
