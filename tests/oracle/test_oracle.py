# SPDX-License-Identifier: GPL-2.0-or-later
"""The live oracle: random scripts of rule changes and packets, through the kernel's real IPVS and through the director."""

import collections
import itertools
import json
import shutil
import time
from pathlib import Path

import pytest

from differential import AT_ONCE, Differential, Result, compare, keep
from scripts import make_script
from shrink import shrink

ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"
SHRINK_SECONDS = 90


def test_random_scripts(oracle, request, figure):
    """Frames, picks, states, listings and statistics are the kernel's, but for what tests/golden/departures.md lists."""
    seed, seconds = request.config.getoption("--seed"), request.config.getoption("--seconds")
    trial, deadline = Differential(oracle), time.monotonic() + seconds
    scripts = frames_in = frames_out = 0
    departures = collections.Counter()
    failed: list[Result] = []
    late: list[Result] = []
    for first in itertools.count(seed, AT_ONCE):
        results = trial.run([make_script(n) for n in range(first, first + AT_ONCE)])
        scripts += len(results)
        for result in results:
            frames_in, frames_out = frames_in + result.frames_in, frames_out + result.frames_out
            departures.update(result.departures)
            if not result.wrong:
                shutil.rmtree(result.folder)
        failed = []
        for result in (result for result in results if result.wrong):
            # Eight guests share two cores: a timer may come a tick late. A difference of ours is there every time.
            again = [trial.run([result.script])[0] for _ in range(2)]
            (failed if all(other.wrong for other in again) else late).append(result)
        if failed or time.monotonic() > deadline:
            break
    known = ", ".join(f"{name} {count}" for name, count in sorted(departures.items())) or "none"
    figure(f"oracle: from seed {seed}: {scripts} scripts, {frames_in} frames in, {frames_out} frames out compared; known departures: {known}")
    if late:
        figure(f"oracle: differed once and not again: {', '.join(str(result.script['seed']) for result in late)}")
    if failed:
        small = trial.shrunk(failed[0], SHRINK_SECONDS)
        folder = ARTEFACTS / f"oracle-{small.script['seed']}"
        keep(small, folder)
        for other in failed[1:]:
            keep(other, ARTEFACTS / f"oracle-{other.script['seed']}")
        others = "".join(f"\nalso --seed {other.script['seed']}: {other.wrong}" for other in failed[1:])
        pytest.fail(f"--seed {small.script['seed']}: kept in {folder}, rules and what differs:\n"
                    + "\n".join(small.script["rules"]) + f"\n{small.wrong}{others}", pytrace=False)


def test_a_difference_is_seen(oracle):
    """The comparison would notice: one byte, one row, one count that isn't the kernel's."""
    result = next(r for r in Differential(oracle).run([make_script(seed) for seed in range(AT_ONCE)]) if r.frames_out > 3 and not r.wrong)
    for file, change in {
        "out.pcap": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        "conns.txt": lambda data: data + b"TCP 00:59  SYN_RECV    10.9.0.1:1          10.9.0.100:80      10.9.0.11:80\n",
        "stats.txt": lambda data: data.replace(b"  -> ", b"  -> 1", 1) if b"  -> 1" in data else data + b"x\n",
        "save.txt": lambda data: data + b"-A -t 10.9.0.100:9 -s rr\n",
    }.items():
        original = (result.folder / file).read_bytes()
        (result.folder / file).write_bytes(change(original))
        compare(result)
        assert result.wrong, file
        (result.folder / file).write_bytes(original)
    compare(result)
    assert not result.wrong


def test_a_seed_is_a_script():
    assert json.dumps(make_script(7)) == json.dumps(make_script(7)) != json.dumps(make_script(8))


@pytest.mark.parametrize("needed", [[0], [41], [3, 17], [0, 1, 40], list(range(42)), []])
def test_shrinking_finds_what_is_needed(needed):
    asked = []

    def fail(candidates):
        asked.extend(candidates)
        return [set(needed) <= set(candidate) for candidate in candidates]

    assert shrink(range(42), fail) == needed
    assert all(candidate == sorted(candidate) for candidate in asked)


def test_shrinking_ends_when_told():
    answers = iter([[True, False]])
    assert shrink(range(8), lambda candidates: next(answers)) == [4, 5, 6, 7]
