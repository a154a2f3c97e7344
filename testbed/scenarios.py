# SPDX-License-Identifier: GPL-2.0-or-later
"""The three classical methods as topologies, and the rules the director gets for them.

Only data comes out of here. The addresses are fixed (README and tests name them); topology.py says how a place becomes
the addresses of each family.
"""

from topology import Link, Node, Route, Segment, Topology, in_family, in_url

MODES = ("nat", "tun", "dr")
DEVICES = ("packet", "tap")
METHOD_OPTION = {"nat": "-m", "tun": "-i", "dr": "-g"}  # ipvsadm's
METHOD_NAME = {"nat": "VS/NAT", "tun": "VS/TUN", "dr": "VS/DR"}
MAX_SERVERS = 40
# What VS/TUN puts packets in: ipvsadm's options for a real server, and `realserver up`'s.
TUNNELS = {
    "ipip": ("", []),
    "gre": ("--tun-type gre", ["--tun-type", "gre"]),
    "gre-csum": ("--tun-type gre --tun-csum", ["--tun-type", "gre"]),
    "gue": ("--tun-type gue --tun-port 6080", ["--tun-type", "gue", "--tun-port", "6080"]),
    "gue-csum": ("--tun-type gue --tun-port 6080 --tun-csum", ["--tun-type", "gue", "--tun-port", "6080"]),
    "gue-remcsum": ("--tun-type gue --tun-port 6080 --tun-remcsum", ["--tun-type", "gue", "--tun-port", "6080"]),
}
FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")  # a host is a router, by family


def nat(servers: int, device: str, family: str) -> Topology:
    """Two subnets; the director stands between them and is the servers' default gateway."""
    front = Segment("front", "10.9.0.0/24", family)
    back = Segment("back", "10.9.1.0/24", family)
    director = _director(device, _director_link(device, front, "10.9.0.2/24"), _director_link(device, back, "10.9.1.2/24"))
    reals = tuple(
        Node(f"server{i}", "server", (Link("eth0", back, f"10.9.1.{10 + i}/24"),), (Route("default", "10.9.1.2"),))
        for i in range(1, servers + 1)
    )
    # NAT alone can translate the port, so here it does: 80 outside, 8080 inside.
    return Topology("nat", device, (front, back), (_client(front), director, *reals), server_port=8080)


def dr(servers: int, device: str, family: str) -> Topology:
    """One Ethernet for everybody; servers answer the client themselves."""
    front = Segment("front", "10.9.0.0/24", family)
    director = _director(device, _director_link(device, front, "10.9.0.2/24"))
    reals = tuple(
        Node(f"server{i}", "server", (Link("eth0", front, f"10.9.0.{10 + i}/24"),)) for i in range(1, servers + 1)
    )
    return Topology("dr", device, (front,), (_client(front), director, *reals), server_port=80)


def tun(servers: int, device: str, family: str) -> Topology:
    """Every server in a subnet of its own behind a router, as if in another building."""
    front = Segment("front", "10.9.0.0/24", family)
    lans = tuple(Segment(f"lan{i}", f"10.9.{10 + i}.0/24", family) for i in range(1, servers + 1))
    to_router = Route("10.9.0.0/16", "10.9.0.254")
    director = _director(device, _director_link(device, front, "10.9.0.2/24"), routes=(to_router,))
    router = Node(
        "router",
        "router",
        (
            Link("front", front, "10.9.0.254/24"),
            *(Link(lan.name, lan, f"10.9.{10 + i}.254/24") for i, lan in enumerate(lans, 1)),
        ),
        # A reply has the VIP as its source and comes from a server's subnet, so no reverse path check here.
        sysctls={**{key: "1" for key in FORWARDING}, "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0"},
    )
    reals = tuple(
        Node(f"server{i}", "server", (Link("eth0", lan, f"10.9.{10 + i}.11/24"),), (Route("default", f"10.9.{10 + i}.254"),))
        for i, lan in enumerate(lans, 1)
    )
    client = _client(front, (to_router,))
    return Topology("tun", device, (front, *lans), (client, director, router, *reals), server_port=80)


def build(mode: str, servers: int = 3, device: str = "packet", family: str = "4") -> Topology:
    return {"nat": nat, "tun": tun, "dr": dr}[mode](servers, device, family)


def rules(topology: Topology, scheduler: str, tunnel: str = "ipip") -> str:
    """The director's rules file: web (TCP) and name service (UDP) on every VIP, every server in both."""
    method = f"{METHOD_OPTION[topology.mode]} -w 1 {TUNNELS[tunnel][0]}".rstrip()
    lines = []
    for number, vip in enumerate(topology.vips):
        for option, port, server_port in (("-t", 80, topology.server_port), ("-u", 53, 53)):
            service = f"{option} {in_url(vip)}:{port}"
            lines.append(f"-A {service} -s {scheduler}")
            lines += [f"-a {service} -r {in_url(server.ips[number])}:{server_port} {method}" for server in topology.servers]
    return "\n".join(lines) + "\n"


def device_options(topology: Topology) -> list[str]:
    """The director's --device options."""
    options = []
    for link in topology.director.links:
        if topology.device == "packet":
            value = f"{link.segment.name}=packet:{link.interface}"
        else:
            words = [f"{link.segment.name}=tap:{link.tap}", f"bridge={link.bridge}", f"mac={link.mac}"]
            words += [f"address={address}" for address in link.addresses]
            if topology.director.routes:
                words += [f"gateway={in_family(topology.director.routes[0].via, family)}" for family in topology.family]
            value = ",".join(words)
        options += ["--device", value]
    return options


def _client(front: Segment, routes: tuple[Route, ...] = ()) -> Node:
    return Node("client", "client", (Link("eth0", front, "10.9.0.1/24"),), routes)


def _director_link(device: str, segment: Segment, place: str) -> Link:
    return Link(segment.name, segment, place, bridge=f"br-{segment.name}" if device == "tap" else "")


def _director(device: str, *links: Link, routes: tuple[Route, ...] = ()) -> Node:
    # A director is no router: what it forwards it forwards itself (tests turn this on and off).
    return Node("director", "director", links, routes, sysctls={key: "0" for key in FORWARDING})
