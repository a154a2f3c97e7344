# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab trace` sees what each method does to a packet, and what it doesn't. test_trace_parts.py has what needs no lab."""

import re

import pytest

from cluster import Lab
from conftest import cases, in_labs
from topology import Node, in_url
from tracing.journeys import STORY
from tracing.request import trace

CAPTURE = False
TUNNELS = {"gre-csum": 8, "gue": 12, "gue-remcsum": 20}  # bytes between the IP headers
pytestmark = in_labs(cases("nat", "dr", "tun", devices=("packet", "tap"), families=("46",)),
                     cases("tun", tunnels=TUNNELS, families=("46",)), cases("nat", "tun", offloads=("off",), families=("46",)))

MACS = {"source_mac", "target_mac"}


@pytest.fixture(params=["4", "6"], ids=["ipv4", "ipv6"])
def family(request) -> str:
    return request.param


@pytest.fixture
def packets(lab: Lab, family: str) -> dict[str, list[dict]]:
    """The hops of each, by kind."""
    result = trace(lab, family=family)
    assert result["status"] == "200" and result["error"] == "" and result["lost"] == 0
    assert [packet["kind"] for packet in result["packets"]] == list(STORY)
    assert all(packet["arrived"] for packet in result["packets"])
    return {packet["kind"]: packet["hops"] for packet in result["packets"]}


@pytest.fixture
def ips(lab: Lab, family: str):
    """A node's address, or the VIP."""
    at = lab.topology.family.index(family)
    return lambda node: node.ips[at] if isinstance(node, Node) else lab.topology.vips[at]


def nodes(hops: list[dict]) -> list[str]:
    return list(dict.fromkeys(re.sub(r"\d+$", "", hop["node"]) for hop in hops))


def at_director(hops: list[dict]) -> tuple[dict, dict]:
    """As the packet came to the director, and as it left."""
    came, left = [hop for hop in hops if hop["node"] == "director"]
    assert (came["direction"], left["direction"]) == ("in", "out")
    assert came["changed"] == [], "a wire changes nothing"
    return came, left


def test_requests_pass_the_director_and_replies_only_with_nat(lab: Lab, packets):
    there, back = {"nat": (["client", "director", "server"], ["server", "director", "client"]),
                   "dr": (["client", "director", "server"], ["server", "client"]),
                   "tun": (["client", "director", "router", "server"], ["server", "router", "client"])}[lab.options.mode]
    assert nodes(packets["syn"]) == nodes(packets["request"]) == there
    assert nodes(packets["syn-ack"]) == nodes(packets["reply"]) == back
    unseen = "the director does not see this packet"
    assert [unseen in packets[kind][0]["says"] for kind in STORY] == [False, lab.options.mode != "nat"] * 2


def test_what_the_director_changes_in_a_request(lab: Lab, ips, packets):
    topology, vip = lab.topology, ips("VIP")
    for kind in ("syn", "request"):
        came, left = at_director(packets[kind])
        headers, server = left["headers"], topology.node(packets[kind][-1]["node"])
        assert came["headers"]["target"] == vip and came["headers"]["target_mac"] == topology.director.links[0].mac
        if lab.options.mode == "nat":
            assert set(left["changed"]) == MACS | {"target", "target_port", "ttl"}
            assert (headers["target"], headers["target_port"], headers["target_mac"]) == (ips(server), 8080, server.links[0].mac)
            assert f"VIP {in_url(vip)}:80 → {server.name} {in_url(ips(server))}:8080" in left["says"]
        elif lab.options.mode == "dr":
            assert set(left["changed"]) == MACS | {"ttl"}
            assert headers["target_mac"] == server.links[0].mac
            assert left["says"].endswith("gave it new MAC addresses, nothing else")
        else:
            added = {"length", "tunnel", "overhead", "outer_source", "outer_target", "outer_ttl"}
            assert set(left["changed"]) == MACS | added | {"ttl"} | ({"mss"} if kind == "syn" else set())
            assert (headers["outer_source"], headers["outer_target"]) == (ips(topology.director), ips(server))
            assert (headers["source"], headers["target"]) == (ips(topology.client), vip)
            overhead = TUNNELS.get(lab.options.tunnel, 0) + (20 if ":" not in vip else 40)
            assert headers["overhead"] == overhead and headers["length"] == came["headers"]["length"] + overhead
        assert headers["ttl"] == 63


def test_a_reply_comes_from_the_vip(lab: Lab, ips, packets):
    for kind in ("syn-ack", "reply"):
        first, last = packets[kind][0]["headers"], packets[kind][-1]
        assert (last["node"], last["headers"]["source"], last["headers"]["source_port"]) == ("client", ips("VIP"), 80)
        if lab.options.mode == "nat":
            _, left = at_director(packets[kind])
            assert set(left["changed"]) == MACS | {"source", "source_port", "ttl"} and first["source_port"] == 8080
        else:
            assert first["source"] == ips("VIP")


def test_what_a_server_gets(lab: Lab, ips, packets):
    for kind in ("syn", "request"):
        first, last = packets[kind][0]["headers"], packets[kind][-1]
        server = lab.topology.node(last["node"])
        assert server.role == "server" and "tunnel" not in last["headers"]
        assert ("took the outer header off" in last["says"]) == (lab.options.mode == "tun")
        if lab.options.mode == "tun":
            assert packets[kind][-2]["headers"]["outer_target"] == ips(server)
        if lab.options.mode != "nat":
            assert all(last["headers"][end] == first[end] for end in ("source", "target", "source_port", "target_port"))
            assert last["ends"] == f"{server.name} takes it: the VIP is an address of its own too"


def test_all_packets_are_traced_to_the_last(lab: Lab, family):
    packets = trace(lab, family=family, kinds=["all"])["packets"]
    assert [packet["kind"] for packet in packets[:3]] == ["syn", "syn-ack", "ack"]
    assert [packet["kind"] for packet in packets].count("fin") == 2 and packets[-1]["kind"] == "ack"
    assert all(packet["arrived"] for packet in packets)
    sent = [packet["hops"][0]["microseconds"] for packet in packets]
    assert sent == sorted(sent) and sent[0] == 0


def test_a_super_frame_is_told_as_the_segments_it_stands_for(lab: Lab, family):
    result = trace(lab, "/10M", family, kinds=["reply"])
    for hop in result["packets"][0]["hops"]:
        headers = hop["headers"]
        assert headers["length"] <= 1514 or headers["segments"] > 1, headers
        assert lab.options.offload == "on" or headers["segments"] == 1, headers
