# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP requests at a rate that nobody's slowness can lower (an open loop), and how long each took. Started in the client.

    paced.py ADDRESS PORT RATE SECONDS

Requests become due at random moments (exponential gaps, the same for everybody), on kept connections. A request's time
begins when it was due, not when a connection was free for it: waiting for a slow answer to an earlier one counts
(otherwise "coordinated omission" would flatter the slow). Prints one line of JSON, times in microseconds.
"""

import gc
import json
import random
import select
import socket
import sys
import time

CONNECTIONS = 32
PATIENCE = 2.0  # seconds for the last answers


def main(address: str, port: int, rate: float, seconds: float) -> None:
    request = f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    connections, poll = {}, select.epoll()
    for _ in range(CONNECTIONS):
        one = socket.create_connection((address, port), timeout=5)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setblocking(False)
        connections[one.fileno()] = one
        poll.register(one, select.EPOLLIN)
    gaps = random.Random(4)
    moments, at = [], 0.0
    while at < seconds:
        moments.append(at)
        at += gaps.expovariate(rate)
    moments.reverse()
    asked, clock = len(moments), time.perf_counter
    free, since, took, lost = list(connections), {}, [], 0

    gc.disable()
    began = clock()
    deadline = began + seconds + PATIENCE
    while (moments or since) and clock() < deadline and connections:
        while moments and free and began + moments[-1] <= clock():
            one = free.pop()
            since[one] = began + moments.pop()
            connections[one].send(request)
        left = began + moments[-1] - clock() if moments and free else deadline - clock()
        if not select.select([poll], [], [], max(0.0, left))[0]:
            continue
        for one, _ in poll.poll(0):
            data = connections[one].recv(65536)
            if not data:  # closed by the other side
                poll.unregister(one)
                connections.pop(one).close()
                lost += since.pop(one, None) is not None
            elif data.endswith(b"}\n"):
                took.append(clock() - since.pop(one))
                free.append(one)
    took.sort()
    result = {"asked": asked, "answered": len(took), "lost": lost}
    if took:
        result |= {name: 1e6 * took[min(len(took) - 1, int(len(took) * share))] for name, share in (("p50", 0.5), ("p99", 0.99))}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:5]))
