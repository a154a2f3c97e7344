# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the rungs of the ladder (tests/README.md), one after another, and adds up what they say.

Started by tests/run, which has made sure of the packages. Every rung runs although an earlier one failed. Those that compute for
long run beside the end-to-end tests, which mostly wait, and get what those leave of the processors.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from dataclasses import asdict, dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
ARTEFACTS = TESTS / "artefacts"
sys.path[:0] = [str(ROOT / "testbed"), str(TESTS / "e2e")]
sys.dont_write_bytecode = True

import docker_engine  # noqa: E402  (found only now)
import private  # noqa: E402

CI = os.environ.get("CI") == "true"
EXPECTED_SKIPS = TESTS / "expected-skips.txt"
DOCKER = "test_docker_*.py"  # of tests/e2e, a rung of their own
JOBS = str(os.cpu_count() or 2)
WAIT_MOSTLY = ("platform", "oracle", "e2e")
COMPUTE_BESIDE_THEM = ("asan", "fuzz", "image")


@dataclass
class Tally:
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # name: reason

    def add(self, other: "Tally") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped |= other.skipped

    def line(self) -> str:
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def call(*argv: str, **options) -> int:
    return subprocess.run([str(word) for word in argv], cwd=ROOT, **options).returncode


def from_junit(file: Path, rung: str) -> Tally:
    """ctest and pytest both write what happened to each test in this form."""
    tally = Tally()
    for case in xml.parse(file).iter("testcase"):
        name = f"{rung}: {case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            tally.failed.append(name)
        elif (skip := case.find("skipped")) is not None or case.get("status") in ("notrun", "disabled"):
            tally.skipped[name] = (skip.get("message") if skip is not None else None) or "not run"
        else:
            tally.passed += 1
    return tally


# --- rungs ---


def build(preset: str, folder: str, target: str = "all", tests: bool = True) -> bool:
    words = ["cmake", "--preset", preset, *(["-D", "DIRECTOR_TESTS=ON"] if tests else [])]
    configured = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if configured.returncode != 0:
        print(configured.stdout[-3000:] + configured.stderr[-3000:])
        return False
    return call("cmake", "--build", folder, "-j", JOBS, "--target", target) == 0


def ctest(preset: str, folder: str, target: str = "all", environment: dict[str, str] | None = None) -> Tally:
    rung = Path(folder).name
    if not build(preset, folder, target):
        return Tally(failed=[f"{rung}: build"])
    reports = ARTEFACTS / rung  # each program of GoogleTest's writes its own, NAME.xml, if it lives to its end
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    summary, log = reports / "ctest", reports / "log"
    with log.open("w") as output:
        code = call("ctest", "--test-dir", folder, "-j", JOBS, "--output-on-failure", "--no-tests=error", "--output-junit", summary,
                    stdout=output, stderr=output, env={**os.environ, "GTEST_OUTPUT": f"xml:{reports}/", **(environment or {})})
    if code != 0:
        print(log.read_text(errors="replace")[-8000:])
    tally = from_junit(summary, rung) if summary.exists() else Tally()  # of the programs: each came to its end, and leaked nothing
    for report in sorted(reports.glob("*.xml")):
        tally.add(from_junit(report, rung))
    if code != 0 and not tally.failed:
        tally.failed.append(f"{rung}: ctest ended with {code}")
    return tally


def pytest(rung: str, *words: str) -> Tally:
    report = ARTEFACTS / f"{rung}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-ra", "--durations=5", f"--junitxml={report}", *words]
    environment = dict(os.environ)
    if private.needed():
        command, environment = private.wrap(command)
    code = call(*command, env=environment)
    tally = from_junit(report, rung) if report.exists() else Tally()
    if code not in (0, 5) and not tally.failed:  # 5: no test was collected
        tally.failed.append(f"{rung}: pytest ended with {code}")
    if code == 5:
        tally.failed.append(f"{rung}: no tests found")
    return tally


def house() -> Tally:
    return pytest("house", "tests/test_house.py", "tests/test_compatibility.py")


def unit() -> Tally:
    return ctest("dev", "build")


def asan() -> Tally:
    options = "abort_on_error=0:detect_leaks=1:strict_string_checks=1"
    return ctest("asan", "build-asan", "tests", {"ASAN_OPTIONS": options, "UBSAN_OPTIONS": "print_stacktrace=1"})


def fuzz(seconds: int) -> Tally:
    """Every libFuzzer target for a bounded time, from its corpus; what it finds stays in tests/artefacts."""
    if not build("asan", "build-asan", "fuzzers"):
        return Tally(failed=["fuzz: build"])
    targets = sorted(path for path in (ROOT / "build-asan").rglob("fuzz_*") if path.is_file() and os.access(path, os.X_OK))
    if not targets:
        return Tally(failed=["fuzz: no targets found"])
    tally = Tally()
    for target in targets:
        corpus, fresh = TESTS / "fuzz" / "corpus" / target.name.removeprefix("fuzz_"), ARTEFACTS / "corpus" / target.name
        fresh.mkdir(parents=True, exist_ok=True)
        log = ARTEFACTS / f"{target.name}.log"
        seeds = [corpus] if corpus.is_dir() else []
        with log.open("w") as output:
            code = call(target, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                        f"-artifact_prefix={ARTEFACTS}/{target.name}-", fresh, *seeds, stdout=output, stderr=output)
        words = log.read_text(errors="replace")
        runs = re.search(r"number_of_executed_units:\s*(\d+)", words)
        coverage = re.findall(r"cov: (\d+)", words)
        print(f"  {target.name:<24} {runs[1] if runs else '?':>10} inputs   coverage {coverage[-1] if coverage else '?'}"
              f"   {'ok' if code == 0 else 'FAILED'}", flush=True)
        if code == 0:
            tally.passed += 1
        else:
            print(words[-4000:])
            tally.failed.append(f"fuzz: {target.name}")
    return tally


def platform() -> Tally:
    return pytest("platform", "tests/platform")


def e2e(*words: str) -> Tally:
    if not build("dev", "build"):
        return Tally(failed=["e2e: build"])
    return pytest("e2e", "tests/e2e", f"--ignore-glob=*/{DOCKER}", *words)


def oracle(seconds: int, seed: int | None) -> Tally:
    """Random scripts through the kernel's IPVS in user-mode-linux and through the director, for a bounded time."""
    if not build("dev", "build", "golden_compare"):
        return Tally(failed=["oracle: build"])
    return pytest("oracle", "tests/oracle", f"--seconds={seconds}", *([] if seed is None else [f"--seed={seed}"]))


def image() -> Tally:
    """Makes the image, where an engine can: what takes long of the docker rung."""
    try:
        with docker_engine.engine_for_labs():
            return Tally(1)
    except docker_engine.NoEngine:
        return Tally()  # the docker rung says why
    except RuntimeError as why:
        print(why)
        return Tally(failed=["image: build"])


def docker() -> Tally:
    if not build("dev", "build"):
        return Tally(failed=["docker: build"])
    return pytest("docker", *sorted(str(file.relative_to(ROOT)) for file in (TESTS / "e2e").glob(DOCKER)))


def bench() -> Tally:
    """Does the core bench still build, and measure? One short round of everything small; tests/bench/run says how long things take."""
    if not build("bench", "build-bench", "core_bench", tests=False):
        return Tally(failed=["bench: build"])
    report = ARTEFACTS / "bench.json"
    report.unlink(missing_ok=True)
    code = call(ROOT / "build-bench" / "core_bench", "--flows=10000", "--rounds=2", "--benchmark_min_time=0.001",
                "--benchmark_filter=-apply/.*services:10000/", f"--benchmark_out={report}", "--benchmark_out_format=json", stdout=subprocess.DEVNULL)
    runs = json.loads(report.read_text())["benchmarks"] if code == 0 else []
    broken = [f"bench: {run['name']}: {run['error_message']}" for run in runs if run.get("error_occurred")]
    if code != 0 or not runs:
        broken.append(f"bench: core_bench ended with {code}")
    return Tally(len(runs) - len(broken) if runs else 0, broken)


# --- rungs beside others ---


class Beside:
    """Rungs run by another runner with the lowest priority, until finish() or the end of the block."""

    def __init__(self, words: list[str]):
        self.report, self.log = ARTEFACTS / "beside.json", ARTEFACTS / "beside.log"
        self.report.unlink(missing_ok=True)
        with self.log.open("w") as output:
            self.process = subprocess.Popen([sys.executable, __file__, *words, "--tally", str(self.report)], stdin=subprocess.DEVNULL,
                                            stdout=output, stderr=output, preexec_fn=self._yield_to_others)

    @staticmethod
    def _yield_to_others() -> None:
        """Where the scheduler takes a session as one (autogroup), the priorities within it say nothing to others: the session's is set too."""
        os.setsid()
        os.nice(19)
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text("19")

    def finish(self) -> Tally:
        code = self.process.wait()
        print(self.log.read_text(errors="replace"), end="", flush=True)
        return Tally(**json.loads(self.report.read_text())) if code == 0 else Tally(failed=[f"the runner beside ended with {code}"])

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *why) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()


# --- the whole ---


def unexpected_skips(tally: Tally) -> list[str]:
    """On the CI machine everything can run, but what the list says; a line is a regular expression for `name: reason`."""
    lines = [line.split("#")[0].strip() for line in EXPECTED_SKIPS.read_text().splitlines()]
    expected = [re.compile(line) for line in lines if line]
    skips = [f"{name}: {reason}" for name, reason in tally.skipped.items()]
    return [skip for skip in skips if not any(pattern.search(skip) for pattern in expected)]


def main() -> int:
    rungs = {"house": house, "unit": unit, "platform": platform, "oracle": oracle, "e2e": e2e, "asan": asan, "fuzz": fuzz, "image": image,
             "docker": docker, "bench": bench}
    left_out = {"bench"}  # of a run of all: what it says is no judgement
    parser = argparse.ArgumentParser(prog="tests/run", description="Runs the tests: all rungs, or those named.")
    parser.add_argument("rungs", nargs="*", metavar="RUNG", help=f"{', '.join(rungs)}; of them only when named: {', '.join(left_out)}")
    parser.add_argument("-k", help="e2e: only tests whose names match")
    parser.add_argument("--fuzz-seconds", type=int, default=20, help="for each target (default 20)")
    parser.add_argument("--oracle-seconds", type=int, default=60, help="of random scripts (default 60)")
    parser.add_argument("--oracle-seed", type=int, help="of the first script (default 1)")
    parser.add_argument("--tally", type=Path, help=argparse.SUPPRESS)  # only count, into this file, for the runner that started this one
    options = parser.parse_args()
    if unknown := set(options.rungs) - set(rungs):
        parser.error(f"no such rung: {', '.join(unknown)}; there are {', '.join(rungs)}")
    rungs["fuzz"] = lambda: fuzz(options.fuzz_seconds)
    rungs["oracle"] = lambda: oracle(options.oracle_seconds, options.oracle_seed)
    if options.k:
        rungs["e2e"] = lambda: e2e("-k", options.k)

    ARTEFACTS.mkdir(exist_ok=True)
    total, started = Tally(), time.monotonic()
    wanted = options.rungs or [rung for rung in rungs if rung not in left_out]
    beside = [rung for rung in COMPUTE_BESIDE_THEM if rung in wanted and "e2e" in wanted]
    first_to_wait = next((rung for rung in wanted if rung in WAIT_MOSTLY), None)
    with contextlib.ExitStack() as stack:
        for rung in wanted:
            if rung in beside:
                continue
            if rung == first_to_wait and beside:
                others = stack.enter_context(Beside([*beside, f"--fuzz-seconds={options.fuzz_seconds}"]))
            print(f"\n=== {rung} ===", flush=True)
            began = time.monotonic()
            tally = rungs[rung]()
            print(f"--- {rung}: {tally.line()} in {time.monotonic() - began:.0f} s", flush=True)
            total.add(tally)
            if rung == "e2e" and beside:
                total.add(others.finish())

    if options.tally:
        options.tally.write_text(json.dumps(asdict(total)))
        return 0
    print()
    for name in total.failed:
        print(f"FAILED  {name}")
    for name, reason in total.skipped.items():
        print(f"skipped {name}: {reason}")
    if CI:
        for skip in unexpected_skips(total):
            print(f"FAILED  skipped, though not in {EXPECTED_SKIPS.name}: {skip}")
            total.failed.append(skip)
    print(f"{total.line()}, in {time.monotonic() - started:.0f} s")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
