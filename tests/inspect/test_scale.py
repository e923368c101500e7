"""`pippin show RECIPE --devices N`: what it says is what the estimates say; what cannot be is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.running import command, one_line_error

from pippin.inspect.scale import parse_bytes, training_work
from pippin.recipes.on_device_3b import on_device_3b
from pippin.training.plan import Plan


def show(*arguments: str | Path) -> dict[str, Any]:
    outcome = command("show", *arguments, "--json")
    assert outcome.code == 0, outcome
    return json.loads(outcome.out)


def test_the_server_as_the_report_trained_it(tmp_path: Path) -> None:
    found = show("server", "--devices", "8192", "--chip", "tpu-v4", "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert list(stages) == ["core", "continued", "lengthen", "sft"]
    core = stages["core"]
    assert core["tokens"] == pytest.approx(6.3e12, rel=1e-3)
    layer = 2 * 8_192 * 128 * (64 + 8) + 3 * 8_192 * 21_504 + 2 * 8_192 + 2 * 128
    assert core["parameters"] == 80 * layer + 8_192 + 102_400 * 8_192
    # 6.3T tokens at 52 % of 8,192 x 275 TFLOP/s
    assert core["at_report_mfu"]["days"] == pytest.approx(core["flops"] / (8_192 * 275e12 * 0.52) / 86_400, rel=1e-9)
    assert 20 < core["at_report_mfu"]["days"] < 23
    assert core["fits"]
    assert core["memory_bytes"]["total"] < 32 * 2**30
    assert sum(v for k, v in core["memory_bytes"].items() if k != "total") == core["memory_bytes"]["total"]
    predicted = core["predicted"]
    assert predicted["days"] == pytest.approx(predicted["step_s"] * 375_509 / 86_400, rel=1e-9)
    assert predicted["mfu"] * predicted["days"] == pytest.approx(0.52 * core["at_report_mfu"]["days"], rel=1e-9)
    assert Plan.parse(core["plan"], 8_192).size == 8_192


def test_a_given_plan_that_does_not_fit_says_what_would(tmp_path: Path) -> None:
    arguments = ("on_device_3b", "--devices", "64", "--memory", "40GB", "--parallel", "fsdp=64 micro_batch=4")
    found = show(*arguments, "--runs", tmp_path)
    assert found["refused"] == {
        "summary": "parallel: micro_batch=4 does not divide the 1 rows of a process; choose a divisor"
    }
    distill = next(s for s in found["stages"] if s["stage"] == "distill")
    assert not distill["fits"]
    changes = {way["change"]: way["bytes"] for way in distill["would_fit"]}
    assert "recompute=block" in changes
    assert all(size < 40e9 for size in changes.values())
    outcome = command("show", *arguments, "--runs", tmp_path)
    text = " ".join(outcome.out.split())
    assert "distill does not fit: " in text
    assert "It would with recompute=block" in text
    assert "summary cannot be spread so: " in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("server --devices 8192 --memory eighty", "--memory: value 'eighty': write a size such as 80GB"),
        ("server --devices 64 --chip v4", "--chip: value 'v4': unknown; choose from a100, h100"),
        ("server --devices 64 --parallel fsdp=32", "parallel: .*needs 32 processes, there are 64"),
        ("server --devices 64 --parallel tensor=64", "stage core: parallel: tensor=64 does not divide n_kv_heads=8"),
        ("server --devices 7", "stage core: devices=7: no plan spreads 4096 rows"),
        ("server --devices 0", "Invalid value for '--devices'"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: str, expected: str, tmp_path: Path) -> None:
    message = one_line_error(command("show", *arguments.split(), "--runs", tmp_path))
    assert re.search(expected, message), message


def test_sizes_are_read() -> None:
    assert [parse_bytes(t) for t in ("80GB", "32GiB", "1.5t", "100")] == [80e9, 32 * 2**30, 1.5e12, 100]


def test_what_a_stage_is_to_an_estimate() -> None:
    recipe: dict[str, Any] = on_device_3b()
    distill, summary = training_work(recipe["distill"]), training_work(recipe["summary"])
    assert distill.frozen == (recipe["core"].model,)  # the teacher is asked while the student learns
    teacher = recipe["core"].model.forward_flops_per_token(4_096)
    assert distill.flops_per_token == pytest.approx(distill.model.train_flops_per_token(4_096) + teacher)
    assert summary.trained == 22_417_408  # rank 16 on all seven matrices: 44.8 MB in 16 bits (10.2)
    assert summary.trained * 2 == pytest.approx(44.8e6, rel=1e-3)


def test_the_page_shows_what_is_printed(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "plan.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```text\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    typed = re.findall(r"^\$ pippin (show .*)$", page, flags=re.MULTILINE)
    assert len(typed) == len(shown) == 2
    for line, block in zip(typed, shown, strict=True):
        outcome = command(*line.split(), "--runs", tmp_path / "runs")
        assert outcome.code == 0, outcome
        printed = [" ".join(row.split()) for row in outcome.out.splitlines()]
        for row in block.splitlines():
            assert any(each.startswith(" ".join(row.split())) for each in printed), row
