# SPDX-License-Identifier: GPL-2.0-or-later
"""What the wires say: real checksums, MTU and fragments, MAC addresses that move, servers behind a gateway."""

import dataclasses
import socket
import struct

import pytest

import netns
from cluster import Lab, Options
from conftest import has_tun, lab_name, labs
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from tools import Capture, dig, spread, who_answers_names
from topology import Link, Node, Route, Segment, Topology

DEVICES = ["packet", pytest.param("tap", marks=pytest.mark.skipif(not has_tun(), reason="/dev/net/tun can't be opened"))]


def wrong_checksums(packet: Packet) -> list[str]:
    """Names of the layers whose checksum is not what scapy computes for them."""
    wrong = []
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

    pytestmark = labs("nat", "tun", "dr", devices=("packet", "tap"), offloads=("off",))

    def test_every_packet_a_server_or_the_client_gets_has_true_checksums(self, lab: Lab):
        places = [("client", "eth0"), *((server.name, "eth0") for server in lab.topology.servers)]
        captures = {place: Capture(lab, *place) for place in places}
        lab.ask_many(3)
        lab.ask(f"http://{lab.topology.vip}/post", "-H", "Expect:", "-d", "x" * 5000)
        who_answers_names(lab)
        lab.exec("client", ["ping", "-c", "1", "-W", "2", lab.topology.vip])
        for place, capture in captures.items():
            with capture:
                packets = [Ether(frame) for frame in capture.frames()]
            ip_packets = [packet for packet in packets if IP in packet]
            assert len(ip_packets) >= 3, place
            for packet in ip_packets:
                assert wrong_checksums(packet) == [], f"{place}: {packet.summary()}"


class TestTunnelMtu:
    pytestmark = labs("tun", devices=("packet", "tap"))

    def test_a_full_frame_is_answered_with_fragmentation_needed(self, lab: Lab):
        """1500 bytes with DF do not fit in the tunnel: the client learns 1480 from the director."""
        with netns.inside(lab.namespace("client")):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.setsockopt(socket.IPPROTO_IP, 10, 2)  # linux/in.h: IP_MTU_DISCOVER, IP_PMTUDISC_DO
            client.connect((lab.topology.vip, 53))

            def learnt() -> bool:
                try:
                    client.send(bytes(1472))
                except OSError as problem:
                    return problem.errno == 90  # EMSGSIZE
                return False

            netns.wait_until(learnt, 5, "fragmentation needed")
            assert client.getsockopt(socket.IPPROTO_IP, 14) == 1480  # IP_MTU

    def test_the_encapsulated_frames_keep_to_the_mtu(self, lab: Lab):
        with Capture(lab, "router", "lan1") as capture, Capture(lab, "router", "front") as front:
            lab.ask(f"http://{lab.topology.vip}/post", "-H", "Expect:", "--data-binary", f"@{lab.folder / 'files' / '10M'}")
            lab.ask_many(2)
            tunnelled = [Ether(frame) for frame in front.frames() if frame[12:14] == b"\x08\x00" and frame[23] == 4]
            capture.frames()
        assert tunnelled
        for packet in tunnelled:
            assert packet[IP].len <= 1500 and packet[IP].src == lab.topology.director.ip
            assert packet[IP].payload.dst == lab.topology.vip


def question(name: str, padding: int) -> bytes:
    """A TXT question; a name server does not mind bytes after it."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 16, 1) + bytes(padding)


class TestFragments:
    pytestmark = labs("nat", "tun", "dr", devices=("packet", "tap"))

    def test_a_question_in_three_fragments_is_answered(self, lab: Lab):
        with netns.inside(lab.namespace("client")):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_PMTUDISC_DONT: fragments, not errors
            client.settimeout(5)
            for _ in lab.topology.servers:
                client.sendto(question("whoami.lab", 3500), (lab.topology.vip, 53))
                answer, sender = client.recvfrom(4096)
                assert sender == (lab.topology.vip, 53) and b'"server"' in answer


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["nat", "dr", "tun"])
def test_a_mac_that_changes_is_followed(fresh_lab, mode, device):
    """A real server (TUN: the router) gets a new network card; it announces itself as hosts with arp_notify do."""
    lab = fresh_lab(mode, device=device)
    moved = lab.topology.node("router" if mode == "tun" else "server1")
    namespace, interface = lab.namespace(moved.name), moved.links[0].interface
    assert spread(lab.ask_many(3)) == {"server1": 1, "server2": 1, "server3": 1}
    netns.set_sysctl(namespace, f"net.ipv4.conf.{interface}.arp_notify", "1")
    netns.ip(namespace, "link", "set", interface, "address", "02:00:00:00:0b:ad")
    assert spread(lab.ask_many(6)) == {"server1": 2, "server2": 2, "server3": 2}


def test_a_silent_mac_change_is_found_out(fresh_lab):
    """The same without an announcement: the neighbour has to be asked again, which takes half a minute."""
    lab = fresh_lab("dr")
    lab.ask_many(3)
    netns.ip(lab.namespace("server1"), "link", "set", "eth0", "address", "02:00:00:00:0b:ad")

    def all_three() -> bool:
        pages = [lab.exec("client", ["curl", "-s", "-m", "1", f"http://{lab.topology.vip}/"], check=False) for _ in range(3)]
        return all(page.returncode == 0 for page in pages)

    netns.wait_until(all_three, 60, "all three servers to answer again")


class BehindGateway(Lab):
    """NAT with the servers one router further away; the way back still leads through the director."""

    @property
    def topology(self) -> Topology:
        plain = super().topology
        front, back = plain.segments
        far = Segment("far", "10.9.2.0/24")
        router = Node(
            "router",
            "router",
            (Link("back", back, "10.9.1.254/24"), Link("far", far, "10.9.2.254/24")),
            (Route("default", "10.9.1.2"),),
            {"net.ipv4.ip_forward": "1"},
        )
        servers = [
            Node(server.name, "server", (Link("eth0", far, server.links[0].address.replace("10.9.1.", "10.9.2.")),),
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
            answer = lab.exec("client", ["curl", "-s", "-m", "2", f"http://{lab.topology.vip}/"], check=False)
            return answer.returncode == 0

        assert served()
        netns.ip(lab.namespace("director"), "route", "del", "10.9.2.0/24")
        netns.wait_until(lambda: not served(), 5, "requests to fail without a route")
        netns.ip(lab.namespace("director"), "route", "add", "10.9.2.0/24", "via", "10.9.1.254")
        netns.wait_until(served, 5, "requests to succeed again")
        assert set(spread(lab.ask_many(3))) == {"server1", "server2", "server3"}


def test_a_link_with_a_smaller_mtu_behind_the_director(fresh_lab):
    """NAT into a network with MTU 1400: full frames with DF are answered, so uploads pass."""
    lab = fresh_lab("nat")
    netns.ip(lab.namespace("director"), "link", "set", "back", "mtu", "1400")
    with netns.inside(lab.namespace("client")):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.setsockopt(socket.IPPROTO_IP, 10, 2)
        client.connect((lab.topology.vip, 53))

        def learnt() -> bool:
            try:
                client.send(bytes(1472))
            except OSError as problem:
                return problem.errno == 90
            return False

        netns.wait_until(learnt, 5, "fragmentation needed")
        assert client.getsockopt(socket.IPPROTO_IP, 14) == 1400
    file = lab.folder / "files" / "10M"
    answer = lab.ask(f"http://{lab.topology.vip}/post", "-H", "Expect:", "--data-binary", f"@{file}")
    assert int(answer["length"]) == file.stat().st_size
    assert dig(lab, "whoami.lab")
