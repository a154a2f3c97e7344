# SPDX-License-Identifier: GPL-2.0-or-later
"""Sees every frame at every node of a lab: a packet socket in each, with the kernel's own time stamps."""

import contextlib
import socket
import struct

import netns
from cluster import Lab
from topology import Node
from tracing.headers import Unreadable, read
from tracing.journeys import Sighting
from watch import ETH_P_ALL, PACKET_OUTGOING, PACKET_STATISTICS, SOL_PACKET

SO_TIMESTAMPNS = 35  # asm-generic/socket.h
PACKET_VNET_HDR = 15  # linux/if_packet.h
VNET_HEADER = struct.Struct("=BBHHHH")  # linux/virtio_net.h: flags, kind of segmentation, headers, segment size, checksum's place
LOOPBACK, ETHERNET = 772, 1  # linux/if_arp.h


class Wires:
    """Sees from when it is made on; a socket sees all interfaces of its node, those of tunnels too."""

    def __init__(self, lab: Lab):
        self._topology = lab.topology
        self._sockets: list[tuple[Node, socket.socket]] = []
        self._seen: list[Sighting] = []
        self.lost = 0  # frames that came faster than they were read
        with contextlib.ExitStack() as cleanup:
            for node in self._topology.nodes:
                with netns.inside(lab.namespace(node.name)):
                    wire = cleanup.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))
                wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                wire.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)  # how a super-frame would be cut
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
                wire.setblocking(False)
                self._sockets.append((node, wire))
            self._cleanup = cleanup.pop_all()

    def seen(self) -> list[Sighting]:
        """All until now."""
        for node, wire in self._sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._take(node, *wire.recvmsg(1 << 17, socket.CMSG_SPACE(16)))
            _, lost = struct.unpack("II", wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            self.lost += lost
        return self._seen

    def _take(self, node: Node, data: bytes, ancillary: list, _flags: int, address: tuple) -> None:
        interface, _, kind, hardware, _ = address
        if hardware == LOOPBACK:
            return
        link = next((link for link in node.links if interface == link.device), None)
        if not link and any(link.bridge for link in node.links):
            return  # a bridge inside the director's host, or a port of it: the TAP behind it is the director's link
        *_, segment_size, _, _ = VNET_HEADER.unpack_from(data)
        try:
            headers = read(data[VNET_HEADER.size :], ethernet=hardware == ETHERNET, segment_size=segment_size)
        except Unreadable:
            return
        # A TAP has the host on this side and the director on the other: what the host sends is what the director gets.
        outgoing = (kind == PACKET_OUTGOING) != bool(link and link.bridge)
        if link and not outgoing and headers.target_mac != link.mac:
            return  # a bridge that doesn't know yet where a MAC address is shows its frames to everybody
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        self._seen.append(Sighting(seconds * 10**9 + nanoseconds, node.name, interface, "out" if outgoing else "in", headers))

    def __enter__(self) -> "Wires":
        return self

    def __exit__(self, *_) -> None:
        self._cleanup.close()
