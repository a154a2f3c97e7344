# SPDX-License-Identifier: GPL-2.0-or-later
"""What the director says of a packet is what it does with it: asked live, and read from its recording."""

import json
import shutil
import signal
import subprocess

import pytest

from cluster import BUILD, Lab
from conftest import labs
from topology import in_url

PORT = 4999
WAITED, SENT = "kept until the next hop's MAC address is known", "forwarded as it should be"

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def explained(lab: Lab, *packets: str) -> list[dict]:
    return json.loads(lab.vsadm("explain", "--json", *packets).stdout)


def step(answer: dict, topic: str) -> dict:
    return next(s for s in answer["steps"] if s["topic"] == topic)


@labs("nat", "dr", "tun", devices=("packet", "tap"))
def test_the_server_that_is_named_serves(lab: Lab):
    client, vip = in_url(lab.topology.client.ip), in_url(lab.topology.vip)
    question = f"tcp {client}:{PORT} > {vip}:80 [S]"
    before = lab.vsadm("-Ln").stdout
    first, second = explained(lab, question)[0], explained(lab, question)[0]
    assert first == second, "asking changes nothing"
    assert lab.vsadm("-Ln").stdout == before
    taken = next(c for c in step(first, "scheduler")["candidates"] if c["taken"])
    page = json.loads(lab.exec("client", ["curl", "-s", "--local-port", str(PORT), lab.topology.url]).stdout)
    assert taken["server"].rsplit(":", 1)[0].strip("[]") == page["address"]
    changed = {r["field"] for r in first["rewrites"]}
    assert changed == {"dmac", "smac", "ttl"} | {"nat": {"target"}, "dr": set(), "tun": {"outer"}}[lab.options.mode]


def test_a_terminal_gets_colour_and_a_pipe_none(fresh_lab):
    lab = fresh_lab("dr")
    words = ["vsadm", "explain", "tcp 10.9.0.1:4000 > 10.9.0.100:80 [S]"]
    assert "\x1b[" not in lab.exec("director", words).stdout
    assert "\x1b[1m" in lab.exec("director", ["script", "-qec", f"vsadm explain '{words[2]}'", "/dev/null"]).stdout


@pytest.fixture
def recording(fresh_lab, tmp_path):
    """A lab whose director has recorded what it did, and has ended."""
    lab = fresh_lab("dr", director="none")
    file = tmp_path / "recording.pcapng"
    lab.start_director("--pcap", str(file))
    for _ in range(4):
        lab.exec("client", ["curl", "-s", "-o", "/dev/null", f"http://{lab.topology.vip}/"])
    for _ in range(2):  # the first refusal waits for the client's MAC
        lab.exec("client", ["curl", "-s", "-o", "/dev/null", f"http://{lab.topology.vip}:81/"], check=False)
    lab.stop_director(signal.SIGTERM)
    return lab, file


def tshark(file, *fields: str) -> list[list[str]]:
    words = [word for field in fields for word in ("-e", field)]
    answer = subprocess.run(["tshark", "-r", file, "-T", "fields", *words], capture_output=True, text=True, check=True)
    return [line.split("\t") for line in answer.stdout.splitlines()]


def tcp_frames(file, *also: str) -> list[str]:
    """Their bytes, in order."""
    words = ["tshark", "-r", file, "-Y", " && ".join(["tcp", *also]), "-T", "jsonraw", "-j", "frame"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True)
    return [packet["_source"]["layers"]["frame_raw"][0] for packet in json.loads(answer.stdout)]


def test_tshark_reads_device_direction_and_verdict(recording):
    lab, file = recording
    rows = tshark(file, "frame.interface_name", "frame.packet_flags_direction", "frame.comment", "tcp.dstport", "tcp.flags")
    assert {row[0] for row in rows} == {lab.topology.director.links[0].interface}
    syns = [row for row in rows if row[3] == "80" and int(row[4] or "0", 0) & 0x17 == 2]
    assert len(syns) == 8, "each once as it came and once as it went"
    inbound, outbound = ([r for r in syns if int(r[1], 0) == d] for d in (1, 2))
    assert len(inbound) == len(outbound) == 4
    assert "sent to" in inbound[3][2] and SENT in inbound[3][2], "rr: the fourth is the first server's again"
    assert all(WAITED in row[2] or SENT in row[2] for row in inbound)
    refused = [row for row in rows if row[3] == "81" and int(row[1], 0) == 1]
    assert len(refused) == 2
    assert "refused with a TCP reset" in refused[1][2]


def test_a_recording_replayed_takes_the_same_decisions(recording, tmp_path):
    lab, file = recording
    (link,) = lab.topology.director.links
    others = (lab.topology.client, *lab.topology.servers)
    case = tmp_path / "case"
    case.mkdir()
    shutil.copy(file, case / "in.pcap")
    shutil.copy(lab.rules_file, case / "rules")
    facts = {"director": {"mac": link.mac, "address": link.addresses[0], "mtu": 1500},
             "neighbours": {node.ip: node.links[0].mac for node in others}}
    (case / "case.json").write_text(json.dumps(facts))
    subprocess.run([BUILD / "director", "replay", case, "-w", tmp_path / "out.pcap"], check=True)
    went = tcp_frames(tmp_path / "out.pcap")
    recorded = tcp_frames(file, "frame.packet_flags_direction == 2")
    assert recorded
    assert went == recorded


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_recording_of_two_arms_and_their_changes_is_all_a_replay_needs(fresh_lab, tmp_path, ending):
    lab = fresh_lab("nat", director="none")
    file, again = tmp_path / "recording.pcapng", tmp_path / "again.pcap"
    lab.start_director("--pcap", str(file))
    assert len(lab.topology.director.links) == 2
    service, server = f"{lab.topology.vip}:80", f"{lab.topology.node('server2').ip}:{lab.topology.server_port}"

    def served_by() -> list[str]:
        return [json.loads(lab.exec("client", ["curl", "-s", lab.topology.url]).stdout)["server"] for _ in range(6)]

    assert set(served_by()) == {"server1", "server2", "server3"}
    lab.vsadm("-e", "-t", service, "-r", server, "-m", "-w", "0")
    assert set(served_by()) == {"server1", "server3"}
    listing, connections = lab.vsadm("-L", "-n").stdout, len(lab.vsadm("-L", "-n", "-c").stdout.splitlines()) - 2
    lab.stop_director(ending)

    replayed = subprocess.run([BUILD / "director", "replay", file, "-w", again, "--print", "list,decisions"], capture_output=True, text=True)
    assert replayed.returncode == 0, replayed.stderr
    assert "all as recorded" in replayed.stderr
    recorded = tcp_frames(file, "frame.packet_flags_direction == 2")
    assert len(recorded) > 12 * 5 and tcp_frames(again) == recorded
    assert {row[0] for row in tshark(file, "frame.interface_name")} == {"front", "back"}
    assert replayed.stdout.startswith(listing)
    decisions = replayed.stdout.removeprefix(listing).splitlines()
    assert len(decisions) == connections == 12
    assert [line.split(" -> ")[1] for line in decisions].count(lab.topology.node("server2").ip) == 2

    other = subprocess.run([BUILD / "director", "replay", again], capture_output=True, text=True)
    assert other.returncode == 3 and "recordings of director --pcap" in other.stderr


def test_a_recording_explained_names_every_verdict(recording):
    lab, file = recording
    answer = subprocess.run([BUILD / "director", "explain", "--rules", lab.rules_file, "--json", file], capture_output=True, text=True, check=True)
    explained = [e for e in json.loads(answer.stdout) if e["packet"].startswith("tcp")]
    inbound = [r for r in tshark(file, "frame.packet_flags_direction", "frame.comment", "tcp.dstport") if int(r[0], 0) == 1 and r[2]]
    verdicts = [r[1].split(": ", 1)[1].split(";")[0] for r in inbound]
    assert len(explained) == len(verdicts)
    # Offline nobody has to be asked for a MAC.
    assert all(e["verdict"]["says"] == verdict for e, verdict in zip(explained, verdicts) if verdict != WAITED)
