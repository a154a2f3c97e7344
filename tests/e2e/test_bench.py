# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab bench` measures all it is asked for, writes files that can be read, and leaves nothing. No figure is judged."""

import json
import os
import signal
import subprocess
import xml.etree.ElementTree as xml

import pytest

import bench.contenders
import bench.works
import cluster
import netns
from conftest import PRIVATE
from test_lab import LAB

CONTENDERS = ("none", "haproxy", "dr-packet")
WORKS = list(bench.works.WORKS)
# These samples are as long as the shortest one wrk can make; nothing is to be read from their figures.
SMALL = ("--rounds", "1", "--seconds", "0.2", "--size", "16")
ENVIRONMENT = {**os.environ, "DIRECTOR_BUILD": str(cluster.BUILD)}


def left() -> list[str]:
    return [name for name in [*netns.namespaces(), *cluster.Lab.names()] if name.startswith("bench")]


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("bench")
    answer = subprocess.run([LAB, "bench", *SMALL, "--contenders", ",".join(CONTENDERS), "--json", folder / "figures.json",
                             "--svg", folder / "chart.svg"], capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert left() == []
    figures = json.loads((folder / "figures.json").read_text())
    return figures | {"told": answer.stdout, "chart": xml.parse(folder / "chart.svg").getroot()}


def test_every_work_and_contender_has_a_row(result):
    assert [(row["work"], row["contender"]) for row in result["rows"]] == [(work, name) for work in WORKS for name in CONTENDERS]
    assert result["rounds"] == 1 and result["date"] and result["machine"]["processors"] >= 1


def test_a_row_has_its_samples_or_says_why_not(result):
    for row in result["rows"]:
        if row["samples"]:
            assert row["low"] <= row["median"] <= row["high"] and row["unit"] == bench.works.WORKS[row["work"]].unit, row
        else:
            assert row["why"], row


def test_who_can_do_a_work_has_done_it(result):
    lacking = {(row["work"], row["contender"]): row["why"] for row in result["rows"] if not row["samples"]}
    assert set(lacking) == {("udp-small", "haproxy"), ("cpu-per-packet", "haproxy"), ("idle", "none"), ("start", "none"),
                            ("start", "haproxy")}, lacking


def test_the_table_and_the_chart_name_them_all(result):
    drawn = "".join(text.text or "" for text in result["chart"].iter("{http://www.w3.org/2000/svg}text"))
    for name in CONTENDERS:
        assert name in result["told"] and name in drawn
    for work in WORKS:
        assert f"\n{work}: " in result["told"]


def test_an_unknown_work_is_refused():
    answer = subprocess.run([LAB, "bench", "--only", "juggling"], capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert answer.returncode == 2 and "juggling" in answer.stderr and "http-kept" in answer.stderr


@pytest.mark.skipif(PRIVATE, reason="another bench's namespaces would be seen")
def test_a_contender_that_cannot_run_is_a_row(tmp_path):
    """There is no director at all here; the others are measured."""
    file = tmp_path / "figures.json"
    answer = subprocess.run([LAB, "bench", *SMALL, "--only", "http-kept", "--contenders", "routing,nat-packet", "--json", file],
                            capture_output=True, text=True, timeout=60, env={**os.environ, "DIRECTOR_BUILD": "/nonexistent"})
    assert answer.returncode == 0, answer.stderr
    rows = {row["contender"]: row for row in json.loads(file.read_text())["rows"]}
    assert "director is missing" in rows["nat-packet"]["why"]
    assert left() == []


def test_an_interrupted_bench_leaves_nothing():
    process = subprocess.Popen([LAB, "bench", "--contenders", "nft"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=ENVIRONMENT)
    netns.wait_until(lambda: PRIVATE or left(), 20, "its first lab")
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 130, out + error
    assert left() == []
