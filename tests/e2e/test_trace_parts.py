# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of `lab trace` that need no lab: reading frames, following packets, and saying what changed."""

import dataclasses

import pytest

import conftest  # noqa: F401  (makes testbed/ importable)
import record
import scenarios
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw
from tracing.headers import ACK, FIN, SYN, Headers, Unreadable, read
from tracing.journeys import Journey, Sighting, changes, follow, over
from tracing.words import Names, ending, sentence

CLIENT, DIRECTOR, BACK, SERVER = "02:00:0a:09:00:01", "02:00:0a:09:00:02", "02:00:0a:09:01:02", "02:00:0a:09:01:0b"
NAMES = Names(scenarios.nat(3, "packet", "4"))


def frame(source="10.9.0.1", target="10.9.0.100", ports=(4000, 80), macs=(CLIENT, DIRECTOR), ttl=64, flags="S", seq=1, ack=0,
          data=b"", options=(), outer=None) -> bytes:
    ip = IPv6(src=source, dst=target, hlim=ttl) if ":" in source else IP(src=source, dst=target, ttl=ttl, id=7)
    inner = ip / TCP(sport=ports[0], dport=ports[1], flags=flags, seq=seq, ack=ack, options=list(options)) / Raw(data)
    return bytes(Ether(src=macs[0], dst=macs[1]) / (outer / inner if outer else inner))


# --- headers ---


def ends(headers: Headers) -> tuple:
    return headers.source, headers.source_port, headers.target, headers.target_port


def test_a_frames_fields_are_read():
    headers = read(frame(options=[("MSS", 1460), ("SAckOK", b"")], data=b"hello"))
    assert (headers.source_mac, headers.target_mac) == (CLIENT, DIRECTOR)
    assert ends(headers) == ("10.9.0.1", 4000, "10.9.0.100", 80)
    assert (headers.ttl, headers.mss, headers.flags, headers.sequence, headers.data) == (64, 1460, SYN, 1, 5)
    assert (headers.tunnel, headers.outer_ttl, headers.segments) == ("", None, 1)


def test_ipv6_has_the_same_fields():
    headers = read(frame(source="fd00:10:9::1", target="fd00:10:9::100", ttl=63, flags="SA"))
    assert ends(headers) == ("fd00:10:9::1", 4000, "fd00:10:9::100", 80)
    assert (headers.ttl, headers.flags) == (63, SYN | ACK)


OUTER = IP(src="10.9.0.2", dst="10.9.11.11", ttl=62)
GUE = bytes([0, 4, 0, 0])


@pytest.mark.parametrize(
    "outer, tunnel, overhead",
    [(OUTER, "IPIP", 20), (OUTER / GRE(), "GRE", 24), (OUTER / GRE(chksum_present=1), "GRE", 28),
     (OUTER / UDP(dport=6080) / Raw(GUE), "GUE", 32), (OUTER / UDP(dport=6080) / Raw(bytes([1, 4, 0, 0]) + bytes(4)), "GUE", 36)],
    ids=["ipip", "gre", "gre-csum", "gue", "gue-remcsum"],
)
def test_a_packet_in_a_tunnel_is_read_with_both_its_headers(outer, tunnel, overhead):
    headers = read(frame(outer=outer))
    assert (headers.tunnel, headers.overhead) == (tunnel, overhead)
    assert (headers.outer_source, headers.outer_target, headers.outer_ttl) == ("10.9.0.2", "10.9.11.11", 62)
    assert (headers.source, headers.source_port, headers.ttl) == ("10.9.0.1", 4000, 64)


def test_an_outer_ipv6_header_may_have_extensions():
    outer = IPv6(src="fd00::2", dst="fd00::11") / IPv6ExtHdrDestOpt()
    headers = read(frame(source="fd00:10:9::1", target="fd00:10:9::100", outer=outer))
    assert (headers.tunnel, headers.overhead, headers.outer_target) == ("IPIP", 48, "fd00::11")


def test_a_super_frame_is_many_segments():
    assert read(frame(data=bytes(3000)), segment_size=1448).segments == 3


def test_padding_is_no_data():
    assert read(frame(data=b"x") + bytes(20)).data == 1


def test_a_tun_device_has_no_ethernet():
    headers = read(frame()[14:], ethernet=False)
    assert (headers.source_mac, headers.length) == ("", 40) and ends(headers) == ends(read(frame()))


@pytest.mark.parametrize(
    "data", [b"", bytes(14), *(frame()[:cut] for cut in (20, 30, 40)), bytes(Ether() / IP() / ICMP()),
             bytes(Ether() / IP(frag=8) / Raw(bytes(20)))],
    ids=["empty", "not IP", "cut in Ethernet", "cut in IP", "cut in TCP", "ICMP", "fragment"])
def test_what_is_no_tcp_is_left_alone(data):
    with pytest.raises(Unreadable):
        read(data)


# --- journeys ---


def hop(when: int, node: str, interface: str, direction: str, **fields) -> Sighting:
    return Sighting(when, node, interface, direction, read(frame(**fields)))


def way(begin: int = 0, **fields) -> list[Sighting]:
    """Through a director that does NAT."""
    there = {**fields, "target": "10.9.1.11", "ports": (4000, 8080), "macs": (BACK, SERVER), "ttl": 63}
    return [hop(begin, "client", "eth0", "out", **fields), hop(begin + 1, "director", "front", "in", **fields),
            hop(begin + 2, "director", "back", "out", **there), hop(begin + 3, "server1", "eth0", "in", **there)]


END = ("10.9.0.1", 4000)


def test_changes_are_those_fields_that_differ():
    out, arrived, rewritten, _ = way()
    assert changes(out.headers, arrived.headers) == {}
    changed = changes(arrived.headers, rewritten.headers)
    assert list(changed) == ["source_mac", "target_mac", "target", "ttl", "target_port"]
    assert (changed["target"].before, changed["target"].after) == ("10.9.0.100", "10.9.1.11")


def test_checksums_are_no_changes_but_bytes_without_a_name_are():
    headers = read(frame())
    tcp = 14 + 20
    data = bytearray(frame())
    data[tcp + 16] ^= 1  # checksum
    assert changes(headers, read(bytes(data))) == {}
    data[tcp + 14] ^= 1  # window
    assert list(changes(headers, read(bytes(data)))) == ["rest"]


def test_a_packet_is_followed_though_its_addresses_change():
    shuffled = [*way()[2:], *way()[:2]]
    (journey,) = follow(shuffled, END)
    assert journey.kind == "syn" and [seen.node for seen in journey.hops] == ["client", "director", "director", "server1"]
    assert journey.arrived_at({"server1", "server2"}) and not journey.arrived_at({"server2"})


def test_packets_of_others_are_none_of_ours():
    assert follow(way(source="10.9.0.9"), END) == []


def test_a_packet_that_is_sent_again_is_another_journey():
    first, second = follow([*way()[:2], *way(10)], END)
    assert (len(first.hops), first.sent_again, first.sent_before) == (2, True, 0)
    assert (len(second.hops), second.sent_again, second.sent_before) == (4, False, 1)


def test_kinds_are_told_by_flags_and_data():
    back = {"source": "10.9.0.100", "target": "10.9.0.1", "ports": (80, 4000)}
    sent = [{"flags": "S"}, {"flags": "SA", "ack": 2, **back}, {"flags": "A", "seq": 2, "ack": 2},
            {"flags": "PA", "seq": 2, "ack": 2, "data": b"GET"}, {"flags": "PA", "seq": 2, "ack": 5, "data": b"200", **back},
            {"flags": "PA", "seq": 5, "ack": 5, "data": b"more", **back}, {"flags": "FA", "seq": 5, "ack": 9},
            {"flags": "R", "seq": 9, **back}]
    journeys = follow([hop(at, "client", "eth0", "out", **fields) for at, fields in enumerate(sent)], END)
    assert [journey.kind for journey in journeys] == ["syn", "syn-ack", "ack", "request", "reply", "data", "fin", "rst"]


def test_a_connection_is_over_when_both_ends_know():
    back = {"source": "10.9.0.100", "target": "10.9.0.1", "ports": (80, 4000)}
    ends = [{"flags": "FA", "seq": 5, "ack": 9}, {"flags": "FA", "seq": 9, "ack": 6, **back}, {"flags": "A", "seq": 6, "ack": 10}]
    seen = [hop(at, "client", "eth0", "out", **fields) for at, fields in enumerate(ends)]
    assert [over(follow(seen[:count], END)) for count in range(4)] == [False, False, False, True]
    assert FIN & seen[0].headers.flags


# --- words ---


def test_a_sentence_says_all_that_changed():
    (journey,) = follow(way(), END)
    said = [sentence(journey, before, seen, NAMES) for before, seen in journey.steps()]
    assert said == [
        "client sends it to director's MAC address, for VIP 10.9.0.100", "",
        "director rewrote the target address and port, VIP 10.9.0.100:80 → server1 10.9.1.11:8080, lowered the TTL 64 → 63, "
        "gave it new MAC addresses", ""]


def crossing(after: dict, before: dict | None = None) -> str:
    """What a node is said to have done."""
    before = before or {}
    first, second = hop(0, "director", "front", "in", **before), hop(1, "director", "front", "out", **before | after)
    return sentence(Journey("syn", True, [first, second]), first, second, NAMES)


def test_it_says_nothing_else_only_if_nothing_else_changed():
    assert crossing({"macs": (CLIENT, SERVER)}) == "director gave it a new target MAC address, nothing else"
    assert crossing({"macs": (DIRECTOR, SERVER)}) == "director gave it new MAC addresses, nothing else"
    assert crossing({}) == "director passed it on as it was"
    first, second = hop(0, "director", "front", "in"), hop(1, "director", "front", "out")
    touched = dataclasses.replace(second, headers=dataclasses.replace(second.headers, rest=b"another window"))
    assert sentence(Journey("syn", True), first, touched, NAMES) == "director changed something without a name here"


def test_an_outer_header_comes_and_goes():
    assert crossing({"outer": OUTER}) == "director put an outer header in front (IPIP, + 20 bytes), to 10.9.11.11"
    assert crossing({"outer": None}, {"outer": OUTER}) == "director took the outer header off (IPIP, − 20 bytes)"
    older = IP(src="10.9.0.2", dst="10.9.11.11", ttl=61)
    assert crossing({"outer": older}, {"outer": OUTER}) == "director lowered the outer TTL 62 → 61, nothing else"


def test_a_lower_mss_is_told():
    said = crossing({"options": [("MSS", 1440)]}, {"options": [("MSS", 1460)]})
    assert said == "director lowered the largest segment (MSS) 1460 → 1440"


def test_who_answers_for_the_vip_and_past_the_director_is_told():
    reply = hop(0, "server1", "eth0", "out", source="10.9.0.100", target="10.9.0.1", ports=(80, 4000), macs=(SERVER, CLIENT))
    assert sentence(Journey("syn-ack", False, [reply]), None, reply, NAMES) == (
        "server1 sends it with the VIP as its source, straight to client: the director does not see this packet")


def test_an_ending_says_why_a_server_takes_it_or_where_it_was_lost():
    arrived = hop(0, "server1", "eth0", "in")
    journey = Journey("syn", True, [arrived])
    assert ending(journey, True, {"server1": {"10.9.0.100"}}, NAMES) == "server1 takes it: the VIP is an address of its own too"
    assert ending(journey, True, {"server1": {"10.9.1.11"}}, NAMES) == ""
    assert ending(journey, False, {}, NAMES) == "it was not seen any further than here, at server1"


# --- the recorder ---


def test_a_recording_keeps_columns_colours_and_pauses():
    assert record.pieces("  \033[32mok\033[0m   12 pages") == [(2, "green", "ok"), (7, "", "12 pages")]
    assert record.pieces("\033[1;33m*x\033[0m") == [(0, "bold yellow", "*x")]
    drawn = record.draw([(0, "one"), (0.5, ""), (60, "<two>")], "a terminal")
    assert "--t:0.00s" in drawn and "--t:1.50s" in drawn and "&lt;two&gt;" in drawn
