# SPDX-License-Identifier: GPL-2.0-or-later
"""Small things several end-to-end tests ask of a lab. No fixtures (conftest.py has those), no assertions."""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections import Counter
from pathlib import Path

import netns
import pytest
from cluster import SWITCH, Lab
from encapsulator import PACKET_VNET_HDR, SOL_PACKET
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6, in6_getnsma, in6_getnsmac
from scapy.layers.l2 import ARP, Ether
from topology import Link

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


class Datagrams:
    """A UDP socket of the client's, connected to the VIP's name service; never fragments what it sends unless told."""

    # linux/in.h, linux/in6.h: level, IP_MTU_DISCOVER, IP_MTU; and the bytes of the headers
    _OPTIONS = {socket.AF_INET: (socket.IPPROTO_IP, 10, 14, 20 + 8), socket.AF_INET6: (socket.IPPROTO_IPV6, 23, 24, 40 + 8)}
    _DONT, _DO = 0, 2  # IP_PMTUDISC_*

    def __init__(self, lab: Lab, *, fragments: bool = False):
        family = socket.AF_INET6 if ":" in lab.topology.vip else socket.AF_INET
        self._level, discover, self._mtu, self._headers = self._OPTIONS[family]
        with netns.inside(lab.namespace("client")):
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(self._level, discover, self._DONT if fragments else self._DO)
        self.socket.settimeout(1)
        self.socket.connect((lab.topology.vip, 53))

    def __enter__(self) -> "Datagrams":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def learnt_mtu(self, link_mtu: int = 1500) -> int:
        """Sends packets as large as the link takes until this host knows of a smaller MTU on the way."""

        def learnt() -> bool:
            try:
                self.socket.send(bytes(link_mtu - self._headers))
            except OSError as problem:
                return problem.errno == errno.EMSGSIZE
            return False

        netns.wait_until(learnt, 5, "word of a smaller MTU")
        return self.socket.getsockopt(self._level, self._mtu)

    def ask(self, question: bytes) -> bytes:
        """Asks until there is an answer: the first packets may have been lost to an MTU nobody knew of."""
        for _ in range(3):
            self.socket.send(question)
            with contextlib.suppress(TimeoutError):
                return self.socket.recv(4096)
        raise TimeoutError("no answer to three questions")


def counters(lab: Lab, node: str) -> dict[str, int]:
    """The kernel's SNMP counters of the node's IP stacks, as "Tcp.InCsumErrors"; those of IPv6 as "Ip6InHdrErrors"."""
    text = lab.exec(node, ["cat", "/proc/net/snmp", "/proc/net/netstat"]).stdout.splitlines()
    values = {}
    for names, numbers in zip(text[::2], text[1::2]):
        prefix = names.split(":")[0]
        values |= {f"{prefix}.{name}": int(number) for name, number in zip(names.split()[1:], numbers.split()[1:])}
    lines = lab.exec(node, ["cat", "/proc/net/snmp6"], check=False).stdout.splitlines()  # not there without IPv6
    return values | {name: int(number) for name, number in map(str.split, lines)}


def checksum_errors(lab: Lab) -> dict[str, int]:
    """Every counter of wrong checksums that is not zero, anywhere in the lab."""
    wrong = {}
    for node in lab.topology.nodes:
        values = counters(lab, node.name)
        names = ("Tcp.InCsumErrors", "Udp.InCsumErrors", "Icmp.InCsumErrors", "Ip.InHdrErrors",
                 "Udp6InCsumErrors", "Icmp6InCsumErrors", "Ip6InHdrErrors")  # TCP's are counted for both families
        wrong |= {f"{node.name} {name}": values[name] for name in names if values.get(name)}
    return wrong


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def solicitation(own_mac: str, source: str, target: str) -> bytes:
    """RFC 4861, 4.3: to the group of everybody whose address ends as the target's."""
    group = in6_getnsma(socket.inet_pton(socket.AF_INET6, target))
    return bytes(Ether(src=own_mac, dst=in6_getnsmac(group)) / IPv6(src=source, dst=socket.inet_ntop(socket.AF_INET6, group), hlim=255)
                 / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=own_mac))


def _question(link: Link, target: str) -> bytes:
    """Who has `target`? By ARP, or by neighbour discovery."""
    if ":" not in target:
        return b"\xff" * 6 + mac(link.mac) + struct.pack(
            "!HHHBBH6s4s6s4s", ETH_P_ARP, 1, 0x0800, 6, 4, 1, mac(link.mac), socket.inet_aton(link.ip), bytes(6), socket.inet_aton(target))
    return solicitation(link.mac, link.ips[-1], target)


def _claim(frame: bytes) -> tuple[str, str]:
    """The address an answer is about and the MAC address it gives; empty words for any other frame."""
    packet = Ether(frame)
    if ARP in packet and packet[ARP].op == 2:
        return packet[ARP].psrc, packet[ARP].hwsrc
    if ICMPv6ND_NA in packet and ICMPv6NDOptDstLLAddr in packet:
        return packet[ICMPv6ND_NA].tgt, packet[ICMPv6NDOptDstLLAddr].lladdr
    return "", ""


def neighbour_answers(lab: Lab, address: str) -> set[str]:
    """The MAC addresses that answer the client when it asks by ARP or neighbour discovery for `address`, after at least one did.

    There is no telling how long to wait for one more, so every other host on the wire is then asked for its own
    address: who has answered that has seen the first request before, and was not going to answer it.
    """
    link = lab.topology.client.links[0]
    family = [":" in ip for ip in link.ips].index(":" in address)
    others = {other.ips[family] for node in lab.topology.nodes for other in node.links if other.segment == link.segment}
    others.remove(link.ips[family])
    answers: dict[str, set[str]] = {ip: set() for ip in (address, *others)}
    with netns.inside(lab.namespace("client")):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        wire.bind((link.interface, ETH_P_ALL))

    def answered(*targets: str) -> bool:
        with contextlib.suppress(TimeoutError):
            claimed, by = _claim(wire.recv(2048))
            if claimed in answers:
                answers[claimed].add(by)
        return all(answers[target] for target in targets)

    with wire:
        wire.settimeout(0.1)
        wire.send(_question(link, address))
        netns.wait_until(lambda: answered(address), 5, f"an answer for {address}")
        for other in others:
            wire.send(_question(link, other))
        netns.wait_until(lambda: answered(*others), 5, f"answers of {', '.join(others)}")
    return answers[address]


class Download:
    """A download that goes on when the test reads, and not before: what it has not read waits in the server.

    curl's --limit-rate is no such pace: a body that fits into the socket's buffer is there at once.
    """

    _BUFFER = 64 << 10  # of the client's socket, so that little is under way unread

    def __init__(self, lab: Lab, path: str = "/10M"):
        address = (lab.topology.vip, 80)
        with netns.inside(lab.namespace("client")):
            client = socket.socket(socket.AF_INET6 if ":" in lab.topology.vip else socket.AF_INET)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._BUFFER)
        client.settimeout(20)
        client.connect(address)
        self._connection = http.client.HTTPConnection(*address)
        self._connection.sock = client
        self._connection.request("GET", path)
        self._response = self._connection.getresponse()
        self.size = self._response.length

    def read(self, size: int | None = None) -> int:
        """How many bytes came: `size` of them or, without, all that is left. Raises what ended it early."""
        left, came = self._response.length if size is None else size, 0
        while came < left:
            data = self._response.read(min(left - came, 1 << 20))
            if not data:
                raise EOFError(f"{left - came} bytes are missing")
            came += len(data)
        return came

    def __enter__(self) -> "Download":
        return self

    def __exit__(self, *_) -> None:
        self._connection.close()


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


class Terminal:
    """A program on a terminal (a pty) of its own."""

    def __init__(self, argv: list[str], environment: dict[str, str]):
        self.pid, self._keyboard = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, {**environment, "TERM": "xterm"})
        self.written = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self) -> list:
        return termios.tcgetattr(self._keyboard)[:4]

    def type(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def read(self) -> bool:
        """Adds to `written` what has come; whether more can."""
        ready, _, _ = select.select([self._keyboard], [], [], 0)
        try:
            self.written += os.read(self._keyboard, 65536).decode(errors="replace") if ready else ""
        except OSError:  # the other end is closed
            return False
        return True

    def end(self) -> int:
        """Waits until the program has ended, and returns its wait status."""

        def over() -> tuple[int, int] | None:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return (pid, status) if pid else None

        _, status = netns.wait_until(over, 10, "the program on the terminal to end")
        while self.read() and select.select([self._keyboard], [], [], 0)[0]:
            pass
        self.pid = 0
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._keyboard)


def skip_without_shortcuts(lab: Lab) -> None:
    if lacks := re.search(r"walk through the director.*", lab.log_tail("director", 200)):
        pytest.skip(lacks[0])


def walked(lab: Lab) -> int:
    """Frames the director has forwarded itself."""
    found = re.search(r"^\s*(\d+) none\b", lab.vsadm("reasons").stdout, re.MULTILINE)
    return int(found[1]) if found else 0


class Capture:
    """Frames as they arrive at a node's interface, from a packet socket opened at once. `described`: behind struct virtio_net_hdr."""

    def __init__(self, lab: Lab, node: str, interface: str, described: bool = False):
        with netns.inside(lab.namespace(node)):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            if described:
                self._socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
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
