# SPDX-License-Identifier: GPL-2.0-or-later
"""A tunnelled packet that took the shortcut through the kernel is the one the director would have made, bit by bit."""

import contextlib
import socket

import pytest

import netns
from cluster import Lab
from conftest import PRIVATE, labs
from encapsulator import ETHERNET, Wire, ipv6, udp
from tools import Capture, skip_without_shortcuts, walked
from topology import in_url

pytestmark = [labs("tun", families=("46",), devices=("packet", "tap")),
              pytest.mark.skipif(PRIVATE, reason="without root the kernel takes no BPF programs")]


@pytest.fixture(autouse=True)
def needs_shortcuts(lab: Lab):
    skip_without_shortcuts(lab)


IP4, IP6 = 20, 40


def without_ids(frame: bytes) -> bytes:
    """A frame of IP headers and a datagram; IPv4 headers, whose checksums have to be right, without the ID and what follows from it."""
    frame, at = bytearray(frame), ETHERNET
    while True:
        is_v4 = frame[at] >> 4 == 4
        if is_v4:
            words = [int.from_bytes(frame[at + i:at + i + 2], "big") for i in range(0, IP4, 2)]
            assert sum(words) % 0xFFFF == 0, f"header checksum: {bytes(frame).hex()}"
            frame[at + 4:at + 6] = frame[at + 10:at + 12] = b"\0\0"
        inside = frame[at + 9] if is_v4 else frame[at + 6]
        at += IP4 if is_v4 else IP6
        if inside == socket.IPPROTO_UDP:
            return bytes(frame)


@pytest.mark.parametrize("may_fragment", (False, True), ids=("df", "no-df"))
@pytest.mark.parametrize("outer", (0, 1), ids=("outer4", "outer6"))
@pytest.mark.parametrize("inner", (0, 1), ids=("inner4", "inner6"))
def test_a_carried_tunnel_packet_is_what_a_walked_one_is(lab: Lab, inner: int, outer: int, may_fragment: bool):
    """The same datagrams by both ways, at the server's interface: not a bit differs."""
    vip, server = lab.topology.vips[inner], lab.topology.servers[0]
    service, real = f"{in_url(vip)}:5353", f"{in_url(server.ips[outer])}:5353"
    lab.vsadm("-A", "-u", service, "-s", "rr")
    lab.vsadm("-a", "-u", service, "-r", real, "-i")
    with netns.inside(lab.namespace("client")):
        client = socket.socket(socket.AF_INET6 if inner else socket.AF_INET, socket.SOCK_DGRAM)
    if not inner:
        client.setsockopt(socket.IPPROTO_IP, 10, 0 if may_fragment else 2)  # IP_MTU_DISCOVER: never, always
    client.connect((vip, 5353))
    with netns.inside(lab.namespace(server.name)):
        sink = socket.socket(client.family, socket.SOCK_DGRAM)  # or the server would complain
    sink.bind((vip, 5353))
    tos = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if inner else (socket.IPPROTO_IP, socket.IP_TOS)
    try:
        with client, sink, Capture(lab, server.name, "eth0") as capture:
            seen: list[bytes] = []

            def arrived(count: int) -> bool:
                seen.extend(frame for frame in capture.frames() if b"carried or walked" in frame)
                return len(seen) >= count

            def send(times: int) -> set[bytes]:
                for _ in range(times):
                    client.send(b"carried or walked")
                netns.wait_until(lambda: arrived(times), 10, f"{times} datagrams at the server")
                frames = {without_ids(frame) for frame in seen}
                seen.clear()
                return frames

            marks = (0x28, 0x2A, 0x2B)  # a DSCP; with ECT(0), with CE
            walked_ones = {}
            for mark in marks:
                client.setsockopt(*tos, mark)
                walked_ones[mark] = send(10)
            send(10)  # 32 have walked, and more
            before = walked(lab)
            for mark in marks:
                client.setsockopt(*tos, mark)
                assert send(10) == walked_ones[mark] and len(walked_ones[mark]) == 1
            assert walked(lab) - before < 5, "carried, all but what else is going on"
    finally:
        lab.vsadm("-D", "-u", service)


def test_an_ipv4_address_in_ipv6_form_is_not_taken_for_it(lab: Lab):
    """RFC 4291, 2.5.5.2: it stands on no wire; the kernel's part keeps IPv4 addresses in that form."""
    vip, client, server = lab.topology.vip, lab.topology.client, lab.topology.servers[0]
    lab.vsadm("-A", "-u", f"{vip}:5353", "-s", "rr")
    lab.vsadm("-a", "-u", f"{vip}:5353", "-r", f"{server.ip}:5353", "-i")
    with netns.inside(lab.namespace("client")):
        socket_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    socket_.bind((client.ip, 4000))
    socket_.connect((vip, 5353))
    wire = Wire(lab.namespace("client"), "eth0", client.links[0].mac, lab.topology.director.links[0].mac)
    with netns.inside(lab.namespace(server.name)):
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind((vip, 5353))
    try:
        with socket_, sink, contextlib.closing(wire), Capture(lab, server.name, "eth0") as capture:
            seen: list[bytes] = []

            def arrived(text: bytes) -> int:
                seen.extend(capture.frames())
                return sum(text in frame for frame in seen)

            for _ in range(40):
                socket_.send(b"walks")
            netns.wait_until(lambda: arrived(b"walks") == 40, 10, "40 datagrams at the server")
            source, target = f"::ffff:{client.ip}", f"::ffff:{vip}"
            wire.send(ipv6(source, target, socket.IPPROTO_UDP, udp(source, target, 5353, b"a trick")))
            socket_.send(b"the last one")
            netns.wait_until(lambda: arrived(b"the last one"), 10, "what was sent after it")
            assert not arrived(b"a trick")
    finally:
        lab.vsadm("-D", "-u", f"{vip}:5353")
