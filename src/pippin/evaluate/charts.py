"""The drawings of the report, as SVG: coordinates here, colours and fonts in report.css.

Colours are never the only difference: series also differ in line weight or marker and have their names beside them.
A drawing has one aspect ratio and grows with its column, except bars, which stretch sideways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pippin.evaluate.markup import Markup, count, decimals, element, is_number, join, three_digits

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom

WIDTH = 480.0
LETTER = 7.0  # width of an average letter of 13 units, a little generous
MOST_POINTS = 400  # of a line; more than it has pixels helps nobody


def points(pairs: Any) -> list[Point]:
    """The pairs [x, y] of two finite numbers, in order of x."""
    good = [(float(p[0]), float(p[1])) for p in pairs or [] if len(p) == 2 and is_number(p[0]) and is_number(p[1])]
    return sorted(good)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers inside low..high, about as many as wanted: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [(first + i) * step for i in range(math.floor(high / step + 1e-9) - first + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten inside low..high."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def _padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * share or abs(high) * share or 1.0
    return low - pad, high + pad


def _digits(marks: Sequence[float]) -> int:
    """Decimals that tell neighbouring ticks apart."""
    step = min((b - a for a, b in pairwise(marks)), default=1.0)
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _label(x: float, y: float, words: str, class_: str | None = None, anchor: str | None = None) -> Markup:
    return element("text", words, x=x, y=y, class_=class_, text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _drawing(height: float, title: str, *children: Markup | None) -> Markup:
    box = f"0 0 {WIDTH:g} {height:g}"
    return element("svg", element("title", title), *children, viewBox=box, role="img", class_="chart")


def marker(shape: int, x: float, y: float, class_: str, size: float = 4.5) -> Markup:
    """A disc, square, diamond or triangle around (x, y)."""
    if shape % 4 == 0:
        return element("circle", cx=x, cy=y, r=size, class_=class_)
    corners = {
        1: [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
        2: [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        3: [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
    }[shape % 4]
    where = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
    return element("polygon", points=where, class_=class_)


def swatch(shape: int | None, class_: str) -> Markup:
    """A legend's mark: a marker, or a line where shape is None."""
    mark = _line(1, 7, 21, 7, class_) if shape is None else marker(shape, 11, 7, class_)
    return element("svg", mark, viewBox="0 0 22 14", class_="swatch", aria_hidden="true")


# Loss against steps


def smoothed(line: Sequence[Point]) -> list[Point]:
    """A centred moving mean over a twentieth of the points, narrower at the ends, so that nothing lags."""
    half = max(1, len(line) // 40)
    sums = [0.0]
    for _, y in line:
        sums.append(sums[-1] + y)
    result = []
    for i, (x, _) in enumerate(line):
        reach = min(half, i, len(line) - 1 - i)
        result.append((x, (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1)))
    return result


def _thinned(line: Sequence[Point]) -> list[Point]:
    """At most about MOST_POINTS: of each stretch its lowest and its highest, so that spikes stay."""
    stretch = -(-2 * len(line) // MOST_POINTS)
    if stretch <= 2:
        return list(line)
    kept: list[Point] = []
    for start in range(0, len(line), stretch):
        part = line[start : start + stretch]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def loss_chart(title: str, unit: str, train: Any, heldout: Sequence[tuple[int, Any]]) -> Markup | None:
    """Training loss, thin and smoothed, and held-out points.

    Args:
        title: for readers of the page who do not see it.
        unit: of the vertical axis.
        train: pairs [step, loss].
        heldout: (number of the series: its colour and marker, pairs [step, loss]).

    Returns:
        the drawing; None where there is not one point. The first steps may lie above the frame: the vertical axis
        fits what comes after a twentieth of the steps.
    """
    raw = points(train)
    smooth = smoothed(raw)
    series = [(number, points(pairs)) for number, pairs in heldout]
    everything = [*raw, *(p for _, line in series for p in line)]
    if not everything:
        return None
    last = max(x for x, _ in everything)
    shown = [*smooth, *(p for _, line in series for p in line)]
    later = [y for x, y in shown if x >= last / 20] or [y for _, y in shown]
    calm = sorted(y for x, y in raw if x >= last / 20)
    later += calm[len(calm) // 50 : len(calm) - len(calm) // 50]
    low, high = _padded(later)
    left, top, right, bottom = 44.0, 26.0, 420.0, 250.0
    first = min(0.0, min(x for x, _ in everything))
    span = (last - first) or 1.0

    def place(p: Point) -> Point:
        return left + (right - left) * (p[0] - first) / span, bottom - (bottom - top) * (p[1] - low) / (high - low)

    def path(line: Sequence[Point], class_: str) -> Markup:
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, line))
        return element("polyline", points=places, class_=class_)

    marks = ticks(low, high)
    grid = [_line(left, place((0, y))[1], right, place((0, y))[1], "grid") for y in marks]
    names = [_label(left - 8, place((0, y))[1] + 4.5, decimals(y, _digits(marks)), "tick", "end") for y in marks]
    steps = [x for x in ticks(first, first + span) if x == int(x)]
    names += [_label(place((x, low))[0], bottom + 20, count(x), "tick", "middle") for x in steps]
    grid += [_line(place((x, low))[0], bottom, place((x, low))[0], bottom + 5, "axis") for x in steps]
    inside = [path(_thinned(raw), "raw"), path(_thinned(smooth), "smooth")] if raw else []
    ends: list[Point] = []
    if smooth:
        ends.append(smooth[-1])
    for number, line in series:
        inside += [path(line, f"between s{number % 6}")] if len(line) > 1 else []
        inside += [marker(number, *place(p), f"mark s{number % 6}") for p in line]
        ends += line[-1:]
    # Beside the last point of each line its value, pushed apart where two would overlap.
    values, floor = [], -math.inf
    for x, y in sorted(map(place, [p for p in ends if p[1] <= high]), key=lambda p: p[1]):
        floor = max(y + 4.5, floor + 14)
        value = low + (bottom - y) / (bottom - top) * (high - low)
        values.append(_label(max(x, left) + 9, floor, decimals(value, 3), "value"))
    clip = element(
        "svg", *inside, x=left - 6, y=top, width=right - left + 12, height=bottom - top + 6,
        viewBox=f"{left - 6} {top} {right - left + 12} {bottom - top + 6}",
    )  # fmt: skip
    axis = _line(left, bottom, right, bottom, "axis")
    return _drawing(
        294, title, *grid, axis, clip, *names, *values, _label(0, 12, unit, "unit"),
        _label(right, bottom + 38, "step", "unit", "end"),
    )  # fmt: skip


# Size against loss


@dataclass(frozen=True)
class Dot:
    """A named point of a scatter; `style` is the number of its colour and marker."""

    name: str
    x: float
    y: float
    style: int


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def scatter(title: str, x_unit: str, y_unit: str, dots: Sequence[Dot]) -> Markup | None:
    """Points with their names beside them; the horizontal axis is logarithmic. None where there is no point."""
    dots = [dot for dot in dots if is_number(dot.x) and is_number(dot.y) and dot.x > 0]
    if not dots:
        return None
    left, top, right, bottom = 44.0, 30.0, 470.0, 330.0
    low_x, high_x = min(d.x for d in dots) / 1.6, max(d.x for d in dots) * 1.6
    low, high = _padded([d.y for d in dots], 0.18)

    def place(x: float, y: float) -> Point:
        across = math.log(x / low_x) / math.log(high_x / low_x)
        return left + (right - left) * across, bottom - (bottom - top) * (y - low) / (high - low)

    marks = ticks(low, high)
    parts = [_line(left, place(low_x, y)[1], right, place(low_x, y)[1], "grid") for y in marks]
    for y in marks:
        parts.append(_label(left - 8, place(low_x, y)[1] + 4.5, decimals(y, _digits(marks)), "tick", "end"))
    for x in log_ticks(low_x, high_x):
        at = place(x, low)[0]
        parts += [_line(at, bottom, at, bottom + 5, "axis"), _label(at, bottom + 20, f"{x:g}", "tick", "middle")]
    parts.append(_line(left, bottom, right, bottom, "axis"))
    places = [place(d.x, d.y) for d in dots]
    taken: list[Box] = [(x - 7, y - 7, x + 7, y + 7) for x, y in places]
    for dot, (x, y) in zip(dots, places, strict=True):
        note = f"{three_digits(dot.x)} MB, {decimals(dot.y, 3)}"
        width = LETTER * max(len(dot.name), len(note))
        corners = {
            "start": [(x + 10, y - 12), (x + 7, y + 6), (x + 7, y - 32)],
            "end": [(x - 10 - width, y - 12), (x - 7 - width, y + 6), (x - 7 - width, y - 32)],
            "middle": [(x - width / 2, y + 9), (x - width / 2, y - 38)],
        }
        options = [(anchor, (cx, cy, cx + width, cy + 30)) for anchor, at in corners.items() for cx, cy in at]

        def cost(option: tuple[str, Box]) -> float:
            box = option[1]
            outside = (box[2] - box[0]) * 30 - _overlap(box, (left, top - 12, WIDTH, bottom))
            return 3 * outside + sum(_overlap(box, other) for other in taken)

        anchor, box = min(options, key=cost)
        taken.append(box)
        at = {"start": box[0], "end": box[2], "middle": (box[0] + box[2]) / 2}[anchor]
        parts += [
            marker(dot.style, x, y, f"mark s{dot.style % 6}", 6),
            _label(at, box[1] + 12, dot.name, "name", anchor),
            _label(at, box[1] + 27, note, "tick", anchor),
        ]
    return _drawing(
        376, title, *parts, _label(0, 12, y_unit, "unit"), _label(right, bottom + 40, x_unit, "unit", "end")
    )


# Bits against loss


def trade_off(title: str, x_unit: str, y_unit: str, curve: Any, chosen: Any) -> Markup | None:
    """A falling curve through pairs [x, y], and the point on it that was chosen; None where there is no curve."""
    line, choice = points(curve), points([chosen] if chosen else [])
    if len(line) < 2:
        return None
    left, top, right, bottom = 54.0, 30.0, 470.0, 250.0
    low_x, high_x = line[0][0], line[-1][0]
    high = _padded([y for _, y in [*line, *choice]])[1]

    def place(x: float, y: float) -> Point:
        return left + (right - left) * (x - low_x) / ((high_x - low_x) or 1.0), bottom - (bottom - top) * y / high

    marks = ticks(0.0, high)
    parts = [_line(left, place(low_x, y)[1], right, place(low_x, y)[1], "grid") for y in marks]
    parts += [_label(left - 8, place(low_x, y)[1] + 4.5, decimals(y, _digits(marks)), "tick", "end") for y in marks]
    across = ticks(low_x, high_x)
    for x in across:
        at = place(x, 0.0)[0]
        words = decimals(x, _digits(across))
        parts += [_line(at, bottom, at, bottom + 5, "axis"), _label(at, bottom + 20, words, "tick", "middle")]
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in line))
    parts += [_line(left, bottom, right, bottom, "axis"), element("polyline", points=places, class_="smooth")]
    for x, y in choice:
        mx, my = place(x, y)
        anchor, shift = ("end", -10) if mx > (left + right) / 2 else ("start", 10)
        parts += [
            marker(1, mx, my, "mark s1", 6),
            _label(mx + shift, my - 24, "this model's plan", "name", anchor),
            _label(mx + shift, my - 9, f"{decimals(x, 2)} bits, {decimals(y, 4)}", "tick", anchor),
        ]
    return _drawing(
        294, title, *parts, _label(0, 12, y_unit, "unit"), _label(right, bottom + 38, x_unit, "unit", "end")
    )


# Won back


def waterfall(title: str, unit: str, before: float, damaged: float, after: float, names: Sequence[str]) -> Markup:
    """Three rows: where we were, what was lost, what came back.

    Args:
        before, damaged, after: values; smaller is better.
        names: of the three rows.
    """
    low, high = _padded([before, damaged, after], 0.12)
    left, right = 6.0, 474.0

    def at(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    def value(x: float, y: float, words: str) -> Markup:
        return _label(x + 8, y, words, "value") if x < 400 else _label(x - 8, y, words, "value", "end")

    def bar(y: float, a: float, b: float, class_: str) -> Markup:
        return element("rect", x=min(at(a), at(b)), y=y, width=abs(at(a) - at(b)), height=20.0, rx=2, class_=class_)

    def change(by: float, less: str, more: str) -> str:
        return f"{less if by < 0 else more} {decimals(abs(by), 3)}"

    rows = [24.0, 84.0, 144.0]
    labels = [_label(left, y - 8, name, "name") for y, name in zip(rows, names, strict=True)]
    parts = [
        _line(at(before), rows[0] + 10, at(before), rows[2] + 28, "guide"),
        marker(2, at(before), rows[0] + 10, "mark s2", 7),
        value(at(before) + 4, rows[0] + 15, decimals(before, 3)),
        bar(rows[1], before, damaged, "bar s1"),
        value(max(at(before), at(damaged)), rows[1] + 15, decimals(damaged, 3)),
        _label(right, rows[1] - 8, change(damaged - before, "gained", "lost"), "tick", "end"),
        bar(rows[2], damaged, after, "bar s2"),
        bar(rows[2], after, before, "rest"),
        value(max(at(after), at(damaged)), rows[2] + 15, decimals(after, 3)),
        _label(right, rows[2] - 8, change(after - damaged, "won back", "lost"), "tick", "end"),
    ]
    marks = ticks(low, high)
    for mark in marks:
        words = _label(at(mark), 192, decimals(mark, _digits(marks)), "tick", "middle")
        parts += [_line(at(mark), 172, at(mark), 177, "axis"), words]
    parts += [_line(left, 172, right, 172, "axis"), _label(right, 212, unit, "unit", "end")]
    return _drawing(218, title, *parts, *labels)


# Bars


def bar(share: Any, style: str, low: Any = None, high: Any = None) -> Markup:
    """A bar over 0..1 that stretches to its box, with an interval where one is given."""
    share, low, high = (min(1.0, max(0.0, float(v))) if is_number(v) else None for v in (share, low, high))
    parts = [element("rect", width=100, height=12, class_="track")]
    if share is not None:
        parts.append(element("rect", width=100 * share, height=12, class_=f"bar {style}"))
    if low is not None and high is not None:
        parts.append(_line(100 * low, 6, 100 * high, 6, "whisker"))
    return element("svg", *parts, viewBox="0 0 100 12", preserveAspectRatio="none", class_="hbar", aria_hidden="true")


def stacked(values: Sequence[float], title: str) -> Markup:
    """One bar cut into shares, each with the style of its number."""
    total = sum(values) or 1.0
    start, parts = 0.0, []
    for number, value in enumerate(values):
        width = 1000 * value / total
        parts.append(element("rect", x=start, width=max(0.0, width - 2), height=30, class_=f"bar t{number % 8}"))
        start += width
    box = {"viewBox": "0 0 1000 30", "preserveAspectRatio": "none"}
    return element("svg", element("title", title), join(parts), **box, role="img", class_="stack")
