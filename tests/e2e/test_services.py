# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of services beside address and port: a class of packets, a client that stays, one datagram at a time. Seen by curl and dig."""

import pytest

from cluster import Lab
from conftest import labs
from tools import spread, who_answers_names

pytestmark = labs("nat", "tun", "dr")

METHOD = {"nat": "-m", "tun": "-i", "dr": "-g"}


@pytest.fixture(autouse=True)
def empty_table(lab: Lab):
    lab.vsadm("-C")
    yield
    lab.vsadm("--delete-class", "7", check=False)


def add(lab: Lab, service: tuple[str, ...], *options: str, port: int = 0) -> None:
    lab.vsadm("-A", *service, "-s", "rr", *options)
    for server in lab.topology.servers:
        lab.vsadm("-a", *service, "-r", f"{server.ip}:{port}", METHOD[lab.options.mode])


def test_a_class_is_served_and_its_address_answered_for(lab: Lab):
    lab.vsadm("--class", "7", "tcp", "dport", "80", "daddr", lab.topology.vip)
    add(lab, ("-f", "7"), port=lab.topology.server_port)
    assert spread(lab.ask_many(6)) == {"server1": 2, "server2": 2, "server3": 2}


def test_a_client_stays_on_its_server(lab: Lab):
    lab.vsadm("--class", "7", "tcp", "dport", "80", "daddr", lab.topology.vip)
    add(lab, ("-f", "7"), "-p", "60", port=lab.topology.server_port)
    assert len(spread(lab.ask_many(6))) == 1
    templates = [row for row in lab.vsadm("-Lnc").stdout.splitlines() if "0.0.0.7:0" in row]
    assert len(templates) == 1 and "ASSURED" in templates[0]


def test_every_question_gets_a_server_of_its_own(lab: Lab):
    """-o; dig believes an answer only if it comes from where it asked."""
    add(lab, ("-u", f"{lab.topology.vip}:53"), "-o", port=53)
    assert spread([who_answers_names(lab) for _ in range(6)]) == {"server1": 2, "server2": 2, "server3": 2}
    assert "UDP" not in lab.vsadm("-Lnc").stdout
