# SPDX-License-Identifier: GPL-2.0-or-later
"""The same scripts through the kernel's IPVS and through the director: run, compare, shrink what differs, keep it."""

import contextlib
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from shrink import shrink
from uml import Broken, Oracle

ROOT = Path(__file__).resolve().parents[2]
COMPARE = ROOT / "build" / "golden_compare"
AT_ONCE = 8  # scripts, in one user-mode kernel


@dataclass
class Result:
    script: dict
    folder: Path
    frames_in: int = 0
    frames_out: int = 0
    departures: dict[str, int] = field(default_factory=dict)
    wrong: str = ""  # empty: the director does what the kernel did
    impossible: bool = False  # the kernel did not run the script to its end: `wrong` says why

    @property
    def differs(self) -> bool:
        return bool(self.wrong) and not self.impossible


class Differential:
    def __init__(self, oracle: Oracle):
        self.oracle, self.number = oracle, 0

    def run(self, scripts: list[dict]) -> list[Result]:
        """Of every script what came of it, in order."""
        results = []
        for first in range(0, len(scripts), AT_ONCE):
            results += self._run_some(scripts[first:first + AT_ONCE])
        return results

    def _run_some(self, scripts: list[dict]) -> list[Result]:
        results = [Result(script, self._write(script)) for script in scripts]
        broken = ""
        try:
            self.oracle.run(*(result.folder for result in results))
        except Broken as error:
            broken = f"the user-mode kernel: {error}"
        for result in results:
            if (error := result.folder / "error.txt").exists() or broken:
                result.wrong, result.impossible = error.read_text() if error.exists() else broken, True
            else:
                compare(result)
        return results

    def _write(self, script: dict) -> Path:
        self.number += 1
        folder = self.oracle.work / f"case-{self.number}"
        folder.mkdir()
        (folder / "script.json").write_text(json.dumps(script))
        (folder / "rules").write_text("".join(f"{line}\n" for line in script["rules"]))
        (folder / "case.json").write_text(json.dumps(script["case"], indent=1) + "\n")
        return folder

    def shrunk(self, failed: Result, seconds: float) -> Result:
        """The smallest script of its kind that still differs, found in that time."""
        deadline, best = time.monotonic() + seconds, failed

        def failing(part: str):
            def ask(candidates: list[list]) -> list[bool]:
                nonlocal best
                answers = []
                for first in range(0, len(candidates), AT_ONCE):
                    if time.monotonic() > deadline:
                        raise StopIteration
                    tried = self.run([best.script | {part: items} for items in candidates[first:first + AT_ONCE]])
                    worse = next((result for result in tried if result.differs), None)
                    answers += [result.differs for result in tried]
                    if worse is not None:
                        best = worse
                        return answers + [False] * (len(candidates) - len(answers))
                return answers
            return ask

        for part in ("steps", "rules"):
            shrink(best.script[part], failing(part))
        return best


def compare(result: Result) -> None:
    answer = subprocess.run([COMPARE, "--json", "--known-departures", result.folder], capture_output=True, text=True)
    if answer.returncode not in (0, 1):
        result.wrong = answer.stderr
        return
    told = json.loads(answer.stdout)
    result.frames_in, result.frames_out, result.departures = told["frames_in"], told["frames_out"], told["departures"]
    result.wrong = "\n".join(f"{difference['where']}\n{difference['text']}" for difference in told["differences"])


def keep(result: Result, folder: Path) -> None:
    """As a capture case, which may be copied into tests/golden as it is."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(result.folder, folder)
    with contextlib.suppress(FileNotFoundError):
        (folder / "error.txt").unlink()
    (folder / "differences.txt").write_text(result.wrong)
