# SPDX-License-Identifier: GPL-2.0-or-later
"""A director's tunnel half, for testing realserver alone: takes a client's packets off a wire, puts an outer IPv4
header in front and sends them on, with their offload state: inner checksums stay partial, super-frames are cut.

Also the few packet builders these tests need. Nothing here looks at the product.
"""

import contextlib
import ctypes
import errno
import select
import socket
import struct
import threading

import netns

VNET = struct.Struct("<BBHHHH")  # virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NEEDS_CSUM, GSO_NONE, GSO_TCP4 = 1, 0, 1
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23  # linux/if_packet.h
ETHERNET = 14
IPIP, IPV6_IN_IPV4 = 4, 41


def fold(data: bytes, total: int = 0) -> int:
    """The one's complement sum, not complemented (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total += sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ipv4(source: str, target: str, protocol: int, payload: bytes, *, tos: int = 0, ident: int = 0, fragment: int = 0x4000) -> bytes:
    """`fragment`: flags and offset as they stand in the header; DF unless told."""
    header = struct.pack("!BBHHHBBH4s4s", 0x45, tos, 20 + len(payload), ident, fragment, 64, protocol, 0,
                         socket.inet_aton(source), socket.inet_aton(target))
    return header[:10] + struct.pack("!H", ~fold(header) & 0xFFFF) + header[12:] + payload


def udp(source: str, target: str, port: int, data: bytes) -> bytes:
    """From port 4000, with its checksum; the addresses may be of either family."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    pseudo = socket.inet_pton(family, source) + socket.inet_pton(family, target) + struct.pack("!HH", 17, 8 + len(data))
    header = struct.pack("!HHHH", 4000, port, 8 + len(data), 0)
    checksum = ~fold(header + data, fold(pseudo)) & 0xFFFF or 0xFFFF
    return header[:6] + struct.pack("!H", checksum) + data


def ipv6(source: str, target: str, next_header: int, payload: bytes) -> bytes:
    return (struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64) + socket.inet_pton(socket.AF_INET6, source)
            + socket.inet_pton(socket.AF_INET6, target) + payload)


def fragments(packet: bytes, size: int) -> list[bytes]:
    """The packet's payload in pieces of `size` bytes (a multiple of 8), each with a copy of its 20-byte header."""
    source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    payload = packet[20:]
    pieces = []
    for offset in range(0, len(payload), size):
        more = 0x2000 if offset + size < len(payload) else 0
        pieces.append(ipv4(source, target, packet[9], payload[offset:offset + size], tos=packet[1], ident=4711,
                           fragment=more | offset // 8))
    return pieces


def cut(vnet: tuple, packet: bytes) -> list[tuple[tuple, bytes]]:
    """A TCP super-frame as its segments, each with a partial checksum; anything else as it is."""
    flags, kind, _, size, start, offset = vnet
    if kind == GSO_NONE:
        return [(vnet, packet)]
    assert kind & 0x7F == GSO_TCP4 and flags & NEEDS_CSUM
    ip_length = (packet[0] & 15) * 4
    tcp_length = (packet[ip_length + 12] >> 4) * 4
    head, payload = packet[:ip_length + tcp_length], packet[ip_length + tcp_length:]
    sequence = struct.unpack("!I", head[ip_length + 4:ip_length + 8])[0]
    ident = struct.unpack("!H", head[4:6])[0]
    segments = []
    for i, at in enumerate(range(0, len(payload), size)):
        data = payload[at:at + size]
        last = at + size >= len(payload)
        tcp = bytearray(head[ip_length:])
        tcp[4:8] = struct.pack("!I", (sequence + at) % (1 << 32))
        if not last:
            tcp[13] &= ~0x09  # FIN and PSH belong to the last one
        tcp[16:18] = struct.pack("!H", fold(head[12:20] + struct.pack("!HH", 6, tcp_length + len(data))))
        whole = ipv4(socket.inet_ntoa(head[12:16]), socket.inet_ntoa(head[16:20]), 6, bytes(tcp) + data,
                     tos=head[1], ident=(ident + i) & 0xFFFF)
        segments.append(((NEEDS_CSUM, GSO_NONE, 0, 0, start, offset), whole))
    return segments


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """struct mmsghdr: Python has no sendmmsg(), and a burst must reach the other end as one."""

    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("parts", ctypes.POINTER(_IoVec)),
                ("part_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("padding", ctypes.c_int), ("sent", ctypes.c_uint), ("padding2", ctypes.c_uint)]


def send_burst(wire: socket.socket, frames: list[bytes]) -> None:
    buffers = [ctypes.create_string_buffer(frame, len(frame)) for frame in frames]
    parts = [_IoVec(ctypes.addressof(buffer), len(frame)) for buffer, frame in zip(buffers, frames)]
    messages = (_Message * len(frames))()
    for message, part in zip(messages, parts):
        message.parts, message.part_count = ctypes.pointer(part), 1
    libc = ctypes.CDLL(None, use_errno=True)
    done = 0
    while done < len(frames):
        sent = libc.sendmmsg(wire.fileno(), ctypes.byref(messages, done * ctypes.sizeof(_Message)), len(frames) - done, 0)
        if sent < 0 and ctypes.get_errno() != errno.EAGAIN:
            raise OSError(ctypes.get_errno(), "sendmmsg")
        if sent < 0:
            select.select([], [wire], [], 1)
        done += max(sent, 0)


class Wire:
    """One end of a veth pair, for whole frames with their virtio_net_hdr."""

    def __init__(self, namespace: str, interface: str, own_mac: str, peer_mac: str):
        with netns.inside(namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self.socket.bind((interface, 0x0003))  # ETH_P_ALL
        self.socket.setblocking(False)
        self.macs = bytes.fromhex((peer_mac + own_mac).replace(":", ""))

    def receive(self) -> tuple[tuple, bytes]:
        """The header, its offsets counted from the IP header, and the packet; for anything but IPv4 an empty one."""
        data = self.socket.recv(1 << 17)
        vnet, frame = VNET.unpack(data[:VNET.size]), data[VNET.size:]
        if frame[12:14] != b"\x08\x00":
            return vnet, b""
        flags, kind, length, size, start, offset = vnet
        packet = frame[ETHERNET:]
        return (flags, kind, length, size, start - ETHERNET, offset), packet[:struct.unpack("!H", packet[2:4])[0]]

    def frame(self, packet: bytes, vnet: tuple = (0, GSO_NONE, 0, 0, 0, 0)) -> bytes:
        flags, kind, length, size, start, offset = vnet
        at = start + ETHERNET if flags & NEEDS_CSUM else 0
        ether_type = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        return VNET.pack(flags, kind, length, size, at, offset if at else 0) + self.macs + ether_type + packet

    def send(self, *packets: bytes) -> None:
        """Packets with complete checksums, as one burst."""
        send_burst(self.socket, [self.frame(packet) for packet in packets])

    def close(self) -> None:
        self.socket.close()


class Encapsulator:
    """Between `front`, where the client is, and `back`, where the real server is: what is for `vip` goes into a tunnel."""

    def __init__(self, front: Wire, back: Wire, vip: str, outer_source: str, outer_target: str):
        self.front, self.back = front, back
        self.vip = socket.inet_aton(vip)
        self.outer = (outer_source, outer_target)
        self.partial = self.sent = 0  # packets with a partial checksum, packets at all
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Encapsulator":
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.is_set():
            if not select.select([self.front.socket], [], [], 0.05)[0]:
                continue
            burst = []
            with contextlib.suppress(BlockingIOError):
                while len(burst) < 64:
                    vnet, packet = self.front.receive()
                    if packet[16:20] == self.vip:
                        burst += [self._encapsulated(*segment) for segment in cut(vnet, packet)]
            if burst:
                send_burst(self.back.socket, burst)
                self.sent += len(burst)

    def _encapsulated(self, vnet: tuple, packet: bytes) -> bytes:
        flags, kind, length, size, start, offset = vnet
        self.partial += flags & NEEDS_CSUM
        return self.back.frame(ipv4(*self.outer, IPIP, packet, tos=packet[1]), (flags, kind, length, size, start + 20, offset))
