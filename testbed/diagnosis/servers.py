# SPDX-License-Identifier: GPL-2.0-or-later
"""Mistakes at real servers, and in the rules about them."""

import contextlib
import errno
import re
import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import netns
from diagnosis import vip, wires
from diagnosis.facts import METHOD_OPTION, Facts, Real
from diagnosis.finding import Finding, fail, ok, warn

LEARNT_OTHERWISE = ("arp", "neighbours")  # what who_answers() asks, of everybody and by name


def realserver_check(facts: Facts) -> Iterator[Finding]:
    """What `realserver check` finds there: VIP missing on lo, ARP settings, no decapsulator, rp_filter that eats what comes
    out of a tunnel, a way back through the director, a tiny MTU.
    """
    for (node, _), lines in facts.checks.items():
        cut_off = wires.broken(facts, node) or any(line.topic == "address" and line.verdict == "fix" for line in lines)
        for line in lines:
            if line.verdict == "ok" or line.topic in LEARNT_OTHERWISE or line.topic == "way back" and cut_off:
                continue  # a route from the VIP needs the VIP
            if line.verdict == "?":
                yield warn(f"{node}: {line.topic}: {line.text}")
            elif cure := vip.command(line):
                why = line.text.removesuffix(cure).removesuffix(": ")
                yield fail(f"{node}: {line.topic}: {why}", facts.type(node, *cure.split()))
            else:
                yield fail(f"{node}: {line.topic}: {line.text}")


def way_back(facts: Facts) -> Iterator[Finding]:
    """VS/NAT: a reply that does not pass the director keeps the server's address, and the client, who never spoke to that,
    resets it. Replies pass the director if it is the server's way to the client: not so without that route, nor where both are
    in one subnet.
    """
    for real in facts.of_method("masq"):
        client, director = facts.client_ip(real.vip), facts.director_beside(real.address)
        route = facts.route(real.node, client, "from", real.address)
        ip = ("ip", "-6", "route") if ":" in client else ("ip", "route")
        if not director:
            yield warn(f"{real.node} {real.address} is in no subnet of the director's: its gateway must send replies there",
                       facts.type(real.node, "ip", "route", "get", client))
        elif route is None:
            yield fail(f"{real.node} has no route to the client {client}",
                       facts.type(real.node, *ip, "replace", "default", "via", director))
        elif "gateway" not in route:
            yield fail(f"{real.node} answers the client {client} directly by {route['dev']} (client and server in one subnet), "
                       "past the director", facts.type(real.node, *ip, "replace", client, "via", director))
        elif route["gateway"] not in facts.ips("director"):
            yield fail(f"{real.node} answers by {route['gateway']}, past the director",
                       facts.type(real.node, *ip, "replace", _covering(facts, real.node, client), "via", director))
        else:
            yield ok(f"{real.node} to {client} by {director}")


def _covering(facts: Facts, node: str, client: str) -> str:
    """The destination of the route that leads there now."""
    answer = facts.route(node, client, "fibmatch") or {}
    return answer.get("dst", "default")


def method(facts: Facts) -> Iterator[Finding]:
    """-g changes the MAC address only, so the server must be on a link of the director's; through a router the packet, still
    addressed to the VIP, comes back.
    """
    for real in facts.of_method("route"):
        if not any(ip_address(real.address) in subnet for subnet in facts.subnets_of_director()):
            yield fail(f"{real.node} {real.address} is in the rules with -g, but in no subnet of the director's",
                       facts.type("director", "vsadm", "-e", *real.service.split(), "-r", real.server, "-i"))


def in_rules(facts: Facts) -> Iterator[Finding]:
    """A real server that nobody is, or that the director's health check has taken out."""
    for real in facts.reals if facts.listing else ():
        if not real.node:
            yield fail(f"no node has {real.address}, a real server of {real.service}",
                       facts.type("director", "vsadm", "-d", *real.service.split(), "-r", real.server))
        elif not real.usable and real.weight:
            yield warn(f"{real.node} is out of {real.service}: its health check fails", facts.type("director", "vsadm", "-Ln"))


def listening(facts: Facts) -> Iterator[Finding]:
    """Nothing listens where the packets arrive: VS/NAT can translate the port, and then that one counts; with VS/DR and
    VS/TUN it is the VIP's, at the VIP.
    """
    for real in facts.reals:
        if not facts.is_server(real.node):
            continue
        address, port = (real.address, real.port) if real.method == "masq" else (real.vip, real.vport)
        everywhere = {"*", "::" if ":" in address else "0.0.0.0"}
        there = {at for ip, at in facts.listeners(real.node, real.protocol) if ip in {address, *everywhere}}
        if port not in there:
            yield fail(f"nothing listens on {real.node} at {real.protocol} {address} port {port}", _listen(facts, real, there))


def _listen(facts: Facts, real: Real, there: set[int]) -> str:
    """A rule with a port that is listened at, the lab's first; else the lab's web server again."""
    ports = sorted(there, key=lambda port: (port != facts.topology.server_port, port))
    if real.method == "masq" and ports:
        right = re.sub(r"\d+$", str(ports[0]), real.server)
        add = f"vsadm -a {real.service} -r {right} {METHOD_OPTION[real.method]} -w {real.weight}"
        return facts.type("director", "sh", "-c", f"{add} && vsadm -d {real.service} -r {real.server}")
    process = facts.lab.processes.get(f"{real.node} nginx")
    if real.protocol == "tcp" and (process is None or not process.alive()):
        folder = facts.lab.folder / real.node
        return facts.type(real.node, "nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")) + " &"
    return facts.type(real.node, "ss", "-lntup")


def reachable(facts: Facts) -> Iterator[Finding]:
    """A server that is not there for the director's host: a SYN to the port gets neither yes nor no. (A refusal is an answer, and
    the port is what listening() looks at. Behind a TAP the director's host has no address to ask from.)
    """
    if facts.topology.device == "tap":
        return
    silent: dict[tuple[str, int], tuple[str, socket.socket]] = {}
    with contextlib.ExitStack() as cleanup:
        with netns.inside(facts.lab.namespace(facts.topology.director.name)):
            for real in facts.reals:
                if facts.is_server(real.node) and (real.address, real.port) not in silent:
                    probe = socket.socket(socket.AF_INET6 if ":" in real.address else socket.AF_INET)
                    silent[real.address, real.port] = real.node, cleanup.enter_context(probe)
        for address, (_, probe) in silent.items():
            probe.setblocking(False)
            probe.connect_ex(address)

        def all_answered() -> bool:
            for address in [address for address, (_, probe) in silent.items() if _answered(probe)]:
                del silent[address]
            return not silent

        with contextlib.suppress(netns.DeadlinePassed):
            netns.wait_until(all_answered, 1, "answers")
    for node, address in sorted({(node, address) for (address, _), (node, _) in silent.items()}):
        yield fail(f"{node} {address} does not answer the director's host", facts.type("director", "ip", "route", "get", address))


def _answered(probe: socket.socket) -> bool:
    """Whether a connection was accepted or refused. The kernel tells an error once only."""
    ready = select.poll()
    ready.register(probe, select.POLLOUT)
    if not any(events & (select.POLLOUT | select.POLLERR | select.POLLHUP) for _, events in ready.poll(0)):
        return False
    try:
        probe.getpeername()
        return True
    except OSError:
        return probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
