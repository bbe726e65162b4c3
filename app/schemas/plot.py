"""SVG pictures, in colours that the colour-blind tell apart: faults against memory, a line for each policy; latency against time."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10
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

    parts = canvas(title)
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


def canvas(title: str) -> list[str]:
    """An empty picture with its title."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"'
        f' font-family="system-ui, sans-serif" font-size="14"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="28" font-size="17">{escape(title)}</text>',
    ]


DECADES: Final = ("1 ns", "10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s", "1000 s")


def latency(found: Mapping[str, Any], title: str = "") -> str:
    """The picture of a process's latest calls: a dot each at its beginning, as high as its time by fault (all of it without faults); stalls as bars.

    Time upwards is in decades, so that a fault of a microsecond and one that compacts memory for ten milliseconds are both to be seen.
    """
    calls, stalls = found["calls"], found["stalls"]
    points = [(row["begin_ns"], row["fault_ns"] or row["elapsed_ns"], f"{row['op']}: {row['elapsed_ns']:,} ns") for row in calls]
    bars = [(row["begin_ns"], row["end_ns"] - row["begin_ns"], f"{row['over']}: {row['end_ns'] - row['begin_ns']:,} ns") for row in stalls]
    times: list[int] = [at for at, _, _ in (*points, *bars)] or [0]
    first, last = min(times), max(max(times), min(times) + 1)
    heights = [log10(max(ns, 1)) for _, ns, _ in (*points, *bars)] or [0.0]
    low = min(int(min(heights)), len(DECADES) - 2)
    high = min(int(max(heights)) + 1, len(DECADES) - 1)

    def x(at: int) -> float:
        return round(LEFT + (at - first) / (last - first) * (WIDTH - LEFT - RIGHT), 1)

    def y(height: float) -> float:
        return round(HEIGHT - BOTTOM - (height - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    parts = canvas(title)
    for decade in range(low, high + 1):
        parts.append(f'<line x1="{LEFT}" y1="{y(decade)}" x2="{WIDTH - RIGHT}" y2="{y(decade)}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(decade) + 5}" text-anchor="end">{DECADES[decade]}</text>')
    for step in range(TICKS + 1):
        at = first + (last - first) * step // TICKS
        parts.append(f'<text x="{x(at)}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{at / 1e9:.3f}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">simulated time, seconds</text>')
    parts.append(f'<text x="20" y="{HEIGHT / 2}" transform="rotate(-90 20 {HEIGHT / 2})" text-anchor="middle">time by fault</text>')
    for at, ns, says in bars:
        top = y(log10(max(ns, 1)))
        parts.append(f'<line class="stall" x1="{x(at)}" y1="{y(low)}" x2="{x(at)}" y2="{top}" stroke="{COLOURS[1]}" stroke-width="2">'
                     f"<title>{escape(says)}</title></line>")  # fmt: skip
    for at, ns, says in points:
        place = f'cx="{x(at)}" cy="{y(log10(max(ns, 1)))}"'
        parts.append(f'<circle class="call" {place} r="3.5" fill="{COLOURS[0]}"><title>{escape(says)}</title></circle>')
    for name, colour, row in (("calls", COLOURS[0], 0), ("stalls", COLOURS[1], 1)):
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{TOP + 20 * row + 5}" fill="{colour}">{name}</text>')
    parts.append("</svg>\n")
    return "".join(parts)
