# SPDX-License-Identifier: GPL-2.0-or-later
"""vsadm doctor in labs: a mistake is made by hand, traffic flows, and the director names it; the cure cures it."""

import json

from cluster import Lab


def findings(lab: Lab) -> tuple[int, list[dict]]:
    answer = lab.vsadm("doctor", "--json", check=False)
    return answer.returncode, json.loads(answer.stdout)["findings"]


def try_often(lab: Lab) -> None:
    for _ in range(12):
        lab.exec("client", ["curl", "-s", "-m", "0.3", "-o", "/dev/null", lab.topology.url], check=False)


def test_nat_answers_that_have_no_way_back(fresh_lab):
    lab = fresh_lab("nat")
    assert findings(lab) == (0, [])
    for server in lab.topology.servers:
        lab.exec(server.name, ["ip", "route", "del", "default"])
    try_often(lab)
    code, found = findings(lab)
    assert code == 1
    assert [f["about"] for f in found] == [f"{server.ip}:{lab.topology.server_port} of TCP {lab.topology.vip}:80" for server in reversed(lab.topology.servers)]
    assert all("no answer came back" in f["what"] and "default route" in f["cure"] for f in found)


def test_a_dead_dr_server(fresh_lab):
    lab = fresh_lab("dr", servers=2)
    dead = lab.topology.servers[0]
    lab.exec(dead.name, ["ip", "link", "set", dead.links[0].interface, "down"])
    try_often(lab)
    code, found = findings(lab)
    assert code == 1
    assert f"{dead.ip}:80 of TCP {lab.topology.vip}:80" in {f["about"] for f in found}
    assert all(f["about"].startswith(f"{dead.ip}:") for f in found), "the other one serves"
    assert any("SYN_RECV" in f["what"] for f in found)


def test_nobody_takes_connections(fresh_lab):
    lab = fresh_lab("dr", servers=1)
    (server,) = lab.topology.servers
    lab.vsadm("-e", "-t", f"{lab.topology.vip}:80", "-r", f"{server.ip}:80", "-g", "-w", "0")
    code, found = findings(lab)
    assert code == 1
    assert found[0]["what"].startswith("none of its real servers takes connections")
    lab.vsadm("-e", "-t", f"{lab.topology.vip}:80", "-r", f"{server.ip}:80", "-g", "-w", "1")
    assert findings(lab) == (0, [])
