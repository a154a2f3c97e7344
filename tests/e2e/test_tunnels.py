# SPDX-License-Identifier: GPL-2.0-or-later
"""curl and dig through every kind of tunnel, opened by realserver; with offloads, and without."""

from cluster import BUILD, Lab
from conftest import cases, in_labs
from tools import checksum_errors, sha256, spread, who_answers_names
from watch import ReplyCount

TUNNELS = ("gre", "gre-csum", "gue", "gue-csum", "gue-remcsum")
pytestmark = in_labs(cases("tun", tunnels=TUNNELS, offloads=("on",)), cases("tun", tunnels=("gre-csum", "gue-csum"), offloads=("off",)))


def test_every_server_answers_in_turn_and_sees_the_client(lab: Lab):
    pages = lab.ask_many(9)
    assert spread(pages) == {"server1": 3, "server2": 3, "server3": 3}
    assert {page["client"] for page in pages} == {lab.topology.client.ip}


def test_replies_pass_by_the_director(lab: Lab):
    with ReplyCount(lab) as replies:
        lab.ask_many(3)
        assert replies.through_director == 0 and replies.to_client >= 3 * 3


def test_ten_megabytes_down(lab: Lab, tmp_path):
    for _ in lab.topology.servers:
        lab.exec("client", ["curl", "-sS", "-m", "20", "-o", str(tmp_path / "10M"), f"{lab.topology.url}10M"])
        assert sha256(tmp_path / "10M") == sha256(lab.folder / "files" / "10M")


def test_ten_megabytes_up(lab: Lab):
    file = lab.folder / "files" / "10M"
    for _ in lab.topology.servers:
        answer = lab.ask(f"{lab.topology.url}post", "-m", "20", "-H", "Expect:", "--data-binary", f"@{file}")
        assert int(answer["length"]) == file.stat().st_size and answer["client"] == lab.topology.client.ip
        with open(answer["file"], "rb") as received, file.open("rb") as sent:
            assert received.read() == sent.read()


def test_names_by_udp(lab: Lab):
    assert spread([who_answers_names(lab) for _ in range(6)]) == {"server1": 2, "server2": 2, "server3": 2}


def test_realserver_says_all_is_well(lab: Lab):
    """The last test of a lab: no packet of the ones before was dropped, and no checksum was wrong."""
    for server in lab.topology.servers:
        said = lab.exec(server.name, [str(BUILD / "realserver"), "check", "--interface", "eth0"], check=False).stdout
        line = next(line for line in said.splitlines() if " tunnel " in line)
        assert line.split()[0] == "ok" and line.endswith(" 0 dropped"), line
    assert checksum_errors(lab) == {}
