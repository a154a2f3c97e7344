# SPDX-License-Identifier: GPL-2.0-or-later
"""Who forwards: nobody, the kernel, a proxy, or the director. Each in a lab of its own, all with the same servers.

The lab of the kernel's ways and of the proxies is that of VS/NAT without a director: their place is the director's node,
the servers' default gateway. `none` is the lab of VS/DR with no director at all: the client on one Ethernet with a server.
"""

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import cluster
import netns
import scenarios
from cluster import Lab, LabError, Options
from netns import Process

HTTP, DNS = 80, 53  # the services every lab has; the datagrams of the bench go to the second one's port
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
DEVICES = ("packet", "tap", "xdp")


class CantRun(Exception):
    """Why there are no figures of a contender, or of one work with it."""


@dataclass
class Contender:
    """A way for packets from the client to the servers. up() and down() bracket its life."""

    name: str
    lab: Lab

    def up(self) -> None:
        self.lab.up()
        for namespace in self.lab.namespaces():  # hosts that ask for IPv6 routers are no idleness
            netns.set_sysctl(namespace, "net.ipv6.conf.all.disable_ipv6", "1")
        client = self.lab.namespace("client")
        # Ten thousands of connections in a few seconds want more than the usual 28,000 ports.
        netns.set_sysctl(client, "net.ipv4.ip_local_port_range", "1024 65535")
        self.count_datagrams()
        self.start()
        try:
            self.lab.wait_for(self.url)
        except LabError as problem:
            raise CantRun(self.last_words() or str(problem)) from None

    def down(self) -> None:
        self.lab.down()

    # --- what differs ---

    def start(self) -> None:
        """Makes the way, in a lab whose director's node forwards nothing yet."""

    @property
    def web(self) -> tuple[str, int]:
        """Where the client finds the pages."""
        return self.lab.topology.vip, HTTP

    @property
    def names(self) -> tuple[str, int]:
        """Where the client sends datagrams to."""
        return self.lab.topology.vip, DNS

    def check_datagrams(self) -> None:
        """Raises CantRun where UDP is not forwarded."""

    # --- what is the same ---

    @property
    def url(self) -> str:
        address, port = self.web
        return f"http://{address}:{port}/"

    def last_words(self) -> str:
        """Of a program in the director's node that ended."""
        dead = [what for what, process in self.lab.processes.items() if what.startswith("director") and not process.alive()]
        return " ".join(self.lab.log_tail(dead[0], 1).split()) if dead else ""

    @property
    def node(self) -> str:
        return self.lab.namespace("director")

    def processes(self) -> list[Process]:
        """Those that forward; none where the kernel does."""
        return [Process.of(pid) for pid in netns.pids(self.node)]

    def count_datagrams(self) -> None:
        """The servers' kernels count what arrives at the name service's port, and drop it: no program has to keep up."""
        rules = f"""table inet bench {{
          counter arrived {{ }}
          chain input {{ type filter hook input priority 0; udp dport {DNS} counter name arrived drop; }}
        }}"""
        for server in self.lab.topology.servers:
            netns.load_nft(self.lab.namespace(server.name), rules)

    def datagrams(self, size: int) -> int:
        """Datagrams with `size` bytes that have arrived. A frame of several (UDP segmentation) counts as what it carries."""
        total = 0
        for server in self.lab.topology.servers:
            counter = netns.nft_counter(self.lab.namespace(server.name), "inet", "bench", "arrived")
            total += (counter["bytes"] - 28 * counter["packets"]) // size  # an IPv4 and a UDP header a frame
        return total


class Nobody(Contender):
    """The client asks one server, on its own Ethernet."""

    @property
    def web(self) -> tuple[str, int]:
        return self.lab.topology.servers[0].ip, self.lab.topology.server_port

    @property
    def names(self) -> tuple[str, int]:
        return self.lab.topology.servers[0].ip, DNS


class Routing(Nobody):
    """The same, through the director's node as a plain router: nothing is balanced or translated."""

    def start(self) -> None:
        netns.set_sysctl(self.node, "net.ipv4.ip_forward", "1")
        back = self.lab.topology.segments[-1]
        netns.ip(self.lab.namespace("client"), "route", "add", back.place, "via", self.lab.topology.director.ip)


class OwnsVip(Contender):
    """The director's host has the VIP as an address of its own."""

    def start(self) -> None:
        topology = self.lab.topology
        netns.ip(self.node, "address", "add", f"{topology.vip}/32", "dev", topology.director.links[0].interface)
        netns.set_sysctl(self.node, "net.ipv4.ip_local_port_range", "1024 65535")
        self.run()

    def run(self) -> None:
        raise NotImplementedError


class Nft(OwnsVip):
    """The kernel's destination NAT, round robin; connection tracking brings the replies back."""

    def run(self) -> None:
        topology = self.lab.topology
        reals = topology.servers
        web = ", ".join(f"{i} : {real.ip} . {topology.server_port}" for i, real in enumerate(reals))
        names = ", ".join(f"{i} : {real.ip} . {DNS}" for i, real in enumerate(reals))
        turn = f"dnat ip to numgen inc mod {len(reals)} map"
        netns.load_nft(self.node, f"""table ip bench {{
          chain in {{
            type nat hook prerouting priority dstnat;
            ip daddr {topology.vip} tcp dport {HTTP} {turn} {{ {web} }}
            ip daddr {topology.vip} udp dport {DNS} {turn} {{ {names} }}
          }}
        }}""")
        netns.set_sysctl(self.node, "net.ipv4.ip_forward", "1")


class Haproxy(OwnsVip):
    """mode tcp, round robin, a thread for each processor, and splice: what is not copied through user space needn't be."""

    def run(self) -> None:
        if not shutil.which("haproxy"):
            raise CantRun("haproxy is missing; apt-get install haproxy")
        topology = self.lab.topology
        servers = "\n".join(f"  server {real.name} {real.ip}:{topology.server_port}" for real in topology.servers)
        config = self.lab.folder / "haproxy.cfg"
        config.write_text(f"""\
global
  maxconn 4000
defaults
  mode tcp
  option splice-request
  option splice-response
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen web
  bind {topology.vip}:{HTTP}
  balance roundrobin
{servers}
""")
        self.lab.spawn("director", "haproxy", ["haproxy", "-db", "-f", str(config)])

    def check_datagrams(self) -> None:
        raise CantRun("HAProxy forwards no UDP")


class NginxStream(OwnsVip):
    """nginx's stream module, round robin, a worker for each processor; TCP and UDP."""

    def run(self) -> None:
        if not STREAM_MODULE.exists():
            raise CantRun("nginx's stream module is missing; apt-get install libnginx-mod-stream")
        topology, scratch = self.lab.topology, self.lab.folder / "stream"
        scratch.mkdir()

        def servers(port: int) -> str:
            return " ".join(f"server {real.ip}:{port};" for real in topology.servers)

        config = scratch / "nginx.conf"
        config.write_text(f"""\
load_module {STREAM_MODULE};
daemon off;
user root;
worker_processes auto;
pid {scratch}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 8000; }}
stream {{
  upstream web {{ {servers(topology.server_port)} }}
  upstream names {{ {servers(DNS)} }}
  server {{ listen {topology.vip}:{HTTP} reuseport; proxy_pass web; }}
  server {{ listen {topology.vip}:{DNS} udp reuseport; proxy_pass names; proxy_timeout 20s; }}
}}
""")
        self.lab.spawn("director", "stream", ["nginx", "-e", "stderr", "-p", str(scratch), "-c", str(config)])


class Director(Contender):
    """Ours."""

    accelerate = ""  # what --accelerate is given; empty: nothing

    def start(self) -> None:
        self.lab.start_director(*self.words())

    def words(self) -> list[str]:
        return ["--accelerate", self.accelerate] if self.accelerate and _offers("--accelerate") else []

    def mac(self) -> str:
        """Of the interface clients see."""
        link = self.lab.topology.director.links[0]
        if link.bridge:
            return link.mac
        return netns.ip_json(self.node, "link", "show", "dev", link.interface)[0]["address"]

    def no_shortcuts(self) -> str:
        """Why big flows take no shortcut through the kernel; empty when they do."""
        if self.accelerate == "off":
            return "--accelerate off"
        for line in self.lab.log_tail("director", 100).splitlines():
            if "walk through the director" in line:
                return line.partition("walk through the director")[2].strip(" :") or line
        return ""

    def decapsulates(self) -> bool:
        """Whether realserver takes tunnels apart on the servers, the kernel having no ipip."""
        return any(what.endswith(" realserver") and process.alive() for what, process in self.lab.processes.items())


@functools.cache
def _offers(option: str) -> bool:
    """Whether this director knows an option: the bench also runs with those before and after it."""
    return option in subprocess.run([cluster.BUILD / "director", "--help"], capture_output=True, text=True).stdout


PEERS = {"none": (Nobody, "dr"), "routing": (Routing, "nat"), "nft": (Nft, "nat"), "haproxy": (Haproxy, "nat"),
         "nginx": (NginxStream, "nat")}
OURS = tuple(f"{mode}-{device}" for device in DEVICES for mode in scenarios.MODES)
NAMES = (*PEERS, *OURS)


def make(name: str, lab_name: str, accelerate: str = "") -> Contender:
    """Raises CantRun; nothing has been made then."""
    if name in PEERS:
        kind, mode = PEERS[name]
        return kind(name, Lab(Options(lab_name, mode, director="none")))
    mode, _, device = name.partition("-")
    if device not in scenarios.DEVICES:
        raise CantRun(f"this director has no {device}: device")
    if not (cluster.BUILD / "director").exists():
        raise CantRun(f"{cluster.BUILD / 'director'} is missing")
    made = Director(name, Lab(Options(lab_name, mode, device=device, director="none")))
    made.accelerate = accelerate
    return made
