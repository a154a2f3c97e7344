# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's real IPVS as an ordinary process: boots Debian's user-mode-linux, gives it cases to run, ends it.

The host's own file system is its root, read-only; one folder of the host is where it may write. No privilege is needed.
"""

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = "linux.uml"
BOOT_SECONDS, CASE_SECONDS = 60, 60


class Unavailable(Exception):
    """This machine has no user-mode kernel, or can't run it: says why."""


class Broken(Exception):
    """The kernel ended or fell silent in the middle of a case."""


class Oracle:
    """with Oracle() as oracle: oracle.run(oracle.work / "case-1")"""

    def __init__(self) -> None:
        self.folder = self.process = None

    def __enter__(self) -> "Oracle":
        if (why := lacking()) is not None:
            raise Unavailable(why)
        self.folder = Path(tempfile.mkdtemp(prefix="director-oracle-"))
        self.work = self.folder / "work"
        self.work.mkdir()
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._end()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *cases: Path) -> None:
        """Runs the scripts in `cases`, folders below `work`, at the same time; they become capture cases, or there is an error.txt.

        Boots again when the last ones broke the kernel.
        """
        if self.process is None:
            self._boot()
        try:
            self._tell(" ".join(case.relative_to(self.work).as_posix() for case in cases))
            self._hear(CASE_SECONDS)
        except Broken:
            self._end()
            raise

    def _boot(self) -> None:
        (self.folder / "uml").mkdir(exist_ok=True)
        theirs_in, self.orders = os.pipe()
        self.answers, theirs_out = os.pipe()
        self.heard = b""
        argv = [PROGRAM, "mem=256M", "rootfstype=hostfs", "rootflags=/", "ro", f"init={HERE / 'guest.py'}", "quiet",
                f"uml_dir={self.folder / 'uml'}", "con=null", "con0=null,fd:1", f"con1=fd:{theirs_in},fd:{theirs_out}",
                f"oracle_work={self.work}", f"oracle_lib={HERE}"]
        with (self.folder / "console.log").open("wb") as log:
            # A session of its own: its helper processes end with its group.
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                            pass_fds=[theirs_in, theirs_out], env={**os.environ, "TMPDIR": str(self.folder)})
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            if (answer := self._hear(BOOT_SECONDS)) != "ready":
                raise Broken(answer)
        except Broken as error:
            log = (self.folder / "console.log").read_text(errors="replace")
            self._end()
            raise Unavailable(f"user-mode-linux does not boot: {error}: {log[-800:].strip()}") from None

    def _tell(self, line: str) -> None:
        try:
            os.write(self.orders, line.encode() + b"\n")
        except BrokenPipeError:
            raise Broken("the kernel has ended") from None

    def _hear(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while b"\n" not in self.heard:
            if not select.select([self.answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Broken(f"the kernel said nothing for {seconds} s")
            if not (more := os.read(self.answers, 4096)):
                raise Broken("the kernel has ended")
            self.heard += more
        line, self.heard = self.heard.split(b"\n", 1)
        return line.decode(errors="replace").strip()

    def _end(self) -> None:
        if self.process is None:
            return
        try:
            self._tell("end")
            self.process.wait(5)
        except (Broken, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.orders)
        os.close(self.answers)
        self.process = None


def lacking() -> str | None:
    """Why there can be no oracle here; None if nothing speaks against it."""
    for program, package in ((PROGRAM, "user-mode-linux"), ("/sbin/ipvsadm", "ipvsadm"), ("/usr/bin/python3", "python3"), ("ip", "iproute2")):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"{program} is missing (package {package})"
    return None
