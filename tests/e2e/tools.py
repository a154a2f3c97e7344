# SPDX-License-Identifier: GPL-2.0-or-later
"""Small things several end-to-end tests ask of a lab. No fixtures (conftest.py has those), no assertions."""

import contextlib
import hashlib
import json
import socket
import struct
import subprocess
import threading
from collections import Counter
from pathlib import Path

import netns
from cluster import SWITCH, Lab

ETH_P_ALL, ETH_P_ARP = 0x0003, 0x0806


def spread(pages: list[dict]) -> Counter:
    return Counter(page["server"] for page in pages)


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def dig(lab: Lab, *words: str, node: str = "client") -> str:
    """One question to the VIP's name service; dig's own retries and time-outs stay short."""
    answer = lab.exec(node, ["dig", f"@{lab.topology.vip}", "+short", "+tries=2", "+time=2", *words])
    return answer.stdout.strip()


def who_answers_names(lab: Lab) -> dict:
    return json.loads(json.loads(dig(lab, "whoami.lab", "TXT")))  # dig quotes the text as JSON does


def counters(lab: Lab, node: str) -> dict[str, int]:
    """The kernel's SNMP counters of the node's IP stack, as "Tcp.InCsumErrors"."""
    text = lab.exec(node, ["cat", "/proc/net/snmp", "/proc/net/netstat"]).stdout.splitlines()
    values = {}
    for names, numbers in zip(text[::2], text[1::2]):
        prefix = names.split(":")[0]
        values |= {f"{prefix}.{name}": int(number) for name, number in zip(names.split()[1:], numbers.split()[1:])}
    return values


def checksum_errors(lab: Lab) -> dict[str, int]:
    """Every counter of wrong checksums that is not zero, anywhere in the lab."""
    wrong = {}
    for node in lab.topology.nodes:
        values = counters(lab, node.name)
        names = ("Tcp.InCsumErrors", "Udp.InCsumErrors", "Icmp.InCsumErrors", "Ip.InHdrErrors")
        wrong |= {f"{node.name} {name}": values[name] for name in names if values.get(name)}
    return wrong


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def arp_answers(lab: Lab, address: str) -> set[str]:
    """The MAC addresses that answer the client's ARP request for `address`, after at least one did.

    There is no telling how long to wait for one more, so every other host on the wire is then asked for its own
    address: who has answered that has seen the first request before, and was not going to answer it.
    """
    link = lab.topology.client.links[0]
    others = {other.ip for node in lab.topology.nodes for other in node.links if other.segment == link.segment} - {link.ip}
    answers: dict[str, set[str]] = {ip: set() for ip in (address, *others)}
    with netns.inside(lab.namespace("client")):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        wire.bind((link.interface, ETH_P_ARP))

    def ask(target: str) -> None:
        question = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac(link.mac), socket.inet_aton(link.ip), bytes(6),
                               socket.inet_aton(target))
        wire.send(b"\xff" * 6 + mac(link.mac) + struct.pack("!H", ETH_P_ARP) + question)

    def answered(*targets: str) -> bool:
        with contextlib.suppress(TimeoutError):
            frame = wire.recv(2048)
            operation, sender, ip = struct.unpack("!H6s4s", frame[20:32])
            if operation == 2 and (asked := socket.inet_ntoa(ip)) in answers:
                answers[asked].add(sender.hex(":"))
        return all(answers[target] for target in targets)

    with wire:
        wire.settimeout(0.1)
        ask(address)
        netns.wait_until(lambda: answered(address), 5, f"an ARP answer for {address}")
        for other in others:
            ask(other)
        netns.wait_until(lambda: answered(*others), 5, f"ARP answers of {', '.join(others)}")
    return answers[address]


class Traffic:
    """Requests from the client in a loop, one connection each, while a test changes things."""

    def __init__(self, lab: Lab):
        self.lab, self.pages, self.failures = lab, [], []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.pages.append(self.lab.ask())
            except (netns.CommandFailed, json.JSONDecodeError) as problem:
                self.failures.append(str(problem))

    def wait_for(self, more: int) -> list[dict]:
        """The next `more` pages."""
        start = len(self.pages)
        netns.wait_until(lambda: len(self.pages) >= start + more or self.failures, 20, f"{more} more pages")
        return self.pages[start : start + more]

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()


@contextlib.contextmanager
def background(lab: Lab, node: str, argv: list[str]):
    """A command that runs beside the test, ended with it."""
    process = subprocess.Popen([*netns.enter(lab.namespace(node)), *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env=lab.environment())
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Capture:
    """Frames as they arrive at a node's interface, from a packet socket opened at once."""

    def __init__(self, lab: Lab, node: str, interface: str):
        with netns.inside(lab.namespace(node)):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)

    def frames(self) -> list[bytes]:
        """What has arrived (not what was sent) since the last call."""
        arrived = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self._socket.recvfrom(1 << 17)
                if address[2] != socket.PACKET_OUTGOING:
                    arrived.append(frame)
        return arrived

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()


def switch_port(lab: Lab, node: str) -> tuple[str, str]:
    """The namespace and bridge port on the other end of a node's first link."""
    owner = lab.topology.node(node)
    return lab.namespace(SWITCH), lab.topology.port_name(owner, owner.links[0])
