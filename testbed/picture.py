# SPDX-License-Identifier: GPL-2.0-or-later
"""A topology as a picture: plain text, mermaid, or dot. Draws what topology.py describes, live or planned."""

from itertools import zip_longest

from scenarios import METHOD_NAME
from topology import Link, Node, Topology

WIDTH = 100


def _about(topology: Topology, node: Node) -> list[str]:
    """What else a learner wants to know of the node, in short lines."""
    if node.role == "director":
        return [f"VIP {vip}" for vip in topology.vips]
    if node.role == "server":
        return ["gateway: director" if topology.mode == "nat" else "VIP on lo"]
    return []


def _members(topology: Topology) -> dict[str, list[tuple[Node, Link]]]:
    return {
        segment.name: [(node, link) for node in topology.nodes for link in node.links if link.segment == segment]
        for segment in topology.segments
    }


def _lines(topology: Topology, node: Node) -> list[str]:
    """A node's label: its name, every address it has, and what it is."""
    return [node.name, *(ip for link in node.links for ip in link.ips), *_about(topology, node)]


def text(topology: Topology) -> str:
    """Every Ethernet as a line, the hosts hanging from it."""
    lines = []
    for segment in topology.segments:
        members = _members(topology)[segment.name]
        if len(members) == 2:  # a point to point line of its own needs no bus
            (a, a_link), (b, b_link) = members
            ends = [f"{node.name} {' '.join(link.ips)}" for node, link in ((a, a_link), (b, b_link))]
            lines.append(f"  {ends[0]} ── {' '.join(segment.subnets)} ── {ends[1]}  {' '.join(_about(topology, b))}".rstrip())
            if segment.name == "front":
                lines.append("")
            continue
        cells = [(node.name, *link.ips, *_about(topology, node)) for node, link in members]
        width = max(len(line) for cell in cells for line in cell) + 2
        for first in range(0, len(cells), WIDTH // width):
            row = cells[first : first + WIDTH // width]
            bus = "".join(("┬" if cell else "").ljust(width, "─") for cell in row)
            lines.append(f"  {segment.name} {' '.join(segment.subnets)}" if first == 0 else "")
            lines.append("  ──" + bus.rstrip("─") + "──")
            lines += ["    " + "".join(line.ljust(width) for line in lines_of).rstrip() for lines_of in zip_longest(*row, fillvalue="")]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def mermaid(topology: Topology) -> str:
    shape = {"client": "([{}])", "director": "{{{{{}}}}}", "router": "{{{}}}", "server": "[{}]"}
    lines = [f"%% {METHOD_NAME[topology.mode]}", "graph LR"]
    for node in topology.nodes:
        label = "<br/>".join(_lines(topology, node))
        lines.append(f"  {node.name}{shape[node.role].format(chr(34) + label + chr(34))}")
    for segment in topology.segments:
        networks = "<br/>".join(segment.subnets)
        lines.append(f'  {segment.name}(["{networks}"]):::segment')
        for node, _ in _members(topology)[segment.name]:
            before = node.role == "client" or (segment.name != "front" and node.role in ("director", "router"))
            lines.append(f"  {node.name} --- {segment.name}" if before else f"  {segment.name} --- {node.name}")
    lines.append("  classDef segment fill:none,stroke-dasharray:4")
    return "\n".join(lines) + "\n"


def dot(topology: Topology) -> str:
    shape = {"client": "ellipse", "director": "hexagon", "router": "diamond", "server": "box"}
    lines = [f"graph {topology.mode} {{", "  rankdir=LR;"]
    for node in topology.nodes:
        label = "\\n".join(_lines(topology, node))
        lines.append(f'  "{node.name}" [shape={shape[node.role]}, label="{label}"];')
    for segment in topology.segments:
        networks = "\\n".join(segment.subnets)
        lines.append(f'  "{segment.name}" [shape=plaintext, label="{networks}"];')
        lines += [f'  "{node.name}" -- "{segment.name}";' for node, _ in _members(topology)[segment.name]]
    return "\n".join([*lines, "}"]) + "\n"
