# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames, built and taken apart: what the oracle's packets are made of. Pure; used on both sides of the boot."""

import socket
import struct

ETHERNET = 14
IPV4, ARP = 0x0800, 0x0806
ICMP, IPIP, TCP, UDP, GRE = 1, 4, 6, 17, 47
PROTOCOLS = {"tcp": TCP, "udp": UDP}
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32}


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def fold(data: bytes, total: int = 0) -> int:
    """The one's complement sum, not complemented (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total += sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ipv4(source: str, target: str, protocol: int, payload: bytes, *, ttl=64, tos=0, ident=0, df=False, mf=False,
         offset=0, options=b"") -> bytes:
    options += b"\0" * (-len(options) % 4)
    length = 20 + len(options)
    fragment = df << 14 | mf << 13 | offset // 8
    header = struct.pack("!BBHHHBBH4s4s", 0x40 | length // 4, tos, length + len(payload), ident, fragment, ttl, protocol, 0,
                         socket.inet_aton(source), socket.inet_aton(target)) + options
    return header[:10] + struct.pack("!H", ~fold(header) & 0xFFFF) + header[12:] + payload


def pseudo(source: str, target: str, protocol: int, length: int) -> int:
    return fold(socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!HH", protocol, length))


def tcp(source: str, target: str, sport: int, dport: int, flags: str, data: bytes, *, sequence=1000, acknowledge=2000,
        wrong_checksum=False) -> bytes:
    bits = sum(FLAGS[flag] for flag in flags)
    header = struct.pack("!HHIIBBHHH", sport, dport, sequence, acknowledge, 0x50, bits, 8192, 0, 0)
    check = ~fold(header + data, pseudo(source, target, TCP, len(header) + len(data))) & 0xFFFF
    check ^= 0x55 if wrong_checksum else 0
    return header[:16] + struct.pack("!H", check) + header[18:] + data


def udp(source: str, target: str, sport: int, dport: int, data: bytes, *, wrong_checksum=False, no_checksum=False) -> bytes:
    header = struct.pack("!HHHH", sport, dport, 8 + len(data), 0)
    check = ~fold(header + data, pseudo(source, target, UDP, 8 + len(data))) & 0xFFFF or 0xFFFF
    check = 0 if no_checksum else check ^ (0x55 if wrong_checksum else 0)
    return header[:6] + struct.pack("!H", check) + data


def icmp(kind: int, code: int, word: int, payload: bytes, *, wrong_checksum=False) -> bytes:
    header = struct.pack("!BBHI", kind, code, 0, word)
    check = ~fold(header + payload) & 0xFFFF ^ (0x55 if wrong_checksum else 0)
    return header[:2] + struct.pack("!H", check) + header[4:] + payload


def ethernet(target: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    return target + source + struct.pack("!H", kind) + payload


def arp_probe(sender: bytes, asked: str) -> bytes:
    body = struct.pack("!HHBBH6s4s6s4s", 1, IPV4, 6, 4, 1, sender, b"\0" * 4, b"\0" * 6, socket.inet_aton(asked))
    return ethernet(b"\xff" * 6, sender, ARP, body)


class Packet:
    """The fields of an IPv4 packet that the oracle's own conversation needs."""

    def __init__(self, data: bytes):
        self.data = data
        self.header = (data[0] & 15) * 4
        self.protocol = data[9]
        self.source, self.target = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
        self.first = struct.unpack("!H", data[6:8])[0] & 0x1FFF == 0
        self.payload = data[self.header:struct.unpack("!H", data[2:4])[0]]
        self.ports = struct.unpack("!HH", self.payload[:4]) if self.first and len(self.payload) >= 4 else (0, 0)

    def inner(self) -> "Packet":
        """What a tunnel's packet carries; the packet itself where there is no tunnel."""
        return Packet(self.payload).inner() if self.protocol == IPIP and self.first and len(self.payload) >= 20 else self


def packet_of(frame: bytes) -> Packet | None:
    if len(frame) < ETHERNET + 20 or struct.unpack("!H", frame[12:14])[0] != IPV4:
        return None
    return Packet(frame[ETHERNET:])


def fragments(packet: bytes, sizes: list[int]) -> list[bytes]:
    """The packet cut at multiples of eight: the first pieces of the given payload sizes, the last is the rest."""
    whole = Packet(packet)
    ident, flags = struct.unpack("!HH", packet[4:8])
    pieces, at = [], 0
    for size in [*sizes, len(whole.payload)]:
        data = whole.payload[at:at + size // 8 * 8] if at + size < len(whole.payload) else whole.payload[at:]
        pieces.append(ipv4(whole.source, whole.target, whole.protocol, data, ttl=packet[8], tos=packet[1], ident=ident,
                           df=bool(flags & 0x4000), mf=at + len(data) < len(whole.payload), offset=at))
        at += len(data)
        if at >= len(whole.payload):
            break
    return pieces
