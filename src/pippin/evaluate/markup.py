"""HTML and SVG from Python values, safe by construction, and one way to write every kind of number.

`element` escapes every plain string that it is given, as a child or as the value of an attribute; only what
`element` itself made (a `Markup`) goes through as it is. Names of elements and attributes come from our code alone.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

# What neither HTML nor XML can hold, and what cannot be written as UTF-8: a model may say any of it.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VOID = {"meta", "br", "hr", "col", "input"}
MISSING = "\N{EN DASH}"
THIN = "\N{NARROW NO-BREAK SPACE}"


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = Markup | str | None


def text(value: object) -> Markup:
    """The one door for text: any value, escaped."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True))


def join(children: Iterable[Child]) -> Markup:
    """Children one after another; None is left out."""
    return Markup("".join(text(child) for child in children if child is not None))


def element(name: str, /, *children: Child, **attributes: object) -> Markup:
    """`<name attribute="value">children</name>`.

    Attributes: `_` in a name becomes `-`, a last `_` is dropped (`class_`); None leaves an attribute out; floats are
    written with two decimals, enough for coordinates.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            value = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{text(value)}"')
    opening = " ".join(parts)
    return Markup(f"<{opening}>" if name in _VOID else f"<{opening}>{join(children)}</{name}>")


def is_number(value: object) -> TypeGuard[float]:
    """A finite int or float, no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def decimals(value: Any, digits: int) -> str:
    """A number with a fixed number of decimals, a real minus sign and thin spaces; a dash where there is none."""
    if not is_number(value):
        return MISSING
    return f"{value:,.{digits}f}".replace(",", THIN).replace("-", "\N{MINUS SIGN}")


def count(value: Any) -> str:
    """A whole number: 12 345."""
    return decimals(value, 0)


def compact(value: Any) -> str:
    """A large number in three digits: 950, 9.83 M, 2.73 B."""
    if not is_number(value):
        return MISSING
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{three_digits(value / size)}{THIN}{unit}"
    return three_digits(value) if value != int(value) else count(value)


def three_digits(value: Any) -> str:
    """1.23, 12.3, 123."""
    if not is_number(value):
        return MISSING
    return decimals(value, 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0)


def percent(share: Any) -> str:
    """A share of 1 as whole per cent; one decimal under one per cent, so that little does not read as nothing."""
    if not is_number(share):
        return MISSING
    return f"{decimals(100 * share, 1 if 0 < abs(share) < 0.00995 else 0)}{THIN}%"


def duration(seconds: Any) -> str:
    """0.4 s, 42 s, 3 min 05 s, 2 h 07 min."""
    if not is_number(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{decimals(seconds, 1)}{THIN}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{THIN}s"
    if whole < 3600:
        return f"{whole // 60}{THIN}min {whole % 60:02d}{THIN}s"
    return f"{count(whole // 3600)}{THIN}h {whole % 3600 // 60:02d}{THIN}min"


def table(head: Sequence[Child], rows: Iterable[Sequence[Child]], **attributes: object) -> Markup:
    """A table in a box that scrolls sideways where it must; the first column names the row."""
    lines = [(element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows]
    body = [element("tr", *line) for line in lines]
    heads = element("tr", *(element("th", cell, scope="col") for cell in head))
    whole = element("table", element("thead", heads), element("tbody", *body), **attributes)
    return element("div", whole, class_="scroll", tabindex="0")
