# SPDX-License-Identifier: GPL-2.0-or-later
"""The director's log: what it says of changes and trouble, in which form. What is told when, in detail: events_test.cc."""

import json
import os
import re
import signal
import subprocess

import pytest

import netns
import scenarios
from cluster import BUILD, Lab

VIP = "10.9.0.100:80"
FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def lines(lab: Lab) -> list[dict]:
    """Of a log in logfmt."""
    text = lab.log("director").read_text()
    return [{key: json.loads(value) if value.startswith('"') else value for key, value in FIELD.findall(line)} for line in text.splitlines()]


def wait_for(lab: Lab, message: str, **fields: str) -> dict:
    def said() -> dict | None:
        return next((line for line in lines(lab) if line["msg"] == message and fields.items() <= line.items()), None)

    return netns.wait_until(said, 15, f"{message!r} {fields} in the log")


def test_changes_are_told_with_who_made_them(fresh_lab):
    lab = fresh_lab("nat")
    assert lines(lab)[0]["msg"] in ("interface is up", "started")
    wait_for(lab, "started")
    server = f"{lab.topology.node('server2').ip}:{lab.topology.server_port}"
    lab.vsadm("-e", "-t", VIP, "-r", server, "-m", "-w", "0")
    line = wait_for(lab, "server changed", server=server)
    assert line["weight"] == "0" and line["by"] == "vsadm" and line["user"] == str(os.getuid()) and int(line["process"]) > 1
    assert line["change"] == f"-e -t {VIP} -r {server} -m -w 0"

    lab.reload()
    line = wait_for(lab, "server changed", by="rules", server=server)
    assert line["weight"] == "1"
    assert wait_for(lab, "rules reloaded")["changes"] == "1"

    lab.vsadm("-A", "-t", VIP, check=False)
    lab.vsadm("-Ln")
    assert not any(line["msg"] == "service added" for line in lines(lab)), "neither refusals nor listings are changes"

    lab.rules_file.write_text("nonsense\n")
    lab.reload()
    line = wait_for(lab, "rules not reloaded, nothing has changed")
    assert line["level"] == "error" and f"{lab.rules_file}:1:1" in line["reason"]


def test_trouble_is_told_and_its_end(fresh_lab):
    """A server at its limit, and a service whose last server goes; both come back."""
    lab = fresh_lab("nat")
    servers = [f"{server.ip}:{lab.topology.server_port}" for server in lab.topology.servers]
    for server in servers[1:]:
        lab.vsadm("-d", "-t", VIP, "-r", server)
    lab.vsadm("-e", "-t", VIP, "-r", servers[0], "-m", "-x", "1")
    lab.ask_many(1)  # its connection stays a while in TIME_WAIT
    line = wait_for(lab, "server is full", server=servers[0], most="1")
    assert line["level"] == "warning"
    line = wait_for(lab, "service has no usable server")
    assert line["service"] == f"TCP {VIP}" and line["level"] == "warning"
    lab.exec("client", ["curl", "-s", "-m", "1", f"http://{VIP}/"], check=False)
    assert int(wait_for(lab, "losses", reason="no_server")["frames"]) > 0
    lab.vsadm("-e", "-t", VIP, "-r", servers[0], "-m")
    wait_for(lab, "server takes connections again", server=servers[0])
    wait_for(lab, "service has a usable server again")


def test_a_neighbour_is_lost_and_found_and_a_device_down(fresh_lab):
    lab = fresh_lab("dr", director="none")
    gone = lab.topology.node("server2")
    interface = gone.links[0].interface
    netns.ip(lab.namespace("server2"), "link", "set", interface, "down")
    lab.start_director()

    def told(message: str) -> dict | None:
        lab.exec("client", ["curl", "-s", "-m", "1", f"http://{VIP}/"], check=False)
        return next((line for line in lines(lab) if line["msg"] == message), None)

    line = netns.wait_until(lambda: told("neighbour lost"), 30, "the neighbour to be missed")
    assert line["neighbour"] == gone.ip and line["server"].startswith(gone.ip) and line["level"] == "warning"
    assert wait_for(lab, "losses", reason="neighbour_failed")
    netns.ip(lab.namespace("server2"), "link", "set", interface, "up")
    assert netns.wait_until(lambda: told("neighbour found"), 30, "the neighbour to be found")["neighbour"] == gone.ip

    front = lab.topology.node("director").links[0].interface
    ups = [line["msg"] for line in lines(lab)].count("interface is up")
    netns.ip(lab.namespace("director"), "link", "set", front, "down")
    assert wait_for(lab, "interface is down", device=front)["level"] == "warning"
    netns.ip(lab.namespace("director"), "link", "set", front, "up")
    netns.wait_until(lambda: [line["msg"] for line in lines(lab)].count("interface is up") > ups, 10, "the interface to be up again")


def test_json_and_the_end(fresh_lab):
    lab = fresh_lab("nat", director="none")
    lab.start_director("--log-format", "json")
    lab.vsadm("-D", "-t", VIP)
    lab.stop_director(signal.SIGTERM)
    entries = [json.loads(line) for line in lab.log("director").read_text().splitlines()]
    messages = [entry["msg"] for entry in entries]
    assert messages[-1] == "stopped" and "started" in messages
    removed = next(entry for entry in entries if entry["msg"] == "service removed")
    assert removed["service"] == f"TCP {VIP}" and removed["by"] == "vsadm"


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journal_gets_priorities_and_nobody_else(fresh_lab, is_journal):
    """systemd says which stream is the journal's; a standard error that was led elsewhere since is none."""
    lab = fresh_lab("nat", director="none")
    lab.rules_file.write_text(scenarios.rules(lab.topology, "rr"))
    reading, writing = os.pipe()
    stream = os.fstat(writing)
    variable = f"{stream.st_dev}:{stream.st_ino + (0 if is_journal else 1)}"
    command = [*netns.enter(lab.namespace("director")), *lab.director_command()]
    with subprocess.Popen(command, stderr=writing, env={**lab.environment(), "JOURNAL_STREAM": variable}) as director:
        os.close(writing)
        with os.fdopen(reading) as log:
            for line in log:
                assert re.match(r"<6>level=info msg=|<4>level=warning msg=" if is_journal else r"time=20\S+Z level=", line), line
                if 'msg="started"' in line:
                    director.send_signal(signal.SIGTERM)
    assert director.returncode == 0
