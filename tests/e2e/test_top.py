# SPDX-License-Identifier: GPL-2.0-or-later
"""vsadm top against a director that works: piped, as JSON, and on a terminal (a pty), which has to be as it was afterwards."""

import json
import os
import re
import signal
import subprocess
import termios

import pytest

import netns
from cluster import BUILD, Lab
from conftest import labs
from tools import Terminal, Traffic

pytestmark = labs("nat")

ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")
ALTERNATE, ORIGINAL = "\x1b[?1049h", "\x1b[?1049l"


def test_piped_it_prints_table_after_table(lab: Lab):
    lab.ask_many(3)
    tables = lab.vsadm("top", "-n", "2", "--interval", "100ms").stdout
    assert "\x1b" not in tables
    first, second = tables.split("\n\nvsadm top")
    for table in (first, second):
        lines = table.splitlines()
        assert "every 100ms  by name" in lines[0]
        rows = {line.split()[1]: line.split()[2:] for line in lines if line.startswith(("TCP ", "-> "))}
        assert rows[f"{lab.topology.vip}:80"][0] == "rr"
        assert len(rows) == 1 + 3 + 3, "its servers, and those of UDP"


def test_rates_are_those_of_the_interval(lab: Lab):
    """JSON, a line an interval, read as it comes; more than twice the director's averaging apart they would be the same."""
    command = [*netns.enter(lab.namespace("director")), str(BUILD / "vsadm"), "top", "--json", "--interval=500ms", "-t", f"{lab.topology.vip}:80"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=lab.environment()) as top, Traffic(lab) as traffic:
        first = json.loads(top.stdout.readline())
        assert first["interval"] is None

        def busy() -> dict | None:
            table = json.loads(top.stdout.readline())
            traffic.wait_for(1)
            assert [service["service"] for service in table["services"]] == [f"TCP {lab.topology.vip}:80"], "only the one asked for"
            return table if table["services"][0]["rate"]["connections"] > 0 else None

        before = first["services"][0]["stats"]
        table = netns.wait_until(busy, 15, "a rate of connections")
        service = table["services"][0]
        assert service["stats"]["connections"] > before["connections"]
        assert table["interval"] >= 0.5
        assert sum(server["rate"]["in_bytes"] for server in service["servers"]) == pytest.approx(service["rate"]["in_bytes"], abs=3)
        top.send_signal(signal.SIGTERM)


def test_a_drop_shows_by_its_reason(lab: Lab):
    lab.exec("client", ["curl", "-s", "-m", "1", f"http://{lab.topology.vip}:81/"], check=False)
    drops = {drop["name"]: drop for drop in json.loads(lab.vsadm("top", "--json", "-n", "1").stdout)["drops"]}
    assert drops["refused_reset"]["count"] > 0 and drops["refused_reset"]["fate"] == "refused"
    assert "\nrefused_reset " in lab.vsadm("top", "-n", "1").stdout


@pytest.mark.parametrize("words", [["--interval", "1ms"], ["-n", "0"], ["--sort", "bogus"], ["bogus"], ["-n"], ["--json=1"]])
def test_what_it_does_not_take_is_told(lab: Lab, words):
    answer = lab.vsadm("top", *words, check=False, timeout=10)
    assert answer.returncode == 2
    assert answer.stderr.startswith("usage: vsadm top ")


def test_the_directors_refusals_are_its_own_words(lab: Lab):
    answer = lab.vsadm("top", "-t", "10.9.0.100:81", check=False)
    assert (answer.returncode, answer.stderr) == (1, "No such service\n")


class Screen(Terminal):
    """vsadm top on a terminal of its own, whose contents can be looked at."""

    def __init__(self, lab: Lab, *words: str, rows: int = 30, columns: int = 100):
        super().__init__([str(BUILD / "vsadm"), "top", "--interval", "100ms", *words], lab.environment())
        self.resize(rows, columns)

    def lines(self) -> list[str]:
        """What is to be seen: of the last drawing that is complete."""
        self.read()
        drawings = self.written.split("\x1b[H")[1:]
        complete = [drawing for drawing in drawings if drawing.endswith("\x1b[J") or "\x1b[?" in drawing]
        return ESCAPE.sub("", complete[-1]).split("\r\n") if complete else []

    def wait_for(self, condition, what: str) -> list[str]:
        def met() -> list[str]:
            lines = self.lines()
            return lines if lines and condition(lines) else []

        return netns.wait_until(met, 10, what)


def by(column: str):
    return lambda lines: lines[0].endswith(f"by {column}")


def test_on_a_terminal_it_draws_in_place_and_gives_the_screen_back(lab: Lab):
    with Screen(lab) as screen:
        lines = screen.wait_for(by("name"), "the first table")
        assert any(line.startswith(f"TCP {lab.topology.vip}:80") for line in lines)
        screen.type("s")
        screen.wait_for(by("weight"), "the next column")
        screen.type("\x1b[C")
        screen.wait_for(by("active"), "the next but one, by an arrow")
        screen.type("S")
        screen.wait_for(by("weight"), "the one before")
        drawn = screen.written.count("\x1b[H")
        screen.wait_for(lambda _: screen.written.count("\x1b[H") > drawn + 2, "tables without a key")
        screen.type("q")
        assert os.waitstatus_to_exitcode(screen.end()) == 0
        assert screen.written.count(ALTERNATE) == screen.written.count(ORIGINAL) == 1
        assert screen.written.endswith(ORIGINAL)


def test_it_follows_the_windows_size(lab: Lab):
    with Screen(lab, rows=12, columns=60) as screen:
        screen.wait_for(lambda lines: len(lines) == 12, "a table of 12 lines")
        screen.resize(40, 200)
        lines = screen.wait_for(lambda lines: len(lines) > 12, "a larger table")
        assert "OutBPS" in next(line for line in lines if line.startswith("Service"))
        screen.resize(8, 40)
        screen.wait_for(lambda lines: len(lines) == 8 and max(map(len, lines)) <= 40, "a small table")


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_and_the_terminal_is_as_before(lab: Lab, how):
    with Screen(lab) as screen:
        screen.wait_for(by("name"), "the first table")
        assert not screen.settings()[3] & termios.ECHO
        if how == "ctrl-c":
            screen.type("\x03")
        else:
            os.kill(screen.pid, getattr(signal, how))
        expected = signal.SIGINT if how == "ctrl-c" else getattr(signal, how)
        status = screen.end()
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == expected, "a shell sees how it ended"
        assert screen.written.endswith(ORIGINAL)


def test_suspended_it_gives_the_terminal_back_for_a_while(lab: Lab):
    with Screen(lab) as screen:
        screen.wait_for(by("name"), "the first table")
        screen.type("\x1a")
        pid, status = os.waitpid(screen.pid, os.WUNTRACED)
        assert pid and os.WIFSTOPPED(status)
        screen.lines()
        assert screen.written.endswith(ORIGINAL)
        assert screen.settings()[3] & termios.ECHO
        os.kill(screen.pid, signal.SIGCONT)
        screen.wait_for(lambda _: screen.written.count(ALTERNATE) == 2 and screen.written.endswith("\x1b[J"), "the table again")
        screen.type("q")
        assert os.waitstatus_to_exitcode(screen.end()) == 0


def test_a_director_that_goes_ends_it(lab: Lab):
    with Screen(lab) as screen:
        screen.wait_for(by("name"), "the first table")
        lab.stop_director()
        status = screen.end()
        answer = lab.vsadm("top", check=False)
        lab.start_director()
        assert os.waitstatus_to_exitcode(status) == 2
        assert "vsadm: no director listens at " in screen.written.rsplit(ORIGINAL, 1)[1], "said after the screen was given back"
        assert answer.returncode == 2 and "no director listens" in answer.stderr
