"""The profile counts every parameter and byte once, names what it times, and leaves the model alone."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests.running import command, one_line_error

from pippin.compress.packed import save_packed
from pippin.compress.palettize import palettize
from pippin.compress.size import model_size
from pippin.errors import UserError
from pippin.files import write_json
from pippin.inspect import operations as ops
from pippin.inspect.losses import expected_losses
from pippin.inspect.measure import Times, measure, spread
from pippin.inspect.profile import current_plan, inspect_model, totals
from pippin.interop.hf import save_hf
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

CONFIG = ModelConfig(
    vocab_size=160, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, d_head=16, d_ff=72, max_seq_len=64
)
LAYOUTS = [
    CONFIG,
    dataclasses.replace(CONFIG, qk_norm="none", qkv_bias=True),
    dataclasses.replace(CONFIG, qk_norm="width", post_norm=True, tied=False),
    dataclasses.replace(CONFIG, rope_before_norm=True),
]


def make(config: ModelConfig = CONFIG) -> Transformer:
    torch.manual_seed(0)
    return Transformer(config)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dense")
    save_hf(make(), directory)
    return directory


@pytest.fixture(scope="module")
def profile(dense: Path) -> dict[str, Any]:
    """By a clock that ticks whenever it is looked at: no test of this profile depends on the machine."""
    ticks = itertools.count()
    with mock.patch("pippin.inspect.measure.clock", side_effect=ticks):
        return inspect_model(dense, prompt_tokens=8, rounds=2)


@pytest.mark.parametrize("config", LAYOUTS)
def test_every_parameter_and_byte_is_counted_once(config: ModelConfig) -> None:
    model = make(config)
    found = ops.operations(model, 8)
    assert sum(op.parameters for op in found) == config.n_params().total
    plan = {name: random.Random(0).choice((2, 4)) for name, _ in model.linears()}
    size = model_size(model, plan)
    assert sum(ops.stored_bytes(op, model, 4.0)["8"] for op in found) == size.total_bytes - size.projection_bytes
    size = model_size(model)
    assert sum(ops.stored_bytes(op, model, 4.0)["0"] for op in found) == size.total_bytes - size.projection_bytes
    palettize(model, plan)
    size = model_size(model)
    assert sum(ops.stored_bytes(op, model, 1.0)["0"] for op in found) == size.total_bytes - size.projection_bytes


def test_flops_are_those_of_the_configuration() -> None:
    found = ops.operations(make(), 8)
    matrices = [op for op in found if op.kind in ("projection", "head")]
    assert sum(op.flops["token"] for op in matrices) == 2 * (CONFIG.n_matmul_params() + CONFIG.vocab_size * 32)
    (mix, _) = (op for op in found if op.kind == "attention")
    # One query sees 8 keys and itself; 8 queries see 1 to 8. Two products of 16 for each of 2 heads, and 4 of softmax.
    assert (mix.flops["token"], mix.flops["prompt"]) == (9 * (2 * 2 * 2 * 16 + 8), 36 * (2 * 2 * 2 * 16 + 8))
    assert mix.kv_bytes["token"] == (9 + 1) * 2 * 16 * 2


@pytest.mark.parametrize("config", LAYOUTS)
def test_every_operation_is_timed_and_the_model_is_left_as_it_was(config: ModelConfig) -> None:
    model = make(config).eval()
    tokens = torch.arange(8)[None]
    before, weights = model(tokens), {name: p.data_ptr() for name, p in model.named_parameters()}
    names = [name for name, _ in model.linears()]
    times = measure(model, 8, {"now": dict.fromkeys(names, 0), "four": dict.fromkeys(names, 4)}, rounds=2)
    for plan in ("now", "four"):
        for mode in ops.MODES:
            assert set(times.operations[plan][mode]) == {op.name for op in ops.operations(model, 8)}
            assert all(value > 0 for values in times.operations[plan][mode].values() for value in values)
            assert len(times.passes[plan][mode]) == 2
    assert torch.equal(model(tokens), before)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == weights
    assert all(linear.bits == 0 for _, linear in model.linears())


def test_a_failed_measurement_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make().eval()
    names = [name for name, _ in model.linears()]

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(model, 8, {"two": dict.fromkeys(names, 2)}, 1, stop)
    assert model.embed.codes is None and all(linear.bits == 0 for _, linear in model.linears())


def test_operations_add_up_to_the_passes_after_scaling() -> None:
    times = Times(
        {
            "now": {"token": {"p": [1.0, 1.0], "rest": [1.0, 3.0]}},
            "two": {"token": {"p": [4.0, 4.0], "rest": [9.0, 9.0]}},
        },
        {"now": {"token": [6.0, 6.0]}, "two": {"token": [10.0, 10.0]}},
    )
    times.scale("now", {"p"})
    assert times.operations["now"]["token"] == {"p": [2.0, 2.0], "rest": [2.0, 6.0]}
    assert times.operations["two"]["token"]["p"] == [6.0, 6.0]  # 10 of the pass without the 4 of the rest
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0)


def test_totals_are_the_sizes_that_the_palettizer_makes(profile: dict[str, Any]) -> None:
    names = list(current_plan(profile))
    for seed in range(20):
        plan = {name: random.Random(f"{seed} {name}").choice((2, 4)) for name in names}
        size, found = model_size(make(), plan), totals(profile, plan)
        assert (found["projection_bytes"], found["tensor_bytes"]) == (size.projection_bytes, size.total_bytes)
        assert found["bits_per_weight"] == size.bits_per_weight


def test_times_add_up_in_the_profile(profile: dict[str, Any]) -> None:
    now = totals(profile, current_plan(profile))
    for mode in ops.MODES:
        assert now["ms"][mode] == profile["pass_ms"][mode]["median"]
        assert sum(op["ms"][mode]["median"] for op in profile["operations"]) == pytest.approx(now["ms"][mode])
    four, two, turn = profile["checks"]
    assert four["error"]["token"] == pytest.approx(0, abs=1e-9)  # fitted, and the tables' time is this plan's
    assert [check["fitted"] for check in profile["checks"]] == [True, True, False]
    assert two["predicted_ms"]["token"] > 0 and turn["measured_ms"]["prompt"] > 0


def test_the_file_as_it_is(profile: dict[str, Any], dense: Path) -> None:
    assert profile["float_bits"] == 32
    assert totals(profile, current_plan(profile))["file_bytes"] == (dense / "model.safetensors").stat().st_size


@pytest.mark.parametrize("config", LAYOUTS[:3])
def test_the_header_of_a_packed_file_is_foreseen(config: ModelConfig, tmp_path: Path) -> None:
    save_hf(make(config), tmp_path / "dense")
    profile = inspect_model(tmp_path / "dense", prompt_tokens=4, rounds=1)
    plan = dict.fromkeys(current_plan(profile), 2)
    model = make(config)
    palettize(model, plan)
    save_packed(model, tmp_path / "packed")
    real = (tmp_path / "packed" / "model.safetensors").stat().st_size
    assert abs(totals(profile, plan)["file_bytes"] - real) < 0.01 * real
    packed = inspect_model(tmp_path / "packed", prompt_tokens=4, rounds=1)
    assert totals(packed, plan)["file_bytes"] == real
    assert packed["kind"] == "packed" and packed["loss"]["source"] == "none"
    assert current_plan(packed) == plan and totals(packed, plan)["loss"] is None
    assert {tuple(op["options"]) for op in packed["operations"] if op["kind"] == "projection"} == {("2", "4")}


def test_measured_losses_are_read(tmp_path: Path) -> None:
    model = make()
    rises = {name: {"2": 0.5, "4": 0.125} for name, _ in model.linears()}
    write_json(tmp_path / "sensitivity.json", {"unit": "KL nats per token", "tokens": 64, "rises": rises})
    found = expected_losses(model, tmp_path)
    assert found == {"source": "measured", "unit": "KL nats per token", "tokens": 64, "rises": rises}


@pytest.mark.parametrize(
    ("rises", "says"),
    [
        ([], "must be an object"),
        ({}, "lacks blocks.0.attention.k"),
        ({"other": {"2": 1, "4": 1}}, "lacks"),
        ({"blocks.0.ffn.up": {"2": 1}}, "lacks"),
        ("whole", "names extra"),
        ("not finite", "must be a finite number"),
    ],
)
def test_losses_of_another_model_are_refused(rises: Any, says: str, tmp_path: Path) -> None:
    model = make()
    whole: dict[str, Any] = {name: {"2": 0.5, "4": 0.1} for name, _ in model.linears()}
    if rises == "whole":
        rises = {**whole, "extra": {"2": 1, "4": 1}}
    elif rises == "not finite":
        rises = {**whole, "blocks.0.ffn.up": {"2": None, "4": 1}}
    (tmp_path / "sensitivity.json").write_text(json.dumps({"rises": rises}))
    with pytest.raises(UserError, match=says):
        expected_losses(model, tmp_path)


def test_the_proxy_is_the_error_of_the_weights(profile: dict[str, Any]) -> None:
    assert profile["loss"] == {"source": "proxy", "unit": "relative weight error (proxy)", "tokens": None}
    for op in profile["operations"]:
        if op["kind"] == "projection":
            assert op["options"]["0"]["rise"] == 0
            assert 0 < op["options"]["4"]["rise"] < 0.03 < op["options"]["2"]["rise"] < 0.2


def test_a_mistake_is_one_line_and_writes_nothing(dense: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for arguments, says in [
        ([tmp_path / "absent"], "no such directory"),
        ([tmp_path], "holds no model"),
        ([dense, "--prompt-tokens", "64"], "prompt_tokens: value 64: must be 1 to 63"),
        ([dense, "--rounds", "0"], "rounds: value 0"),
    ]:
        assert says in one_line_error(command("inspect", *arguments, "--html", page))
        assert not page.exists()


def test_without_a_file_a_browser_opens_the_page(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert command("inspect", dense, "--prompt-tokens", "2", "--rounds", "1").code == 0
    (file,) = tmp_path.rglob("*.html")
    assert opened == [file.as_uri()]
    assert command("inspect", dense, "--json", tmp_path / "n.json", "--prompt-tokens", "2", "--rounds", "1").code == 0
    assert opened == [file.as_uri()], "asked for numbers only"


def test_a_plan_of_another_model_has_no_totals(profile: dict[str, Any]) -> None:
    plan = current_plan(profile)
    with pytest.raises(UserError, match="not in both"):
        totals(profile, {**plan, "other": 4})
    with pytest.raises(UserError, match="must be 0, 2, 4"):
        totals(profile, {**plan, "blocks.0.ffn.up": 3})


@pytest.mark.slow
def test_two_plans_differ_in_speed_as_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ratio of tokens/s of two plans, measured interleaved, against the ratio that the profile foresees.

    It must hold on a busy machine, where other programs take the processor, its caches and the memory. So the clock
    stands still while they have the processor (there is one thread), a pass is shorter than the time that programs
    are given in turn, what is foreseen and what is measured come of the same rounds, and only the faster quarter
    of the rounds counts, which was disturbed least. No operation of the two plans is fitted to their own passes.
    """
    assert torch.get_num_threads() == 1
    monkeypatch.setattr("pippin.inspect.measure.clock", time.process_time)
    config = ModelConfig(
        vocab_size=512, d_model=256, n_layers=2, n_heads=4, n_kv_heads=2, d_head=64, d_ff=768, max_seq_len=256
    )
    torch.manual_seed(0)
    model = Transformer(config)
    save_hf(model, tmp_path)
    names = [name for name, _ in model.linears()]
    plans = {
        "mixed": {name: 2 if ".ffn." in name else 4 for name in names},
        "half": {name: 2 if ".ffn." in name else 0 for name in names},
    }
    passes = {}

    def measure_both(
        model: Transformer, prompt_tokens: int, asked: dict[str, dict[str, int]], rounds: int, progress: Any = None
    ) -> Times:
        times = measure(model, prompt_tokens, {**asked, **plans}, rounds, progress)
        for plan, modes in times.passes.items():
            times.passes[plan] = {mode: fastest(values) for mode, values in modes.items()}
            for operations in times.operations[plan].values():
                operations.update({name: fastest(values) for name, values in operations.items()})
        passes.update({plan: times.passes.pop(plan) for plan in plans}, float=times.passes["as it is"])
        return Times({plan: times.operations[plan] for plan in asked}, times.passes)

    def fastest(values: list[float]) -> list[float]:
        return sorted(values)[: len(values) // 4]

    monkeypatch.setattr("pippin.inspect.profile.measure", measure_both)
    profile = inspect_model(tmp_path, prompt_tokens=8, rounds=32)
    medians = {plan: spread(found["token"]).median for plan, found in passes.items()}
    plans["float"] = dict.fromkeys(names, 0)
    foreseen = {plan: totals(profile, chosen)["ms"]["token"] for plan, chosen in plans.items()}
    for plan, other in (("float", "mixed"), ("float", "half"), ("half", "mixed")):
        assert medians[other] > 1.1 * medians[plan], "plans that differ"
        ratio = (medians[plan] / medians[other]) / (foreseen[plan] / foreseen[other])
        assert abs(ratio - 1) < 0.15, (plan, other, medians, foreseen)
