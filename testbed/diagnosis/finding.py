# SPDX-License-Identifier: GPL-2.0-or-later
"""What `lab doctor` found, of the machine or of a lab: one line. Pure."""

from dataclasses import dataclass

from screen import BAD, GOOD, GREEN, RED, WARN, YELLOW, paint


@dataclass(frozen=True)
class Finding:
    what: str
    state: str  # ok, warn, fail
    note: str = ""
    cure: str = ""  # a command to type

    def line(self) -> str:
        mark, colour = {"ok": (GOOD, GREEN), "warn": (WARN, YELLOW), "fail": (BAD, RED)}[self.state]
        return f" {paint(mark, colour)} {self.what:<28}{self.note}{': ' if self.cure else ''}{self.cure}".rstrip()


def ok(note: str) -> Finding:
    """`what` is filled in by the table in live.py."""
    return Finding("", "ok", note)


def fail(note: str, cure: str = "") -> Finding:
    return Finding("", "fail", note, cure)


def warn(note: str, cure: str = "") -> Finding:
    return Finding("", "warn", note, cure)
