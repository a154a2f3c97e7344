// The texts, and who gets which.
#include "director/vsadm/help.h"

#include <fmt/format.h>

namespace director::vsadm {
namespace {

bool called_ipvsadm(std::string_view program) {
  return program.substr(program.rfind('/') + 1) == "ipvsadm";
}

constexpr std::string_view kUsage = R"(usage:
  {0} -A|-E SERVICE [-s SCHEDULER] [-p [SECONDS]] [-M MASK] [--pe ENGINE] [-b FLAGS] [-o]
  {0} -D SERVICE
  {0} -a|-e SERVICE -r SERVER [-g|-i|-m] [-w WEIGHT] [-x MOST] [-y LEAST] [TUNNEL]
  {0} -d SERVICE -r SERVER
  {0} -L [SERVICE|-c|--timeout|--daemon] [-n] [--stats|--rate|...] [--exact] [--nosort] [--json]
  {0} -S [-n] [--extended]
  {0} -R < RULES
  {0} -C
  {0} -Z [SERVICE]
  {0} --set TCP TCPFIN UDP
  {0} --start-daemon|--stop-daemon master|backup [DAEMON OPTIONS]
)";

constexpr std::string_view kBeyond = R"(  {0} --class N [tcp|udp|sctp|any] [dport PORTS] [daddr ADDRESSES] [sport PORTS] [saddr ADDRESSES] [-6]
  {0} --delete-class N
  {0} -L --classes
  {0} apply FILE [--dry-run] [--json]
  {0} drain SERVICE SERVER [--timeout T] [--on-timeout keep|reset] [--json]
  {0} doctor [--json]
  {0} explain [--json] 'PACKET'...
  {0} reasons [--json]
  {0} top [SERVICE] [--interval T] [-n COUNT] [--sort COLUMN] [--json]
  {0} tune [NAME[=VALUE]...] [--json]
  {0} --control SOCKET ...
)";

constexpr std::string_view kCommands = R"(
The command comes first, options follow in any order.

commands
  -A --add-service            a virtual service
  -E --edit-service           replace its options; what isn't given takes its default
  -D --delete-service         with its real servers
  -a --add-server             a real server of a service
  -e --edit-server            replace its options
  -d --delete-server
  -L -l --list                what there is
  -S --save                   the same as rules, for -R and apply
  -R --restore                add the rules on standard input: all of them, or none
  -C --clear                  delete all services
  -Z --zero                   counters to 0
  --set TCP TCPFIN UDP        time-outs in seconds, 0 keeps one
  --start-daemon master|backup   tell other directors of connections, or take over theirs
  --stop-daemon master|backup
  -h --help, -v --version
)";

constexpr std::string_view kBeyondCommands =
    R"(  --class N RULE              packets that match belong to class N, which -f N serves
  --delete-class N            all its rules
  apply FILE                  make the table equal to FILE (- is standard input) in one step; what stays the same keeps
                              its connections; --dry-run only says what would change, and how many connections and
                              hash slots each change would move
  drain SERVICE SERVER        no new connections for it, wait until the last has ended, remove it
  doctor                      mistakes that show in the traffic, each with its cure; exit code 1 when clients notice
  explain 'PACKET'            what would become of a packet such as 'tcp 10.0.0.1:4000 > 10.9.0.100:80 [S]', and why:
                              every decision; nothing has happened afterwards
  reasons                     what became of packets that weren't forwarded, counted
  top                         services, servers and drops with their rates, drawn anew every interval (2s); q quits, s sorts;
                              into a pipe table after table, -n of them
  tune                        knobs by their kernel names: show or set them
)";

constexpr std::string_view kOptions = R"(
SERVICE is one of
  -t --tcp-service HOST:PORT
  -u --udp-service HOST:PORT
  --sctp-service HOST:PORT
  -f --fwmark-service MARK [-6]

options of a service
  -s --scheduler NAME         default wlc
  -p --persistent [SECONDS]   a client keeps its server; default 360
  -M --netmask MASK           who counts as one client
  --pe ENGINE                 persistence engine
  -b --sched-flags FLAGS      sh-fallback,sh-port or mh-fallback,mh-port
  -o --ops                    every UDP packet by itself

options of a real server
  -r --real-server HOST[:PORT]
  -g --gatewaying             direct routing, the default
  -i --ipip                   through a tunnel
  -m --masquerading           NAT
  -w --weight N               default 1; 0: no new connections
  -x --u-threshold N          no new connections at N
  -y --l-threshold N          new ones again below N
  --tun-type ipip|gue|gre, --tun-port N, --tun-nocsum, --tun-csum, --tun-remcsum

options of the sync daemon
  --mcast-interface NAME      default eth0
  --mcast-group ADDRESS, --mcast-port N, --mcast-ttl N   default 224.0.0.81, 8848, 1
  --syncid N                  a backup takes messages of this number only; 0 (the default) takes all
  --sync-maxlen N             the longest message

options of listings
  -n --numeric                addresses and ports as numbers
  -c --connection             connections
  --stats --rate --thresholds --persistent-conn --tun-info
  --timeout --daemon
  -X --exact                  numbers in full
  --sort --nosort             by address (the default), or in the order they are kept
  --json                      everything, for programs
  --extended                  with -S: also what no ipvsadm could restore
)";

constexpr std::string_view kBeyondOptions = R"(
options of a service, beyond ipvsadm
  --no-server rst|icmp|drop                     what a client gets whom nobody can serve
  --server-gone reset|drop|reschedule           its connections when a server is removed
  --server-quiesced keep|reset|reschedule       its connections when a server's weight is 0
  --timeout-STATE TIME                          of this service: --timeout-established 2h
options of a real server, beyond ipvsadm
  --check tcp[:PORT]|http:[PORT]/PATH           asks it whether it is well
  --inter TIME --fall COUNT --rise COUNT        how often; so many in a row take it out and bring it back (2s 3 2)
)";

}  // namespace

std::string help(std::string_view program) {
  const bool plain = called_ipvsadm(program);
  std::string text = fmt::format(kUsage, program);
  if (!plain) text += fmt::format(kBeyond, program);
  text += kCommands;
  if (!plain) text += kBeyondCommands;
  text += kOptions;
  if (!plain) text += kBeyondOptions;
  return text;
}

std::string version(std::string_view program) {
  if (called_ipvsadm(program)) return "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";
  return fmt::format("vsadm {} (speaks as ipvsadm 1.31)\n", DIRECTOR_VERSION);
}

}  // namespace director::vsadm
