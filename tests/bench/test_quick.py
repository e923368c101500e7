"""Every bench has a short trial that reaches all of it; what it prints has the one form."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from pippin.bench import tables
from pippin.cli import BENCHES


def trial(name: str, folder: Path) -> dict:
    module = importlib.import_module(f"pippin.bench.{name}")
    params = module.Params()
    if hasattr(params, "runs"):
        params = dataclasses.replace(params, runs=str(folder / "runs"))
    path = module.run(params, quick=True).write(folder / f"{name}.json")
    return json.loads(Path(path).read_text(encoding="utf-8"))


def check(result: dict, name: str) -> None:
    assert result["bench"] == name
    assert result["rows"]
    for row in result["rows"]:
        assert row["case"]
        assert row["system"]
        assert row["unit"]
        assert row["value"] is None or row["value"] == row["value"]  # not NaN
    for ratio in result["ratios"]:
        assert ratio["value"] is not None or (not ratio["met"] and ratio["reason"])
    assert f"## {name}" in tables.rows(result)
    assert tables.aims([result]).count("\n") == 1 + len(result["ratios"])


@pytest.mark.parametrize("name", ["compress_3b"])
def test_quick(name: str, tmp_path: Path) -> None:
    check(trial(name, tmp_path), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BENCHES if name != "compress_3b"])
def test_quick_of_the_longer_ones(name: str, tmp_path: Path) -> None:
    check(trial(name, tmp_path), name)
