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

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/if_packet.h
SO_ATTACH_FILTER = 26
PACKET_OUTGOING = 4
PACKET_TYPE = 0xFFFFF000 + 4  # linux/filter.h: SKF_AD_OFF + SKF_AD_PKTTYPE

# Instructions of classic BPF (linux/bpf_common.h) by what they do.
LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30
LOAD_HALF_AT_X, LOAD_IP_HEADER_LENGTH_IN_X = 0x48, 0xB1
JUMP_EQUAL, RETURN = 0x15, 0x06
REJECT, ACCEPT = (RETURN, 0), (RETURN, 1)


def _all_of(*tests: tuple[tuple[int, int], int]) -> list:
    """Goes on behind the last if each load gives its value, else to REJECT."""
    return [step for load, value in tests for step in (load, (JUMP_EQUAL, value, None, REJECT))]


def _any_of(values: tuple[int, ...]) -> list:
    """The last step of an alternative: ACCEPT if what was loaded is one of the values."""
    return [*((JUMP_EQUAL, value, ACCEPT, None) for value in values), REJECT]


def _assemble(steps: list) -> bytes:
    """Jumps name the step they lead to: REJECT, ACCEPT, the first of an alternative (a list), or None, the next one."""
    flat: list = []
    places: dict[int, int] = {}
    for step in steps:
        if isinstance(step, list):
            places[id(step)] = len(flat)
            flat += step
        else:
            flat.append(step)
    ends = {REJECT: len(flat), ACCEPT: len(flat) + 1}

    def distance(at: int, target) -> int:
        if target is None:
            return 0
        return (ends[target] if isinstance(target, tuple) else places[id(target)]) - at - 1

    program = b""
    for at, (code, value, *targets) in enumerate([*flat, REJECT, ACCEPT]):
        program += struct.pack("HBBI", code, *(distance(at, target) for target in targets or (None, None)), value)
    return program


def reply_filter(mac: str) -> bytes:
    """Accepts TCP from a web server's port, over IPv4 or IPv6, leaving by this bridge port for `mac`."""
    high, low = struct.unpack("!IH", bytes.fromhex(mac.replace(":", "")))
    ipv4 = [*_all_of(((LOAD_BYTE, 23), socket.IPPROTO_TCP)), (LOAD_IP_HEADER_LENGTH_IN_X, 14), (LOAD_HALF_AT_X, 14), *_any_of(PORTS)]
    ipv6 = [*_all_of(((LOAD_BYTE, 20), socket.IPPROTO_TCP)), (LOAD_HALF, 54), *_any_of(PORTS)]  # no server here uses extension headers
    return _assemble([
        *_all_of(((LOAD_WORD, PACKET_TYPE), PACKET_OUTGOING), ((LOAD_WORD, 0), high), ((LOAD_HALF, 4), low)),
        (LOAD_HALF, 12),
        (JUMP_EQUAL, ETH_P_IP, ipv4, None),
        (JUMP_EQUAL, ETH_P_IPV6, ipv6, REJECT),
        ipv4,
        ipv6,
    ])


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
        lab.wait_for_last_replies()  # of those before: one that has passed the director already would be counted at the client alone
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
