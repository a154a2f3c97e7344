# SPDX-License-Identifier: GPL-2.0-or-later
"""Follows packets: from frames that were seen here and there to the way of each packet, and what changed on it. Pure.

A sighting is a frame at an interface; the sightings of one packet are the hops of its journey. Addresses, ports and headers may
change on the way, so a packet is known by what no method touches: the client's end of the connection and TCP's numbers.
"""

import dataclasses
from dataclasses import dataclass, field

from tracing.headers import ACK, FIN, RST, SYN, Headers

KINDS = ("syn", "syn-ack", "request", "reply", "data", "ack", "fin", "rst")
STORY = KINDS[:4]  # what a learner looks at first
ALL = "all"  # kinds


@dataclass(frozen=True)
class Sighting:
    when: int  # nanoseconds since the epoch
    node: str
    interface: str
    direction: str  # in, out: as the node sees it
    headers: Headers

    @property
    def place(self) -> tuple[str, str, str]:
        return self.node, self.interface, self.direction


@dataclass
class Journey:
    kind: str
    asks: bool  # from the client; else to it
    hops: list[Sighting] = field(default_factory=list)
    sent_before: int = 0  # how often the same packet had set out already
    sent_again: bool = False  # and it did once more

    def steps(self) -> list[tuple[Sighting | None, Sighting]]:
        """Each hop with the one before."""
        return list(zip([None, *self.hops], self.hops))

    def saw(self, node: str) -> bool:
        return any(hop.node == node for hop in self.hops)

    def arrived_at(self, nodes: set[str]) -> bool:
        """Whether one of them took it, out of its tunnel if it was in one."""
        last = self.hops[-1]
        return last.node in nodes and last.direction == "in" and not last.headers.tunnel


@dataclass(frozen=True)
class Change:
    before: object
    after: object


def changes(before: Headers, after: Headers) -> dict[str, Change]:
    """By the name of the field, in the order of the frame."""
    pairs = {one.name: Change(getattr(before, one.name), getattr(after, one.name)) for one in dataclasses.fields(Headers)}
    return {name: pair for name, pair in pairs.items() if pair.before != pair.after}


def follow(sightings: list[Sighting], client: tuple[str, int]) -> list[Journey]:
    """The journeys of all packets of the client's connection, in the order they set out."""
    journeys: list[Journey] = []
    latest: dict[tuple, Journey] = {}
    with_data: dict[bool, tuple] = {}  # the first of each direction
    for hop in sorted(sightings, key=lambda sighting: sighting.when):
        headers = hop.headers
        asks = (headers.source, headers.source_port) == client
        if not asks and (headers.target, headers.target_port) != client:
            continue
        key = _key(asks, headers)
        if headers.data:
            with_data.setdefault(asks, key)
        known = latest.get(key)
        if known and all(hop.place != place.place for place in known.hops):
            known.hops.append(hop)
            continue
        if known:  # the same packet at the same place
            known.sent_again = True
        latest[key] = Journey(_kind(headers, asks, with_data.get(asks) == key), asks, [hop], known.sent_before + 1 if known else 0)
        journeys.append(latest[key])
    return journeys


def over(journeys: list[Journey]) -> bool:
    """Whether both ends have said that they are done, and heard it from the other; or one has given up."""
    ends, heard = set(), set()
    for journey in journeys:
        headers = journey.hops[0].headers
        if headers.flags & RST:
            return True
        heard.add((not journey.asks, headers.acknowledged))
        if headers.flags & FIN:
            ends.add((journey.asks, (headers.sequence + headers.data + 1) & 0xFFFFFFFF))
    return {asks for asks, _ in ends} == {True, False} and ends <= heard


def _key(asks: bool, headers: Headers) -> tuple:
    """What a packet is known by. Not its length: a super-frame may have to be cut, and its first segment is still that packet."""
    if headers.data:
        return asks, headers.sequence, headers.flags & (SYN | RST)
    numbers = asks, headers.sequence, headers.flags & (SYN | RST | FIN), headers.acknowledged
    return numbers if numbers[2] else (*numbers, headers.rest)  # of two equal acknowledgements the second means something else


def _kind(headers: Headers, asks: bool, first_with_data: bool) -> str:
    if headers.flags & RST:
        return "rst"
    if headers.flags & SYN:
        return "syn-ack" if headers.flags & ACK else "syn"
    if headers.data:
        return ("request" if asks else "reply") if first_with_data else "data"
    return "fin" if headers.flags & FIN else "ack"
