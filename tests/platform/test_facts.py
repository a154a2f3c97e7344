# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel behaviour the director is built on. When one of these fails, the kernel is another one than we think."""

import fcntl
import os
import re
import select
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

import netns
from conftest import tap

PACKET_VNET_HDR, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 15, 8, 23  # linux/if_packet.h
TP_STATUS_CSUMNOTREADY = 1 << 3
IFF_VNET_HDR = 0x4000  # linux/if_tun.h
TUNSETOFFLOAD, TUN_F_CSUM, TUN_F_TSO4 = 0x400454D0, 1, 2
VNET = struct.Struct("<BBHHHH")  # virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NEEDS_CSUM, GSO_TCPV4 = 1, 1
MTU = 1500
needs_tun = pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="/dev/net/tun can't be opened")


def of_port(frame: bytes, port: int) -> bool:
    """IPv4 to that TCP or UDP port."""
    return frame[12:14] == b"\x08\x00" and struct.unpack("!H", frame[36:38])[0] == port


def receive(packets: socket.socket, port: int, header: int = 0) -> bytes:
    while True:
        frame = packets.recv(1 << 17)
        if of_port(frame[header:], port):
            return frame


def test_a_packet_socket_sees_what_netdev_ingress_drops(wire):
    """The guard drops at ingress: the host stack gets nothing, the director everything."""
    wire.nft(wire.b, "table netdev t { chain c { type filter hook ingress device wb priority 0; udp dport 9 drop; }; }")
    packets = wire.packet_socket(wire.b, "wb")
    with wire.open(wire.b, socket.AF_INET, socket.SOCK_DGRAM) as host, wire.open(wire.a, socket.AF_INET, socket.SOCK_DGRAM) as sender:
        host.bind(("10.8.0.2", 9))
        host.setblocking(False)
        sender.sendto(b"hello", ("10.8.0.2", 9))
        assert receive(packets, 9)[42:47] == b"hello"
        with pytest.raises(BlockingIOError):
            host.recv(100)
    packets.close()


def owner_table(namespace: str) -> subprocess.Popen:
    """A process that holds a table with the owner flag by its netlink socket."""
    holder = subprocess.Popen([*netns.enter(namespace), "nft", "--interactive"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              text=True)
    holder.stdin.write("add table inet held { flags owner; }\n")
    holder.stdin.flush()
    netns.wait_until(lambda: "held" in tables(namespace), 5, "the table")
    return holder


def tables(namespace: str) -> str:
    return netns.run([*netns.enter(namespace), "nft", "list", "tables"]).stdout


def test_an_owner_table_dies_with_its_process(wire):
    holder = owner_table(wire.a)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    netns.wait_until(lambda: "held" not in tables(wire.a), 5, "the table to go")


def test_an_owner_table_survives_others(wire):
    holder = owner_table(wire.a)
    netns.run([*netns.enter(wire.a), "nft", "flush", "ruleset"], check=False)
    assert netns.run([*netns.enter(wire.a), "nft", "delete", "table", "inet", "held"], check=False).returncode != 0
    assert "held" in tables(wire.a)
    holder.kill()
    holder.communicate()


def test_veth_frames_carry_partial_checksums(wire):
    """The kernel says so in the auxiliary data; without it the checksum on the wire looks wrong."""
    packets = wire.packet_socket(wire.b, "wb", (PACKET_AUXDATA, 1))
    with wire.open(wire.a, socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", ("10.8.0.2", 9))
    status = None
    while status is None:
        frame, ancillary, _, _ = packets.recvmsg(2048, 256)
        if of_port(frame, 9):
            (status,) = struct.unpack("I", ancillary[0][2][:4])
    assert status & TP_STATUS_CSUMNOTREADY
    packets.close()


def tcp_stream(wire, port: int) -> tuple[socket.socket, socket.socket]:
    with wire.open(wire.b, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("10.8.0.2", port))
        listener.listen()
        client = wire.open(wire.a, socket.AF_INET, socket.SOCK_STREAM)
        client.connect(("10.8.0.2", port))
        return client, listener.accept()[0]


def test_the_vnet_header_of_a_packet_socket_describes_segmentation(wire):
    client, server = tcp_stream(wire, 9)
    packets = wire.packet_socket(wire.b, "wb", (PACKET_VNET_HDR, 1))
    client.setblocking(False)
    client.send(bytes(60000))
    while True:
        frame = receive(packets, 9, VNET.size)
        flags, kind, _, size, start, offset = VNET.unpack_from(frame)
        if len(frame) - VNET.size > MTU + 14:
            break
    assert kind == GSO_TCPV4 and size <= MTU - 40
    assert flags & NEEDS_CSUM and (start, offset) == (14 + 20, 16)
    for each in (client, server, packets):
        each.close()


def test_a_packet_socket_sends_super_frames(wire):
    """What came in with a vnet header may go out with one: the kernel cuts it where it has to."""
    client, server = tcp_stream(wire, 9)
    seen = wire.packet_socket(wire.b, "wb", (PACKET_VNET_HDR, 1))
    client.setblocking(False)
    client.send(bytes(60000))
    while len(frame := receive(seen, 9, VNET.size)) < MTU + 100:
        pass
    sender = wire.packet_socket(wire.b, "wb", (PACKET_VNET_HDR, 1))
    answer = wire.packet_socket(wire.a, "wa", (PACKET_VNET_HDR, 1), (PACKET_IGNORE_OUTGOING, 1))
    back = bytearray(frame)
    back[VNET.size : VNET.size + 12] = b"\xff" * 6 + frame[VNET.size : VNET.size + 6]
    sender.send(back)
    assert len(receive(answer, 9, VNET.size)) == len(frame), "over a veth it stays whole"
    for each in (client, server, seen, sender, answer):
        each.close()


def test_ignore_outgoing_hides_what_the_host_sends(wire):
    packets = wire.packet_socket(wire.a, "wa", (PACKET_IGNORE_OUTGOING, 1))
    with wire.open(wire.a, socket.AF_INET, socket.SOCK_DGRAM) as near, wire.open(wire.b, socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("10.8.0.2", 9))
        near.bind(("10.8.0.1", 9))
        near.sendto(b"out", ("10.8.0.2", 9))
        far.recv(100)
        far.sendto(b"in", ("10.8.0.1", 9))
        assert receive(packets, 9)[42:44] == b"in", "the first to be seen, though `out` was earlier"
    packets.close()


@pytest.mark.parametrize("arp_ignore, answered", [("0", True), ("1", False)])
def test_a_vip_on_lo_is_answered_by_arp_unless_ignored(wire, arp_ignore, answered):
    netns.ip(wire.b, "address", "add", "10.8.0.100/32", "dev", "lo")
    netns.set_sysctl(wire.b, "net.ipv4.conf.all.arp_ignore", arp_ignore)
    netns.run([*netns.enter(wire.a), "ping", "-c", "1", "-W", "1", "10.8.0.100"], check=False)
    (neighbour,) = netns.ip_json(wire.a, "neighbour", "show", "10.8.0.100")
    assert ("lladdr" in neighbour) == answered


@needs_tun
def test_a_tap_dies_with_its_descriptor(wire):
    with tap(wire.a, "t0", 0):
        assert "t0" in {link["ifname"] for link in netns.ip_json(wire.a, "link")}
    assert "t0" not in {link["ifname"] for link in netns.ip_json(wire.a, "link")}


@needs_tun
def test_a_tap_with_vnet_header_gets_super_frames(wire):
    """Once the program has said with TUNSETOFFLOAD that it takes them."""
    size = 8000
    fields = (0x45, 0, 40 + size, 0, 0, 64, socket.IPPROTO_TCP)
    addresses = (socket.inet_aton("10.8.0.2"), socket.inet_aton("10.8.0.9"))
    checksum = 0xFFFF - sum(struct.unpack("!10H", struct.pack("!BBHHHBBH4s4s", *fields, 0, *addresses))) % 0xFFFF
    ip = struct.pack("!BBHHHBBH4s4s", *fields, checksum, *addresses)
    tcp = struct.pack("!HHIIBBHHH", 9, 9, 1, 1, 0x50, 0x10, 1000, 0, 0)
    frame = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x08\x00" + ip + tcp + bytes(size)
    with tap(wire.a, "t0", IFF_VNET_HDR) as descriptor, wire.packet_socket(wire.b, "wb", (PACKET_VNET_HDR, 1)) as sender:
        fcntl.ioctl(descriptor, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
        netns.add_bridge(wire.a, "br0")
        for port in ("wa", "t0"):
            netns.ip(wire.a, "link", "set", port, "master", "br0", "up")
        sender.send(VNET.pack(NEEDS_CSUM, GSO_TCPV4, 14 + 40, 1448, 34, 16) + frame)

        def arrived() -> bool:
            if not select.select([descriptor], [], [], 0.1)[0]:
                return False
            got = os.read(descriptor, 1 << 17)
            return of_port(got[VNET.size :], 9) and len(got) > size and VNET.unpack_from(got)[1] == GSO_TCPV4

        netns.wait_until(arrived, 3, "a super-frame at the TAP")


@pytest.mark.parametrize(("ask", "kept"), [("__builtin_prefetch(p)", False), ("director::fetch(p)", True)])
def test_the_compiler_keeps_calls_of_what_only_fetches(ask, kept):
    """GCC takes such a function for one without effect; director/base/fetch.h tells it otherwise."""
    source = f"""
    #include "director/base/fetch.h"
    struct Table {{ [[gnu::noinline]] void ahead(const char* p) const {{ {ask}; }} }};
    void look_ahead(const Table& table, const char* p) {{ table.ahead(p); }}
    """
    include = Path(__file__).resolve().parent.parent.parent / "include"
    words = ["g++", "-std=c++20", "-O2", "-I", str(include), "-x", "c++", "-S", "-o", "-", "-"]
    assembly = subprocess.run(words, input=source, check=True, capture_output=True, text=True).stdout
    assert bool(re.search(r"\b(prefetch|prfm|pld)", assembly)) == kept
