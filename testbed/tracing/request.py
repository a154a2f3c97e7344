# SPDX-License-Identifier: GPL-2.0-or-later
"""One request, traced: curl in the client, packet sockets everywhere. Its result is a dictionary, which --json prints;
report.py and drawing.py know nothing else.
"""

import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import Sequence

import netns
from cluster import FAILED, OK, USAGE, Lab, LabError
from screen import done, say, warn
from topology import Topology, in_url
from tracing import drawing, report
from tracing.headers import ACK, FIN, RST, SYN, Headers
from tracing.journeys import ALL, STORY, Journey, changes, follow, over
from tracing.wires import Wires
from tracing.words import Names, ending, sentence


CURL = ("curl", "-sS", "--connect-timeout", "3", "-m", "50", "-o", os.devnull, "-w", "%{http_code}")


def main(lab: Lab, options) -> int:
    result = trace(lab, options.path, options.family, options.packets)
    say(json.dumps(result, indent=1, ensure_ascii=False) if options.json else report.text(result))
    if options.svg:
        options.svg.write_text(drawing.svg(result), encoding="utf-8")
        done(f"wrote {options.svg}")
    if result["lost"]:
        warn(f"{result['lost']} frames came faster than they could be read: hops are missing")
    return FAILED if result["error"] else OK


def trace(lab: Lab, path: str = "/", family: str | None = None, kinds: Sequence[str] = STORY) -> dict:
    topology = lab.topology
    family = family or topology.family[0]
    if family not in topology.family:
        raise LabError(f"lab {lab.name} has no IPv{family}", USAGE)
    at = topology.family.index(family)
    client, vip = topology.client.ips[at], topology.vips[at]
    port, url = _free_port(lab, client), f"http://{in_url(vip)}{path}"
    servers = {server.name for server in topology.servers}

    def arrived(journey: Journey) -> bool:
        return journey.arrived_at(servers if journey.asks else {topology.client.name})

    def ended() -> bool:
        journeys = follow(wires.seen(), (client, port))
        return over(journeys) and all(map(arrived, journeys))

    with Wires(lab) as wires:
        answer = lab.exec(topology.client.name, [*CURL, "--local-port", str(port), url], check=False)
        if ALL in kinds and answer.returncode == 0:
            with contextlib.suppress(netns.DeadlinePassed):  # a packet that did not arrive is told where it was seen last
                netns.wait_until(ended, 5, "the end of the connection")
        journeys, lost = follow(wires.seen(), (client, port)), wires.lost

    server = next((journey.hops[-1].node for journey in journeys if journey.asks and arrived(journey)), "")
    own = {server: _addresses(lab, server)} if server else {}
    names, begin = Names(topology), journeys[0].hops[0].when if journeys else 0
    packets = [
        {"kind": journey.kind, "from": journey.hops[0].node, "to": journey.hops[-1].node, "arrived": arrived(journey),
         "sent_before": journey.sent_before, "hops": _hops(journey, begin, arrived(journey), own, names)}
        for journey in journeys if ALL in kinds or journey.kind in kinds and not journey.sent_again
    ]
    return {
        "lab": lab.name, "mode": topology.mode, "device": topology.device,
        "url": url, "client": f"{in_url(client)}:{port}", "server": server,
        "status": answer.stdout.strip(), "error": answer.stderr.strip(), "lost": lost,
        "nodes": _nodes(topology, packets, at, own), "names": names.all, "packets": packets,
    }


def _nodes(topology: Topology, packets: list[dict], at: int, own: dict[str, set[str]]) -> dict[str, list[list[str]]]:
    """Whom the packets met, with their addresses: where they met them, and the VIP if it is theirs."""
    seen = {(hop["node"], hop["interface"]) for packet in packets for hop in packet["hops"]}
    return {
        node.name: [[link.segment.name, link.ips[at], link.mac] for link in node.links if (node.name, link.device) in seen]
        + [["VIP", topology.vips[at]]] * (node.role == "director" or topology.vips[at] in own.get(node.name, ()))
        for node in topology.nodes if node.name in {name for name, _ in seen}
    }


def _hops(journey: Journey, begin: int, arrived: bool, own: dict[str, set[str]], names: Names) -> list[dict]:
    hops = [
        {"node": hop.node, "interface": hop.interface, "direction": hop.direction, "microseconds": (hop.when - begin) // 1000,
         "headers": _fields(hop.headers), "changed": list(changes(before.headers, hop.headers)) if before else [],
         "says": sentence(journey, before, hop, names)}
        for before, hop in journey.steps()
    ]
    hops[-1]["ends"] = ending(journey, arrived, own, names)
    return hops


def _fields(headers: Headers) -> dict:
    """What a frame has, by name; flags as words, bytes without a name left out."""
    flags = [word for word, bit in (("SYN", SYN), ("FIN", FIN), ("RST", RST), ("ACK", ACK)) if headers.flags & bit]
    fields = {name: value for name, value in dataclasses.asdict(headers).items() if value not in ("", None) and name != "rest"}
    return {**fields, "flags": flags}


def _free_port(lab: Lab, address: str) -> int:
    """Known beforehand, the connection is found whether or not it comes to be."""
    with netns.inside(lab.namespace(lab.topology.client.name)), \
            socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def _addresses(lab: Lab, node: str) -> set[str]:
    links = netns.ip_json(lab.namespace(node), "address")
    return {address["local"] for link in links for address in link["addr_info"] if "local" in address}
