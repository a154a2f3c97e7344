# SPDX-License-Identifier: GPL-2.0-or-later
"""A topology as a picture: plain text, mermaid, or dot. Draws what topology.py describes, live or planned."""

from scenarios import METHOD_NAME
from topology import Link, Node, Topology

WIDTH = 100


def _role(topology: Topology, node: Node) -> str:
    """What else a learner wants to know of the node."""
    if node.role == "director":
        return f"VIP {topology.vip}"
    if node.role == "server":
        return "gateway: director" if topology.mode == "nat" else "VIP on lo"
    return ""


def _members(topology: Topology) -> dict[str, list[tuple[Node, Link]]]:
    return {
        segment.name: [(node, link) for node in topology.nodes for link in node.links if link.segment == segment]
        for segment in topology.segments
    }


def text(topology: Topology) -> str:
    """Every Ethernet as a line, the hosts hanging from it."""
    lines = []
    for segment in topology.segments:
        members = _members(topology)[segment.name]
        if len(members) == 2:  # a point to point line of its own needs no bus
            (a, a_link), (b, b_link) = members
            lines.append(f"  {a.name} {a_link.ip} ── {segment.subnet} ── {b.name} {b_link.ip}  {_role(topology, b)}".rstrip())
            if segment.name == "front":
                lines.append("")
            continue
        cells = [(node.name, link.ip, _role(topology, node)) for node, link in members]
        width = max(len(word) for cell in cells for word in cell) + 2
        for first in range(0, len(cells), WIDTH // width):
            row = cells[first : first + WIDTH // width]
            bus = "".join(("┬" if cell else "").ljust(width, "─") for cell in row)
            lines.append(f"  {segment.name} {segment.subnet}" if first == 0 else "")
            lines.append("  ──" + bus.rstrip("─") + "──")
            lines += ["    " + "".join(word.ljust(width) for word in words).rstrip() for words in zip(*row)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def mermaid(topology: Topology) -> str:
    shape = {"client": "([{}])", "director": "{{{{{}}}}}", "router": "{{{}}}", "server": "[{}]"}
    lines = [f"%% {METHOD_NAME[topology.mode]}", "graph LR"]
    for node in topology.nodes:
        label = "<br/>".join(filter(None, (node.name, *(link.ip for link in node.links), _role(topology, node))))
        lines.append(f"  {node.name}{shape[node.role].format(chr(34) + label + chr(34))}")
    for segment in topology.segments:
        lines.append(f'  {segment.name}(["{segment.subnet}"]):::segment')
        for node, _ in _members(topology)[segment.name]:
            before = node.role == "client" or (segment.name != "front" and node.role in ("director", "router"))
            lines.append(f"  {node.name} --- {segment.name}" if before else f"  {segment.name} --- {node.name}")
    lines.append("  classDef segment fill:none,stroke-dasharray:4")
    return "\n".join(lines) + "\n"


def dot(topology: Topology) -> str:
    shape = {"client": "ellipse", "director": "hexagon", "router": "diamond", "server": "box"}
    lines = [f"graph {topology.mode} {{", "  rankdir=LR;"]
    for node in topology.nodes:
        label = "\\n".join(filter(None, (node.name, *(link.ip for link in node.links), _role(topology, node))))
        lines.append(f'  "{node.name}" [shape={shape[node.role]}, label="{label}"];')
    for segment in topology.segments:
        lines.append(f'  "{segment.name}" [shape=plaintext, label="{segment.subnet}"];')
        lines += [f'  "{node.name}" -- "{segment.name}";' for node, _ in _members(topology)[segment.name]]
    return "\n".join([*lines, "}"]) + "\n"
