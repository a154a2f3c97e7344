# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts on one wire, the smallest network a kernel fact can be seen in."""

import contextlib
import fcntl
import itertools
import os
import socket
import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "testbed"))

import netns  # noqa: E402
import private  # noqa: E402

_numbers = itertools.count(1)


def pytest_configure():
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    private.prepare()


class Wire:
    """Namespaces `a` (10.8.0.1) and `b` (10.8.0.2), joined by the veth pair wa-wb."""

    def __init__(self):
        prefix = f"f{os.getpid()}-{next(_numbers)}"
        self.a, self.b = f"{prefix}-a", f"{prefix}-b"

    def make(self) -> None:
        for name in (self.a, self.b):
            netns.add_namespace(name)
        netns.add_veth(self.a, "wa", self.b, "wb")
        netns.ip(self.a, "address", "add", "10.8.0.1/24", "dev", "wa")
        netns.ip(self.b, "address", "add", "10.8.0.2/24", "dev", "wb")

    def remove(self) -> None:
        for name in (self.a, self.b):
            if name in netns.namespaces():
                netns.remove_namespace(name)

    def open(self, namespace: str, *kind) -> socket.socket:
        with netns.inside(namespace):
            return socket.socket(*kind)

    def packet_socket(self, namespace: str, interface: str, *options: tuple[int, int]) -> socket.socket:
        """Sees every frame of the interface; `options` are set before it is bound."""
        opened = self.open(namespace, socket.AF_PACKET, socket.SOCK_RAW, 0)
        for option, value in options:
            opened.setsockopt(263, option, value)  # SOL_PACKET
        with netns.inside(namespace):
            opened.bind((interface, 0x0003))  # ETH_P_ALL
        opened.settimeout(3)
        return opened

    def nft(self, namespace: str, script: str) -> None:
        netns.run([*netns.enter(namespace), "nft", "-f", "-"], input=script)


@pytest.fixture
def wire():
    made = Wire()
    made.make()
    yield made
    made.remove()


@contextlib.contextmanager
def tap(namespace: str, name: str, flags: int):
    """A TAP and its descriptor; linux/if_tun.h."""
    with netns.inside(namespace):
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
    try:
        with netns.inside(namespace):
            fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000 | flags))  # TUNSETIFF
        yield descriptor
    finally:
        os.close(descriptor)
