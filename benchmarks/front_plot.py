"""The plot that README.md and the first page of the documentation show: a switch by its depth.

It is written by hand, and not by matplotlib, so that its colours follow the reader's colour scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 84, 28, 62, 52
X_RANGE, Y_RANGE = (0.9, 115), (10, 10_000)  # C calls; nanoseconds

STYLE = """\
    text { font: 14px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: 600; font-size: 15px }
    .small { font-size: 12px; fill: #4d5560 }
    .paper { fill: #ffffff }
    .grid { stroke: #d0d7de }
    .line { fill: none; stroke-width: 2.5 }
    .published { stroke: #9a6700 } .ours { stroke: #1a7f37 }
    .published-dot { fill: #9a6700 } .ours-dot { fill: #1a7f37 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .small { fill: #b1bac4 } .paper { fill: #16191d }
      .grid { stroke: #3d444d }
      .published { stroke: #d9a334 } .ours { stroke: #4ac26b }
      .published-dot { fill: #d9a334 } .ours-dot { fill: #4ac26b }
    }
"""

Point = tuple[float, float]


def place(value: Point) -> Point:
    """Where a number of calls and a time lie in the picture; both scales are logarithmic."""
    shares = [
        math.log(part / low) / math.log(high / low)
        for part, (low, high) in zip(value, (X_RANGE, Y_RANGE), strict=True)
    ]
    x = LEFT + shares[0] * (WIDTH - LEFT - RIGHT)
    y = HEIGHT - BOTTOM - shares[1] * (HEIGHT - TOP - BOTTOM)
    return round(x, 1), round(y, 1)


def nanoseconds(value: float) -> str:
    return f"{value:,.0f} ns" if value < 1000 else f"{value / 1000:,.0f} µs"


def text(x: float, y: float, words: str, anchor: str = "start", style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'  <text{kind} x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>'


def draw(interpreter: str, published: Sequence[Point], ours: Sequence[Point]) -> str:
    """Return the plot as SVG; the points are numbers of C calls with nanoseconds per switch."""
    title = f"One switch, by the number of C calls on both stacks (CPython {interpreter})"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"  <title>{title}</title>",
        f"  <style>\n{STYLE}  </style>",
        f'  <rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        text(20, 32, title, style="title"),
    ]
    for value in (10, 100, 1000, 10_000):
        y = place((1, value))[1]
        lines.append(f'  <path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        lines.append(text(LEFT - 10, y + 4, nanoseconds(value), "end", "small"))
    for calls, _ in ours:
        lines.append(
            text(place((calls, 1))[0], HEIGHT - BOTTOM + 22, f"{calls:g}", "middle", "small")
        )
    lines.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "C calls deep", "middle", "small"))
    for name, label, series in (
        ("published", "the published greenlet", published),
        ("ours", "own stacks", ours),
    ):
        places = [place(point) for point in series]
        steps = " ".join(f"L{x} {y}" for (x, y) in places[1:])
        lines.append(f'  <path class="line {name}" d="M{places[0][0]} {places[0][1]} {steps}"/>')
        lines += [f'  <circle class="{name}-dot" cx="{x}" cy="{y}" r="4"/>' for x, y in places]
        gap = max(y for _, y in places) - min(y for _, y in places)
        lines.append(text(places[0][0] + 6, places[0][1] - (18 if gap < 40 else 26), label))
    return "\n".join([*lines, "</svg>\n"])
