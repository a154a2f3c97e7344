# SPDX-License-Identifier: GPL-2.0-or-later
"""How the lab talks: colours, ticks, bars. Plain text when piped, with NO_COLOR, or with TERM=dumb.

Results go to standard output, progress to standard error.
"""

import os
import sys
import time
from contextlib import contextmanager


def _colours(stream) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


GOOD, BAD, WARN, BAR = ("✓", "✗", "!", "█") if _unicode() else ("ok", "FAILED", "!", "#")
GREEN, RED, YELLOW, BOLD, FAINT = "32", "31", "33", "1", "2"


def paint(text: str, colour: str, stream=None) -> str:
    return f"\033[{colour}m{text}\033[0m" if _colours(stream or sys.stdout) else text


def say(text: str = "") -> None:
    print(text, flush=True)


def tell(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def done(text: str, seconds: float | None = None) -> None:
    took = f"{seconds:6.1f} s" if seconds is not None else ""
    tell(f" {paint(GOOD, GREEN, sys.stderr)} {text:<58}{took}".rstrip())


def warn(text: str) -> None:
    tell(f" {paint(WARN, YELLOW, sys.stderr)} {text}")


def progress(text: str) -> None:
    """A line that the next one takes the place of, and "" takes away; only where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:os.get_terminal_size(sys.stderr.fileno()).columns - 1]}", end="", file=sys.stderr, flush=True)


@contextmanager
def step(text: str):
    """A tick and the time it took, when it is over; the caller reports what went wrong."""
    started = time.monotonic()
    yield
    done(text, time.monotonic() - started)


def spread(counts: dict[str, int], width: int = 12) -> str:
    """server1 ████ 4   server2 ████ 4"""
    most = max(counts.values(), default=0)
    longest = min(width, most)
    parts = []
    for name, count in sorted(counts.items(), key=lambda item: (len(item[0]), item[0])):
        bar = BAR * (round(count * longest / most) if most else 0)
        parts.append(f"{name} {paint(bar, GREEN)} {count}")
    return "   ".join(parts)
