# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab doctor` of live labs: nothing is found in one that is well; a mistake made by hand is named, and cured by what it says to type."""

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import netns
from cluster import Lab, Options
from conftest import ROOT, cases
from diagnosis import live, wires
from diagnosis.facts import Facts
from diagnosis.finding import Finding
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from tools import background

CAPTURE = False
VIP, VIP6 = "10.9.0.100", "fd00:10:9::100"


def wrong(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state != "ok"]


def look(lab: Lab, what: str) -> list[Finding]:
    """One row of the doctor's table."""
    mistake = next(mistake for mistake in live.MISTAKES if mistake.what == what)
    return wrong(live.look(mistake, Facts(lab)))


def type_(lab: Lab, cure: str) -> None:
    """As a user would, from the line."""
    done = subprocess.run(cure, shell=True, cwd=ROOT, env=lab.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, timeout=30)  # what goes on running would hold a pipe open
    assert done.returncode == 0, cure


def doctor(lab: Lab, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(ROOT / "testbed" / "lab"), "doctor", "--name", lab.name, *words], capture_output=True, text=True,
                          timeout=120)


# --- nothing is wrong ---


@pytest.mark.parametrize("made", [*cases("nat", "dr", "tun", devices=("tap",), families=("46",)), *cases("tun", tunnels=("gue-csum",))])
def test_nothing_is_found_in_a_lab_that_is_well(fresh_lab, made):
    lab = fresh_lab(**made)
    answer = doctor(lab, "--json")
    findings = json.loads(answer.stdout)["labs"][lab.name]
    assert [finding for finding in findings if finding["state"] != "ok"] == [] and len(findings) > 10
    assert answer.returncode == 0


# --- the one everybody makes ---


def test_a_server_that_answers_arp_is_told_in_one_line(fresh_lab):
    lab = fresh_lab("dr")
    lab.exec("server2", ["sysctl", "-w", "net.ipv4.conf.all.arp_ignore=0"])
    answer = doctor(lab)
    lines = [line for line in answer.stdout.splitlines() if "✓" not in line][1:]
    cure = f"testbed/lab exec --name {lab.name} server2 -- sysctl -w net.ipv4.conf.all.arp_ignore=1"
    assert len(lines) == 1 and lines[0].endswith(f"server2 (02:00:0a:09:00:0c) answers ARP for {VIP} too: {cure}")
    assert answer.returncode == 1 and "who answers for the VIP" in answer.stderr
    type_(lab, cure)
    assert doctor(lab).returncode == 0


# --- the others ---


@dataclass(frozen=True)
class Case:
    what: str  # the row of the table
    node: str  # where it is done, and undone
    mistake: str  # the shell command that is the mistake
    note: str  # what the line says
    cure: str  # how what to type ends
    undo: str = ""  # where the cure leaves the lab another one

    def __str__(self) -> str:
        return f"{self.what}: {self.note}"


NAT = [
    Case("way back (NAT)", "server1", "ip route del default", "server1 has no route to the client 10.9.0.1",
         "server1 -- ip route replace default via 10.9.1.2"),
    Case("way back (NAT)", "server2", "ip -6 route del default", "server2 has no route to the client fd00:10:9::1",
         "server2 -- ip -6 route replace default via fd00:10:9:1::2"),
    Case("way back (NAT)", "server1", "ip route add 10.9.0.0/24 via 10.9.1.12", "server1 answers by 10.9.1.12, past the director",
         "server1 -- ip route replace 10.9.0.0/24 via 10.9.1.2"),
    Case("what listens", "director", f"vsadm -a -t {VIP}:80 -r 10.9.1.11:9999 -m && vsadm -d -t {VIP}:80 -r 10.9.1.11:8080",
         "nothing listens on server1 at tcp 10.9.1.11 port 9999",
         f"'vsadm -a -t {VIP}:80 -r 10.9.1.11:8080 -m -w 1 && vsadm -d -t {VIP}:80 -r 10.9.1.11:9999'"),
    Case("rules", "director", f"vsadm -a -t {VIP}:80 -r 10.9.1.99:8080 -m", "no node has 10.9.1.99",
         f"vsadm -d -t {VIP}:80 -r 10.9.1.99:8080"),
]
DR = [
    Case("realserver check", "server1", f"ip address del {VIP}/32 dev lo", "server1: address: not on lo",
         f"server1 -- realserver up --mode dr --vip {VIP}"),
    Case("who answers for the VIP", "server2", f"ip address add {VIP}/24 dev eth0", f"server2 (02:00:0a:09:00:0c) answers ARP for {VIP}",
         f"server2 -- ip address del {VIP}/24 dev eth0"),
    Case("who answers for the VIP", "server3", "sysctl -w net.ipv6.conf.eth0.proxy_ndp=1 net.ipv6.conf.all.forwarding=1 && "
         f"ip -6 neighbour add proxy {VIP6} dev eth0", f"server3 (02:00:0a:09:00:0d) answers neighbour discovery for {VIP6}",
         f"server3 -- ip neigh del proxy {VIP6} dev eth0"),
    Case("client's neighbours", "client", f"ip neighbour replace {VIP} lladdr 02:00:0a:09:00:0d dev eth0 nud stale",
         f"the client still has 02:00:0a:09:00:0d (server3) for {VIP}", f"client -- ip neighbour del {VIP} dev eth0"),
    Case("links", "server3", "ip link set eth0 down", "eth0 of server3 is down", "server3 -- ip link set eth0 up"),
    Case("way back (NAT)", "director", f"vsadm -e -t {VIP}:80 -r 10.9.0.11 -m && vsadm -e -u {VIP}:53 -r 10.9.0.11 -m",
         "server1 answers the client 10.9.0.1 directly by eth0 (client and server in one subnet)",
         "server1 -- ip route replace 10.9.0.1 via 10.9.0.2",
         undo=f"vsadm -e -t {VIP}:80 -r 10.9.0.11 -g && vsadm -e -u {VIP}:53 -r 10.9.0.11 -g"),
    Case("realserver check", "server1", "true", "server1: way back: to 10.9.0.1 by 10.9.0.2 on eth0, which is the director", "",
         undo="ip route del 10.9.0.1"),
    Case("what listens", "server2", r"kill $(ss -Hltnp 'sport = :80' | sed -n 's/.*pid=\([0-9]*\).*/\1/p' | sort -u)",
         f"nothing listens on server2 at tcp {VIP} port 80", "nginx.conf &"),
    *(Case("one director", node, f"director --device packet:{interface} --rules ${{DIRECTOR_CONTROL%/*}}/web.rules "
           f"--control $DIRECTOR_CONTROL.{node} >/dev/null 2>&1 &", f"answers for the VIP, on {node}", "")
      for node, interface in (("server3", "eth0"), ("director", "front"))),
]
TUN = [
    Case("realserver check", "server1", r"kill -9 $(realserver check | sed -n 's/.*PID \([0-9]*\),.*/\1/p' | sort -u)",
         "server1: tunnel: no decapsulator runs", f"server1 -- realserver up --mode tun --vip {VIP} --daemon"),
    Case("realserver check", "server2", "sysctl -w net.ipv4.conf.all.rp_filter=1", "packets out of the tunnel are dropped",
         "server2 -- sysctl -w net.ipv4.conf.all.rp_filter=0"),
    Case("routers", "router", "sysctl -w net.ipv4.conf.all.rp_filter=1", "rp_filter on router drops replies of server1",
         "router -- sysctl -w net.ipv4.conf.all.rp_filter=0"),
    Case("routers", "router", "sysctl -w net.ipv4.ip_forward=0", "router does not forward replies of server1",
         "router -- sysctl -w net.ipv4.ip_forward=1"),
    Case("MTU of links", "switch", "ip link set server2 mtu 1400", "server2 of switch has MTU 1400, others on its link have 1500",
         "switch -- ip link set server2 mtu 1500"),
    Case("MTU of tunnels", "router", "ip link set lan2 mtu 1400", "lan2 of router takes 1400: only those up to 1380 fit into the tunnel",
         "router -- ip link set lan2 mtu 1500"),
    Case("method and subnet", "director", f"vsadm -e -t {VIP}:80 -r 10.9.11.11 -g", "server1 10.9.11.11 is in the rules with -g",
         f"director -- vsadm -e -t {VIP}:80 -r 10.9.11.11:80 -i"),
]

# One lab for all mistakes of a mode, cured each time.
MADE = {mode: {"mode": mode, "family": family} for mode, family in (("nat", "46"), ("dr", "46"), ("tun", "4"))}
MISTAKES = [pytest.param(MADE[mode], case, id=f"{mode}: {case}")
            for mode, made in (("nat", NAT), ("dr", DR), ("tun", TUN)) for case in (*made, None)]


@pytest.mark.parametrize("lab, case", MISTAKES, indirect=["lab"], scope="module")
def test_a_mistake_is_named_and_what_to_type_cures_it(lab: Lab, case: Case | None):
    if case is None:
        assert wrong(live.examine(lab)) == [], "all mistakes are cured"
        return
    lab.exec(case.node, ["sh", "-c", case.mistake])
    found = netns.wait_until(lambda: look(lab, case.what), 5, f"the doctor to find: {case}")[0]
    assert case.note in found.note and found.cure.endswith(case.cure)
    if found.cure:
        heal(lab, found)
    lab.wait_for_service()
    if case.undo:
        lab.exec(case.node, ["sh", "-c", case.undo])


def heal(lab: Lab, finding: Finding) -> None:
    """Types what the lines say until there are none: a link that was down has lost its IPv6 addresses, too, and whoever answered for
    the VIP is remembered by the client.
    """
    for _ in range(4):
        type_(lab, finding.cure)
        netns.wait_until(lambda: finding not in look(lab, finding.what), 5, f"a cure by {finding.cure}")
        left = look(lab, "client's neighbours") + (look(lab, finding.what) if finding.what == "links" else [])
        if not left:
            return
        finding = left[0]
    raise AssertionError(f"four cures don't help: {finding}")


def test_the_hosts_own_stack_wrong_checksums_and_a_director_that_ended(fresh_lab):
    lab = fresh_lab("dr", servers=1)
    lab.stop_director()
    assert [finding.state for finding in live.examine(lab)] == ["warn"], "it may be the lab that is being built"
    lab.start_director("--guard", "off")
    lab.exec("director", ["ip", "address", "add", f"{VIP}/32", "dev", "front"])
    found = {finding.what: finding for finding in wrong(live.examine(lab))}
    cure = found["director's host"].cure
    assert cure.endswith(f"director -- ip address del {VIP}/32 dev front")
    assert "resets from the VIP came from the director's host" in found["resets"].note
    type_(lab, cure)
    assert wrong(live.examine(lab)) == []

    server = lab.topology.servers[0]
    with netns.inside(lab.namespace("client")), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", 0))
        wire.send(bytes(Ether(dst=server.links[0].mac) / IP(src="10.9.0.1", dst=server.ip) / TCP(dport=80, chksum=1)))
    found = netns.wait_until(lambda: look(lab, "checksums"), 5, "the server's count of it")
    assert [finding.state for finding in found] == ["warn"]
    assert "server1 has dropped 1 TCP packets whose checksum was wrong" in found[0].note and found[0].cure.endswith("--offload off")

    lab.processes["director"].signal(signal.SIGKILL)
    found = netns.wait_until(lambda: look(lab, "director"), 5, "the director's end")
    assert "it has ended" in found[0].note and found[0].cure == f"testbed/lab logs --name {lab.name} director"


def test_syns_without_an_answer_are_told_of_their_server(fresh_lab):
    lab = fresh_lab("nat", servers=1)
    lab.exec("server1", ["nft", "add table inet eats; add chain inet eats input { type filter hook input priority 0; }; "
                         "add rule inet eats input tcp dport 8080 drop"])
    with background(lab, "client", ["curl", "-s", "-m", "30", lab.topology.url]):
        netns.wait_until(lambda: "SYN_RECV" in lab.vsadm("-Lnc").stdout, 5, "a SYN")
        found = {finding.what: finding for finding in wrong(live.examine(lab))}
    assert found["unanswered SYNs"].note == "server1 10.9.1.11 leaves 1 SYNs without an answer"
    assert "server1 10.9.1.11 does not answer the director's host" in found["servers"].note
    assert found["requests"].state == "fail"


@pytest.mark.skipif(not Path("/proc/sys/net/bridge").is_dir(), reason="no br_netfilter in this kernel")
def test_a_firewall_that_eats_bridged_frames(fresh_lab):
    """What Docker does to bridges beside its own."""
    lab = fresh_lab("dr", servers=1)
    lab.exec("switch", ["sysctl", "-w", "net.bridge.bridge-nf-call-iptables=1"])
    lab.exec("switch", ["nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"])
    assert lab.exec("client", ["curl", "-s", "-m", "1", lab.topology.url], check=False).returncode != 0
    (found,) = look(lab, "br_netfilter")
    assert "ip firewall" in found.note.lower() and "filter FORWARD" in found.note
    type_(lab, found.cure)
    lab.wait_for_service()
    assert look(lab, "br_netfilter") == []


class Bridges(Facts):
    """A machine with br_netfilter, which those that run the tests need not have."""

    def __init__(self, rules: list[dict]):
        super().__init__(Lab(Options("bridges", "dr")))
        self.rules = rules

    def sysctl(self, _node: str, key: str) -> str:
        return {"net.bridge.bridge-nf-call-iptables": "1"}.get(key, "")

    def says(self, _node: str, *words: str) -> str:
        return json.dumps({"nftables": [{"chain": chain} for chain in self.rules]}) if words[0] == "nft" else ""


def test_bridged_frames_that_visit_the_ip_firewall():
    own = {"family": "netdev", "table": "director", "name": "ingress", "hook": "ingress"}
    forward = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}
    assert list(wires.bridges(Bridges([own]))) == [], "no rule there, nothing is eaten"
    (found,) = wires.bridges(Bridges([own, forward]))
    assert "filter FORWARD" in found.note
    assert found.cure == "testbed/lab exec --name bridges switch -- sysctl -w net.bridge.bridge-nf-call-iptables=0"
