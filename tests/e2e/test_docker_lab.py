# SPDX-License-Identifier: GPL-2.0-or-later
"""The promises of test_curl.py with the director in a container, and how that is confined."""

import json
from pathlib import Path

import docker_engine
import netns
from cluster import Lab
from conftest import cases, in_labs
from docker_engine import docker, engine_fixture
from test_curl import *  # noqa: F403  (the same tests, in the labs below)

pytestmark = in_labs(cases("nat", "tun", "dr", devices=("packet", "tap"), directors=("docker",)),
                     cases("nat", "tun", "dr", families=("6",), directors=("docker",)))
engine = engine_fixture(docker_engine.engine_for_labs)


def test_the_director_is_confined(lab: Lab):
    state = json.loads(docker("inspect", lab.container).stdout)[0]
    assert state["HostConfig"]["ReadonlyRootfs"]
    status = Path(f"/proc/{state['State']['Pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    net_admin, net_raw = 1 << 12, 1 << 13  # linux/capability.h
    assert int(fields["CapBnd"], 16) == net_admin | net_raw
    assert fields["NoNewPrivs"] == "1"


def test_a_killed_container_leaves_no_rule_and_no_tap(lab: Lab):
    def left() -> str:
        """Of a packet device the guard's table, of taps the interfaces: a host of its own needs no guard."""
        ruleset = lab.exec("director", ["nft", "list", "ruleset"]).stdout
        return ruleset + lab.exec("director", ["ip", "-o", "link", "show", "type", "tun"]).stdout

    assert left() != ""
    docker("kill", "--signal", "KILL", lab.container)
    netns.wait_until(lambda: left() == "", 5, "no table and no TAP")
    docker("start", lab.container)
    lab.wait_for_service()
