# SPDX-License-Identifier: GPL-2.0-or-later
"""Tab in bash and zsh, typed on a terminal, against a director that works, one that hangs, and none.

What may follow what is a unit test (vsadm_completion_test.cc); here it is the shells' cutting, quoting and inserting.
"""

import re
import shutil
import signal
import subprocess
import time

import pytest

import netns
from cluster import BUILD, ROOT, Lab
from conftest import labs
from tools import Terminal

pytestmark = labs("nat")

FOLDER = ROOT / "director" / "vsadm" / "completion"
LAB = ROOT / "testbed" / "lab"
PROMPT = "ready> "
START = {
    "bash": ["/usr/bin/bash", "--norc", "--noprofile", "-i"],
    "zsh": ["/usr/bin/zsh", "-f", "-i"],
}
SET_UP = {
    "bash": f"PS1='{PROMPT}'; bind 'set enable-bracketed-paste off'; source {LAB.parent}/completion/lab.bash",
    "zsh": f"fpath=({FOLDER} {LAB.parent}/completion $fpath); autoload -Uz compinit; compinit -D -u; unsetopt zle_bracketed_paste prompt_sp; PS1='{PROMPT}'",
}
LINE_BEGIN, LINE_END = "\x01", "\x05"  # ^A, ^E
ZSH = pytest.param("zsh", marks=pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed"))
both_shells = pytest.mark.parametrize("shell", ["bash", ZSH])


class Shell(Terminal):
    def __init__(self, lab: Lab, shell: str):
        super().__init__(START[shell], lab.environment())
        self.resize(50, 300)
        self._lines = 0
        self.type(SET_UP[shell] + "; echo set up:$((40 + 2))\n")
        self._wait_for("set up:42")

    def _wait_for(self, text: str) -> str:
        """What was written up to there."""

        def there() -> bool:
            self.read()
            return text in self.written

        netns.wait_until(there, 10, f"{text!r} of the shell")
        before, _, self.written = self.written.partition(text)
        return before

    def completed(self, keys: str) -> str:
        """The line that somebody has who types this, as the words the shell makes of it with a blank between."""
        self._lines += 1
        end = f"<end{self._lines}>"
        self.type(f"{keys}{LINE_END}'{end[:3]}''{end[3:]}'{LINE_BEGIN}print_line '<'' ' {LINE_END}\n")
        return " ".join(self._wait_for(end).rpartition("< ")[2].split())


@pytest.fixture
def type_in(lab: Lab, request):
    """type_in("zsh")("vsadm -\t"): the line then."""
    shells = []

    def start(shell: str):
        opened = Shell(lab, shell)
        shells.append(opened)
        opened.type("print_line() { printf '%s ' \"$@\"; }\n")  # words as the shell hands them to a program
        return opened.completed

    yield start
    for shell in shells:
        shell.__exit__()


@both_shells
def test_live_services_and_their_servers(lab: Lab, type_in, shell):
    line = type_in(shell)
    vip, port = lab.topology.vip, lab.topology.server_port
    lab.vsadm("-A", "-t", "[fd00:7::100]:443")
    try:
        assert line(f"vsadm -D -t {vip[:-2]}\t") == f"vsadm -D -t {vip}:80"
        assert line(f"vsadm -d -u {vip}:\t") == f"vsadm -d -u {vip}:53"
        bracket = "[" if shell == "bash" else "\\["  # of which zsh would make a pattern
        assert line(f"vsadm -D -t {bracket}fd\t") == "vsadm -D -t [fd00:7::100]:443"
        server = lab.topology.node("server2").ip
        assert line(f"vsadm -e -t {vip}:80 -r {server}\t") == f"vsadm -e -t {vip}:80 -r {server}:{port}"
        assert line(f"vsadm drain u\t {server}\t") == f"vsadm drain udp:{vip}:53 {server}:53"
        lab.vsadm("-d", "-t", f"{vip}:80", "-r", f"{server}:{port}")
        assert line(f"vsadm -a -t {vip}:80 -r {server}:\t") == f"vsadm -a -t {vip}:80 -r {server}:53", "it has no other any more"
    finally:
        lab.vsadm("-C")
        lab.reload()


@both_shells
def test_words_options_schedulers_and_files(lab: Lab, type_in, shell):
    line = type_in(shell)
    assert line("vsadm rea\t --j\t") == "vsadm reasons --json"
    assert line("vsadm -A -t 10.9.0.1:80 -s sed\t") == "vsadm -A -t 10.9.0.1:80 -s sed"
    assert line("vsadm -A -t 10.9.0.1:80 --no-server=i\t") == "vsadm -A -t 10.9.0.1:80 --no-server=icmp"
    assert line("vsadm tune sloppy_t\t1") == "vsadm tune sloppy_tcp=1", "the value follows at once"
    assert line(f"vsadm apply {lab.rules_file.parent}/web\t") == f"vsadm apply {lab.rules_file}"
    assert line(f"DIRECTOR_CONTROL={lab.control} vsadm --control {lab.control.parent}/contr\t") == \
        f"DIRECTOR_CONTROL={lab.control} vsadm --control {lab.control}"


@both_shells
def test_options_of_the_other_programs(type_in, shell):
    line = type_in(shell)
    assert line("director --rul\t") == "director --rules"
    assert line("realserver check --cli\t") == "realserver check --client"


def test_bash_knows_more_of_the_other_programs(type_in):
    line = type_in("bash")
    assert line("director --policy k\t --guard=of\t") == "director --policy kernel --guard=off"
    assert line("director --device packet:l\t") == "director --device packet:lo"
    assert line("director rep\t --j\t --policy=k\t") == "director replay --json --policy=kernel"
    assert line("director exp\t --addr\t") == "director explain --address"
    assert line("realserver d\t --mode t\t --interface l\t") == "realserver down --mode tun --interface lo"


@both_shells
def test_verbs_options_labs_and_nodes_of_the_lab(lab: Lab, type_in, shell, tmp_path):
    line = type_in(shell)
    assert line(f"{LAB} dem\t --dev\t t\t") == f"{LAB} demo --device tap"
    assert line(f"{LAB} -x tr\t --packets syn,req\t") == f"{LAB} -x trace --packets syn,request"
    assert line(f"{LAB} exec --name {lab.name[:-1]}\t cli\t -\t- curl") == f"{LAB} exec --name {lab.name} client -- curl"
    assert line(f"{LAB} logs --name={lab.name[:-1]}\t direc\t") == f"{LAB} logs --name={lab.name} director"
    assert line(f"{LAB} sh server\t3") == f"{LAB} sh server3", "there are three"
    drawing = tmp_path / "drawing.svg"
    drawing.touch()
    assert line(f"{LAB} trace --svg {str(drawing)[:-3]}\t") == f"{LAB} trace --svg {drawing}"


def lab_candidates(*words: str) -> list[str]:
    answer = subprocess.run([LAB, "complete", *words], capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
    return answer.stdout.split()


def test_every_verb_and_option_of_the_lab_is_completed(lab: Lab):
    usage = (LAB.parent / "usage.txt").read_text()
    verbs = set(re.findall(r"^  testbed/lab ([a-z]+)", usage, re.MULTILINE))
    assert verbs >= {"up", "exec", "doctor"} and verbs <= set(lab_candidates(""))
    verb = ""
    for line in usage.splitlines():
        if found := re.match(r"  testbed/lab ([a-z]+)", line):
            verb = found[1]
        if line.startswith("  ") and (options := set(re.findall(r"(?<![\w-])--[a-z]+", line[:40]))):
            assert options <= set(lab_candidates(verb, "--")), line
    assert lab_candidates("up", "--name", "") == [], "it is new"
    assert lab.name in lab_candidates("down", "--name", "")
    assert lab_candidates("exec", "--name", lab.name, "") == [node.name for node in lab.topology.nodes]
    assert lab_candidates("exec", "--name", "nosuch", "") == []
    assert lab_candidates("nosuch", "") == []


def candidates(lab: Lab, *words: str) -> list[str]:
    return lab.vsadm("complete", *words).stdout.split()


def test_every_word_of_the_help_is_completed(lab: Lab):
    words = set(re.findall(r"^  vsadm ([a-z]+)", lab.exec("director", ["vsadm", "--help"]).stdout, re.MULTILINE))
    assert words >= {"apply", "drain", "reasons", "top", "tune"}
    assert words - set(candidates(lab, "")) == set()


def test_without_a_director_it_is_quiet_and_quick(lab: Lab, tmp_path):
    began = time.monotonic()
    answer = subprocess.run([BUILD / "vsadm", "complete", "--control", tmp_path / "nobody", "-D", "-t", ""], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert time.monotonic() - began < 1

    director = lab.processes["director"]
    director.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert candidates(lab, "-D", "-t", "") == [], "it hangs: nobody who types waits for it"
        assert time.monotonic() - began < 3
    finally:
        director.signal(signal.SIGCONT)
    assert candidates(lab, "-D", "-t", "") == [f"{lab.topology.vip}:80"]
