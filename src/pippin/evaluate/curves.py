"""A standalone SVG of some curves: a figure over a setting, with whiskers over the seeds and the best point marked."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from pippin.evaluate.charts import ticks
from pippin.evaluate.markup import Markup, element, join

LEFT, TOP, WIDTH, HEIGHT = 64, 24, 480, 300
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#555555", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "6 4", "2 3", "", "6 4", "2 3", "8 3 2 3")

Curve = Mapping[float, Sequence[float]]  # a setting -> the figure for each seed


def best(curve: Curve) -> float:
    """The setting with the lowest mean figure."""
    return min(curve, key=lambda setting: statistics.mean(curve[setting]))


def picture(
    title: str,
    x_label: str,
    y_label: str,
    curves: Mapping[str, Curve],
    name: Callable[[float], str] = "{:g}".format,
    marked: bool = True,
    styles: Mapping[str, tuple[int, int]] | None = None,
) -> str:
    """The curves as SVG.

    Args:
        title: for readers who do not see it.
        x_label, y_label: of the axes; x is logarithmic.
        curves: by name, each {setting: figures}; the mean is drawn, whiskers are the extremes.
        name: how a setting is written under the axis.
        marked: put a disc at each curve's lowest mean.
        styles: numbers of a curve's colour and dashes; both count up, if not given.
    """
    settings = sorted({setting for curve in curves.values() for setting in curve})
    figures = [value for curve in curves.values() for values in curve.values() for value in values]
    low, high = min(figures), max(figures)
    pad = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    low, high = low - pad, high + pad
    first, last = math.log(settings[0]), math.log(settings[-1])
    span = (last - first) or 1.0
    right, bottom = LEFT + WIDTH, TOP + HEIGHT

    def x(setting: float) -> float:
        return LEFT + WIDTH * (math.log(setting) - first) / span

    def y(value: float) -> float:
        return TOP + HEIGHT * (high - value) / (high - low)

    marks = ticks(low, high)
    digits = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9)) if len(marks) > 1 else 2
    middle = TOP + HEIGHT / 2
    parts = [
        element("title", title),
        element("rect", width=760, height=380, fill="white"),
        *(element("path", d=f"M{LEFT},{y(mark):.1f}H{right}", stroke="#dddddd") for mark in marks),
        element("path", d=f"M{LEFT},{TOP}V{bottom}H{right}", fill="none", stroke="black"),
        element("text", x_label, x=LEFT + WIDTH / 2, y=bottom + 44, text_anchor="middle"),
        element("text", y_label, transform=f"translate(16,{middle:g}) rotate(-90)", text_anchor="middle"),
        *(element("text", name(setting), x=x(setting), y=bottom + 20, text_anchor="middle") for setting in settings),
        *(element("text", f"{mark:.{digits}f}", x=LEFT - 8, y=y(mark) + 4, text_anchor="end") for mark in marks),
    ]
    for number, (label, curve) in enumerate(curves.items()):
        hue, strokes = (number, number) if styles is None else styles[label]
        colour, dash = COLOURS[hue % len(COLOURS)], DASHES[strokes % len(DASHES)] or None
        means = {setting: statistics.mean(curve[setting]) for setting in sorted(curve)}
        line = " ".join(f"{x(setting):.1f},{y(mean):.1f}" for setting, mean in means.items())
        whiskers = "".join(f"M{x(s):.1f},{y(min(v)):.1f}V{y(max(v)):.1f}" for s, v in sorted(curve.items()))
        winner, row = best(curve), TOP + 12 + 22 * number
        parts += [
            element("polyline", points=line, fill="none", stroke=colour, stroke_width=2, stroke_dasharray=dash),
            element("path", d=whiskers, stroke=colour, opacity=0.5),
            element("circle", cx=x(winner), cy=y(means[winner]), r=6, fill=colour) if marked else Markup(),
            element("path", d=f"M{right + 16},{row}h28", stroke=colour, stroke_width=2, stroke_dasharray=dash),
            element("text", label, x=right + 50, y=row + 4),
        ]
    return (
        element(
            "svg", join(parts), xmlns="http://www.w3.org/2000/svg", viewBox="0 0 760 380", role="img",
            font_family="sans-serif", font_size=13,
        )
        + "\n"
    )  # fmt: skip
