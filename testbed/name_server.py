# SPDX-License-Identifier: GPL-2.0-or-later
"""A name server that says who answers: the lab's UDP service. Started in each real server by cluster.py.

    name_server.py NAME MODE ADDRESS-TO-LISTEN-AT...

    dig @10.9.0.100 whoami.lab          A: the real server's own address, the first it listens at; AAAA: its IPv6 one
    dig @10.9.0.100 whoami.lab TXT      one line of JSON, as nginx's page
    dig @10.9.0.100 3000.big.lab TXT    about 3000 bytes, for fragmentation

A socket per address, since an answer must leave from the address that was asked.
"""

import json
import select
import socket
import struct
import sys

A, TXT, AAAA, IN = 1, 16, 28, 1
FAMILIES = {A: socket.AF_INET, AAAA: socket.AF_INET6}
RESPONSE_FLAGS = 0x8400  # response, authoritative
NOT_IMPLEMENTED = 4
TIME_TO_LIVE = 0


def read_question(query: bytes) -> tuple[list[str], int, int]:
    """Labels, type, and where the question ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    (kind,) = struct.unpack_from("!H", query, at + 1)
    return labels, kind, at + 5


def text_record(text: str) -> bytes:
    data = text.encode()
    return b"".join(bytes([len(part)]) + part for part in (data[i : i + 255] for i in range(0, len(data), 255)))


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def own_address(server: dict, family: int) -> str:
    """The first of the family; empty if the server has none."""
    return next((address for address in server["addresses"] if family_of(address) == family), "")


def answer(query: bytes, server: dict, client: tuple, asked: tuple) -> bytes:
    labels, kind, end = read_question(query)
    if kind in FAMILIES and own_address(server, FAMILIES[kind]):
        data = socket.inet_pton(FAMILIES[kind], own_address(server, FAMILIES[kind]))
    elif kind == TXT and len(labels) > 1 and labels[1] == "big":
        data = text_record("x" * int(labels[0]))
    elif kind == TXT:
        to = f"[{asked[0]}]:{asked[1]}" if ":" in asked[0] else f"{asked[0]}:{asked[1]}"
        seen = {"client": client[0], "port": client[1], "to": to}
        address = own_address(server, family_of(asked[0]))
        data = text_record(json.dumps({"server": server["server"], "address": address, **seen, "mode": server["mode"]}))
    else:
        return query[:2] + struct.pack("!HHHHH", RESPONSE_FLAGS | NOT_IMPLEMENTED, 1, 0, 0, 0) + query[12:end]
    name = b"\xc0\x0c"  # a pointer to the question's name
    record = name + struct.pack("!HHIH", kind, IN, TIME_TO_LIVE, len(data)) + data
    return query[:2] + struct.pack("!HHHHH", RESPONSE_FLAGS, 1, 1, 0, 0) + query[12:end] + record


def main(name: str, mode: str, *addresses: str) -> None:
    server = {"server": name, "addresses": addresses, "mode": mode}
    sockets = []
    for local in addresses:
        sockets.append(socket.socket(family_of(local), socket.SOCK_DGRAM))
        sockets[-1].bind((local, 53))
    print(f"{name} answers at {', '.join(addresses)}, port 53", flush=True)
    while True:
        for ready in select.select(sockets, [], [])[0]:
            query, client = ready.recvfrom(4096)
            try:
                ready.sendto(answer(query, server, client, ready.getsockname()), client)
            except (IndexError, struct.error, ValueError, OSError) as problem:
                print(f"{client}: {problem!r}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
