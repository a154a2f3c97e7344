# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine's processors spent: all of it (/proc/stat), and the part that other people's processes took.

The whole machine, since most of what forwarding costs is nobody's process: the kernel does it in interrupts. Whatever ran
beside the bench is taken off again, as far as /proc tells; what it disturbed in the caches stays.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
PROCESSORS = os.sysconf("SC_NPROCESSORS_ONLN")
_KERNEL_THREADS = 2  # kthreadd


def machine_busy() -> float:
    """Seconds all processors together were not idle, from some moment on.

    By what is left of the time when idle, iowait and steal (proc(5)) are taken off: idle time is measured by the kernel, while what
    it says of user, system and interrupts is what the timer's ticks happened to meet, and misses work that comes between them.
    """
    words = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return PROCESSORS * time.monotonic() - TICK * (words[3] + words[4] + words[7])


def _processes() -> dict[int, tuple[int, int]]:
    """Of every process its parent and its ticks, with those of children that have ended."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                words = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                found[int(entry)] = int(words[1]), sum(map(int, words[11:15]))
    return found


def others_busy() -> float:
    """Seconds of processes that are neither ours (children of this one, at any distance) nor the kernel's."""
    processes = _processes()
    ours: dict[int, bool] = {os.getpid(): True, _KERNEL_THREADS: True, 0: False}

    def is_ours(pid: int) -> bool:
        if pid not in ours:
            ours[pid] = False  # against a loop
            ours[pid] = pid in processes and is_ours(processes[pid][0])
        return ours[pid]

    return TICK * sum(ticks for pid, (_, ticks) in processes.items() if not is_ours(pid))


@dataclass
class Meter:
    """with Meter() as spent: ...; then spent.ours, spent.others: processor seconds."""

    ours: float = 0
    others: float = 0

    def __enter__(self) -> "Meter":
        self._before = machine_busy(), others_busy()
        return self

    def __exit__(self, *_) -> None:
        busy, others = machine_busy() - self._before[0], others_busy() - self._before[1]
        self.others = max(0.0, others)
        self.ours = max(0.0, busy - self.others)
