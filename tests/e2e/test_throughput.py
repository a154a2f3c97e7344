# SPDX-License-Identifier: GPL-2.0-or-later
"""Offloads are carried, not switched off; and how a big download through NAT compares with the kernel's own forwarding."""

import netns
from cluster import Lab
from conftest import labs

CAPTURE = False  # nobody else looks at these frames
pytestmark = labs("nat", devices=("packet", "tap"))

ROUNDS = 3


def bytes_per_second(lab: Lab, url: str) -> float:
    answer = lab.exec("client", ["curl", "-sS", "-m", "120", "-o", "/dev/null", "-w", "%{size_download} %{speed_download}", url],
                      timeout=150)
    size, speed = answer.stdout.split()
    assert int(size) == 1 << 30
    return float(speed)


class Kernel:
    """The director's host forwards instead of the director: same client, wires and server, no address rewritten."""

    def __init__(self, lab: Lab):
        self.lab, self.director, self.server = lab, lab.namespace("director"), lab.topology.servers[0]
        netns.ip(lab.namespace("client"), "route", "add", "10.9.1.0/24", "via", lab.topology.director.ip)

    def _addresses(self, verb: str) -> None:
        if self.lab.options.device == "tap":  # the host behind the bridges has no addresses of its own
            for link in self.lab.topology.director.links:
                netns.ip(self.director, "address", verb, link.addresses[0], "dev", link.bridge)

    def _forget_neighbours(self) -> None:
        for node in (self.lab.topology.client, self.server):  # the addresses stay, their MAC addresses change
            netns.ip(self.lab.namespace(node.name), "neighbour", "flush", "all")

    def __enter__(self) -> str:
        self.lab.stop_director()
        self._addresses("add")
        netns.set_sysctl(self.director, "net.ipv4.ip_forward", "1")
        self._forget_neighbours()
        return f"http://{self.server.ip}:8080/1G"

    def __exit__(self, *_) -> None:
        netns.set_sysctl(self.director, "net.ipv4.ip_forward", "0")
        self._addresses("del")
        self._forget_neighbours()
        self.lab.start_director()
        self.lab.wait_for_service()


def received(lab: Lab) -> tuple[int, int]:
    """Bytes and frames that came from the servers to the director's host."""
    link = lab.topology.director.links[-1]
    counts = netns.ip_json(lab.namespace("director"), "-s", "link", "show", "dev", link.interface)[0]["stats64"]["rx"]
    return counts["bytes"], counts["packets"]


def test_a_gibibyte_passes_in_super_frames(lab: Lab):
    """Offloads are carried: in frames of the link's MTU there would be forty times as many."""
    bytes_before, frames_before = received(lab)
    bytes_per_second(lab, f"{lab.topology.url}1G")
    bytes_after, frames_after = received(lab)
    assert bytes_after - bytes_before >= 1 << 30
    assert (bytes_after - bytes_before) / (frames_after - frames_before) > 16 << 10


def test_a_gibibyte_through_nat_beside_the_same_without_a_director(lab: Lab, figure):
    """The best of some rounds each, taken in turn, so that a busy moment of the machine hits both.

    A figure, not a verdict: other work on the machine moves it. Every download has to be whole, though.
    """
    kernel = Kernel(lab)
    with_director, without = [], []
    for _ in range(ROUNDS):
        with_director.append(bytes_per_second(lab, f"{lab.topology.url}1G"))
        with kernel as url:
            without.append(bytes_per_second(lab, url))
    ours, theirs = max(with_director), max(without)
    figure(f"1 GiB: {ours / 1e6:.0f} MB/s through VS/NAT, {theirs / 1e6:.0f} MB/s without, ratio {ours / theirs:.2f}")
