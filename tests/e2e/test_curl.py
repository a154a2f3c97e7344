# SPDX-License-Identifier: GPL-2.0-or-later
"""The promise of the README: curl is served through every method, device and offload setting, and dig too."""

from cluster import Lab
from conftest import cases, in_labs
from tools import checksum_errors, dig, neighbour_answers, sha256, spread, who_answers_names
from topology import in_url
from watch import ReplyCount

MODES = ("nat", "tun", "dr")
pytestmark = in_labs(cases(*MODES, devices=("packet", "tap"), offloads=("on", "off")),
                     cases(*MODES, devices=("packet", "tap"), families=("6",)))


def test_every_server_answers_in_turn(lab: Lab):
    assert spread(lab.ask_many(9)) == {"server1": 3, "server2": 3, "server3": 3}


def test_the_servers_see_the_client_itself(lab: Lab):
    pages = lab.ask_many(3)
    assert {page["client"] for page in pages} == {lab.topology.client.ip}
    assert len({page["port"] for page in pages}) == 3


def test_the_request_arrives_at_the_vip_and_in_nat_at_the_server(lab: Lab):
    for page in lab.ask_many(3):
        expected = f"{in_url(page['address'])}:8080" if lab.options.mode == "nat" else f"{in_url(lab.topology.vip)}:80"
        assert page["to"] == expected


def test_replies_pass_the_director_in_nat_only(lab: Lab):
    with ReplyCount(lab) as replies:
        lab.ask_many(6)
        lab.wait_for_last_replies()
        through, total = replies.through_director, replies.to_client
    assert total >= 6 * 3  # SYN+ACK, page, FIN
    assert through == (total if lab.options.mode == "nat" else 0)


def test_exactly_one_mac_answers_for_the_vip(lab: Lab):
    """To ARP, or to neighbour discovery."""
    assert neighbour_answers(lab, lab.topology.vip) == {lab.topology.director.links[0].mac}


def test_ten_megabytes_down(lab: Lab, tmp_path):
    for _ in lab.topology.servers:
        lab.exec("client", ["curl", "-sS", "-m", "20", "-o", str(tmp_path / "10M"), f"{lab.topology.url}10M"])
        assert sha256(tmp_path / "10M") == sha256(lab.folder / "files" / "10M")


def test_ten_megabytes_up(lab: Lab):
    file = lab.folder / "files" / "10M"
    answers = []
    for _ in lab.topology.servers:
        answer = lab.ask(f"{lab.topology.url}post", "-m", "20", "-H", "Expect:", "--data-binary", f"@{file}")
        assert int(answer["length"]) == file.stat().st_size
        assert answer["client"] == lab.topology.client.ip
        with open(answer["file"], "rb") as received, file.open("rb") as sent:
            assert received.read() == sent.read()
        answers.append(answer)
    assert spread(answers) == {"server1": 1, "server2": 1, "server3": 1}


def test_names_are_served_over_udp(lab: Lab):
    seen = [who_answers_names(lab) for _ in range(6)]
    assert spread(seen) == {"server1": 2, "server2": 2, "server3": 2}
    assert {answer["client"] for answer in seen} == {lab.topology.client.ip}


def test_a_long_answer_over_udp_comes_in_fragments(lab: Lab):
    for _ in lab.topology.servers:
        text = dig(lab, "+bufsize=4096", "+ignore", "3000.big.lab", "TXT")
        assert text.count("x") == 3000


def test_a_closed_port_of_the_vip_refuses_at_once(lab: Lab):
    answer = lab.exec("client", ["curl", "-s", "-m", "5", f"http://{in_url(lab.topology.vip)}:81/"], check=False)
    assert answer.returncode == 7, "curl: 7 is connection refused, 28 a time-out"


def test_the_vip_answers_ping(lab: Lab):
    answer = lab.exec("client", ["ping", "-c", "3", "-i", "0.2", "-W", "2", lab.topology.vip])
    assert " 3 received" in answer.stdout


def test_the_listing_counts_what_was_served(lab: Lab):
    lab.vsadm("-Z")
    lab.ask_many(6)
    rows = [line.split() for line in lab.vsadm("-Ln", "--stats", "--exact").stdout.splitlines()]
    service = next(row for row in rows if row[0] == "TCP")
    assert service[:3] == ["TCP", f"{in_url(lab.topology.vip)}:80", "6"]
    connections = [row[2] for row in rows[rows.index(service) + 1 :] if row[0] == "->"][:3]
    assert connections == ["2", "2", "2"]
    if lab.options.mode != "nat":
        assert service[4] == "0", "replies do not pass the director, so it counts none"


def test_no_checksum_is_wrong_anywhere(lab: Lab):
    """The kernel's own counters, after all the traffic of the tests above and a little more."""
    lab.ask_many(3)
    lab.exec("client", ["curl", "-sS", "-m", "20", "-o", "/dev/null", f"{lab.topology.url}10M"])
    who_answers_names(lab)
    assert checksum_errors(lab) == {}
