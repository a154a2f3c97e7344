# SPDX-License-Identifier: GPL-2.0-or-later
"""What a lab is made of, as data.

Nothing here runs a command or knows a load balancing method: scenarios.py fills these shapes,
cluster.py builds them with netns.py, picture.py draws them.
"""

from dataclasses import dataclass, field

VIP = "10.9.0.100"

# Longest interface name the kernel takes (IFNAMSIZ less the final zero).
MAX_INTERFACE_NAME = 15


@dataclass(frozen=True)
class Segment:
    """One Ethernet: a bridge in the switch namespace."""

    name: str
    subnet: str

    @property
    def bridge(self) -> str:
        return self.name


@dataclass(frozen=True)
class Link:
    """One veth: `interface` in the node, the other end a port of the segment's bridge."""

    interface: str
    segment: Segment
    address: str  # "10.9.0.1/24"
    bridge: str = ""  # with a name: the veth joins this bridge inside the node and the host has no address

    @property
    def ip(self) -> str:
        return self.address.split("/")[0]

    @property
    def mac(self) -> str:
        """The IP address is readable in the MAC address: 10.9.0.11 is at 02:00:0a:09:00:0b."""
        return "02:00:" + ":".join(f"{int(byte):02x}" for byte in self.ip.split("."))

    @property
    def tap(self) -> str:
        """The TAP the director makes on this link's bridge."""
        return f"lb-{self.segment.name}"


@dataclass(frozen=True)
class Route:
    to: str  # "default" or a subnet
    via: str


@dataclass(frozen=True)
class Node:
    """A host: one network namespace called LAB-name."""

    name: str
    role: str  # client, director, server, router
    links: tuple[Link, ...]
    routes: tuple[Route, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)

    @property
    def ip(self) -> str:
        return self.links[0].ip


@dataclass(frozen=True)
class Topology:
    mode: str  # nat, tun, dr
    device: str  # packet, tap
    segments: tuple[Segment, ...]
    nodes: tuple[Node, ...]
    server_port: int  # where the real servers' HTTP listens for the director; only NAT can differ from 80
    vip: str = VIP

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def of_role(self, role: str) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.role == role)

    @property
    def client(self) -> Node:
        return self.node("client")

    @property
    def director(self) -> Node:
        return self.node("director")

    @property
    def servers(self) -> tuple[Node, ...]:
        return self.of_role("server")

    def port_name(self, node: Node, link: Link) -> str:
        """The bridge port that leads to `link`: the node's name, and the segment's where one name is not enough."""
        return node.name if len(node.links) == 1 else f"{node.name[:8]}-{link.segment.name}"
