# SPDX-License-Identifier: GPL-2.0-or-later
"""What the wires say: real checksums, MTU and fragments, MAC addresses that move, servers behind a gateway."""

import dataclasses
import socket
import struct

import pytest

import netns
from cluster import Lab, Options
from conftest import cases, has_tun, in_labs, lab_name, labs
from encapsulator import ETHERNET, VNET
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from tools import Capture, Datagrams, dig, spread, who_answers_names
from topology import Link, Node, Route, Segment, Topology

DEVICES = ["packet", pytest.param("tap", marks=pytest.mark.skipif(not has_tun(), reason="/dev/net/tun can't be opened"))]


def wrong_checksums(packet: Packet) -> list[str]:
    """Names of the layers whose checksum is not what scapy computes for them."""
    wrong, depth = [], 1
    while (header := packet.getlayer(IPv6, depth)) is not None:  # which has none itself
        depth += 1
        if header.nh in (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMPV6):
            # A sum over everything, the checksum in it, is 0; scapy writes that as UDP does.
            if in6_chksum(header.nh, header, bytes(header.payload)[:header.plen]) not in (0, 0xFFFF):
                wrong.append(f"{header.payload.name} over IPv6")
    if IPv6 in packet:
        return wrong
    for layer in (IP, TCP, UDP, ICMP):
        depth = 1
        while (found := packet.getlayer(layer, depth)) is not None:
            depth += 1
            if layer is UDP and found.chksum == 0:
                continue  # none (RFC 768)
            carrier = packet.copy()
            fresh = carrier.getlayer(layer, depth - 1)
            del fresh.chksum
            rebuilt = Ether(bytes(carrier)).getlayer(layer, depth - 1)
            if rebuilt.chksum != found.chksum:
                wrong.append(f"{layer.__name__} {found.chksum:#06x}, should be {rebuilt.chksum:#06x}")
    return wrong


class TestChecksumsOnTheWire:
    """With offloads off every frame carries its final checksum, so a capture can be recomputed."""

    pytestmark = in_labs(cases("nat", "tun", "dr", devices=("packet", "tap"), offloads=("off",)),
                         cases("nat", "tun", "dr", devices=("packet", "tap"), offloads=("off",), families=("6",)))

    def test_every_packet_a_server_or_the_client_gets_has_true_checksums(self, lab: Lab):
        places = [("client", "eth0"), *((server.name, "eth0") for server in lab.topology.servers)]
        captures = {place: Capture(lab, *place) for place in places}
        lab.ask_many(3)
        lab.ask(f"{lab.topology.url}post", "-H", "Expect:", "-d", "x" * 5000)
        who_answers_names(lab)
        lab.exec("client", ["ping", "-c", "1", "-W", "2", lab.topology.vip])
        for place, capture in captures.items():
            with capture:
                packets = [Ether(frame) for frame in capture.frames()]
            ip_packets = [packet for packet in packets if (IPv6 if lab.options.family == "6" else IP) in packet]
            assert len(ip_packets) >= 3, place
            for packet in ip_packets:
                assert wrong_checksums(packet) == [], f"{place}: {packet.summary()}"


class TestTunnelMtu:
    pytestmark = labs("tun", families=("4", "6"), devices=("packet", "tap"))

    def test_a_full_frame_is_answered_with_the_mtu_of_the_tunnel(self, lab: Lab):
        """1500 bytes (with DF) do not fit: the client learns from the director what does beside an outer header."""
        with Datagrams(lab) as client:
            assert client.learnt_mtu() == {"4": 1480, "6": 1460}[lab.options.family]

    def test_the_encapsulated_frames_keep_to_the_mtu(self, lab: Lab):
        """A super-frame stays one on these wires: each of the segments that a network card would cut it into is meant."""
        with Capture(lab, "router", "front", described=True) as front:
            lab.ask(f"{lab.topology.url}post", "-H", "Expect:", "--data-binary", f"@{lab.folder / 'files' / '10M'}")
            lab.ask_many(2)
            described = [(VNET.unpack_from(data), data[VNET.size:]) for data in front.frames()]
        bare = (b"\x08\x00", b"\x86\xdd")
        packets = [(vnet, frame, Ether(frame).payload) for vnet, frame in described if frame[12:14] in bare]
        tunnelled = [one for one in packets if one[2].payload.name in ("IP", "IPv6")]
        assert tunnelled
        for (_, _, _, segment, tcp, _), frame, outer in tunnelled:
            headers = tcp + (frame[tcp + 12] >> 4) * 4 - ETHERNET
            size = headers + segment if segment else len(frame) - ETHERNET
            assert size <= 1500 and outer.src == lab.topology.director.ip
            assert outer.payload.dst == lab.topology.vip


def question(name: str, padding: int) -> bytes:
    """A TXT question; a name server does not mind bytes after it."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 16, 1) + bytes(padding)


class TestFragments:
    pytestmark = labs("nat", "tun", "dr", families=("4", "6"), devices=("packet", "tap"))

    def test_a_question_in_three_fragments_is_answered(self, lab: Lab):
        """In IPv6 nobody cuts a fragment on its way: one that is too long for a tunnel comes again, shorter."""
        with Datagrams(lab, fragments=True) as client:
            for _ in lab.topology.servers:
                assert b'"server"' in client.ask(question("whoami.lab", 3500))


NOTIFY = {"4": "net.ipv4.conf.{}.arp_notify", "6": "net.ipv6.conf.{}.ndisc_notify"}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode, family", [("nat", "4"), ("dr", "4"), ("tun", "4"), ("nat", "6"), ("dr", "6")])
def test_a_mac_that_changes_is_followed(fresh_lab, mode, family, device):
    """A real server (TUN: the router) gets a new network card; it announces itself as hosts with arp_notify do."""
    lab = fresh_lab(mode, device=device, family=family)
    moved = lab.topology.node("router" if mode == "tun" else "server1")
    namespace, interface = lab.namespace(moved.name), moved.links[0].interface
    assert spread(lab.ask_many(3)) == {"server1": 1, "server2": 1, "server3": 1}
    netns.set_sysctl(namespace, NOTIFY[family].format(interface), "1")
    netns.ip(namespace, "link", "set", interface, "address", "02:00:00:00:0b:ad")
    assert spread(lab.ask_many(6)) == {"server1": 2, "server2": 2, "server3": 2}


def test_a_silent_mac_change_is_found_out(fresh_lab):
    """The same without an announcement: the neighbour has to be asked again, which takes half a minute. Both families at once."""
    lab = fresh_lab("dr", family="46")
    for url in lab.topology.urls:
        assert spread([lab.ask(url) for _ in range(3)]) == {"server1": 1, "server2": 1, "server3": 1}
    netns.ip(lab.namespace("server1"), "link", "set", "eth0", "address", "02:00:00:00:0b:ad")

    def all_three(url: str) -> bool:
        pages = [lab.exec("client", ["curl", "-s", "-m", "1", url], check=False) for _ in range(3)]
        return all(page.returncode == 0 for page in pages)

    assert not all_three(lab.topology.url)
    netns.wait_until(lambda: all(map(all_three, lab.topology.urls)), 60, "all three servers to answer again")


class BehindGateway(Lab):
    """NAT with the servers one router further away; the way back still leads through the director."""

    @property
    def topology(self) -> Topology:
        plain = super().topology
        front, back = plain.segments
        far = Segment("far", "10.9.2.0/24", front.family)
        router = Node(
            "router",
            "router",
            (Link("back", back, "10.9.1.254/24"), Link("far", far, "10.9.2.254/24")),
            (Route("default", "10.9.1.2"),),
            {"net.ipv4.ip_forward": "1"},
        )
        servers = [
            Node(server.name, "server", (Link("eth0", far, server.links[0].place.replace("10.9.1.", "10.9.2.")),),
                 (Route("default", "10.9.2.254"),))
            for server in plain.servers
        ]
        director = dataclasses.replace(plain.director, routes=(Route("10.9.2.0/24", "10.9.1.254"),))
        return dataclasses.replace(plain, segments=(front, back, far), nodes=(plain.client, director, router, *servers))


def test_nat_servers_behind_a_gateway():
    with BehindGateway(Options(lab_name(), "nat")) as lab:
        assert spread(lab.ask_many(6)) == {"server1": 2, "server2": 2, "server3": 2}


def test_a_route_that_goes_and_comes_is_followed():
    with BehindGateway(Options(lab_name(), "nat")) as lab:

        def served() -> bool:
            answer = lab.exec("client", ["curl", "-s", "-m", "2", lab.topology.url], check=False)
            return answer.returncode == 0

        assert served()
        netns.ip(lab.namespace("director"), "route", "del", "10.9.2.0/24")
        netns.wait_until(lambda: not served(), 5, "requests to fail without a route")
        netns.ip(lab.namespace("director"), "route", "add", "10.9.2.0/24", "via", "10.9.1.254")
        netns.wait_until(served, 5, "requests to succeed again")
        assert set(spread(lab.ask_many(3))) == {"server1", "server2", "server3"}


@pytest.mark.parametrize("family", ["4", "6"])
def test_a_link_with_a_smaller_mtu_behind_the_director(fresh_lab, family):
    """NAT into a network with MTU 1400: full frames (with DF) are answered, so uploads pass."""
    lab = fresh_lab("nat", family=family)
    netns.ip(lab.namespace("director"), "link", "set", "back", "mtu", "1400")
    with Datagrams(lab) as client:
        assert client.learnt_mtu() == 1400
    file = lab.folder / "files" / "10M"
    answer = lab.ask(f"{lab.topology.url}post", "-H", "Expect:", "--data-binary", f"@{file}")
    assert int(answer["length"]) == file.stat().st_size
    assert who_answers_names(lab)["server"]
