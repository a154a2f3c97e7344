# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks on the client's link who has an address, by ARP (RFC 826) or neighbour discovery (RFC 4861), and takes every answer."""

import contextlib
import socket
import struct
import time

import netns
from cluster import Lab
from watch import ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, PACKET_OUTGOING

ETH_P_ARP = 0x0806
REQUEST, REPLY = 1, 2
SOLICITATION, ADVERTISEMENT, SOURCE_LINK_ADDRESS, TARGET_LINK_ADDRESS = 135, 136, 1, 2
# Who asks: nobody, so that neither the client nor those who are asked learn anything from it. An ARP probe (RFC 5227) needs no
# sender's address; neighbour discovery does, or everybody would get the answer.
ASKER, ASKER_IP = bytes.fromhex("0200646f6374"), "fe80::646f:6374"
ANSWERED_AT_ONCE = 0.3  # seconds; a director is a program, and may be slower than the kernels it stands among
ANSWERED_AT_ALL = 1.0


def ask(lab: Lab, vips: tuple[str, ...]) -> dict[str, list[str]]:
    """The MAC addresses that answered one question for each VIP, each as often as it did.

    Nobody says "that was all", so every other host of the link is asked for its own address next: whoever has answered that had
    the first question before. A host that is down doesn't, so there is an end to the waiting.
    """
    link = lab.topology.client.links[0]
    others = {ip for node in lab.topology.nodes for other in node.links if other.segment == link.segment for ip in other.ips}
    answers: dict[str, list[str]] = {address: [] for address in (*vips, *sorted(others - set(link.ips)))}
    with netns.inside(lab.namespace("client")):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        wire.bind((link.interface, ETH_P_ALL))
    with wire:
        wire.setblocking(False)
        for address in answers:
            wire.send(question(address))
        started = time.monotonic()

        def answered() -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame, (_, _, kind, *_) = wire.recvfrom(2048)
                    address, by = claim(frame) if kind != PACKET_OUTGOING else ("", "")
                    if address in answers:
                        answers[address].append(by)
            return all(answers.values()) and time.monotonic() - started > ANSWERED_AT_ONCE

        with contextlib.suppress(netns.DeadlinePassed):
            netns.wait_until(answered, ANSWERED_AT_ALL, "answers")
    return {vip: answers[vip] for vip in vips}


def question(target: str) -> bytes:
    """The frame that asks who has `target`."""
    if ":" not in target:
        message = struct.pack("!HHBBH6s4x6x4s", 1, ETH_P_IP, 6, 4, REQUEST, ASKER, socket.inet_aton(target))
        return b"\xff" * 6 + ASKER + struct.pack("!H", ETH_P_ARP) + message
    wanted, source = socket.inet_pton(socket.AF_INET6, target), socket.inet_pton(socket.AF_INET6, ASKER_IP)
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + wanted[13:]  # RFC 4291, 2.7.1: solicited-node
    body = struct.pack("!4x16sBB6s", wanted, SOURCE_LINK_ADDRESS, 1, ASKER)
    pseudo = source + group + struct.pack("!II", 4 + len(body), socket.IPPROTO_ICMPV6)
    message = struct.pack("!BBH", SOLICITATION, 0, _checksum(pseudo + struct.pack("!BBH", SOLICITATION, 0, 0) + body)) + body
    header = struct.pack("!IHBB16s16s", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 255, source, group)
    return b"\x33\x33" + group[12:] + ASKER + struct.pack("!H", ETH_P_IPV6) + header + message


def claim(frame: bytes) -> tuple[str, str]:
    """The address an answer is about and the MAC address it gives; empty words for any other frame."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == ETH_P_ARP and len(frame) >= 42 and frame[20:22] == struct.pack("!H", REPLY):
        return socket.inet_ntop(socket.AF_INET, frame[28:32]), frame[22:28].hex(":")
    if kind == ETH_P_IPV6 and len(frame) >= 86 and (frame[20], frame[54]) == (socket.IPPROTO_ICMPV6, ADVERTISEMENT):
        mac = frame[80:86] if frame[78] == TARGET_LINK_ADDRESS else frame[6:12]
        return socket.inet_ntop(socket.AF_INET6, frame[62:78]), mac.hex(":")
    return "", ""


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
