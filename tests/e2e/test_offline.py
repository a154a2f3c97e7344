# SPDX-License-Identifier: GPL-2.0-or-later
"""What `director` does without a device, a lab or a privilege: --check, replay of a captured case, and what they say to programs."""

import json
import subprocess

import pytest

from cluster import BUILD, ROOT

CASE = ROOT.parent / "shared" / "golden" / "sched" / "rr-1-1-1"


def director(*words) -> subprocess.CompletedProcess:
    return subprocess.run([BUILD / "director", *words], capture_output=True, text=True)


def test_check_tells_programs_every_problem(tmp_path):
    rules = tmp_path / "web.rules"
    rules.write_text("-A -t 10.9.0.300:80\n-A -t 10.9.0.100:80 -s rr\n  -a -t 10.9.0.100:80 -r 10.9.0.11:80 -w many\n")
    answer = director("--check", "--json", "--rules", rules)
    assert answer.returncode == 3 and answer.stderr == ""
    first, second = json.loads(answer.stdout)["problems"]
    assert (first["file"], first["line"], first["column"]) == (str(rules), 1, 7)
    assert (second["line"], second["column"]) == (3, 42) and "weight" in second["message"]
    people = director("--check", "--rules", rules)
    assert people.returncode == 3 and people.stdout == ""
    assert people.stderr.splitlines() == [f"director: {rules}:{p['line']}:{p['column']}: {p['message']}" for p in (first, second)]


@pytest.mark.parametrize("words, problems", [([], 0), (["--rules", "/nonexistent/rules"], 1)])
def test_check_without_a_place_to_point_at(words, problems):
    answer = director("--check", "--json", *words)
    found = json.loads(answer.stdout)["problems"]
    assert len(found) == problems and answer.returncode == (3 if problems else 0)
    assert all(p["line"] is None and p["column"] is None and "No such file" in p["message"] for p in found)


@pytest.mark.skipif(not CASE.is_dir(), reason="no captures at ../shared/golden")
def test_a_case_replayed_for_programs_says_what_it_says_to_people():
    answer = json.loads(director("replay", CASE, "--json", "--print", "list,save").stdout)
    assert answer["decisions"] == (CASE / "decisions.txt").read_text().splitlines()
    assert answer["texts"].keys() == {"list", "save"}
    assert answer["texts"]["list"] + answer["texts"]["save"] == director("replay", CASE, "--print", "list,save").stdout


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--json"], "--json goes with --check"),
        (["replay", "--json=yes", "x"], "--json takes no value"),
        (["replay"], "of what? name a case's folder, or a recording"),
        (["replay", "--print=poem", "x"], '"poem" isn\'t one of'),
        (["explain", "--policy", "mine", "x"], '"mine" is neither improved nor kernel'),
        (["explain", "--colour", "x"], "there is no option --colour"),
        (["explain", "--rules"], "--rules needs a value"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(words, sentence):
    answer = director(*words)
    assert answer.returncode == 2 and sentence in answer.stderr


def test_what_cannot_be_replayed_names_the_cure(tmp_path):
    other = tmp_path / "other.pcapng"
    other.write_bytes(b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\1\0\0\0" + 8 * b"\xff" + b"\x1c\0\0\0")
    answer = director("replay", other)
    assert answer.returncode == 3 and "a folder with rules, case.json and in.pcap" in answer.stderr
    answer = director("replay", tmp_path / "nothing")
    assert answer.returncode == 3 and "case.json: cannot be read" in answer.stderr
