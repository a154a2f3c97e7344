# SPDX-License-Identifier: GPL-2.0-or-later
"""The director as a guest of its host: what it takes, how it refuses, and what is left when it is killed."""

import os
import signal
import time
from pathlib import Path

import pytest

import netns
import scenarios
from cluster import BUILD, Lab
from conftest import has_tun, labs
from tools import counters, dig, spread

needs_tun = pytest.mark.skipif(not has_tun(), reason="/dev/net/tun can't be opened")
DEVICES = ["packet", pytest.param("tap", marks=needs_tun)]


def left_behind(lab: Lab) -> dict[str, str]:
    """What the director's namespace has that is not the lab's own."""
    director = lab.topology.director
    expected = {"lo", *(link.interface for link in director.links), *(link.bridge for link in director.links if link.bridge)}
    links = {link["ifname"] for link in netns.ip_json(lab.namespace("director"), "link")}
    addresses = netns.run(["ip", "-n", lab.namespace("director"), "-br", "address"]).stdout
    return {
        "links": " ".join(sorted(links - expected)),
        "nft": lab.exec("director", ["nft", "list", "ruleset"]).stdout.strip(),
        "VIP": " ".join(vip for vip in lab.topology.vips if vip in addresses),
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_nothing_is_left_however_it_ends(fresh_lab, device, number):
    lab = fresh_lab("dr", device=device, family="46")
    # The guard's table, while it runs; behind a TAP the host has no address that would need one.
    assert ("table" in lab.exec("director", ["nft", "list", "ruleset"]).stdout) == (device == "packet")
    lab.stop_director(number)
    assert left_behind(lab) == {"links": "", "nft": "", "VIP": ""}

    # And the next one starts as if nothing had been, over the dead one's socket.
    lab.start_director()
    lab.wait_for_service()
    assert set(spread(lab.ask_many(3))) == {"server1", "server2", "server3"}


def run_director(lab: Lab, *words: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """A director expected to end by itself; its exit code and what it said."""
    answer = lab.exec("director", ["timeout", "10", *before, str(BUILD / "director"), *words], check=False)
    return answer.returncode, answer.stderr


def test_a_second_director_is_refused_with_the_pid_of_the_first(fresh_lab):
    lab = fresh_lab("dr")
    code, words = run_director(lab, *lab.director_command()[1:])
    assert code not in (0, 124)
    assert str(lab.processes["director"].pid) in words
    assert set(spread(lab.ask_many(3))) == {"server1", "server2", "server3"}, "the first one goes on"


def test_a_missing_interface_is_named(fresh_lab):
    lab = fresh_lab("dr", director="none")
    code, words = run_director(lab, "--device", "packet:nosuch0", "--control", str(lab.control))
    assert code == 4 and "nosuch0" in words
    assert len(words.strip().splitlines()) == 1, "one sentence"


@pytest.mark.parametrize("capability", ["net_raw", "net_admin"])
def test_a_missing_capability_is_named(fresh_lab, capability):
    lab = fresh_lab("dr", director="none")
    less = ("setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}")
    code, words = run_director(lab, "--device", "packet:front", "--control", str(lab.control), before=less)
    assert code == 4 and f"CAP_{capability.upper()}" in words


def test_a_missing_tun_device_is_named(fresh_lab):
    lab = fresh_lab("dr", director="none")
    covered = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev && exec "$@"', "sh")
    device = "tap:lb0,address=10.9.0.2/24"
    code, words = run_director(lab, "--device", device, "--control", str(lab.control), before=covered)
    assert code == 4 and "/dev/net/tun" in words


@pytest.mark.parametrize(
    "line, expected",
    [
        ("-A -t 10.9.0.100:80 -s nosuch", ":1:"),
        ("-A -t 10.9.0.100:80 -s rr\n-A -t 10.9.0.100:80 -s rr", ":2:"),
        ("-a -t 10.9.0.100:80 -r 10.9.0.11:80 -g", ":1:"),  # of no service
        ("-A -t 10.9.0.300:80", ":1:"),
    ],
)
def test_wrong_rules_are_refused_with_their_place(fresh_lab, tmp_path, line, expected):
    lab = fresh_lab("dr", director="none")
    rules = tmp_path / "bad.rules"
    rules.write_text(line + "\n")
    code, words = run_director(lab, "--device", "packet:front", "--rules", str(rules), "--control", str(lab.control))
    assert code == 3 and f"bad.rules{expected}" in words
    code, words = run_director(lab, "--check", "--device", "packet:front", "--rules", str(rules))
    assert code == 3 and f"bad.rules{expected}" in words
    assert left_behind(lab)["nft"] == ""


@pytest.mark.parametrize("words", [["--nosuch"], ["--device"], ["--device", "carrier-pigeon:front"]], ids=str)
def test_wrong_options_are_a_usage_error(words):
    answer = netns.run([str(BUILD / "director"), *words], check=False)
    assert answer.returncode == 2 and answer.stderr.strip()


@pytest.mark.parametrize("program", ["director", "vsadm", "realserver"])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_need_nobody(program, option):
    answer = netns.run([str(BUILD / program), option], check=False, env={"PATH": os.environ["PATH"]})
    assert answer.returncode == 0 and answer.stdout.strip()


HOST_MUST_NOT = {
    "4": ("Ip.ForwDatagrams", "Tcp.OutRsts", "Icmp.OutDestUnreachs", "Icmp.OutRedirects"),
    "6": ("Ip6OutForwDatagrams", "Tcp.OutRsts", "Icmp6OutDestUnreachs", "Icmp6OutRedirects", "Icmp6OutParmProblems"),
}


@pytest.mark.parametrize("forwarding", ["0", "1"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode, family", [("nat", "4"), ("tun", "4"), ("dr", "4"), ("nat", "6"), ("tun", "6"), ("dr", "6")])
def test_the_host_stack_keeps_out_of_it(fresh_lab, mode, family, device, forwarding):
    """Forwarding on or off in the host: it forwards nothing of the director's, and resets nobody's connection."""
    lab = fresh_lab(mode, device=device, family=family)
    for key in scenarios.FORWARDING:
        netns.set_sysctl(lab.namespace("director"), key, forwarding)
    before = counters(lab, "director")
    assert spread(lab.ask_many(9)) == {"server1": 3, "server2": 3, "server3": 3}
    lab.exec("client", ["curl", "-sS", "-m", "20", "-o", "/dev/null", f"{lab.topology.url}10M"])
    after = counters(lab, "director")
    assert {name: after[name] - before[name] for name in HOST_MUST_NOT[family] if after[name] != before[name]} == {}


class TestAcrossTheNamespace:
    pytestmark = labs("dr", devices=("packet", "tap"))

    def test_the_first_log_lines_say_what_runs(self, lab: Lab):
        log = lab.log("director").read_text()
        for word in (lab.topology.director.links[0].tap if lab.options.device == "tap" else "front", "10.9.0.100"):
            assert word in log


@pytest.mark.parametrize("device", DEVICES)
def test_an_idle_director_sleeps(fresh_lab, device):
    """The last connection has expired, nothing is left to wait for: no CPU time is used."""
    lab = fresh_lab("dr", device=device, director="none")
    process = lab.start_director()

    def ticks() -> int:
        """CPU time used so far, in hundredths of a second (proc(5), fields 14 and 15)."""
        words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(words[11]) + int(words[12])

    lab.vsadm("--set", "0", "0", "1")
    assert dig(lab, "whoami.lab")
    netns.wait_until(lambda: "UDP" not in lab.vsadm("-Lnc").stdout, 10, "the connection to expire")
    before, end = ticks(), time.monotonic() + 1
    netns.wait_until(lambda: time.monotonic() > end, 2, "a second to pass")
    assert ticks() - before <= 5
