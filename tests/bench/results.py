# SPDX-License-Identifier: GPL-2.0-or-later
"""The page RESULTS.md: goals, what was measured, and why it falls short where it does. Reads what benches wrote; measures nothing."""

import datetime
import os
import platform
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Figure:
    """A median and what it varied between."""

    median: float
    low: float
    high: float
    of: str = ""  # which of several was the one that counts

    @staticmethod
    def of_samples(samples: list[float], of: str = "") -> "Figure":
        return Figure(statistics.median(samples), min(samples), max(samples), of)


@dataclass
class Row:
    key: str  # of notes.md
    work: str
    goal: str
    unit: str
    limit: float
    at_least: bool  # else at most
    figure: Figure | None
    date: str = ""

    def met(self) -> bool:
        if self.figure is None:
            return False
        return self.figure.median >= self.limit if self.at_least else self.figure.median <= self.limit


def git(*words: str) -> str:
    """What it says; nothing where it or the repository isn't there: a release is measured, too."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout


@dataclass
class Machine:
    text: str
    commit: str

    @staticmethod
    def here() -> "Machine":
        cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                    if line.startswith("model name")), platform.machine())  # fmt: skip
        memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
        compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True).stdout.splitlines()
        commit = git("rev-parse", "--short", "HEAD").strip()
        changed = git("status", "--porcelain", "--", "director", "include", "tests/bench")
        # The page itself and the notes do not change what was measured.
        edited = [line for line in changed.splitlines() if not line.endswith(".md")]
        return Machine(
            f"{cpu}, {os.cpu_count()} cores, {round(int(memory[1]) / 2**20) if memory else '?'} GiB; Linux {platform.release()}; "
            f"{compiler[0] if compiler else 'compiler unknown'}",
            (commit or "unknown") + (" and changes that aren't committed" if edited else ""),
        )


# --- reading ---


class Core:
    """What runs of core_bench wrote: the counters of each repetition, by the bench's name; of the last run that has it."""

    def __init__(self, documents: list[dict]):
        self.date = documents[-1]["context"]["date"][:10]
        self.commits = ", ".join(dict.fromkeys(document["context"].get("commit", "unknown") for document in documents))
        self.load = [document["context"]["load_avg"][0] for document in documents if document["context"].get("load_avg")]
        self.instructions: dict[str, float] = {}  # a packet's
        self.runs: dict[str, list[dict]] = {}
        for document in documents:
            runs: dict[str, list[dict]] = {}
            for run in document["benchmarks"]:
                if run["run_type"] == "iteration" and not run.get("error_occurred"):
                    name = re.sub(r"(/iterations:\d+|/repeats:\d+|/manual_time)+$", "", run["name"])
                    runs.setdefault(name, []).append(run)
            self.runs |= runs
            self.instructions |= document.get("instructions", {})

    def figure(self, name: str, counter: str) -> Figure | None:
        samples = [run[counter] for run in self.runs.get(name, []) if counter in run]
        return Figure.of_samples(samples) if samples else None

    def time(self, name: str) -> Figure | None:
        """In the bench's own unit."""
        return self.figure(name, "real_time")

    def worst(self, names: Iterable[str], counter: str) -> Figure | None:
        """Of several benches the one with the largest median."""
        found = [(self.figure(name, counter), name) for name in names]
        present = [(figure, name) for figure, name in found if figure is not None]
        if not present:
            return None
        figure, name = max(present, key=lambda pair: pair[0].median)
        return Figure(figure.median, figure.low, figure.high, plain(name))

    def matching(self, pattern: str) -> list[str]:
        return [name for name in self.runs if re.search(pattern, name)]


def plain(name: str) -> str:
    """"process/request/nat/ipv4/flows:1" is "request nat ipv4"."""
    return " ".join(part for part in name.split("/")[1:] if ":" not in part)


class Lab:
    """What runs of `testbed/lab bench --json` wrote; each row of the last run that measured it."""

    def __init__(self, documents: list[dict]):
        self.date = str(documents[-1].get("date", ""))[:10] if documents else ""
        self.all_rows = {(row["work"], row["contender"]): row for document in documents for row in document["rows"]}
        self.rows = {place: row for place, row in self.all_rows.items() if "median" in row}

    def figure(self, work: str, contender: str) -> Figure | None:
        row = self.rows.get((work, contender))
        return Figure(row["median"], row["low"], row["high"]) if row else None

    def ratio(self, work: str, ours: str, peer: str) -> Figure | None:
        """The rounds are interleaved, so what belongs to one minute is divided by what belongs to the same."""
        a, b = self.rows.get((work, ours)), self.rows.get((work, peer))
        if not a or not b or not b["median"]:
            return None
        if len(a["samples"]) == len(b["samples"]) and all(b["samples"]):
            return Figure.of_samples([x / y for x, y in zip(a["samples"], b["samples"])])
        return Figure(a["median"] / b["median"], a["low"] / b["high"], a["high"] / b["low"])

    def devices(self, method: str) -> list[str]:
        """The default one always, others that were measured."""
        found = {contender.split("-", 1)[1] for _, contender in self.rows if contender.startswith(f"{method}-")}
        return ["packet", *sorted(found - {"packet"})]


def read_notes(file: Path) -> dict[str, str]:
    """Sections of notes.md, by their headings."""
    if not file.exists():
        return {}
    sections = re.split(r"^## +(.+)$", file.read_text(), flags=re.MULTILINE)[1:]
    return {key.strip(): text.strip() for key, text in zip(sections[::2], sections[1::2])}


# --- the goals of issue 4 ---

RATIOS = [  # work of the lab, what it is called, ours, and what is to be reached against whom
    ("http-kept", "kept HTTP requests/s", "nat", {"nft": 1.1, "haproxy": 1.5, "nginx": 1.5}),
    ("http-kept", "kept HTTP requests/s", "dr", {"none": 1.0, "nft": 1.3, "haproxy": 1.8}),
    ("http-new", "new connections/s", "nat", {"nft": 1.0, "haproxy": 1.4}),
    ("http-new", "new connections/s", "dr", {"nft": 1.2, "haproxy": 1.7}),
    ("bulk-down", "bulk download", "nat", {"none": 0.9}),
    ("bulk-down", "bulk download", "dr", {"none": 0.97}),
    ("bulk-down", "bulk download", "tun", {"none": 0.97}),
    ("bulk-up", "bulk upload", "dr", {"none": 0.95}),
    ("bulk-up", "bulk upload, segments cut by us", "tun", {"none": 0.5}),
    ("udp-small", "small UDP packets delivered/s", "dr", {"nft": 1.5}),
]
PEERS = {"none": "no director", "routing": "kernel routing", "nft": "nft DNAT", "haproxy": "HAProxy", "nginx": "nginx stream"}


def core_rows(core: Core) -> list[Row]:
    def row(key: str, work: str, goal: str, unit: str, limit: float, figure: Figure | None) -> Row:
        return Row(key, work, goal, unit, limit, False, figure, core.date)

    established = "core, 64-byte packets, batches of 64, established, {} flows"
    rows = []
    for key, label, flows, limit in (("core-10k", "10 k", 10_000, 60), ("core-1m", "1 M", 1_000_000, 120),
                                     ("core-10m", "10 M", 10_000_000, 200)):  # fmt: skip
        figure = core.worst(core.matching(rf"^process/(request|reply)/.*/flows:{flows}$"), "ns")
        rows.append(row(key, established.format(label), f"≤ {limit} ns a packet", "ns", limit, figure))
    rows.append(row("core-new", "core, new connection", "≤ 300 ns", "ns", 300,
                    core.worst(core.matching(r"^process/new/.*/flows:(10000|1000000)$"), "ns")))  # fmt: skip
    rows.append(row("memory-tun-dr", "memory of a TUN or DR connection", "≤ 64 B", "B", 64,
                    core.worst(core.matching(r"^memory/(tun|dr)/.*/flows:1000000$"), "bytes")))  # fmt: skip
    rows.append(row("memory-nat", "memory of a NAT connection", "≤ 128 B", "B", 128,
                    core.worst(core.matching(r"^memory/nat/.*/flows:1000000$"), "bytes")))  # fmt: skip
    rows.append(row("memory-10m", "memory of 10 M connections", "≤ 1.3 GB", "MB", 1300,
                    core.worst(core.matching(r"^memory/.*/flows:10000000$"), "total_mb")))  # fmt: skip
    stall = core.worst(core.matching(r"^growth/.*/flows:10000000$"), "stall_us")
    if stall is not None:  # what varies is the longest of a run, interruptions included
        name = next(name for name in core.runs if name.startswith("growth/") and plain(name) == stall.of and "flows:10000000" in name)
        stall.low, stall.high = core.figure(name, "run_least_us").median, core.figure(name, "run_most_us").median
    rows.append(row("growth-stall", "growing the table to 10 M connections, longest stall (spread: of single runs, interruptions and all)", "≤ 1 ms", "µs", 1000, stall))
    rows.append(row("maglev", "Maglev rebuild, 1000 servers, 65521 slots (the kernel's prime next to 65537)", "≤ 1 ms, outside the packet path", "µs", 1000,
                    core.time("maglev/rebuild/slots:65521/servers:1000")))  # fmt: skip
    return rows


def lab_rows(lab: Lab) -> list[Row]:
    rows = []
    for work, text, method, goals in RATIOS:
        for device in lab.devices(method):
            for peer, limit in goals.items():
                figure = lab.ratio(work, f"{method}-{device}", peer)
                if figure is None and device != "packet":
                    continue
                rows.append(Row(f"{work}-{method}-{peer}", f"{text}, {method.upper()} ({device}), against {PEERS[peer]}",
                                f"≥ {limit}", "", limit, True, figure, lab.date))  # fmt: skip
    for work, text, goal, limit in (("idle", "idle", "no wake-ups but due timers; 0 % CPU", 0.0),
                                    ("start", "start, first packet forwarded after exec, 1000 services", "≤ 100 ms", 100.0)):  # fmt: skip
        ours = [(contender, row) for (w, contender), row in lab.rows.items() if w == work and "-" in contender]
        if not ours:
            rows.append(Row(work, text, goal, "", limit, False, None))
        for contender, row in ours:
            figure = Figure(row["median"], row["low"], row["high"])
            rows.append(Row(work, f"{text} ({contender})", goal, row["unit"], limit, False, figure, lab.date))
    return rows


# --- writing ---


def number(x: float) -> str:
    """Three digits that count."""
    if x == 0:
        return "0"
    if abs(x) >= 100:
        return f"{x:.0f}"
    return f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def spread(figure: Figure) -> str:
    return f"{number(figure.low)} .. {number(figure.high)}"


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |",
            *("| " + " | ".join(cells) + " |" for cells in rows), ""]  # fmt: skip


def goal_table(rows: list[Row]) -> list[str]:
    def cells(row: Row) -> list[str]:
        if row.figure is None:
            return [row.work, row.goal, "not measured", "", "", ""]
        unit = f" {row.unit}" if row.unit else ""
        which = f" ({row.figure.of})" if row.figure.of else ""
        return [row.work, row.goal, f"{number(row.figure.median)}{unit}{which}", spread(row.figure), row.date,
                "ok" if row.met() else "short"]  # fmt: skip

    return table(["work", "goal", "median", "spread", "date", ""], map(cells, rows))


def shortfalls(rows: list[Row], notes: dict[str, str]) -> list[str]:
    lines = []
    for key in dict.fromkeys(row.key for row in rows if row.figure is not None and not row.met()):
        works = [row.work for row in rows if row.key == key]
        lines += [f"### {works[0]}", "", notes.get(key, f"No note yet: section `{key}` of `notes.md`."), ""]
    return lines or ["Nowhere.", ""]


def size(name: str) -> int:
    match = re.search(r"flows:(\d+)", name)
    return int(match[1]) if match else 0


def packet_table(core: Core) -> list[str]:
    """A line for each kind of packet, a column for each size of the table."""
    names = core.matching("^process/")
    sizes = sorted({size(name) for name in names})
    kinds = list(dict.fromkeys(name.rsplit("/", 1)[0] for name in names))
    label = {1: "1 flow", 10_000: "10 k", 1_000_000: "1 M", 10_000_000: "10 M"}

    def cell(kind: str, flows: int) -> str:
        figure = core.figure(f"{kind}/flows:{flows}", "ns")
        return f"{number(figure.median)} ({spread(figure)})" if figure else ""

    def counted(kind: str) -> str:
        count = core.instructions.get(f"{kind}/flows:10000")
        return f"{count:.0f}" if count else ""

    return table(["packets", *(label.get(flows, str(flows)) for flows in sizes), "instructions"],
                 ([plain(kind), *(cell(kind, flows) for flows in sizes), counted(kind)] for kind in kinds))  # fmt: skip


def piece_table(core: Core) -> list[str]:
    lines = []
    for name in core.matching("^(parse|forward|find_service)/"):
        figure = core.figure(name, "ns")
        count = core.instructions.get(name)
        lines.append([name.replace("/", " "), number(figure.median), spread(figure), f"{count:.0f}" if count else ""])
    return table(["piece", "ns", "spread", "instructions"], lines)


def other_table(core: Core) -> list[str]:
    def of(name: str, counter: str, unit: str, what: str) -> list[str] | None:
        figure = core.figure(name, counter)
        return [f"{plain(name) or name} {what}".strip(), f"{number(figure.median)} {unit}", spread(figure)] if figure else None

    lines = []
    for name in core.matching("^expiry/"):
        flows = f"of {size(name):,} flows".replace(",", " ")
        lines += [of(name, "ns", "ns", f"{flows}: a connection's end"),
                  of(name, "moved_ns", "ns", f"{flows}: a connection that had packets moves on the wheel"),
                  of(name, "longest_us", "µs", f"{flows}: longest call of expire()")]  # fmt: skip
    for name in core.matching("^growth/"):
        flows = f"growth to {size(name):,}".replace(",", " ")
        lines += [of(name, "stall_us", "µs", f"{flows}: longest stall of the table"),
                  of(name, "run_median_us", "µs", f"{flows}: longest of a run, interruptions and all"),
                  of(name, "stalls_over_100us", "", f"{flows}: stalls over 100 µs")]  # fmt: skip
    for name in core.matching("^memory/"):
        flows = f"of {size(name):,} connections".replace(",", " ")
        lines += [of(name, "bytes", "B", f"{flows}: memory each"), of(name, "most", "B", f"{flows}: at the worst moment")]
    for name in core.matching("^(apply|maglev)/"):
        figure, run = core.time(name), core.runs[name][0]
        lines.append([name.replace("/", " "), f"{number(figure.median)} {run['time_unit'].replace('us', 'µs')}", spread(figure)])
    return table(["what", "median", "spread"], filter(None, lines))


def lab_table(lab: Lab) -> list[str]:
    rows = list(lab.all_rows.values())
    if not rows:
        return ["Not measured in this run: `--lab FILE.json` shows what `testbed/lab bench --json FILE.json` wrote.", ""]

    def cells(row: dict) -> list[str]:
        what = [row["work"], PEERS.get(row["contender"], row["contender"])]
        if "median" not in row:
            return [*what, row["why"], ""]
        return [*what, f"{number(row['median'])} {row['unit']}", spread(Figure(row["median"], row["low"], row["high"]))]

    return table(["work", "contender", "median", "spread"], map(cells, rows))


def page(core: list[dict], lab: list[dict], notes: dict[str, str], machine: Machine) -> str:
    measured, wire = Core(core), Lab(lab)
    rows = core_rows(measured) + lab_rows(wire)
    load = f", load average {' and '.join(f'{one:.1f}' for one in measured.load)} when it began" if measured.load else ""
    lines = [
        "# What was measured",
        "",
        f"Written by `tests/bench/run{' --lab FILE.json' if lab else ''}` on {datetime.date.today().isoformat()}; do not edit, see `notes.md`.",
        "",
        f"{machine.text}. Core bench of {measured.date}, commit {measured.commits}{load}.",
        "",
        "A median is of the repetitions, the spread is from the least to the most of them. Where a goal is about several benches, "
        "the slowest counts, and is named.",
        "",
        "## Goals",
        "",
        *goal_table(rows),
        "## Where it falls short, and why",
        "",
        *shortfalls(rows, notes),
        "## The core: packets through `process()`, in ns",
        "",
        "Flows are drawn at random from all of the table. *stray*: no connection and no SYN, refused with a RST. *foreign*: to an address "
        "that isn't virtual. *mix*: 5 % new, 5 % stray, the rest established. Instructions are those at 10 k flows, by callgrind.",
        "",
        *packet_table(measured),
        "## The core: its pieces alone",
        "",
        *piece_table(measured),
        "## The core: everything else",
        "",
        *other_table(measured),
        "## The lab",
        "",
        *lab_table(wire),
    ]
    return "\n".join(lines).rstrip() + "\n"
