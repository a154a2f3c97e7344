# SPDX-License-Identifier: GPL-2.0-or-later
"""What `lab bench` shows and writes: a line for each work of a round, the table at the end, the JSON and SVG files.

Everything is made of the JSON form, whose rows have a work, a contender, a unit, samples, and their median, low and high;
or a "why" when there are none.
"""

import json
from pathlib import Path

from bench import chart
from bench.works import WORKS
from screen import BOLD, FAINT, paint

BASES = ("none", "nft")  # what ratios are of


def number(value: float) -> str:
    """Three digits that matter, at least: 45,100; 812; 6.42."""
    if abs(value) >= 10_000:
        return f"{round(value, -2):,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def line(round_name: str, work: str, values: dict[str, float]) -> str:
    """One round's samples of one work, in its unit."""
    words = "  ".join(f"{name} {paint(number(value), BOLD)}" for name, value in values.items())
    return f"{round_name}  {work:<14} {words}  {paint(WORKS[work].unit, FAINT)}"


def ratio(row: dict, base: dict | None) -> str:
    return f"{row['median'] / base['median']:.2f}" if base and base.get("median") else "–"


def never(result: dict) -> dict[str, str]:
    """Contenders without a single sample, and why."""
    measured = {row["contender"] for row in result["rows"] if row["samples"]}
    return {row["contender"]: row.get("why", "not measured") for row in reversed(result["rows"]) if row["contender"] not in measured}


def table(result: dict) -> str:
    absent = never(result)
    rows, parts = [row for row in result["rows"] if row["contender"] not in absent], []
    widest = max((len(row["contender"]) for row in rows), default=0)
    for work in dict.fromkeys(row["work"] for row in rows):
        these = {row["contender"]: row for row in rows if row["work"] == work}
        about = WORKS[work]
        head = f"{about.title}, {about.unit}; {'more' if about.more_is_better else 'less'} is better"
        parts.append(f"{paint(work, BOLD)}: {head}")
        parts.append(paint(f"  {'':<{widest}}  {'median':>10}  {'low':>10}  {'high':>10}  {'to none':>8}  {'to nft':>8}", FAINT))
        for name, row in these.items():
            if not row["samples"]:
                parts.append(f"  {name:<{widest}}  {paint(row.get('why', 'not measured'), FAINT)}")
                continue
            ratios = "  ".join(f"{ratio(row, these.get(base)):>8}" for base in BASES)
            note = f"  of {number(max(row['sent']))} sent" if "sent" in row else ""
            spread = "  ".join(f"{number(row[key]):>10}" for key in ("low", "high"))
            middle = paint(number(row["median"]).rjust(10), BOLD)
            parts.append(f"  {name:<{widest}}  {middle}  {spread}  {ratios}{note}")
        parts.append("")
    return "\n".join([*parts, *notes(result)])


def notes(result: dict) -> list[str]:
    machine = result["machine"]
    told = [f"Without figures: {', '.join(name for name, its in never(result).items() if its == why)}: {why}"
            for why in dict.fromkeys(never(result).values())]
    told.append(f"{machine['processors']} processors ({machine['model']}), Linux {machine['kernel']}; {result['director']} of "
                f"{result['build']}; rounds: {result['rounds']}; {result['date']}")
    if machine["others"] > 0.1:
        told.append(f"Not alone: other processes took {machine['others']:.2f} of {machine['processors']} processors (median); "
                    "speeds are too low, and ratios rough. Their time is not in the processor times.")
    for state in dict.fromkeys(result["shortcuts"].values()):
        names = ", ".join(name for name, its in result["shortcuts"].items() if its == state)
        told.append(f"Shortcuts through the kernel: {state} ({names})" if state == "active" else
                    f"No shortcuts through the kernel: {state} ({names})")
    if result["decapsulators"]:
        told.append(f"This kernel has no ipip: realserver takes the tunnels apart on each server, and its work is in the figures of "
                    f"{', '.join(result['decapsulators'])}.")
    if any(row["work"] == "udp-small" and row["samples"] for row in result["rows"]):
        told.append("Datagrams: from one sender or two, whichever got more through. Where the kernel forwards, the sender's own call "
                    "does it: as many arrive as are sent, and both processors are full.")
    if any(row["work"].startswith("bulk") for row in result["rows"]) and result["bulk_mib"] != 1024:
        told.append(f"Bulk transfers: {result['bulk_mib']} MiB.")
    rates = {work: row[key][0] for row in result["rows"] for work, key in (("latency-p50", "rate"), ("cpu-per-packet", "rate"))
             if row["work"] == work and row.get(key)}
    if "latency-p50" in rates:
        told.append(f"Latency: an open loop of {rates['latency-p50']:,.0f} requests/s for everybody, half of what the slowest can "
                    "(5,000 at most), from the moment a request is due; its own time is in it.")
    if "cpu-per-packet" in rates:
        told.append(f"Processor time per packet: at {rates['cpu-per-packet']:,.0f} datagrams/s; sending and receiving are in it.")
    return told


def write_json(result: dict, file: Path) -> None:
    file.write_text(json.dumps(result, indent=1) + "\n")


def write_chart(result: dict, file: Path) -> None:
    file.write_text(chart.svg(result, never(result)))
