# SPDX-License-Identifier: GPL-2.0-or-later
"""What a lab is made of, as data.

Nothing here runs a command or knows a load balancing method: scenarios.py fills these shapes,
cluster.py builds them with netns.py, picture.py draws them.

A place in a lab is written as its IPv4 address. The IPv6 address of the same place has the same numbers, so that
whoever knows one knows the other: 10.9.11.254 is fd00:10:9:11::254. A lab's family says which of the two its hosts have:
"4", "6", or "46" for both.
"""

from dataclasses import dataclass, field

VIP = "10.9.0.100"
FAMILIES = ("4", "6", "46")
_PREFIX_LENGTHS = {"16": "48", "24": "64", "32": "128"}  # what covers the same places

# Longest interface name the kernel takes (IFNAMSIZ less the final zero).
MAX_INTERFACE_NAME = 15



def in_family(place: str, family: str) -> str:
    """The address or prefix of a place in one family; a route to "default" is that in both."""
    if family == "4" or place == "default":
        return place
    address, _, length = place.partition("/")
    *network, host = address.split(".")
    groups = [group for number, group in enumerate(network) if number < 2 or group != "0"]  # fd00:10:9:0::1 is written fd00:10:9::1
    written = ":".join(["fd00", *groups]) + "::" + ("" if host == "0" else host)
    return f"{written}/{_PREFIX_LENGTHS[length]}" if length else written


def in_url(address: str) -> str:
    """As URLs and rules have it before a colon and a port."""
    return f"[{address}]" if ":" in address else address


@dataclass(frozen=True)
class Segment:
    """One Ethernet: a bridge in the switch namespace."""

    name: str
    place: str  # "10.9.0.0/24"
    family: str = "4"

    @property
    def subnets(self) -> tuple[str, ...]:
        return tuple(in_family(self.place, family) for family in self.family)

    @property
    def bridge(self) -> str:
        return self.name


@dataclass(frozen=True)
class Link:
    """One veth: `interface` in the node, the other end a port of the segment's bridge."""

    interface: str
    segment: Segment
    place: str  # "10.9.0.1/24"
    bridge: str = ""  # with a name: the veth joins this bridge inside the node and the host has no address

    @property
    def addresses(self) -> tuple[str, ...]:
        """With their prefix lengths, one of each family the lab has."""
        return tuple(in_family(self.place, family) for family in self.segment.family)

    @property
    def ips(self) -> tuple[str, ...]:
        return tuple(address.split("/")[0] for address in self.addresses)

    @property
    def ip(self) -> str:
        return self.ips[0]

    @property
    def mac(self) -> str:
        """The place is readable in the MAC address: 10.9.0.11 and fd00:10:9::11 are at 02:00:0a:09:00:0b."""
        return "02:00:" + ":".join(f"{int(byte):02x}" for byte in self.place.split("/")[0].split("."))

    @property
    def tap(self) -> str:
        """The TAP the director makes on this link's bridge."""
        return f"lb-{self.segment.name}"

    @property
    def device(self) -> str:
        """Where what lives at this link gets and sends its frames."""
        return self.tap if self.bridge else self.interface


@dataclass(frozen=True)
class Route:
    to: str  # "default" or a subnet, as a place
    via: str  # a place


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

    @property
    def ips(self) -> tuple[str, ...]:
        return self.links[0].ips


@dataclass(frozen=True)
class Topology:
    mode: str  # nat, tun, dr
    device: str  # packet, tap
    segments: tuple[Segment, ...]
    nodes: tuple[Node, ...]
    server_port: int  # where the real servers' HTTP listens for the director; only NAT can differ from 80

    @property
    def family(self) -> str:
        return self.segments[0].family

    @property
    def vips(self) -> tuple[str, ...]:
        """The VIP in each family the lab has."""
        return tuple(in_family(VIP, family) for family in self.family)

    @property
    def vip(self) -> str:
        return self.vips[0]

    @property
    def urls(self) -> tuple[str, ...]:
        """Of the page, at each VIP."""
        return tuple(f"http://{in_url(vip)}/" for vip in self.vips)

    @property
    def url(self) -> str:
        return self.urls[0]

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
