# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the core bench, and writes what it and the lab bench measured into RESULTS.md. Started by tests/bench/run."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import results  # noqa: E402  (from this folder)

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent.parent
BUILD = ROOT / "build-bench"
PROGRAM = BUILD / "core_bench"
LARGE = 10_000_000
QUICK = 1_000_000

# What instructions are counted of unless --filter says otherwise: the pieces, and each way through the balancer at 10 k flows.
COUNTED = r"^(parse|forward|find_service)/|^process/.*/flows:10000/"


def build() -> None:
    jobs = str(os.cpu_count() or 2)
    for command in (["cmake", "--preset", "bench"], ["cmake", "--build", str(BUILD), "-j", jobs, "--target", "core_bench"]):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{done.stdout[-5000:]}\ntests/bench/run: {' '.join(command)} failed")


def names(flows: int, pattern: str) -> list[str]:
    """The benches the pattern selects."""
    words = [PROGRAM, f"--flows={flows}", "--benchmark_list_tests", f"--benchmark_filter={pattern}"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return [re.sub(r"(/iterations:\d+|/repeats:\d+|/manual_time)+$", "", name) for name in listed]


def measure(flows: int, repetitions: int, seconds: float, pattern: str, out: Path) -> None:
    words = [
        PROGRAM, f"--flows={flows}", f"--benchmark_filter={pattern}", f"--benchmark_repetitions={repetitions}",
        f"--benchmark_min_time={seconds}", "--benchmark_display_aggregates_only=true", "--benchmark_counters_tabular=false",
        f"--benchmark_out={out}", "--benchmark_out_format=json", f"--benchmark_context=commit={results.Machine.here().commit}",
    ]  # fmt: skip
    if subprocess.run(words).returncode != 0:
        sys.exit("tests/bench/run: core_bench failed")


def count_instructions(pattern: str, keep: Path | None) -> dict[str, float]:
    """A packet's, by the bench's name. Under callgrind; core_bench has it count only the timed part of each batch, so there is no set-up
    to subtract."""
    counts = {}
    for name in names(10_000, pattern):
        profile = BUILD / "callgrind.out"
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            profile = keep / f"callgrind.{name.replace('/', '.').replace(':', '')}"
        words = [
            "valgrind", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no", f"--callgrind-out-file={profile}",
            PROGRAM, "--rounds=8", f"--benchmark_filter=^{name}(/|$)",
            f"--benchmark_out={BUILD / 'counted.json'}", "--benchmark_out_format=json",
        ]  # fmt: skip
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{done.stdout[-3000:]}\ntests/bench/run: {name} failed under callgrind")
        packets = json.loads((BUILD / "counted.json").read_text())["benchmarks"][0]["packets"]
        total = re.search(r"^totals: (\d+)", profile.read_text(), re.MULTILINE)
        counts[name] = int(total[1]) / packets
        print(f"{counts[name]:9.1f} instructions a packet   {name}", flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests/bench/run",
        description="Builds and runs the core bench, and writes tests/bench/RESULTS.md. A run takes some minutes and 5 GB of "
        "memory; --quick a minute and 1 GB, and writes nothing.",
    )
    parser.add_argument("--quick", action="store_true", help="no table above a million flows, fewer repetitions, no RESULTS.md")
    parser.add_argument("--filter", default=".", metavar="REGEX", help="only benches whose names match; no RESULTS.md")
    parser.add_argument("--repetitions", type=int, metavar="N", help="of each bench (default 5; --quick: 3)")
    parser.add_argument("--lab", type=Path, nargs="+", metavar="FILE.json", default=[],
                        help="also show what `testbed/lab bench --json FILE.json` measured")  # fmt: skip
    parser.add_argument("--core", type=Path, nargs="+", metavar="FILE.json",
                        help="show what earlier runs measured, instead of measuring; what is in several, is taken from the last")  # fmt: skip
    parser.add_argument("--instructions", action="store_true",
                        help="only count instructions a packet with callgrind, of the benches --filter selects; no RESULTS.md")  # fmt: skip
    parser.add_argument("--profiles", type=Path, metavar="FOLDER", help="with --instructions: keep callgrind's files, for callgrind_annotate")
    options = parser.parse_args()

    if options.core is None:
        build()
    if options.instructions:
        count_instructions(COUNTED if options.filter == "." else options.filter, options.profiles)
        return
    partial = options.quick or options.filter != "."
    core = options.core or [BUILD / ("part.json" if partial else "core.json")]
    if options.core is None:
        repetitions = options.repetitions or (3 if options.quick else 5)
        measure(QUICK if options.quick else LARGE, repetitions, 0.05 if options.quick else 0.1, options.filter, core[0])
    if partial:
        return
    if options.core is None:
        document = json.loads(core[0].read_text())
        document["instructions"] = count_instructions(COUNTED, None)
        core[0].write_text(json.dumps(document, indent=1))
    text = results.page(
        core=[json.loads(file.read_text()) for file in core],
        lab=[json.loads(file.read_text()) for file in options.lab],
        notes=results.read_notes(BENCH / "notes.md"),
        machine=results.Machine.here(),
    )
    (BENCH / "RESULTS.md").write_text(text)
    print(f"written: {(BENCH / 'RESULTS.md').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
