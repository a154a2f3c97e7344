# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is to know of a live lab, looked at when it is first asked for and then remembered. Judges nothing."""

import functools
import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

import netns
from cluster import BUILD, SWITCH, Lab
from diagnosis import neighbours, traffic
from topology import Node, in_url

CHECKED = re.compile(r"  (\S+) +(\S.*?)  +(.*)")  # a line of `realserver check`; a topic may have one space, and ends at two
METHOD_OF_MODE = {"nat": "masq", "tun": "tunnel", "dr": "route"}  # as `vsadm -L --json` calls them
METHOD_OPTION = {"masq": "-m", "tunnel": "-i", "route": "-g"}


@dataclass(frozen=True)
class Interface:
    name: str
    mac: str
    mtu: int
    up: bool
    bridge: str  # whose port it is
    addresses: tuple[str, ...]  # with their prefix lengths


@dataclass(frozen=True)
class Real:
    """A real server of a service, as the running rules have it."""

    protocol: str  # tcp, udp
    vip: str
    vport: int
    address: str
    port: int
    method: str  # masq, tunnel, route
    tunnel: tuple[str, int]  # kind and port
    usable: bool
    weight: int
    node: str  # who has the address; empty if nobody

    @property
    def service(self) -> str:
        """vsadm's words for it."""
        return f"-{self.protocol[0]} {in_url(self.vip)}:{self.vport}"

    @property
    def server(self) -> str:
        return f"{in_url(self.address)}:{self.port}"


@dataclass(frozen=True)
class Line:
    """One of `realserver check`."""

    verdict: str  # ok, fix, ?
    topic: str
    text: str


class Facts:
    def __init__(self, lab: Lab):
        self.lab, self.topology = lab, lab.topology

    def type(self, node: str, *words: str) -> str:
        """What to type to run a command there."""
        return f"testbed/lab exec --name {self.lab.name} {node} -- {shlex.join(words)}"

    def says(self, node: str, *words: str) -> str:
        """What a command prints there; nothing if it fails."""
        answer = self.lab.exec(node, [*words], check=False)
        return answer.stdout if answer.returncode == 0 else ""

    # --- nodes ---

    @functools.cache
    def interfaces(self, node: str) -> list[Interface]:
        found = netns.ip_json(self.lab.namespace(node), "address", "show")
        return [Interface(entry["ifname"], entry.get("address", ""), entry["mtu"], "UP" in entry["flags"], entry.get("master", ""),
                          tuple(f"{a['local']}/{a['prefixlen']}" for a in entry["addr_info"] if "local" in a))
                for entry in found if entry]

    def interface(self, node: str, name: str) -> Interface | None:
        return next((interface for interface in self.interfaces(node) if interface.name == name), None)

    def ips(self, node: str) -> set[str]:
        """Its addresses; a director behind a TAP is a host of its own, with those it was told."""
        if node == self.topology.director.name and self.topology.device == "tap":
            return {ip for link in self.topology.director.links for ip in link.ips}
        return {address.split("/")[0] for interface in self.interfaces(node) for address in interface.addresses}

    def subnets_of_director(self) -> list:
        director = self.topology.director
        if self.topology.device == "tap":
            return [ip_interface(address).network for link in director.links for address in link.addresses]
        return [ip_interface(address).network for interface in self.interfaces(director.name) for address in interface.addresses]

    def director_beside(self, address: str) -> str:
        """The director's address on the link that leads to `address`; empty if there is none."""
        own = {ip for link in self.topology.director.links for ip in link.ips}
        for subnet in self.subnets_of_director():
            if ip_address(address) in subnet:
                return next((ip for ip in sorted(own) if ip_address(ip) in subnet), "")
        return ""

    @functools.cached_property
    def owners(self) -> dict[str, tuple[str, str]]:
        """The node and interface of each MAC address."""
        found = {}
        for node in (SWITCH, *(node.name for node in self.topology.nodes)):
            found |= {interface.mac: (node, interface.name) for interface in self.interfaces(node)}
        for link in self.topology.director.links if self.topology.device == "tap" else ():
            found[link.mac] = (self.topology.director.name, link.tap)
        return found

    @functools.cache
    def sysctl(self, node: str, key: str) -> str:
        return self.says(node, "sysctl", "-n", key).strip()

    @functools.cache
    def route(self, node: str, to: str, *words: str) -> dict | None:
        """The route the node takes there; None if it has none."""
        answer = self.says(node, "ip", "-j", "route", "get", to, *words)
        return json.loads(answer)[0] if answer else None

    @functools.cache
    def listeners(self, node: str, protocol: str) -> set[tuple[str, int]]:
        found = set()
        for line in self.says(node, "ss", f"-Hln{protocol[0]}").splitlines():
            address, _, port = line.split()[3].rpartition(":")
            found.add((address.strip("[]").partition("%")[0], int(port)))
        return found

    # --- the director ---

    @functools.cached_property
    def directors(self) -> dict[str, list[int]]:
        """The processes of directors, by the node they run in."""
        found = {}
        for node in self.topology.nodes:
            pids = [pid for pid in netns.pids(self.lab.namespace(node.name)) if _program(pid) == "director"]
            if pids:
                found[node.name] = pids
        return found

    def vsadm(self, *words: str) -> dict | None:
        """None where no director answers."""
        answer = self.lab.vsadm(*words, "--json", check=False)
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    @functools.cached_property
    def listing(self) -> dict | None:
        return self.vsadm("-Ln")

    @functools.cached_property
    def reals(self) -> list[Real]:
        """Of the running rules; without a director those the lab would give it."""
        if self.listing is None:
            return self._planned()
        return [
            Real(service["protocol"], service["address"], service["port"], server["address"], server["port"], server["method"],
                 (server.get("tunnel", {}).get("type", ""), server.get("tunnel", {}).get("port", 0)),
                 server["usable"], server["weight"], self._has(server["address"]))
            for service in self.listing["services"] if service.get("protocol") in ("tcp", "udp") for server in service["servers"]
        ]

    def _planned(self) -> list[Real]:
        method = METHOD_OF_MODE[self.topology.mode]
        kind, _, _ = self.lab.options.tunnel.partition("-")
        tunnel = kind, 6080 if kind == "gue" else 0
        return [Real("tcp", vip, 80, server.ips[at], self.topology.server_port, method, tunnel, True, 1, server.name)
                for at, vip in enumerate(self.topology.vips) for server in self.topology.servers]

    def _has(self, address: str) -> str:
        return next((node.name for node in self.topology.nodes if address in self.ips(node.name)), "")

    def of_method(self, *methods: str) -> list[Real]:
        """One for each server and VIP, where the server is one of the lab's."""
        found = {(real.node, real.vip, real.method): real for real in reversed(self.reals)
                 if real.method in methods and self.is_server(real.node)}
        return sorted(found.values(), key=lambda real: (real.vip, len(real.node), real.node))

    def is_server(self, node: str) -> bool:
        return node in {server.name for server in self.topology.servers}

    # --- what has to be asked ---

    @functools.cached_property
    def client(self) -> Node:
        return self.topology.client

    def client_ip(self, vip: str) -> str:
        """The client's address of the VIP's family."""
        return next(ip for ip in self.client.ips if (":" in ip) == (":" in vip))

    @functools.cached_property
    def answers(self) -> dict[str, list[str]]:
        """The MAC addresses that answered when the client's link was asked once who has a VIP."""
        return neighbours.ask(self.lab, self.topology.vips)

    @functools.cached_property
    def traffic(self) -> traffic.Traffic:
        return traffic.watch(self)

    @functools.cached_property
    def checks(self) -> dict[tuple[str, str], list[Line]]:
        """What `realserver check` says, by server and VIP; all at once, since it waits for answers most of the time."""
        reals = self.of_method("route", "tunnel")
        with ThreadPoolExecutor(16) as pool:
            return {(real.node, real.vip): lines for real, lines in zip(reals, pool.map(self._check, reals))}

    def _check(self, real: Real) -> list[Line]:
        words = ["--mode", "tun" if real.method == "tunnel" else "dr", "--vip", real.vip, "--client", self.client_ip(real.vip)]
        kind, port = real.tunnel
        if real.method == "tunnel":
            words += ["--tun-type", kind, *(["--tun-port", str(port)] if kind == "gue" else [])]
        answer = self.lab.exec(real.node, [str(BUILD / "realserver"), "check", *words], check=False)
        found = [Line(*parts.groups()) for line in answer.stdout.splitlines() if (parts := CHECKED.fullmatch(line))]
        return found or [Line("?", "realserver check", answer.stderr.strip())]


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
