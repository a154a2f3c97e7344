# SPDX-License-Identifier: GPL-2.0-or-later
"""Big established flows take a shortcut through the kernel, and nobody can tell but by the speed."""

import http.client
import socket
import time
import urllib.request

import netns
import pytest

import scenarios
from cluster import Lab
from conftest import PRIVATE, labs
from tools import Download, skip_without_shortcuts, walked

CAPTURE = False
pytestmark = [labs("nat", "tun", "dr", devices=("packet", "tap")),
              pytest.mark.skipif(PRIVATE, reason="without root the kernel takes no BPF programs")]

SERVICE = ("-t", "10.9.0.100:80")


@pytest.fixture(autouse=True)
def needs_shortcuts(lab: Lab):
    skip_without_shortcuts(lab)


def service_row(lab: Lab, *service: str) -> list[int]:
    """Conns, InPkts, OutPkts, InBytes, OutBytes."""
    rows = lab.vsadm("-L", "-n", "--stats", "--exact", *(service or SERVICE)).stdout.splitlines()
    return [int(word) for word in next(row for row in rows if row.startswith(("TCP", "UDP"))).split()[2:]]


def test_a_gibibyte_is_carried_and_counted(lab: Lab):
    walked_before, row_before = walked(lab), service_row(lab)
    lab.exec("client", ["curl", "-sS", "-m", "120", "-o", "/dev/null", f"http://{lab.topology.vip}/1G"], timeout=150)
    row = [after - before for after, before in zip(service_row(lab), row_before)]
    assert walked(lab) - walked_before < 2000, "of some 20,000 frames each way"
    assert row[0] == 1
    assert row[1] > 2000, "acknowledgements"
    if lab.options.mode == "nat":
        assert row[4] > 1 << 30
    else:
        assert row[4] == 0


def test_the_end_of_a_carried_connection_is_seen(lab: Lab):
    lab.exec("client", ["curl", "-sS", "--local-port", "5555", "-o", "/dev/null", f"http://{lab.topology.vip}/10M"])
    rows = [row for row in lab.vsadm("-Lnc").stdout.splitlines() if ":5555 " in row]
    assert len(rows) == 1
    assert ("TIME_WAIT" if lab.options.mode == "nat" else "FIN_WAIT") in rows[0]


def test_a_removed_server_ends_its_carried_connections(lab: Lab):
    server = lab.topology.servers[0]
    real = ("-r", f"{server.ip}:{lab.topology.server_port}")
    others = [("-r", f"{other.ip}:{lab.topology.server_port}") for other in lab.topology.servers[1:]]
    for other in others:
        lab.vsadm("-e", *SERVICE, *other, scenarios.METHOD_OPTION[lab.options.mode], "-w", "0")
    before = service_row(lab)[1]
    with Download(lab, "/1G") as download:
        download.read(64 << 20)
        assert service_row(lab)[1] > before + 300, "a flow worth carrying"
        lab.vsadm("-d", *SERVICE, *real)
        with pytest.raises(ConnectionResetError):
            download.read()
    lab.vsadm("-a", *SERVICE, *real, scenarios.METHOD_OPTION[lab.options.mode])
    for other in others:
        lab.vsadm("-e", *SERVICE, *other, scenarios.METHOD_OPTION[lab.options.mode], "-w", "1")


@pytest.fixture
def fresh(lab: Lab):
    """For a test that starts directors of its own; afterwards the lab has one as before."""
    rules = lab.rules_file.read_text()
    lab.stop_director()
    yield
    lab.stop_director()
    lab.rules_file.write_text(rules)
    lab.start_director()
    lab.wait_for_service()


class Kept:
    """A connection that is kept, one page after the other."""

    def __init__(self, lab: Lab):
        with netns.inside(lab.namespace("client")):
            self._connection = http.client.HTTPConnection(lab.topology.vip, 80, timeout=10)
            self._connection.connect()
        self._connection.auto_open = 0  # it is this one or none

    def ask(self) -> None:
        self._connection.request("GET", "/")
        assert self._connection.getresponse().read()


def test_a_carried_connection_outlives_its_time_out(lab: Lab, fresh):
    """Though nobody asks for counters, by which the director would hear of what was carried."""
    lab.rules_file.write_text(lab.rules_file.read_text() + "--set 3 0 0\n")
    lab.spawn("director", "", lab.director_command())
    lab.wait_for_service()
    kept, start = Kept(lab), time.monotonic()
    while time.monotonic() - start < 6:
        kept.ask()


ADDRESS = "127.0.0.1:9102"


def carried(lab: Lab) -> float:
    """Connections that have a shortcut."""
    with netns.inside(lab.namespace("director")):
        text = urllib.request.urlopen(f"http://{ADDRESS}/metrics", timeout=5).read().decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("director_shortcut_connections "))


def test_many_flows_are_carried_and_each_packet_counted(lab: Lab, fresh):
    """More than are asked at once; and all end at once when a server changes."""
    lab.start_director("--http", ADDRESS)
    lab.wait_for_service()
    lab.ask_many(len(lab.topology.servers))  # until all their MAC addresses are known few packets wait
    flows, rounds = 700, 60
    query = bytes.fromhex("0007 0100 0001 0000 0000 0000 06") + b"whoami" + bytes.fromhex("03") + b"lab" + bytes.fromhex("00 0001 0001")
    with netns.inside(lab.namespace("client")):
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
    for client in clients:
        client.settimeout(5)
        client.connect((lab.topology.vip, 53))

    def ask(times: int) -> None:
        """Few at once: a name server's socket has no room for all."""
        for _ in range(times):
            for first in range(0, flows, 50):
                for client in clients[first : first + 50]:
                    client.send(query)
                for client in clients[first : first + 50]:
                    assert client.recv(512)[:2] == query[:2]

    service = ("-u", f"{lab.topology.vip}:53")
    ask(rounds)
    assert carried(lab) == flows
    assert walked(lab) < 2 * flows * rounds * 3 / 4, "the others were carried"
    server = f"{lab.topology.servers[0].ip}:53"
    lab.vsadm("-e", *service, "-r", server, scenarios.METHOD_OPTION[lab.options.mode], "-w", "2")
    assert carried(lab) == 0
    assert service_row(lab, *service)[:2] == [flows, flows * rounds]
    ask(5)
    assert carried(lab) == flows
    assert service_row(lab, *service)[:2] == [flows, flows * (rounds + 5)]
    for client in clients:
        client.close()


def test_a_connection_that_rests_is_carried_again(lab: Lab, fresh):
    lab.start_director("--http", ADDRESS)
    lab.wait_for_service()
    kept = Kept(lab)
    for _ in range(50):
        kept.ask()
    assert carried(lab) == 1
    netns.wait_until(lambda: carried(lab) == 0, 15, "the shortcut's end")
    before = walked(lab)
    for _ in range(100):
        kept.ask()
    assert walked(lab) - before < 50, "of two frames or more each"
    assert carried(lab) == 1
