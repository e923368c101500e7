"""The muP bench: its parts quickly, its claim (slow) by training."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from pippin.bench import mup
from pippin.bench.mup import Params
from pippin.errors import UserError


def test_language_is_decided_by_three_symbols() -> None:
    tokens = mup.language(400, seed=3)
    assert torch.equal(tokens, mup.language(400, seed=3))
    assert not torch.equal(tokens, mup.language(400, seed=4))
    seen: dict[tuple[int, ...], int] = {}
    for row in torch.cat((tokens, mup.language(50, seed=9))).tolist():
        for t in range(3, len(row)):
            assert seen.setdefault(tuple(row[t - 3 : t]), row[t]) == row[t]
    assert len(seen) > 400  # of 512


def test_quick_run_has_every_row_and_a_picture(tmp_path: Path) -> None:
    result = mup.run(Params(svg=str(tmp_path / "mup.svg")), quick=True)
    rows = {(row["case"], row["system"], row["metric"]) for row in result.rows}
    assert len(rows) == 3 * (3 + 1)
    assert ("d_model 64", "no muP", "held-out loss at lr 2^-6") in rows
    assert all(math.isfinite(row["value"]) for row in result.rows)
    assert [(ratio["versus"], ratio["direction"], ratio["aim"]) for ratio in result.ratios] == [
        ("muP", "<=", 1),
        ("no muP", ">=", 2),
    ]
    svg = ET.parse(tmp_path / "mup.svg").getroot()
    assert len(svg.findall("{*}polyline")) == 3
    assert [len(line.attrib["points"].split()) for line in svg.findall("{*}polyline")] == [3, 3, 3]


def test_shift_counts_grid_steps_and_distrusts_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    def curve(valley: int) -> mup.Curve:
        return {e: [abs(e - valley) + 0.1, abs(e - valley) - 0.1] for e in range(-9, -2)}

    def shifts(narrow: int, wide_with: int, wide_without: int) -> list[tuple[int | None, bool]]:
        curves = {(32, "muP"): curve(narrow), (128, "muP"): curve(wide_with), (128, "no muP"): curve(wide_without)}
        monkeypatch.setattr(mup, "measure", lambda params: curves)
        return [(ratio["value"], ratio["met"]) for ratio in mup.run(Params(widths=(32, 128), low=-9)).ratios]

    assert shifts(-6, -7, -8) == [(1, True), (2, True)]
    assert shifts(-6, -8, -7) == [(2, False), (1, False)]
    assert shifts(-6, -6, -9) == [(0, True), (None, False)]
    assert shifts(-3, -4, -6) == [(None, False), (None, False)]


def test_a_model_that_blows_up_counts_as_knowing_nothing() -> None:
    loss = mup.train(Params(steps=20, warmup_steps=1), 32, 32, 1e30, 0)
    assert math.isfinite(loss)


def test_impossible_settings_are_one_clear_line() -> None:
    for bad in (
        Params(widths=(32, 100)),
        Params(widths=(16, 64)),
        Params(widths=(64, 32)),
        Params(low=-3, high=-4),
        Params(seeds=0),
    ):
        with pytest.raises(UserError, match=r"^\w+: value [^\n]*$"):
            mup.run(bad)


@pytest.mark.slow
def test_best_learning_rate_stays_with_mup_and_moves_without() -> None:
    result = mup.run(Params(widths=(32, 128), seeds=2, low=-8))
    assert [ratio["met"] for ratio in result.ratios] == [True, True], result.ratios
