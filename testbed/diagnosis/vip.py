# SPDX-License-Identifier: GPL-2.0-or-later
"""Mistakes about whom a VIP belongs to. A function a mistake: what is wrong, and what to type."""

from collections.abc import Iterator

import netns
from diagnosis.facts import Facts, Line
from diagnosis.finding import Finding, fail, ok, warn


def director_runs(facts: Facts) -> Iterator[Finding]:
    """Without a director nobody has the VIP, and nothing below can be asked of it."""
    lab = facts.lab
    logs = f"testbed/lab logs --name {lab.name} director"
    if facts.listing is not None:
        yield ok(f"{len(facts.listing['services'])} services")
    elif (process := lab.processes.get("director")) is None:
        yield warn("none answers at $DIRECTOR_CONTROL; this lab was made to start your own in")
    elif process.alive():
        yield fail(f"PID {process.pid} runs, and does not answer vsadm", logs)
    else:
        yield fail("it has ended", logs)


def one_director(facts: Facts) -> Iterator[Finding]:
    """Two directors for one VIP: each has half of a connection's packets, whomever the client's ARP table names just now."""
    own = facts.lab.processes.get("director")
    for node, pids in facts.directors.items():
        others = [pid for pid in pids if own is None or pid != own.pid]
        if own is None:
            others = others[1:] if node == facts.topology.director.name else others
        if others and _answers(facts, node) > (1 if node == facts.topology.director.name else 0):
            yield fail(f"a second director (PID {', '.join(map(str, others))}) answers for the VIP, on {node}",
                       facts.type(node, "kill", *map(str, others)))


def _answers(facts: Facts, node: str) -> int:
    """How many answers to one question came from there."""
    return max(sum(facts.owners.get(mac, ("",))[0] == node for mac in macs) for macs in facts.answers.values())


def who_answers(facts: Facts) -> Iterator[Finding]:
    """A real server, or anybody, that answers ARP or ND for the VIP: the client's packets go there past the director, and it
    depends on who is faster. On a real server the VIP is on lo, but Linux answers for any address it has unless told otherwise.
    """
    devices = _devices(facts)
    for vip, macs in facts.answers.items():
        by = "neighbour discovery" if ":" in vip else "ARP"
        if not macs and facts.listing is not None:
            yield fail(f"nobody answers {by} for {vip}: it is in no rule of the director's, or the link is broken",
                       facts.type("director", "vsadm", "-Ln"))
        for mac in sorted(set(macs)):
            node, interface = facts.owners.get(mac, ("", ""))
            if (node, interface) in devices:
                yield ok(f"the director ({mac}) for {vip}")
                continue
            if node in facts.directors and node != facts.topology.director.name:
                continue  # one_director() tells of other directors
            host = "the director's host" if node == facts.topology.director.name else node or "somebody outside of the lab"
            yield fail(f"{host} ({mac}) answers {by} for {vip} too", _silence(facts, node, vip))


def client_remembers(facts: Facts) -> Iterator[Finding]:
    """Who once answered wrongly stands in the client's ARP table until that forgets, also when it answers no more."""
    director = _devices(facts)
    for entry in netns.ip_json(facts.lab.namespace(facts.client.name), "neighbour", "show"):
        vip, mac = entry["dst"], entry.get("lladdr")
        if vip in facts.answers and mac and mac not in facts.answers[vip] and facts.owners.get(mac) not in director:
            node, _ = facts.owners.get(mac, ("nobody of the lab", ""))
            yield fail(f"the client still has {mac} ({node}) for {vip}",
                       facts.type(facts.client.name, "ip", "neighbour", "del", vip, "dev", entry["dev"]))


def _devices(facts: Facts) -> set[tuple[str, str]]:
    """Where the director is."""
    return {(facts.topology.director.name, link.device) for link in facts.topology.director.links}


def _silence(facts: Facts, node: str, vip: str) -> str:
    """What keeps that node quiet."""
    if not node:
        return ""
    lines = {line.topic: line for line in facts.checks.get((node, vip), ()) if line.verdict == "fix"}
    for topic in ("address", "arp_ignore", "nd"):
        if topic in lines and (cure := command(lines[topic])) and not cure.startswith("realserver"):
            return facts.type(node, *cure.split())
    for interface in facts.interfaces(node):
        for address in interface.addresses:
            if address.split("/")[0] == vip:
                return facts.type(node, "ip", "address", "del", address, "dev", interface.name)
    return ""


def command(line: Line) -> str:
    """What a line of `realserver check` says to type; empty if it is none that can be typed as it is."""
    words = line.text.rpartition(": ")[2]
    return words if words.split()[0] in ("ip", "sysctl", "realserver") and "ROUTER" not in words else ""


def director_host(facts: Facts) -> Iterator[Finding]:
    """The VIP on the director's own host, and no guard that keeps its kernel out: the kernel has no socket for the connection
    and resets it, while the director forwards it. (The guard is an nft table; behind a TAP there is another host, and none.)
    """
    if facts.directors.get("director") is None and facts.listing is None:
        return
    guarded = bool(facts.says("director", "nft", "list", "table", "netdev", "director"))
    for interface in facts.interfaces("director") if not guarded else ():
        for address in interface.addresses:
            if address.split("/")[0] in facts.topology.vips:
                yield fail(f"{address} is on {interface.name} there and no guard keeps the kernel from answering with resets",
                           facts.type("director", "ip", "address", "del", address, "dev", interface.name))
