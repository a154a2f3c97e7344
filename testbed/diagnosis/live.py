# SPDX-License-Identifier: GPL-2.0-or-later
"""The examination of a live lab: the table of mistakes, and all of them looked for."""

import dataclasses
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import netns
from cluster import Lab
from diagnosis import flows, servers, vip, wires
from diagnosis.facts import Facts
from diagnosis.finding import Finding


@dataclass(frozen=True)
class Mistake:
    what: str
    look: Callable[[Facts], Iterator[Finding]]
    methods: tuple[str, ...] = ()  # whose mistake it is; without: everybody's


MISTAKES = (
    Mistake("director", vip.director_runs),
    Mistake("one director", vip.one_director),
    Mistake("who answers for the VIP", vip.who_answers),
    Mistake("client's neighbours", vip.client_remembers),
    Mistake("director's host", vip.director_host),
    Mistake("rules", servers.in_rules),
    Mistake("method and subnet", servers.method, ("route",)),
    Mistake("what listens", servers.listening),
    Mistake("way back (NAT)", servers.way_back, ("masq",)),
    Mistake("realserver check", servers.realserver_check, ("route", "tunnel")),
    Mistake("routers", wires.routers, ("tunnel",)),
    Mistake("links", wires.links),
    Mistake("MTU of links", wires.segment_mtu),
    Mistake("MTU of tunnels", wires.tunnel_mtu, ("tunnel",)),
    Mistake("br_netfilter", wires.bridges),
    Mistake("checksums", wires.checksums),
    Mistake("servers", servers.reachable),
    Mistake("requests", flows.answered),
    Mistake("resets", flows.resets),
    Mistake("unanswered SYNs", flows.unanswered),
    Mistake("director's reasons", flows.reasons),
)


def examine(lab: Lab) -> list[Finding]:
    """What one line says to type no later one repeats: it is the same mistake."""
    if lab.options.director != "none" and "director" not in lab.processes:
        return [Finding("lab", "warn", "not looked at: it is being built, or its director was stopped")]
    facts = Facts(lab)
    try:
        methods = {real.method for real in facts.reals}
    except (netns.CommandFailed, OSError) as problem:
        return [Finding("lab", "fail", f"can't be looked at: {problem}", f"testbed/lab down --name {lab.name}")]
    found: list[Finding] = []
    told: set[str] = set()
    for mistake in MISTAKES:
        if not mistake.methods or methods & set(mistake.methods):
            for finding in look(mistake, facts):
                if not finding.cure or finding.cure not in told:
                    found.append(finding)
                    told.add(finding.cure)
    return found


def look(mistake: Mistake, facts: Facts) -> list[Finding]:
    try:
        findings = [dataclasses.replace(finding, what=mistake.what) for finding in mistake.look(facts)]
    except (netns.CommandFailed, subprocess.TimeoutExpired, OSError) as problem:
        return [Finding(mistake.what, "warn", f"can't be looked at: {problem}")]
    wrong = [finding for finding in findings if finding.state != "ok"]
    return list(dict.fromkeys(wrong or findings)) or [Finding(mistake.what, "ok")]
