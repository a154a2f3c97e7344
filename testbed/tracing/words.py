# SPDX-License-Identifier: GPL-2.0-or-later
"""Says in words what happened to a packet at a hop. Knows no method: all it says was seen in the headers. Pure."""

from tracing.headers import Headers
from tracing.journeys import Journey, Sighting, changes
from topology import Topology, in_url

MACS = {"source_mac", "target_mac"}


class Names:
    """Who has an address. One on a link is its node's; what several nodes have is the VIP."""

    def __init__(self, topology: Topology):
        links = [(node.name, link) for node in topology.nodes for link in node.links]
        self._macs = {link.mac: name for name, link in links}
        self._ips = {vip: "VIP" for vip in topology.vips} | {ip: name for name, link in links for ip in link.ips}

    @property
    def all(self) -> dict[str, str]:
        return {**self._macs, **self._ips}

    def mac(self, address: str) -> str:
        return self._macs.get(address, "")

    def ip(self, address: str) -> str:
        return self._ips.get(address, "")

    def called(self, address: str, port: int = 0) -> str:
        """server1 10.9.1.11:8080, VIP 10.9.0.100"""
        written = f"{in_url(address)}:{port}" if port else address
        return f"{self.ip(address)} {written}".strip()


def ttl_word(address: str) -> str:
    return "hop limit" if ":" in address else "TTL"


def sentence(journey: Journey, before: Sighting | None, hop: Sighting, names: Names) -> str:
    """What happened between two hops; empty if a wire carried the frame as it was."""
    if before is None:
        seen_first = f"it was first seen here, at {hop.node}"  # a piece of a super-frame that was cut
        return f"{hop.node} {_sets_out(journey, hop, names)}" if hop.direction == "out" else seen_first
    if before.node != hop.node and before.headers == hop.headers:
        return ""
    who = hop.node if before.node == hop.node else f"what is between {before.node} and {hop.node}"
    return f"{who} {_acts(before.headers, hop.headers, names)}"


def ending(journey: Journey, arrived: bool, own: dict[str, set[str]], names: Names) -> str:
    """Of a journey's last hop. `own` are the addresses a node has itself, by its name."""
    last = journey.hops[-1]
    if not arrived:
        return f"it was not seen any further than here, at {last.node}"
    target = last.headers.target
    if names.ip(target) != last.node and target in own.get(last.node, ()):
        return f"{last.node} takes it: the {names.ip(target) or target} is an address of its own too"
    return ""


def _sets_out(journey: Journey, hop: Sighting, names: Names) -> str:
    headers = hop.headers
    source, target, next_hop = names.ip(headers.source), names.ip(headers.target), names.mac(headers.target_mac)
    said = "sends it again" if journey.sent_before else "sends it"
    if source != hop.node:
        said += f" with the {source or headers.source} as its source,"
    if next_hop == target:
        said += f" straight to {target}"
    else:
        said += f" to {next_hop or headers.target_mac}'s MAC address, for {names.called(headers.target)}"
    return said if journey.saw("director") else f"{said}: the director does not see this packet"


def _acts(before: Headers, after: Headers, names: Names) -> str:
    """All that is different, the weightiest first."""
    changed = set(changes(before, after))
    acts = []
    if after.tunnel and not before.tunnel:
        to = names.called(after.outer_target)
        acts.append(f"put an outer header in front ({after.tunnel}, + {after.overhead} bytes), to {to}")
    elif before.tunnel and not after.tunnel:
        acts.append(f"took the outer header off ({before.tunnel}, − {before.overhead} bytes)")
    elif changed & {"tunnel", "overhead", "outer_source", "outer_target"}:
        acts.append("changed the tunnel's headers")
    for end in ("target", "source"):
        parts = [word for field, word in ((end, "address"), (f"{end}_port", "port")) if field in changed]
        if parts:
            old, new = (names.called(getattr(headers, end), getattr(headers, f"{end}_port")) for headers in (before, after))
            acts.append(f"rewrote the {end} {' and '.join(parts)}, {old} → {new}")
    if changed & {"sequence", "acknowledged", "flags"}:
        acts.append("changed TCP's numbers or flags")
    if changed & {"data", "segments"}:
        acts.append(f"made frames of other sizes, {_size(before)} → {_size(after)}")
    elif "rest" in changed:
        acts.append("changed something without a name here")
    acts += _moved("the largest segment (MSS)", before.mss, after.mss)
    acts += _moved(f"the {'inner ' if after.tunnel else ''}{ttl_word(after.source)}", before.ttl, after.ttl)
    if before.tunnel and after.tunnel:
        acts += _moved(f"the outer {ttl_word(after.outer_source)}", before.outer_ttl, after.outer_ttl)
    if changed & MACS and before.target_mac and after.target_mac:
        which = "MAC addresses" if changed >= MACS else f"{next(iter(changed & MACS)).split('_')[0]} MAC address"
        acts.append(f"gave it {'new ' if changed >= MACS else 'a new '}{which}")
    if not acts:
        return "passed it on as it was"
    if changed <= MACS | {"ttl", "outer_ttl"}:
        return f"{' and '.join(acts)}, nothing else"
    return ", ".join(acts)


def _size(headers: Headers) -> str:
    return f"{headers.data} bytes of data" + (f" in {headers.segments} segments" if headers.segments > 1 else "")


def _moved(what: str, before: int | None, after: int | None) -> list[str]:
    if before is None or after is None or before == after:
        return []
    return [f"{'lowered' if after < before else 'raised'} {what} {before} → {after}"]
