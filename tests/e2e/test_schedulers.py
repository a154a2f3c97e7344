# SPDX-License-Identifier: GPL-2.0-or-later
"""Who gets the next connection: the spread of each scheduler, seen by curl. (The exact orders are unit tests.)"""

import contextlib

import pytest

import netns
from cluster import Lab
from conftest import labs
from tools import Download, spread

pytestmark = labs("dr", "nat")

SERVICE = ("-t", "10.9.0.100:80")


def set_up(lab: Lab, scheduler: str, *weights: int) -> None:
    """A new service, so that no scheduler remembers the test before."""
    method = "-m" if lab.options.mode == "nat" else "-g"
    lab.vsadm("-D", *SERVICE, check=False)
    lab.vsadm("-A", *SERVICE, "-s", scheduler)
    for server, weight in zip(lab.topology.servers, weights):
        lab.vsadm("-a", *SERVICE, "-r", f"{server.ip}:{lab.topology.server_port}", method, "-w", str(weight))


@pytest.mark.parametrize(
    "scheduler, weights, expected",
    [
        ("rr", (1, 1, 1), (4, 4, 4)),
        ("rr", (5, 1, 1), (4, 4, 4)),  # rr does not look at weights
        ("wrr", (3, 2, 1), (6, 4, 2)),
        ("wrr", (1, 1, 0), (6, 6, 0)),
    ],
)
def test_spread_of_twelve_requests(lab: Lab, scheduler, weights, expected):
    set_up(lab, scheduler, *weights)
    pages = spread(lab.ask_many(12))
    assert tuple(pages[f"server{i}"] for i in (1, 2, 3)) == expected


def test_sh_keeps_a_client_on_its_server(lab: Lab):
    set_up(lab, "sh", 1, 1, 1)
    assert len(spread(lab.ask_many(9))) == 1


@pytest.mark.parametrize("scheduler, weights, expected", [("lc", (1, 1, 1), (3, 3, 3)), ("wlc", (4, 4, 1), (4, 4, 1))])
def test_open_connections_decide(lab: Lab, scheduler, weights, expected):
    """Connections that stay open: each new one goes where it weighs least."""
    set_up(lab, scheduler, *weights)
    with contextlib.ExitStack() as stack:
        for opened in range(sum(expected)):
            stack.enter_context(Download(lab))
            netns.wait_until(lambda: sum(active(lab)) == opened + 1, 5, f"{opened + 1} established connections")
        assert active(lab) == expected


def active(lab: Lab) -> tuple[int, ...]:
    """ActiveConn of each server, from the listing."""
    rows = [line.split() for line in lab.vsadm("-Ln", *SERVICE).stdout.splitlines()]
    count = {row[1].split(":")[0]: int(row[4]) for row in rows if row and row[0] == "->" and row[1][0].isdigit()}
    return tuple(count[server.ip] for server in lab.topology.servers)
