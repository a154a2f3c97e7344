# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures as a picture: a panel for each work, a bar for each contender. Data only comes from the JSON form (report.py)."""

from xml.sax.saxutils import escape

from bench.works import WORKS
from svg import document, text

COLUMNS = 2
PANEL, GAP, MARGIN = 452, 24, 24  # widths
LABEL, BARS = 84, 226  # of a panel: the names, the longest bar; what is left is the figures'
HEAD, ROW, BAR = 46, 19, 12  # heights
TOP = 92

COLOURS = {"peer": ("#a3adb9", "#66717f"), "proxy": ("#c9a45c", "#a5843f"), "nat": ("#2f6fde", "#5b93f5"),
           "tun": ("#8a55d7", "#a97bf0"), "dr": ("#0f9a74", "#2fbf95")}
STYLE = """
  .figure { font-variant-numeric: tabular-nums; paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
  .peer { fill: var(--peer); } .proxy { fill: var(--proxy); } .nat { fill: var(--nat); } .tun { fill: var(--tun); } .dr { fill: var(--dr); }
  .base { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 2 3; } .spread { stroke: var(--ink); stroke-opacity: .55; stroke-width: 1.5; }
"""
LEGEND = (("peer", "no director, or the kernel"), ("proxy", "proxies"), ("nat", "director, VS/NAT"), ("tun", "VS/TUN"), ("dr", "VS/DR"))


def kind(contender: str) -> str:
    """Which colour."""
    mode = contender.partition("-")[0]
    return mode if mode in ("nat", "tun", "dr") else "proxy" if contender in ("haproxy", "nginx") else "peer"


def figure(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    if value >= 10_000:
        return f"{value / 1e3:.0f} k" if value >= 100_000 else f"{value / 1e3:.1f} k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def panel(work: str, rows: list[dict], absent: dict[str, str], x: float, y: float) -> str:
    about = WORKS[work]
    parts = [text(x, y + 14, about.title[0].upper() + about.title[1:], "h2"),
             text(x, y + 30, f"{about.unit}; {'more' if about.more_is_better else 'less'} is better; at the right × none", "faint small")]
    measured = {row["contender"]: row for row in rows if row["samples"]}
    # One wild sample must not press all bars flat: what reaches further is cut off.
    top = min(max((row["high"] for row in measured.values()), default=0),
              1.3 * max((row["median"] for row in measured.values()), default=0)) or 1
    left, first = x + LABEL, y + HEAD
    if "nft" in measured:
        at = left + BARS * measured["nft"]["median"] / top
        parts.append(f'<line class="base" x1="{at:.1f}" y1="{first:g}" x2="{at:.1f}" y2="{first + len(measured) * ROW:g}"/>')
    for at, row in enumerate(measured.values()):
        middle = first + at * ROW + ROW / 2
        parts.append(text(left - 8, middle + 4, row["contender"], "right"))
        width = max(1.5, BARS * row["median"] / top)
        told = f"{row['contender']}: {row['median']:,.6g} {row['unit']}, from {row['low']:,.6g} to {row['high']:,.6g}"
        parts.append(f'<rect class="{kind(row["contender"])}" x="{left:g}" y="{middle - BAR / 2:g}" width="{width:.1f}" height="{BAR}" '
                     f'rx="2"><title>{escape(told)}</title></rect>')
        low, high = (left + BARS * min(1, row[key] / top) for key in ("low", "high"))
        if high - low > 1:
            parts.append(f'<line class="spread" x1="{low:.1f}" y1="{middle:g}" x2="{high:.1f}" y2="{middle:g}"/>')
        parts.append(text(max(left + width, high) + 6, middle + 4, figure(row["median"]), "figure small"))
        base = measured.get("none")
        if base and base["median"]:
            parts.append(text(x + PANEL - 4, middle + 4, f"{row['median'] / base['median']:.2f}×", "figure small faint right"))
    if silent := [row["contender"] for row in rows if not row["samples"] and row["contender"] not in absent]:
        parts.append(text(left, first + len(measured) * ROW + 14, short(f"not measured: {', '.join(silent)}"), "faint small"))
    return "\n".join(parts)


def short(words: str, most: int = 60) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def svg(result: dict, absent: dict[str, str]) -> str:
    """`absent` are contenders that have no figures at all, with the reason."""
    works: dict[str, list[dict]] = {}
    for row in result["rows"]:
        works.setdefault(row["work"], []).append(row)
    width = 2 * MARGIN + COLUMNS * PANEL + (COLUMNS - 1) * GAP
    y, parts = TOP, []
    names = list(works)
    for start in range(0, len(names), COLUMNS):
        here = names[start : start + COLUMNS]
        parts.append(f'<line class="rule" x1="{MARGIN}" y1="{y - 8}" x2="{width - MARGIN}" y2="{y - 8}"/>')
        parts += [panel(work, works[work], absent, MARGIN + at * (PANEL + GAP), y) for at, work in enumerate(here)]
        y += HEAD + ROW * max(1 + sum(bool(row["samples"]) for row in works[work]) for work in here) + 22
    for why in dict.fromkeys(absent.values()):
        names = ", ".join(name for name, its in absent.items() if its == why)
        parts.append(text(MARGIN, y + 4, short(f"without figures: {names}: {why}", 150), "faint small"))
        y += 22
    machine = result["machine"]
    about = (f"medians of {result['rounds']} interleaved round{'s' * (result['rounds'] > 1)} on {machine['processors']} processors, client and servers included; "
             f"Linux {machine['kernel']}; {result['date'][:10]}")
    head = [text(MARGIN, 34, "director beside its peers", "h1"), text(MARGIN, 54, about, "faint small")]
    x = MARGIN
    for style, words in LEGEND:
        head.append(f'<rect class="{style}" x="{x}" y="65" width="11" height="11" rx="2"/>' + text(x + 16, 75, words, "small"))
        x += 36 + round(6.2 * len(words))
    head.append(f'<line class="base" x1="{x}" y1="64" x2="{x}" y2="78"/>' + text(x + 8, 75, "nft, in each panel", "small"))
    return document(width, y, "bar charts of lab bench", COLOURS, STYLE, [*head, *parts])
