# SPDX-License-Identifier: GPL-2.0-or-later
"""Small UDP datagrams as fast as one process can send them, or at a rate. Started in the client by works.py.

    flood.py ADDRESS PORT START SECONDS RATE

START is a time of the monotonic clock, so that two of these start together; RATE is datagrams a second, 0 for no limit.
They are plain datagrams (no UDP_SEGMENT), BURST of them with one sendmmsg(2) from each of PORTS source ports in turn.
Prints one line of JSON: what was handed to the kernel, in how many seconds.
"""

import ctypes
import json
import select
import socket
import sys
import time

PORTS = 256
BURST = 8
SIZE = 64


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    """struct msghdr, of which only the iovec is used: the sockets are connected."""

    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("iovec", ctypes.POINTER(Iovec)),
                ("iovec_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("header", Header), ("sent", ctypes.c_uint)]


def wait(until: float) -> None:
    """To the microsecond, as far as the kernel's timer slack (50 us) lets us."""
    while (left := until - time.monotonic()) > 0:
        select.select([], [], [], left)


def main(address: str, port: int, start: float, seconds: float, rate: float) -> None:
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    payload = ctypes.create_string_buffer(bytes(range(SIZE)), SIZE)
    piece = Iovec(ctypes.addressof(payload), SIZE)
    messages = (Message * BURST)(*(Message(Header(iovec=ctypes.pointer(piece), iovec_count=1)) for _ in range(BURST)))
    sockets = []
    for _ in range(PORTS):
        sockets.append(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM))
        sockets[-1].connect((address, port))
    descriptors = [one.fileno() for one in sockets]
    pause = BURST / rate if rate else 0

    wait(start)
    began = due = time.monotonic()
    sent, end = 0, began + seconds
    while (now := time.monotonic()) < end:
        for descriptor in descriptors:
            if pause:
                due += pause
                if due > now:
                    wait(due)
                    now = time.monotonic()
                if now >= end:
                    break
            # An error is ICMP's answer to an earlier datagram, or a full queue: nothing was sent.
            sent += max(0, sendmmsg(descriptor, messages, BURST, 0))
    print(json.dumps({"sent": sent, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:6]))
