# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts reply frames on the wire, so that `demo` and the tests can say what was measured.

A packet socket with a filter on a bridge port; the kernel itself keeps the count (PACKET_STATISTICS), also of what
the socket's buffer had no room for.
"""

import ctypes
import socket
import struct

import netns
from cluster import SWITCH, Lab
from servers import PORTS
from topology import Link, Node

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/if_packet.h
SO_ATTACH_FILTER = 26
PACKET_OUTGOING = 4
PACKET_TYPE = 0xFFFFF000 + 4  # linux/filter.h: SKF_AD_OFF + SKF_AD_PKTTYPE

# Instructions of classic BPF (linux/bpf_common.h) by what they do.
LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30
LOAD_HALF_AT_X, LOAD_IP_HEADER_LENGTH_IN_X = 0x48, 0xB1
JUMP_EQUAL, RETURN = 0x15, 0x06


def reply_filter(mac: str) -> bytes:
    """Accepts TCP over IPv4 from a web server's port, leaving by this bridge port for `mac`."""
    high, low = struct.unpack("!IH", bytes.fromhex(mac.replace(":", "")))
    tests = [  # load, value that must be there
        ((LOAD_WORD, PACKET_TYPE), PACKET_OUTGOING),
        ((LOAD_WORD, 0), high),
        ((LOAD_HALF, 4), low),
        ((LOAD_HALF, 12), ETH_P_IP),
        ((LOAD_BYTE, 23), socket.IPPROTO_TCP),
    ]
    ports = [(JUMP_EQUAL, 0, 0, port) for port in PORTS]
    program = []
    length = 2 * len(tests) + 2 + len(ports) + 2  # the last two: reject, accept
    for (code, offset), value in tests:
        program.append((code, 0, 0, offset))
        at = len(program)
        program.append((JUMP_EQUAL, 0, length - 2 - at - 1, value))
    program.append((LOAD_IP_HEADER_LENGTH_IN_X, 0, 0, 14))
    program.append((LOAD_HALF_AT_X, 0, 0, 14))
    for code, _, _, port in ports:
        at = len(program)
        program.append((code, length - 1 - at - 1, 0, port))
    program += [(RETURN, 0, 0, 0), (RETURN, 0, 0, 1)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


class FrameCounter:
    """Frames that go to one node over one of its links and match the filter."""

    def __init__(self, lab: Lab, node: Node, link: Link):
        program = reply_filter(link.mac)
        memory = ctypes.create_string_buffer(program, len(program))  # the kernel copies it in setsockopt
        filter_program = struct.pack("HL", len(program) // 8, ctypes.addressof(memory))
        with netns.inside(lab.namespace(SWITCH)):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_program)
            self.socket.bind((lab.topology.port_name(node, link), ETH_P_ALL))
        self.total = 0

    def count(self) -> int:
        packets, _dropped = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self.total += packets  # reading sets the kernel's count back to zero
        return self.total

    def close(self) -> None:
        self.socket.close()


class ReplyCount:
    """Of all reply frames that reached the client, how many went to the director first?"""

    def __init__(self, lab: Lab):
        topology = lab.topology
        self._client = [FrameCounter(lab, topology.client, link) for link in topology.client.links]
        self._director = [FrameCounter(lab, topology.director, link) for link in topology.director.links]

    @property
    def to_client(self) -> int:
        return sum(counter.count() for counter in self._client)

    @property
    def through_director(self) -> int:
        return sum(counter.count() for counter in self._director)

    def __enter__(self) -> "ReplyCount":
        return self

    def __exit__(self, *_) -> None:
        for counter in (*self._client, *self._director):
            counter.close()
