# SPDX-License-Identifier: GPL-2.0-or-later
"""Both families at once: one director, two VIPs, and neither family notices the other. (Each alone: test_curl.py.)"""

from cluster import Lab
from conftest import labs
from tools import neighbour_answers, spread
from topology import in_url
from watch import ReplyCount

pytestmark = labs("nat", "tun", "dr", families=("46",), devices=("packet", "tap"))


def test_each_family_has_its_own_turns_and_sees_its_own_client(lab: Lab):
    for url, client in zip(lab.topology.urls, lab.topology.client.ips):
        pages = [lab.ask(url) for _ in range(6)]
        assert spread(pages) == {"server1": 2, "server2": 2, "server3": 2}
        assert {page["client"] for page in pages} == {client}


def test_one_mac_answers_for_both_vips(lab: Lab):
    for vip in lab.topology.vips:
        assert neighbour_answers(lab, vip) == {lab.topology.director.links[0].mac}


def test_replies_pass_the_director_in_nat_only(lab: Lab):
    with ReplyCount(lab) as replies:
        for url in lab.topology.urls:
            lab.ask(url)
        lab.wait_for_last_replies()
        through, total = replies.through_director, replies.to_client
    assert total >= 2 * 3  # SYN+ACK, page, FIN
    assert through == (total if lab.options.mode == "nat" else 0)


def test_one_familys_service_goes_and_the_other_stays(lab: Lab):
    four, six = lab.topology.urls
    for gone, stays, vip in ((four, six, lab.topology.vips[0]), (six, four, lab.topology.vips[1])):
        service = ("-t", f"{in_url(vip)}:80")
        saved = lab.vsadm("-Sn").stdout
        lab.vsadm("-D", *service)
        refused = lab.exec("client", ["curl", "-s", "-m", "5", gone], check=False)
        assert refused.returncode == 7, "curl: 7 is connection refused, 28 a time-out"
        assert spread([lab.ask(stays) for _ in range(3)]) == {"server1": 1, "server2": 1, "server3": 1}
        lab.vsadm("-C")
        lab.vsadm("-R", input=saved)
        assert set(spread([lab.ask(gone) for _ in range(3)])) == {"server1", "server2", "server3"}
