"""Faults against memory as an SVG picture: a line for each policy, named at its end, in colours that the colour-blind tell apart."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 90, 130, 50, 60
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999", "#7b3294", "#a6611a")
TICKS: Final = 5


def nice(top: int) -> int:
    """A round step that divides 0 .. `top` into about five."""
    step = 1
    while top > TICKS * step:
        step *= 2 if str(step)[0] in "15" else 5
        if str(step).startswith("2") and top > TICKS * step and str(step * 5 // 2).startswith("5"):
            step = step * 5 // 2
    return step


def faults(table: Mapping[str, Any], title: str = "") -> str:
    """The picture of a comparison: `frames`, `faults` by policy, `anomalies`."""
    sizes: Sequence[int] = table["frames"]
    columns: Mapping[str, Sequence[int]] = table["faults"]
    top = max(max(column) for column in columns.values())
    low, high = sizes[0], max(sizes[-1], sizes[0] + 1)

    def x(size: int) -> float:
        return round(LEFT + (size - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(count: int) -> float:
        return round(HEIGHT - BOTTOM - count / top * (HEIGHT - TOP - BOTTOM), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"'
        f' font-family="system-ui, sans-serif" font-size="14"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="28" font-size="17">{escape(title)}</text>',
    ]
    for count in range(0, top + 1, nice(top)):
        parts.append(f'<line x1="{LEFT}" y1="{y(count)}" x2="{WIDTH - RIGHT}" y2="{y(count)}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(count) + 5}" text-anchor="end">{count:,}</text>')
    for size in dict.fromkeys((low, *range(-(-low // nice(high)) * nice(high), high + 1, nice(high)))):
        parts.append(f'<text x="{x(size)}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{size:,}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">memory, frames</text>')
    parts.append(f'<text x="20" y="{HEIGHT / 2}" transform="rotate(-90 20 {HEIGHT / 2})" text-anchor="middle">faults</text>')
    ends: list[float] = []
    for (name, column), colour in zip(columns.items(), COLOURS, strict=False):
        points = " ".join(f"{x(size)},{y(count)}" for size, count in zip(sizes, column, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        label = y(column[-1]) + 5
        while any(abs(label - other) < 15 for other in ends):
            label -= 15
        ends.append(label)
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{label}" fill="{colour}">{escape(name)}</text>')
    for one in table["anomalies"]:
        size, count = one["frames"][1], one["faults"][1]
        parts.append(f'<circle cx="{x(size)}" cy="{y(count)}" r="7" fill="none" stroke="#d00" stroke-width="2"/>')
        parts.append(f'<text x="{x(size)}" y="{y(count) - 12}" text-anchor="middle" fill="#d00">more memory, more faults</text>')
    parts.append("</svg>\n")
    return "".join(parts)
