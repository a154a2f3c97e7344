# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what a frame says: Ethernet, IP, a tunnel's headers, TCP. Pure: bytes in, fields out."""

import socket
import struct
from dataclasses import dataclass

IPV4, IPV6 = 0x0800, 0x86DD  # linux/if_ether.h
IP_IN_IP = (socket.IPPROTO_IPIP, socket.IPPROTO_IPV6)
EXTENSIONS = (socket.IPPROTO_HOPOPTS, socket.IPPROTO_ROUTING, socket.IPPROTO_DSTOPTS)
FIN, SYN, RST, ACK = 1, 2, 4, 16
MAXIMUM_SEGMENT_SIZE = 2  # TCP's option, RFC 9293


class Unreadable(Exception):
    """Cut short, or no TCP: nothing to trace."""


@dataclass(frozen=True)
class Headers:
    """A frame's fields. The order is that of the frame; what it doesn't have is empty or None."""

    source_mac: str
    target_mac: str
    length: int  # of the frame as it was seen: with segmentation offload it is many segments
    segments: int  # which a wire of copper would carry one by one
    tunnel: str  # IPIP, GRE, GUE
    overhead: int  # bytes in front of the packet inside a tunnel
    outer_source: str
    outer_target: str
    outer_ttl: int | None
    source: str
    target: str
    ttl: int
    source_port: int
    target_port: int
    mss: int | None  # in a SYN: the largest segment its sender wants to get
    flags: int
    sequence: int
    acknowledged: int
    data: int  # bytes
    rest: bytes  # all that has no name above, but for checksums: those follow from the others


@dataclass(frozen=True)
class _Ip:
    source: str
    target: str
    ttl: int
    protocol: int
    size: int  # of its header
    payload: bytes
    rest: bytes


def read(frame: bytes, *, ethernet: bool = True, segment_size: int = 0) -> Headers:
    """Raises Unreadable."""
    try:
        return _read(frame, ethernet, segment_size)
    except (struct.error, IndexError, ValueError) as problem:
        raise Unreadable from problem


def _read(frame: bytes, ethernet: bool, segment_size: int) -> Headers:
    source_mac = target_mac = ""
    packet = frame
    if ethernet:
        (kind,) = struct.unpack_from("!H", frame, 12)
        if kind not in (IPV4, IPV6):
            raise Unreadable
        target_mac, source_mac, packet = frame[:6].hex(":"), frame[6:12].hex(":"), frame[14:]
    ip, outer, tunnel, overhead = _ip(packet), None, "", 0
    if inside := _inside(ip):
        tunnel, size = inside
        outer, ip, overhead = ip, _ip(ip.payload[size:]), ip.size + size
    if ip.protocol != socket.IPPROTO_TCP:
        raise Unreadable
    tcp = ip.payload
    source_port, target_port, sequence, acknowledged, size, flags = struct.unpack_from("!HHIIBB", tcp)
    size = (size >> 4) * 4
    mss, options = _options(tcp[20:size])
    data = len(tcp) - size
    return Headers(
        source_mac, target_mac, len(frame), -(-data // segment_size) if segment_size else 1,
        tunnel, overhead, outer.source if outer else "", outer.target if outer else "", outer.ttl if outer else None,
        ip.source, ip.target, ip.ttl, source_port, target_port,
        mss, flags, sequence, acknowledged, data,
        ip.rest + tcp[14:16] + options + tcp[size:],
    )


def _ip(packet: bytes) -> _Ip:
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        (total, fragment) = struct.unpack_from("!H2xH", packet, 2)
        if fragment & 0x1FFF:
            raise Unreadable  # no first fragment: it has no ports
        # A super-frame too long for the field says 0.
        return _Ip(socket.inet_ntop(socket.AF_INET, packet[12:16]), socket.inet_ntop(socket.AF_INET, packet[16:20]),
                   packet[8], packet[9], size, packet[size : total or None], packet[1:2] + packet[4:8] + packet[20:size])
    if packet[0] >> 4 != 6:
        raise Unreadable
    length, protocol, ttl = struct.unpack_from("!HBB", packet, 4)
    at = 40
    while protocol in EXTENSIONS:
        protocol, at = packet[at], at + 8 + packet[at + 1] * 8
    return _Ip(socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40]),
               ttl, protocol, at, packet[at : 40 + length if length else None], packet[:4] + packet[40:at])


def _inside(ip: _Ip) -> tuple[str, int] | None:
    """Which tunnel's packet this is, if it is one, and how many bytes the tunnel has between the two IP headers."""
    if ip.protocol in IP_IN_IP:
        return "IPIP", 0
    if ip.protocol == socket.IPPROTO_GRE:
        flags, kind = struct.unpack_from("!HH", ip.payload)
        words = sum(bool(flags & bit) for bit in (0x8000, 0x2000, 0x1000))  # RFC 2784, 2890: checksum, key, sequence number
        return ("GRE", 4 + 4 * words) if kind in (IPV4, IPV6) else None
    if ip.protocol == socket.IPPROTO_UDP:
        first, protocol = ip.payload[8], ip.payload[9]  # draft-ietf-intarea-gue: version 0, a data message; length in words
        return ("GUE", 12 + 4 * (first & 31)) if first < 32 and protocol in IP_IN_IP else None
    return None


def _options(options: bytes) -> tuple[int | None, bytes]:
    """The MSS, and the bytes of all other TCP options."""
    mss, rest, at = None, b"", 0
    while at < len(options):
        length = 1 if options[at] < 2 else max(2, options[at + 1])
        if options[at] == MAXIMUM_SEGMENT_SIZE:
            (mss,) = struct.unpack_from("!H", options, at + 2)
        else:
            rest += options[at : at + length]
        at += length
    return mss, rest
