# SPDX-License-Identifier: GPL-2.0-or-later
"""Mistakes between the director and the real servers: links, routers, bridges."""

import json
from collections.abc import Iterator

from cluster import SWITCH
from diagnosis.facts import Facts, Interface
from diagnosis.finding import Finding, fail, warn
from topology import Link, Node, Segment

OVERHEAD = {"": 0, "ipip": 0, "gre": 4, "gue": 12}  # beside the outer IP header, at least


def links(facts: Facts) -> Iterator[Finding]:
    """A link that is down, or has lost its address."""
    for node in facts.topology.nodes:
        yield from _of_node(facts, node)


def _of_node(facts: Facts, node: Node) -> Iterator[Finding]:
    for link in node.links:
        interface = facts.interface(node.name, link.interface)
        if interface is None:
            yield fail(f"{node.name} has no {link.interface} any more", f"testbed/lab down --name {facts.lab.name}")
        elif not interface.up:
            yield fail(f"{link.interface} of {node.name} is down", facts.type(node.name, "ip", "link", "set", link.interface, "up"))
        elif not link.bridge:
            for address in set(link.addresses) - set(interface.addresses):
                yield fail(f"{node.name} has lost {address}",
                           facts.type(node.name, "ip", "address", "add", address, "dev", link.interface))


def broken(facts: Facts, node: str) -> bool:
    return any(finding for finding in _of_node(facts, facts.topology.node(node)))


def segment_mtu(facts: Facts) -> Iterator[Finding]:
    """Ethernet can't say "too big": what is longer than the far end, or a port on the way, takes is gone without a word.
    A host sends what its own MTU allows, so all of a link need the same, and no port less. Small pages work then, uploads hang.
    """
    for segment in facts.topology.segments:
        ends = _ends(facts, segment)
        usual = max((interface.mtu for node, interface in ends if node != SWITCH), default=0)
        for node, interface in ends:
            if interface.mtu < usual:
                yield fail(f"{interface.name} of {node} has MTU {interface.mtu}, others on its link have {usual}: longer packets are "
                           "lost without a word", facts.type(node, "ip", "link", "set", interface.name, "mtu", str(usual)))


def _ends(facts: Facts, segment: Segment) -> list[tuple[str, Interface]]:
    """All interfaces frames of that segment can get stuck at."""
    at = [(node, link) for node in facts.topology.nodes for link in node.links if link.segment == segment]
    names = [(SWITCH, facts.topology.port_name(*pair)) for pair in at]
    for node, link in at:
        names += [(node.name, name) for name in dict.fromkeys((link.interface, link.device))]
    return [(node, interface) for node, name in names if (interface := facts.interface(node, name))]


def tunnel_mtu(facts: Facts) -> Iterator[Finding]:
    """An outer header makes packets longer. Where a router's next link is smaller than the director's it must say so by ICMP
    (their DF is set), and the director to the client: two messages every firewall on the way must let through.
    """
    director, client = facts.topology.director, facts.client
    for real in facts.of_method("tunnel"):
        own = _mtu(facts, director, director.links[0])
        outer = (40 if ":" in real.address else 20) + OVERHEAD.get(real.tunnel[0], 0)
        for router in facts.topology.of_role("router"):
            route = facts.route(router.name, real.address)
            beyond = facts.interface(router.name, route["dev"]) if route else None
            if beyond and beyond.mtu < min(own, _mtu(facts, client, client.links[0]) + outer):
                yield warn(f"tunnelled packets to {real.node} may have {own} bytes, {beyond.name} of {router.name} takes "
                           f"{beyond.mtu}: only those up to {beyond.mtu - outer} fit into the tunnel",
                           facts.type(router.name, "ip", "link", "set", beyond.name, "mtu", str(own)))


def _mtu(facts: Facts, node: Node, link: Link) -> int:
    interface = facts.interface(node.name, link.device) or facts.interface(node.name, link.interface)
    return interface.mtu if interface else 0


def routers(facts: Facts) -> Iterator[Finding]:
    """VS/TUN: replies have the VIP as their source and come from a server's link. A router with rp_filter takes them for
    forged. The router itself is asked: its route for such a packet is an error then.
    """
    for real in facts.of_method("tunnel"):
        for router in facts.topology.of_role("router"):
            link = next((link for link in router.links if _beside(link, facts, real.node)), None)
            client, ipv6 = facts.client_ip(real.vip), ":" in real.vip
            if link is None or facts.route(router.name, client, "from", real.vip, "iif", link.interface):
                continue
            forwarding = "net.ipv6.conf.all.forwarding" if ipv6 else "net.ipv4.ip_forward"
            if facts.sysctl(router.name, forwarding) == "0":
                yield fail(f"{router.name} does not forward replies of {real.node}",
                           facts.type(router.name, "sysctl", "-w", f"{forwarding}=1"))
                continue
            filters = [f"net.ipv4.conf.{scope}.rp_filter" for scope in ("all", link.interface)]
            if wrong := [f"{key}=0" for key in filters if facts.sysctl(router.name, key) not in ("", "0")]:
                yield fail(f"rp_filter on {router.name} drops replies of {real.node}, whose source is the VIP, at {link.interface}",
                           facts.type(router.name, "sysctl", "-w", *wrong))
            else:
                yield fail(f"{router.name} has no route for replies of {real.node} to {client}",
                           facts.type(router.name, "ip", "route", "get", client, "from", real.vip, "iif", link.interface))


def _beside(link: Link, facts: Facts, server: str) -> bool:
    return any(own.segment == link.segment for own in facts.topology.node(server).links)


def bridges(facts: Facts) -> Iterator[Finding]:
    """br_netfilter, which Docker loads: bridged frames visit the IP firewall of whoever has the bridge, and a rule meant for
    routed packets (Docker's FORWARD policy is drop) eats them.
    """
    for node in (SWITCH, *([facts.topology.director.name] if facts.topology.device == "tap" else [])):
        for family, key in (("ip", "net.bridge.bridge-nf-call-iptables"), ("ip6", "net.bridge.bridge-nf-call-ip6tables")):
            if facts.sysctl(node, key) != "1" or not (chains := _filters(facts, node, family)):
                continue
            yield warn(f"bridged frames visit the IP firewall of {node} ({', '.join(chains)}), which may drop them",
                       facts.type(node, "sysctl", "-w", f"{key}=0"))


def _filters(facts: Facts, node: str, family: str) -> list[str]:
    """Chains of a family's firewall that see what is forwarded; those of the old iptables by its table."""
    listed = json.loads(facts.says(node, "nft", "-j", "list", "chains") or '{"nftables": []}')["nftables"]
    chains = [entry["chain"] for entry in listed if "chain" in entry]
    return [f"{chain['table']} {chain['name']}" for chain in chains
            if chain["family"] in (family, "inet") and chain.get("hook") in ("prerouting", "forward", "postrouting")] + [
        f"iptables-legacy {table}" for table in facts.says(node, "cat", f"/proc/net/{family}_tables_names").split()]


def checksums(facts: Facts) -> Iterator[Finding]:
    """On veth and TAP a sender leaves checksums half made (partial) and says so beside the frame. A program that reads frames
    without that word sends on what is wrong by now, and the receiving kernel drops it. All that can be told afterwards is that
    it did: its counters.
    """
    for node in facts.topology.nodes:
        lines = facts.says(node.name, "cat", "/proc/net/snmp").splitlines()
        for names, numbers in zip(lines[::2], lines[1::2]):
            counters = dict(zip(names.split()[1:], numbers.split()[1:]))
            protocol, wrong = names.split(":")[0], int(counters.get("InCsumErrors", 0))
            if wrong and protocol in ("Tcp", "Udp"):
                again = f"testbed/lab down --name {facts.lab.name}; {facts.lab.options.command()} --offload off"
                yield warn(f"{node.name} has dropped {wrong} {protocol.upper()} packets whose checksum was wrong; does it without "
                           "partial checksums", again if facts.lab.options.offload == "on" else "")
