# SPDX-License-Identifier: GPL-2.0-or-later
"""What the testbed's pictures have in common: one SVG file that needs no other, and follows the reader's light or dark
setting (prefers-color-scheme), also as an image in a web page.
"""

from xml.sax.saxutils import escape, quoteattr

# Of a style: what a colour is called, in light and in dark.
PAPER = {"paper": ("#ffffff", "#12161c"), "ink": ("#1c2430", "#e6eaf0"), "faint": ("#66707d", "#97a2b0"),
         "line": ("#dfe4ea", "#2b333e")}
SANS = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif'
MONO = 'ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", Consolas, monospace'


def text(x: float, y: float, words: str, style: str = "", more: str = "") -> str:
    attribute = f' class="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}"{attribute}{more}>{escape(words)}</text>'


def document(width: float, height: float, label: str, colours: dict[str, tuple[str, str]], style: str, parts: list[str]) -> str:
    """`colours` are usable as var(--name) in `style`."""
    light, dark = (" ".join(f"--{name}: {pair[at]};" for name, pair in {**PAPER, **colours}.items()) for at in (0, 1))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" \
aria-label={quoteattr(label)}>
<style>
  svg {{ {light} color-scheme: light dark; }}
  @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}
  .paper {{ fill: var(--paper); }} .rule {{ stroke: var(--line); }}
  text {{ font: 12px {SANS}; fill: var(--ink); }}
  .faint {{ fill: var(--faint); }} .right {{ text-anchor: end; }} .middle {{ text-anchor: middle; }}
  .h1 {{ font-size: 18px; font-weight: 600; }} .h2 {{ font-size: 13px; font-weight: 600; }} .small {{ font-size: 11px; }}
{style.rstrip()}
</style>
<rect class="paper" width="{width:g}" height="{height:g}" rx="6"/>
{chr(10).join(parts)}
</svg>
"""
