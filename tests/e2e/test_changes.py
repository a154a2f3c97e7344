# SPDX-License-Identifier: GPL-2.0-or-later
"""The table changes while connections live: weight 0, removal, reload. Nobody who is served may notice."""

import subprocess

import pytest

import netns
import scenarios
from cluster import Lab
from conftest import labs
from tools import Download, Traffic, spread

pytestmark = labs("nat", "tun", "dr")

SERVICE = ("-t", "10.9.0.100:80")


@pytest.fixture(autouse=True)
def whole_table(lab: Lab):
    """Every test begins with three servers."""
    lab.rules_file.write_text(scenarios.rules(lab.topology, "rr"))
    lab.vsadm("-C")
    lab.exec("director", [str(scenario_vsadm(lab)), "-R"], input=lab.rules_file.read_text())


def scenario_vsadm(lab: Lab):
    return lab.director_command()[0].replace("/director", "/vsadm")


def real(lab: Lab, number: int) -> tuple[str, str]:
    server = lab.topology.node(f"server{number}")
    return "-r", f"{server.ip}:{lab.topology.server_port}"


def method(lab: Lab) -> str:
    return scenarios.METHOD_OPTION[lab.options.mode]


def server_with_a_connection(lab: Lab) -> int:
    def found() -> int:
        for number, server in enumerate(lab.topology.servers, 1):
            rows = lab.vsadm("-Lnc").stdout
            if any("ESTABLISHED" in row and f"{server.ip}:{lab.topology.server_port}" in row for row in rows.splitlines()):
                return number
        return 0

    return netns.wait_until(found, 15, "an established connection in -Lnc")


def test_weight_0_keeps_old_connections_and_takes_no_new(lab: Lab):
    with Download(lab) as download:
        busy = server_with_a_connection(lab)
        lab.vsadm("-e", *SERVICE, *real(lab, busy), method(lab), "-w", "0")
        assert f"server{busy}" not in spread(lab.ask_many(6))
        assert download.read() == download.size


def test_a_removed_server_gets_nothing_new(lab: Lab):
    lab.vsadm("-d", *SERVICE, *real(lab, 2))
    assert spread(lab.ask_many(6)) == {"server1": 3, "server3": 3}
    lab.vsadm("-a", *SERVICE, *real(lab, 2), method(lab))
    assert set(spread(lab.ask_many(6))) == {"server1", "server2", "server3"}


def test_a_removed_service_refuses_at_once_and_its_neighbour_stays(lab: Lab):
    lab.vsadm("-D", *SERVICE)
    answer = lab.exec("client", ["curl", "-s", "-m", "5", lab.topology.url], check=False)
    assert answer.returncode == 7, "refused"
    assert lab.exec("client", ["dig", f"@{lab.topology.vip}", "+short", "whoami.lab"]).stdout.strip()


def weights(rules: str) -> dict[str, str]:
    """The web servers of a rules text, and their weights."""
    lines = [line.split() for line in rules.splitlines() if line.startswith("-a -t")]
    return {words[words.index("-r") + 1]: words[words.index("-w") + 1] for words in lines}


def test_reloads_under_traffic_lose_nothing(lab: Lab):
    """A server leaves as operators take one away: weight 0, out of the table once nobody is served by it, and back."""
    everything = lab.rules_file.read_text()
    leaving = lab.topology.node("server3").ip
    quiesced = "".join(line.replace("-w 1", "-w 0") if leaving in line else line for line in everything.splitlines(True))
    without = "".join(line for line in everything.splitlines(True) if leaving not in line)

    def load(rules: str) -> None:
        lab.rules_file.write_text(rules)
        lab.reload()
        netns.wait_until(lambda: weights(lab.vsadm("-Sn").stdout) == weights(rules), 5, "the rules in the director's table")

    def nobody_is_served() -> bool:
        rows = [row for row in lab.vsadm("-Lnc").stdout.splitlines() if f"{leaving}:" in row]
        return not any("ESTABLISHED" in row or "SYN_RECV" in row for row in rows)

    with Traffic(lab) as traffic:
        for _ in range(2):
            load(quiesced)
            traffic.wait_for(1)  # one may have been under way
            assert set(spread(traffic.wait_for(8))) == {"server1", "server2"}
            netns.wait_until(nobody_is_served, 5, f"no connection at {leaving}")
            load(without)
            assert set(spread(traffic.wait_for(8))) == {"server1", "server2"}
            load(everything)
            traffic.wait_for(1)
            assert set(spread(traffic.wait_for(8))) == {"server1", "server2", "server3"}
    assert traffic.failures == []


def test_reload_keeps_a_download_running(lab: Lab):
    with Download(lab) as download:
        busy = server_with_a_connection(lab)
        other = busy % 3 + 1
        text = lab.rules_file.read_text()
        lab.rules_file.write_text("".join(line for line in text.splitlines(True) if lab.topology.node(f"server{other}").ip not in line))
        lab.reload()
        netns.wait_until(lambda: lab.vsadm("-Sn").stdout.count("-a -t") == 2, 5, "two servers")
        assert download.read() == download.size


def test_a_bad_reload_changes_nothing_and_says_where(lab: Lab):
    before = lab.vsadm("-Sn").stdout
    lab.rules_file.write_text("-A -t 10.9.0.100:80 -s rr\n-a -t 10.9.0.100:80 -r 10.9.0.11:80 -q\n")
    logged = len(lab.log("director").read_text())
    lab.reload()
    place = f"{lab.rules_file.name}:2:"
    netns.wait_until(lambda: place in lab.log("director").read_text()[logged:], 5, f"{place} in the director's log")
    assert lab.vsadm("-Sn").stdout == before
    assert set(spread(lab.ask_many(3))) == {"server1", "server2", "server3"}


def test_saved_rules_restore_to_the_same(lab: Lab):
    saved = lab.vsadm("-Sn").stdout
    lab.vsadm("-C")
    assert lab.vsadm("-Sn").stdout == ""
    lab.exec("director", [scenario_vsadm(lab), "-R"], input=saved)
    assert lab.vsadm("-Sn").stdout == saved


def test_vsadm_refuses_in_ipvsadms_words(lab: Lab):
    again: subprocess.CompletedProcess = lab.vsadm("-A", *SERVICE, check=False)
    assert again.returncode == 255
    assert "Service already exists" in again.stderr
