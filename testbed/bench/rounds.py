# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench: brings every contender's lab up, visits them all round after round, and takes everything away.

One lab a contender lives through all rounds (14 labs take 1 GB, building one takes seconds), so that A B C ... A B C ...
follow each other within seconds, and a busy moment of the machine hits all alike. Every round begins with another one.
"""

import contextlib
import datetime
import os
import platform
import secrets
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import cluster
import netns
import screen
from bench import report
from bench.contenders import CantRun, Contender, Director, make
from bench.works import LOADS, WORKS, Plan, Sample, make_bulk_file, switches, ticks, wrk
from cluster import FAILED, OK, LabError
from screen import say

FULL = Plan(seconds=2, size=1 << 30, idle=5)
QUICK = Plan(seconds=1, size=1 << 28, idle=3)
MOST_REQUESTS = 5000.0  # a second of paced.py: it is Python, and must not be what is measured
WARM_UP = 1  # second


@dataclass
class Row:
    work: str
    contender: str
    samples: list[float] = field(default_factory=list)
    why: str = ""
    others: list[float] = field(default_factory=list)  # processors other people's processes took, for each sample
    remarks: dict[str, list[float]] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    def as_json(self) -> dict:
        made = {"work": self.work, "contender": self.contender, "unit": WORKS[self.work].unit, "samples": self.samples}
        if self.samples:
            made |= {"median": self.median, "low": min(self.samples), "high": max(self.samples)}
        if self.why:
            made["why"] = self.why
        if self.others:
            made["others"] = self.others
        return made | self.remarks


class Clock:
    """How long is left: what has been done so far, and what the same things took."""

    def __init__(self, steps: list[tuple[object, float]]):
        self._left = list(steps)  # (kind, seconds as guessed)
        self._took: dict[object, list[float]] = {}
        self._began = time.monotonic()

    @contextlib.contextmanager
    def step(self, kind, words: str):
        self._left.remove(next(one for one in self._left if one[0] == kind))
        screen.progress(f"{self.left():>9}  {words}")
        began = time.monotonic()
        try:
            yield
        finally:
            self._took.setdefault(kind, []).append(time.monotonic() - began)

    def left(self) -> str:
        seconds = sum(statistics.mean(self._took[kind]) if kind in self._took else guess for kind, guess in self._left)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02} left"


class Bench:
    def __init__(self, names: list[str], works: list[str], rounds: int, plan: Plan, accelerate: str):
        self.names, self.works, self.rounds, self.plan, self.accelerate = names, works, rounds, plan, accelerate
        self.loads = [load for load, rows in LOADS.items() if set(rows) & set(works)]
        self.rows = {(work, name): Row(work, name) for work in works for name in names}
        self.made: list[Contender] = []
        self.others: list[float] = []
        self.shortcuts: dict[str, str] = {}  # of the director's contenders: "active", or why not
        self.decapsulators: list[str] = []
        guesses = {load: 1.2 * plan.seconds + 1.2 for load in self.loads}
        steps = [("up", 3.0)] * len(names) + [("warm", WARM_UP + 0.5)] * len(names)
        steps += [(load, guesses[load]) for load in self.loads] * len(names) * rounds
        steps += [("idle", plan.idle + min(3.0, plan.idle) + 1)] * rounds if "idle" in works else []
        self.clock = Clock(steps)

    def run(self) -> None:
        with contextlib.ExitStack() as labs:
            if {"bulk-down", "bulk-up", "cpu-per-gb"} & set(self.works):
                folder = labs.enter_context(tempfile.TemporaryDirectory(prefix="lab-bench-"))
                self.plan = replace(self.plan, file=make_bulk_file(Path(folder), self.plan.size))
            for name in self.names:
                self._bring_up(name, labs)
            self._warm_up()
            for number in range(self.rounds):
                self._round(number)
            screen.progress("taking the labs away")
        screen.progress("")

    # --- labs ---

    def _bring_up(self, name: str, labs: contextlib.ExitStack) -> None:
        with self.clock.step("up", f"lab for {name}"):
            try:
                made = make(name, f"bench{secrets.token_hex(2)}-{name}", self.accelerate)
                labs.callback(made.down)
                made.up()
            except (CantRun, LabError, netns.CommandFailed, netns.DeadlinePassed) as problem:
                self._give_up(name, str(problem))
                return
        self.made.append(made)
        if isinstance(made, Director):
            self.shortcuts[name] = made.no_shortcuts() or "active"
            if made.decapsulates():
                self.decapsulators.append(name)

    def _give_up(self, name: str, why: str) -> None:
        for (_, contender), row in self.rows.items():
            if contender == name:
                row.why = row.why or why
        screen.warn(f"{name}: {why}")

    def _warm_up(self) -> None:
        """Fills caches, and finds what half load is: half of what the slowest can."""
        rates = []
        for made in list(self.made):
            with self.clock.step("warm", f"warming up {made.name}"):
                try:
                    rates.append(wrk(made, WARM_UP)[0])
                except (CantRun, netns.CommandFailed) as problem:
                    self._give_up(made.name, str(problem))
                    self.made.remove(made)
        if rates:
            self.plan = replace(self.plan, request_rate=round(min(MOST_REQUESTS, min(rates) / 2), -2) or 100.0)

    # --- rounds ---

    def _round(self, number: int) -> None:
        turn = number % max(1, len(self.made))
        order = self.made[turn:] + self.made[:turn]
        for load in self.loads:
            for made in order:
                with self.clock.step(load, f"round {number + 1}/{self.rounds}  {LOADS[load][0]:<14} {made.name}"):
                    self._visit(load, made)
            for work in LOADS[load]:
                self._tell(number, work)
        if "idle" in self.works:
            with self.clock.step("idle", f"round {number + 1}/{self.rounds}  idle           all of them at once"):
                self._idle()
            self._tell(number, "idle")

    def _visit(self, load, made: Contender) -> None:
        rows = [self.rows[work, made.name] for work in LOADS[load] if work in self.works]
        if all(row.why for row in rows):  # it could not the first time
            return
        began = time.monotonic()
        try:
            sample = load(made, self.plan)
        except (CantRun, LabError, netns.CommandFailed, netns.DeadlinePassed, subprocess.TimeoutExpired) as problem:
            for row in rows:
                row.why = " ".join(str(problem).split())[:300]
            return
        took = time.monotonic() - began
        others = sample.spent.others / took
        self.others.append(others)
        for row in rows:
            self._keep(row, sample, others)

    @staticmethod
    def _keep(row: Row, sample: Sample, others: float) -> None:
        row.samples.append(sample.values[row.work])
        row.others.append(round(others, 2))
        for name, value in {**sample.remarks, "cpu": sample.spent.ours}.items():
            row.remarks.setdefault(name, []).append(value)

    def _idle(self) -> None:
        """All at once: nobody has anything to do. The director begins anew, without the timers of earlier connections."""
        waiting = []
        for made in self.made:
            row = self.rows["idle", made.name]
            if not made.processes():
                row.why = "no process forwards"
                continue
            if isinstance(made, Director):
                made.lab.stop_director()
                made.start()
            waiting.append((made, row))
        settled = time.monotonic() + min(3.0, self.plan.idle)  # it announces its addresses twice, a second apart
        netns.wait_until(lambda: time.monotonic() > settled, 5, "the last words of the start")
        before = [(switches(made), ticks(made)) for made, _ in waiting]
        began = time.monotonic()
        netns.wait_until(lambda: time.monotonic() > began + self.plan.idle, self.plan.idle + 5, "idleness")
        for (made, row), (switched, ticked) in zip(waiting, before):
            row.samples.append((switches(made) - switched) / (time.monotonic() - began))
            row.remarks.setdefault("ticks", []).append(ticks(made) - ticked)
        for made, _ in waiting:
            made.lab.wait_for(made.url)

    def _tell(self, number: int, work: str) -> None:
        if work not in self.works:
            return
        fresh = {name: row.samples[-1] for name in self.names if len((row := self.rows[work, name]).samples) > number}
        screen.progress("")
        say(report.line(f"{number + 1}/{self.rounds}", work, fresh))

    # --- what came out ---

    def result(self) -> dict:
        return {
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": machine() | {"others": round(statistics.median(self.others), 2) if self.others else 0},
            "director": version(),
            "build": cluster.BUILD.name,
            "shortcuts": self.shortcuts,
            "decapsulators": self.decapsulators,
            "rounds": self.rounds,
            "sample_seconds": self.plan.seconds,
            "bulk_mib": self.plan.size >> 20,
            "rows": [row.as_json() for row in self.rows.values()],
        }


def machine() -> dict:
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {"processors": os.cpu_count(), "model": model, "memory_gib": round(memory / 2**20, 1), "kernel": platform.release()}


def version() -> str:
    try:
        return subprocess.run([cluster.BUILD / "director", "--version"], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def main(options) -> int:
    plan = QUICK if options.quick else FULL
    if options.seconds:
        plan = replace(plan, seconds=options.seconds, idle=plan.idle if options.seconds >= 1 else options.seconds)
    if options.size:
        plan = replace(plan, size=options.size << 20)
    rounds = options.rounds or (1 if options.quick else 5)
    bench = Bench(options.contenders, options.only, rounds, plan, options.accelerate or "")
    interrupted = None
    try:
        with screen.step(f"{len(options.contenders)} contenders, {len(options.only)} works, {rounds} rounds"):
            bench.run()
    except KeyboardInterrupt as signal:  # the labs are gone by now; what was measured until then is told
        interrupted = signal
    result = bench.result()
    measured = any(row["samples"] for row in result["rows"])
    if measured or not interrupted:
        say()
        say(report.table(result))
        if options.json:
            report.write_json(result, options.json)
        if options.svg:
            report.write_chart(result, options.svg)
    if interrupted:
        raise interrupted
    return OK if measured else FAILED
