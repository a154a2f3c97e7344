# SPDX-License-Identifier: GPL-2.0-or-later
"""A traced request as text: a block for each packet, a few lines for each hop. What changed has a * and a colour.

Everything is made of the JSON form, which trace() of request.py returns.
"""

import textwrap
from dataclasses import dataclass

from scenarios import METHOD_NAME
from screen import BOLD, FAINT, RED, YELLOW, paint
from topology import in_url
from tracing.words import ttl_word

TITLES = {
    "syn": ("SYN", "may I open a connection?"),
    "syn-ack": ("SYN+ACK", "yes, and may I?"),
    "request": ("request", "the first data of the client"),
    "reply": ("reply", "the first data of the server"),
    "data": ("data", ""),
    "ack": ("ACK", "what came so far has arrived"),
    "fin": ("FIN", "I have nothing more to say"),
    "rst": ("RST", "there is no such connection"),
}
CHANGED = f"{BOLD};{YELLOW}"


@dataclass(frozen=True)
class Cell:
    """Some fields as they are written, and whose address that is."""

    fields: tuple[str, ...]
    text: str
    name: str = ""

    def changed(self, hop: dict) -> bool:
        return not set(self.fields).isdisjoint(hop["changed"])


@dataclass(frozen=True)
class Row:
    """A header."""

    label: str
    source: Cell
    target: Cell
    numbers: tuple[Cell, ...]


def rows(headers: dict, names: dict[str, str]) -> list[Row]:
    """The headers that have addresses, as a frame has them from front to back."""

    def cell(field: str, text: str = "", *more: str) -> Cell:
        return Cell((field, *more), text or headers[field], names.get(headers[field], ""))

    def end(field: str) -> Cell:
        return cell(field, f"{in_url(headers[field])}:{headers[f'{field}_port']}", f"{field}_port")

    def ttl(field: str, address: str, which: str) -> Cell:
        return Cell((field,), f"{which if 'tunnel' in headers else ''}{ttl_word(headers[address])} {headers[field]}")

    made = []
    segments = f", {headers['segments']} segments" if headers["segments"] > 1 else ""
    length = Cell(("length", "segments"), f"{headers['length']} bytes{segments}")
    if "source_mac" in headers:
        made.append(Row("Ethernet", cell("source_mac"), cell("target_mac"), (length,)))
    if "tunnel" in headers:
        outer = ttl("outer_ttl", "outer_source", "outer ")
        made.append(Row(headers["tunnel"], cell("outer_source"), cell("outer_target"), (outer,)))
    mss = (Cell(("mss",), f"MSS {headers['mss']}"),) if "mss" in headers else ()
    made.append(Row("IP, TCP", end("source"), end("target"), (ttl("ttl", "source", "inner "), *mss)))
    return made


def heading(result: dict) -> str:
    answer = "no answer" if result["error"] else f"{result['status']} from {result['server'] or 'a server'}"
    return f"{METHOD_NAME[result['mode']]}: curl {result['url']} from client {result['client']}: {answer}"


def titles(packet: dict) -> tuple[str, str]:
    title, meaning = TITLES[packet["kind"]]
    return title, f"sent {packet['sent_before'] + 1} times; {meaning}" if packet["sent_before"] else meaning


def gone(before: dict, headers: dict) -> list[str]:
    """The headers the hop before had in front of IP and TCP, and this one has not."""
    labels = [row.label for row in rows(headers, {})]
    return [row.label for row in rows(before, {}) if row.label not in labels]


def text(result: dict) -> str:
    hops = [hop for packet in result["packets"] for hop in packet["hops"]]
    made = [rows(hop["headers"], result["names"]) for hop in hops]
    cells = [cell for each in made for row in each for cell in (row.source, row.target)]
    columns = ([hop["node"] for hop in hops], [hop["interface"] for hop in hops],
               [cell.text for cell in cells], [cell.name for cell in cells])
    widths = [max(map(len, column), default=0) for column in columns]
    lines = [paint(heading(result), BOLD)]
    if result["error"]:
        lines.append(paint(result["error"], RED))
    if not result["packets"]:
        lines.append("None of the packets asked for was seen anywhere.")
    for packet in result["packets"]:
        title, meaning = titles(packet)
        lines += ["", f"{paint(title, BOLD)}  {paint(meaning, FAINT)}".rstrip()]
        for before, hop in zip([None, *packet["hops"]], packet["hops"]):
            lines += _hop(before, hop, rows(hop["headers"], result["names"]), *widths)
    return "\n".join([*lines, "", f"{paint('*', CHANGED)} {paint('changed since the hop before', FAINT)}"])


def _hop(before: dict | None, hop: dict, made: list[Row], node: int, interface: int, address: int, name: int) -> list[str]:
    where = f"  {hop['node']:<{node}}  {hop['interface']:<{interface}}  {hop['direction']:<3}  "
    if before and before["node"] != hop["node"] and not hop["changed"]:
        shown = [paint(f"as it left {before['node']}", FAINT)]
    else:
        shown = []
        for row in made:
            ends = f" {paint('>', FAINT)} ".join(
                f"{_marked(cell.text, cell.changed(hop), address)} {cell.name:<{name}}" for cell in (row.source, row.target))
            shown.append(_line(row.label, ends, *(_marked(cell.text, cell.changed(hop)) for cell in row.numbers)))
        if before:
            shown[-1:-1] = [_line(label, _marked("taken off", True)) for label in gone(before["headers"], hop["headers"])]
    for words in (hop["says"], hop.get("ends")):
        shown += textwrap.wrap(words or "", 10 + 2 * (address + name + 4) + 12)
    return [f"{start}{line}".rstrip() for start, line in zip([where, *[" " * len(where)] * len(shown)], shown)]


def _line(label: str, *words: str) -> str:
    return " ".join([paint(f"{label:<8}", FAINT), *words])


def _marked(text: str, changed: bool, width: int = 0) -> str:
    """With a place for the mark in front, so that columns stay where they are."""
    return (paint(f"*{text}", CHANGED) if changed else f" {text}") + " " * (width - len(text))
