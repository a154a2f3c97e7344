# SPDX-License-Identifier: GPL-2.0-or-later
"""A traced request as a picture: a column for each node, an arrow for each wire a packet took, what changed marked.

An address has the colour of whom it leads to. Everything is made of the JSON form, as report.py is.
"""

import textwrap
from xml.sax.saxutils import escape

from svg import MONO, document, text
from tracing.report import Cell, Row, heading, rows, titles

MARGIN, GAP = 130, 40  # beside the outer columns; between an arrow's words and the columns
LETTER, LINE = 6.63, 16  # of the words at arrows: their width, and height
LABEL = 9  # letters: IP, TCP
NOTE, NOTE_LETTERS = 240, 38  # a remark's width
COLOURS = {"client": ("#1f63d6", "#74a7ff"), "director": ("#8438cf", "#c08bf7"), "router": ("#6b7280", "#a3adb9"),
           "server": ("#0b7a5b", "#3fcf9f"), "vip": ("#b4460c", "#ff9a5c"),
           "mark": ("#ffe68a", "#5c4a00"), "note": ("#f3f5f8", "#1b222b")}
STYLE = f"""
  .mono {{ font: 11px {MONO}; white-space: pre; }} .h1 {{ font-size: 16px; }}
  {" ".join(f".{name} {{ fill: var(--{name}); }}" for name in COLOURS)}
  .bold {{ font-weight: 600; }} .title {{ fill: var(--ink); }}
  .life {{ stroke: var(--line); stroke-width: 2; }} .arrow {{ stroke: var(--ink); stroke-width: 1.5; }} .head {{ fill: var(--ink); }}
  .box {{ fill: var(--paper); stroke-width: 1.5; stroke: var(--faint); }}
"""


def svg(result: dict) -> str:
    return _Drawing(result).document()


class _Drawing:
    """Goes down the page."""

    def __init__(self, result: dict):
        self.result, self.names = result, result["names"]
        hops = [hop for packet in result["packets"] for hop in packet["hops"]]
        letters = max((_letters(row) for hop in hops for row in rows(hop["headers"], self.names)), default=40)
        lane = letters * LETTER + GAP
        self.x = {node: MARGIN + at * lane for at, node in enumerate(result["nodes"])}
        self.width = max(2 * MARGIN + max(0, len(self.x) - 1) * lane, 640)
        self.y, self.parts = 64.0, [text(20, 30, heading(result), "h1 bold")]
        if result["error"]:
            self.parts.append(text(20, 48, result["error"], "vip"))

    def document(self) -> str:
        top = self._nodes()
        for packet in self.result["packets"]:
            self._packet(packet)
        lives = [f'<line class="life" x1="{x:g}" y1="{top:g}" x2="{x:g}" y2="{self.y:g}"/>' for x in self.x.values()]
        self.parts.append(self._legend(20, self.y + 24))
        label = f"sequence diagram of lab trace, {heading(self.result)}"
        return document(self.width, self.y + 42, label, COLOURS, STYLE, [*lives, *self.parts])

    def _legend(self, x: float, y: float) -> str:
        told = "since the hop before. An address has the colour of the node it leads to, or of the VIP."
        return (f'<rect class="mark" x="{x:g}" y="{y - 11:g}" width="58" height="15" rx="3"/>'
                + text(x + 4, y, "changed", "small bold") + text(x + 66, y, told, "small faint"))

    def _nodes(self) -> float:
        """Their boxes; returns where their lines begin."""
        height = 26 + LINE * max(map(len, self.result["nodes"].values()), default=0)
        for node, addresses in self.result["nodes"].items():
            x = self.x[node]
            self.parts.append(f'<rect class="box" x="{x - 124:g}" y="{self.y:g}" width="248" height="{height}" rx="6"/>')
            self.parts.append(text(x, self.y + 19, node, f"h2 middle {_owner(node)}"))
            for line, (_, address, *mac) in enumerate(addresses):
                words = "  ".join([address, *mac]) if mac else f"VIP {address}"
                self.parts.append(text(x, self.y + 35 + line * LINE, words, f"mono middle {_owner(node) if mac else 'vip'}"))
        self.y += height
        return self.y

    def _packet(self, packet: dict) -> None:
        title, meaning = titles(packet)
        self.y += 34
        self.parts.append(f'<line class="rule" x1="0" y1="{self.y - 20:g}" x2="{self.width:g}" y2="{self.y - 20:g}"/>')
        self.parts.append(f'<text x="20" y="{self.y:g}" class="faint"><tspan class="h2 title">{title}</tspan>'
                          f' &#160;{escape(meaning)}</text>')
        self.y += 10
        for before, hop in zip([None, *packet["hops"]], packet["hops"]):
            if before and before["node"] != hop["node"]:
                self._arrow(before, hop)
            if said := [words for words in (hop["says"], hop.get("ends")) if words]:
                self._note(hop["node"], said, "" if packet["arrived"] or hop is not packet["hops"][-1] else " vip")

    def _arrow(self, before: dict, hop: dict) -> None:
        start, end = self.x[before["node"]], self.x[hop["node"]]
        frame = rows(before["headers"], self.names)
        left = (start + end) / 2 - max(map(_letters, frame)) * LETTER / 2
        self.y += 4
        for row in frame:
            self.y += LINE
            self._row(left, row, before)
        tip = -1 if end > start else 1
        self.y += 9
        self.parts.append(f'<line class="arrow" x1="{start:g}" y1="{self.y:g}" x2="{end + 6 * tip:g}" y2="{self.y:g}"/>'
                          f'<path class="head" d="M{end:g} {self.y:g} l{9 * tip} -4.5 v9 z"/>')
        self.y += LINE
        at = left
        for cell in (number for row in frame for number in row.numbers):
            at += self._words(at, cell, before, "faint") + 2 * LETTER
        self.y += 6

    def _row(self, x: float, row: Row, hop: dict) -> None:
        wide = _letters(row) * LETTER + 6
        self.parts.append(f'<rect class="paper" x="{x - 3:.5g}" y="{self.y - 12:g}" width="{wide:.5g}" height="16"/>')
        self.parts.append(text(x, self.y, row.label, "mono faint"))
        x += LABEL * LETTER
        x += self._words(x, row.source, hop, _owner(row.source.name)) + LETTER
        self.parts.append(text(x, self.y, ">", "mono faint"))
        self._words(x + 2 * LETTER, row.target, hop, _owner(row.target.name))

    def _words(self, x: float, cell: Cell, hop: dict, style: str) -> float:
        """Returns how wide they are, whatever font the reader has."""
        wide = len(cell.text) * LETTER
        ground, weight = ("mark", " bold") if cell.changed(hop) else ("paper", "")
        self.parts.append(f'<rect class="{ground}" x="{x - 3:.5g}" y="{self.y - 12:g}" width="{wide + 6:.5g}" height="15.5" '
                          'rx="3"/>')
        self.parts.append(text(x, self.y, cell.text, f"mono {style}{weight}", f' textLength="{wide:.5g}"'))
        return wide

    def _note(self, node: str, said: list[str], style: str) -> None:
        lines = [line for words in said for line in textwrap.wrap(words, NOTE_LETTERS)]
        x = self.x[node]
        height = 14 * len(lines) + 9
        self.y += 6
        self.parts.append(f'<rect class="note" x="{x - NOTE / 2:g}" y="{self.y:g}" width="{NOTE}" height="{height}" rx="5"/>')
        for line in lines:
            self.y += 14
            self.parts.append(text(x, self.y, line, f"small middle{style}"))
        self.y += 9


def _letters(row: Row) -> int:
    return LABEL + len(row.source.text) + 3 + len(row.target.text)


def _owner(name: str) -> str:
    """The class of its colour."""
    return name.rstrip("0123456789").lower()
