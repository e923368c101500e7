"""The report page: every section from its data, nothing from nothing, text of a corpus stays text."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pippin.evaluate import charts, page

EVIL = "<script>alert(1)</script>"
RESULTS: dict[str, Any] = {
    "header": {"recipe": "tiny", "date": "2026-11-21", "machine": "one", "total_s": 12.0, "version": "0.1"},
    "texts": {"a": "held-out stories"},
    "stages": [{"name": "core", "parameters": 1000, "bits_per_byte": {"a": 1.5}, "time_s": 3.0}],
    "curves": [{"stage": "core", "train": [[1, 3.0], [2, 2.0]], "heldout": {"a": [[2, 2.5]]}}],
    "sizes": [{"name": "float", "mb": 4.0, "bits_per_byte": 1.5, "kind": "float"}],
    "bits": {"curve": [[2.1, 0.5], [3.0, 0.2], [4.1, 0.01]], "chosen": [3.7, 0.05], "unit": "KL nats per token"},
    "recovery": {"float_adapter": 1.4, "compressed": 1.6, "compressed_adapter": 1.45},
    "samples": [{"task": "read", "prompt": "Who?", "answer": "Mia", "expected": "Mia", "right": True, "system": "s"}],
    "times": [{"stage": "core", "seconds": 3.0}],
    "curation": [{"source": "stories", "kept": 5, "dropped": {"short": 1}}],
    "next": [{"command": "pippin chat x", "what": "talk"}],
    "notes": ["A note."],
}


def headings(html: str) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", html)


def test_each_section_comes_from_its_data_alone() -> None:
    whole = headings(page.render(RESULTS))
    assert "Bits against loss" in whole
    assert "Size against loss" in whole
    assert headings(page.render({})) == []
    for key, section in (("bits", "Bits against loss"), ("recovery", "What the recovery adapter won back")):
        without = headings(page.render({k: v for k, v in RESULTS.items() if k != key}))
        assert [name for name in whole if name not in without] == [section]


def test_the_bits_show_the_plan_and_the_curve() -> None:
    html = page.render(RESULTS)
    assert "3.70 bits, 0.0500" in html
    assert "KL nats per token" in html
    section = html[html.index("Bits against loss") :]
    places = re.search(r'<polyline points="([^"]+)"', section)
    assert places is not None
    xs, ys = zip(*(map(float, pair.split(",")) for pair in places[1].split()), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # less loss is lower on the page: y grows downwards


@pytest.mark.parametrize("curve", [None, [], [[3.0, 0.1]], [[3.0, float("nan")], [float("inf"), 1.0]]])
def test_a_curve_without_two_points_is_left_out(curve: Any) -> None:
    assert charts.trade_off("t", "x", "y", curve, [3.0, 0.1]) is None
    assert "Bits against loss" not in headings(page.render({"bits": {"curve": curve, "chosen": [3.0, 0.1]}}))


def evil(value: Any) -> Any:
    """The same results with markup in the place of every text."""
    if isinstance(value, str):
        return EVIL
    if isinstance(value, dict):
        return {key: evil(item) for key, item in value.items()}
    return [evil(item) for item in value] if isinstance(value, list) else value


def test_markup_in_any_text_stays_text() -> None:
    html = page.render(evil(RESULTS) | {"texts": {EVIL: EVIL}})
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "default-src 'none'" in html.replace("&#x27;", "'").replace("&#39;", "'")
