# SPDX-License-Identifier: GPL-2.0-or-later
"""What the client's visits show: symptoms. Where a mistake is known its own line says what to type."""

from collections.abc import Iterator

from diagnosis.facts import Facts
from diagnosis.finding import Finding, fail, ok, warn
from tracing.headers import ACK, RST, SYN
from tracing.journeys import Sighting

# Reasons of the director's that tell of a lab set up wrongly, and never come up in one that isn't.
TELLING = ("no_route", "no_server", "neighbour_failed", "neighbour_overflow", "no_headroom", "cannot_fragment", "device_down",
           "table_full", "receive_full")


def answered(facts: Facts) -> Iterator[Finding]:
    """The proof: a page, an upload and a download through each VIP. Small packets that pass where full ones don't mean that
    somewhere they are too large, and nobody says so to their sender (the director's own limits it tells by ICMP).
    """
    for address in facts.topology.vips:
        trace = f"testbed/lab trace --name {facts.lab.name} --family {6 if ':' in address else 4}"
        visits = [visit for visit in facts.traffic.visits if visit.vip == address]
        served = [visit for visit in visits if visit.page]
        if len(served) < len(visits) and facts.listing is not None:
            error = next(visit.error for visit in visits if not visit.page)
            yield fail(f"{len(visits) - len(served)} of {len(visits)} requests to {address} had no page ({error})", trace)
        no_upload = {visit.server for visit in served if not visit.upload}
        no_download = {visit.server for visit in served if visit.upload and not visit.download}
        for what, stuck in (("an upload to", no_upload), ("a download from", no_download)):
            if stuck:
                yield fail(f"small packets pass, but not the full ones of {what} {', '.join(sorted(stuck))}",
                           f"{trace} --path /10M --packets all")
        yield ok(f"{len(served)} of {len(visits)} to {address}, by {', '.join(sorted({visit.server for visit in served}))}")


def resets(facts: Facts) -> Iterator[Finding]:
    """The client resets what it did not ask for: a SYN+ACK from a real server's own address, which no director turned back into
    the VIP's. And resets from the VIP by the director's host: its kernel answers beside the director.
    """
    client, vips = facts.client.name, facts.topology.vips
    at_client = [seen for seen in facts.traffic.sightings if seen.node == client]
    refused = {_ends(seen) for seen in at_client if seen.direction == "out" and seen.headers.flags & RST}
    strange = {seen.headers.source for seen in at_client
               if seen.direction == "in" and seen.headers.flags & (SYN | ACK) == SYN | ACK and seen.headers.source not in vips
               and _ends(seen) in refused}
    for source in sorted(strange):
        owner = next((node.name for node in facts.topology.nodes if source in facts.ips(node.name)), "nobody of the lab")
        yield fail(f"the client resets SYN+ACKs from {source} ({owner}): they came past the director")
    if facts.of_method("masq") or facts.traffic.reasons.get("refused_reset"):
        return  # then one may be the director's own, or a server's that it passed on
    macs = {mac for mac, (node, _) in facts.owners.items() if node == facts.topology.director.name}
    kernels = [seen for seen in at_client if seen.direction == "in" and seen.headers.flags & RST and seen.headers.source in vips
               and seen.headers.source_mac in macs]
    if kernels:
        yield fail(f"{len(kernels)} resets from the VIP came from the director's host, not from the director")


def _ends(seen: Sighting) -> tuple:
    ends = ((seen.headers.source, seen.headers.source_port), (seen.headers.target, seen.headers.target_port))
    return tuple(sorted(ends))


def unanswered(facts: Facts) -> Iterator[Finding]:
    """SYNs a real server has not answered in all this time, by the director's connections and the client's sockets."""
    for address, count in facts.traffic.waiting.items():
        owner = next((real.node for real in facts.reals if real.address == address), "")
        yield warn(f"{owner or 'a server'} {address} leaves {count} SYNs without an answer",
                   facts.type("director", "vsadm", "-Lnc"))


def reasons(facts: Facts) -> Iterator[Finding]:
    """What the director itself names, meanwhile."""
    answer = facts.vsadm("reasons") or {"reasons": []}
    texts = {reason["name"]: reason["text"] for reason in answer["reasons"]}
    for name in TELLING:
        if count := facts.traffic.reasons.get(name):
            yield warn(f"{count} packets: {texts[name]} ({name})", facts.type("director", "vsadm", "reasons"))
