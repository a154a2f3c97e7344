#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Records what commands show on a terminal, as one SVG file: testbed/record.py FILE COMMAND...

Each COMMAND is a line for the shell. Lines appear as they did, but for pauses, which are cut short; where nothing may move, or
can, all of them are there from the start. The README's recordings are made with this.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from xml.sax.saxutils import escape

from svg import MONO, document

COLUMNS = 112
LETTER, LINE, MARGIN = 7.23, 17, 16
LONGEST_PAUSE = 1.0  # seconds
COLOURS = {"red": ("#c62828", "#ff7b72"), "green": ("#15803d", "#4ac26b"), "yellow": ("#9a6000", "#f2c14e")}
CLASSES = {"1": "bold", "2": "faint", "31": "red", "32": "green", "33": "yellow"}  # of the terminal's colours, screen.py's
STYLE = f"""
  text {{ font: 12px {MONO}; white-space: pre; animation: unseen var(--t) step-end; }}
  .bold {{ font-weight: 700; }} {" ".join(f".{name} {{ fill: var(--{name}); }}" for name in COLOURS)}
  @keyframes unseen {{ from, to {{ opacity: 0; }} }}
  @media (prefers-reduced-motion: reduce) {{ text {{ animation: none; }} }}
"""


def run(command: str) -> list[tuple[float, str]]:
    """Its lines, each with how long it took to come after the one before. What fails is not recorded."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    child = subprocess.Popen(command, shell=True, stdin=terminal, stdout=terminal, stderr=terminal,
                             env={**os.environ, "TERM": "xterm-256color"})
    os.close(terminal)
    lines, last = [], time.monotonic()
    with open(master, encoding="utf-8", errors="replace", newline="\n") as output:
        try:
            for line in output:
                now = time.monotonic()
                lines.append((now - last, line.rstrip("\r\n").rpartition("\r")[2]))  # what a carriage return wrote over is gone
                last = now
        except OSError:  # how a terminal says that nobody writes any more
            pass
    if child.wait() != 0:
        sys.exit(f"record: `{command}` ended with {child.returncode}")
    return lines


def pieces(line: str) -> list[tuple[int, str, str]]:
    """Where each piece of one colour begins, its class, and its text."""
    made, at, style = [], 0, ""
    for number, part in enumerate(re.split(r"\x1b\[([0-9;]*)[A-Za-z]", line)):
        if number % 2:  # a colour
            style = " ".join(CLASSES[code] for code in part.split(";") if code in CLASSES)
            continue
        for words in re.finditer(r"\S+(?: \S+)*", part):
            made.append((at + words.start(), style, words[0]))
        at += len(part)
    return made


def span(at: int, style: str, words: str) -> str:
    """At its column, whatever font the reader has."""
    attribute = f' class="{style}"' if style else ""
    return f'<tspan x="{MARGIN + at * LETTER:.5g}"{attribute}>{escape(words)}</tspan>'


def draw(lines: list[tuple[float, str]], label: str) -> str:
    shown, when = [], 0.0
    for number, (pause, line) in enumerate(lines):
        when += min(pause, LONGEST_PAUSE)
        if spans := [span(*piece) for piece in pieces(line)]:
            shown.append(f'<text y="{MARGIN + 11 + number * LINE}" style="--t:{when:.2f}s">{"".join(spans)}</text>')
    return document(2 * MARGIN + COLUMNS * LETTER, 2 * MARGIN + len(lines) * LINE, label, COLOURS, STYLE, shown)


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        print("usage: testbed/record.py FILE COMMAND...", file=sys.stderr)
        return 2
    file, *commands = argv
    lines: list[tuple[float, str]] = []
    for command in commands:
        lines += [(LONGEST_PAUSE, "")] if lines else []
        lines += [(0, f"\033[2m$\033[0m \033[1m{command}\033[0m"), *run(command)]
    Path(file).write_text(draw(lines, f"a terminal: {'; '.join(commands)}"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
