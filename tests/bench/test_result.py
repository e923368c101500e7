"""The form of bench results: aims that are missed or not measured are said to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pippin import files
from pippin.bench import result as result_module
from pippin.bench.result import Result, hardware_tag


@pytest.mark.parametrize(
    ("cpu", "tag"),
    [
        ("AMD EPYC", "epyc-2c"),
        ("AMD EPYC 9B14 96-Core Processor", "epyc-9b14-2c"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "xeon-platinum-2c"),
        ("12th Gen Intel(R) Core(TM) i7-1260P", "core-i7-2c"),
        ("Apple M3 Pro", "apple-m3-2c"),
        ("AMD", "amd-2c"),
        ("", "cpu-2c"),
    ],
)
def test_hardware_tag(cpu: str, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_module, "cpu_name", lambda: cpu)
    monkeypatch.setattr(result_module, "cores", lambda: 2)
    assert hardware_tag() == tag
    assert hardware_tag("NVIDIA H200") == f"h200-{tag}"


def test_this_machine_has_a_tag() -> None:
    assert hardware_tag().endswith(f"{result_module.cores()}c")


def test_an_aim_is_met_missed_or_not_measured() -> None:
    result = Result("trial")
    assert result.ratio("a", "speed", "peer", 2.0, ">=", 2.0)
    assert not result.ratio("a", "size", "peer", 1.1, "<=", 1.0)
    assert not result.ratio("a", "speed", "other", None, ">=", 1.0, "not installed")
    assert [ratio["met"] for ratio in result.ratios] == [True, False, False]
    with pytest.raises(ValueError, match="reason"):
        result.ratio("a", "speed", "other", None, ">=", 1.0)


def test_written_form(tmp_path: Path) -> None:
    result = Result("trial", accelerator="NVIDIA H200")
    result.row("a", "pippin", "speed", 3.0, "tokens/s", 2.0, 4.0)
    path = result.write(tmp_path)
    assert path.name == f"trial.{result.hardware}.json"
    written = files.read_json(path)
    assert set(written) == {
        "bench",
        "format_version",
        "date",
        "commit",
        "hardware",
        "machine",
        "rows",
        "ratios",
    }
    assert written["format_version"] == 1
    assert written["machine"]["torch"]
    assert written["rows"] == [
        {
            "case": "a",
            "system": "pippin",
            "metric": "speed",
            "value": 3.0,
            "unit": "tokens/s",
            "low": 2.0,
            "high": 4.0,
        }
    ]
    assert result.write(tmp_path / "other.json").name == "other.json"
