"""The two recipes of the report against a table of its pre-training recipe (section 4 of the facts), row by row.

Not in the table: 4.10 (the mixtures are directions, not numbers; what text there is, is the user's), 4.15 (the baseline
of an ablation), 4.26 and 4.28 (outcomes), 4.30 and 4.31 (aims), 4.32-4.35 (machines: see the plan's tests).
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from pippin.model.config import PRESETS
from pippin.model.linear import Linear
from pippin.model.transformer import Transformer
from pippin.pipeline import Graph, Stage, upstream
from pippin.recipes.on_device_3b import on_device_3b
from pippin.recipes.server import server
from pippin.stages.distill import Distill
from pippin.stages.pretrain import Pretrain
from pippin.training.optimizer import RMSPropMomentum, param_groups

RECIPES: dict[str, dict[str, Stage]] = {"device": on_device_3b(), "server": server()}

# (fact, recipe, stage, path from the stage, value). Tokens follow from steps, so they may differ by a thousandth.
PHASES = {"core": "core", "continued": "continued", "lengthening": "lengthen"}
T = 1e12
TABLE: list[tuple[str, str, str, str, Any]] = [
    ("2.1", "device", "distill", "model.d_model", 3072),
    ("2.2", "device", "distill", "model.d_head", 128),
    ("2.3", "device", "distill", "model.n_heads", 24),
    ("2.4", "device", "distill", "model.n_kv_heads", 8),
    ("2.4", "server", "core", "model.n_kv_heads", 8),
    ("2.5", "device", "distill", "model.n_layers", 26),
    ("2.6", "device", "distill", "model.d_ff", 8064),
    ("2.7", "device", "distill", "parameters.non_embedding", 2_586_744_320),
    ("2.8", "device", "distill", "parameters.embedding", 150_994_944),
    ("2.10", "device", "distill", "model.vocab_size", 49_152),
    ("2.10", "server", "core", "model.vocab_size", 102_400),
    ("2.13", "device", "distill", "model.tied", True),
    ("2.13", "server", "core", "model.tied", True),
    ("2.14", "device", "distill", "model.norm_eps", 1e-5),
    ("2.21", "device", "distill", "train.z_loss", 1e-6),
    ("2.22", "device", "distill", "train.compute", "bfloat16"),
    ("2.22", "server", "core", "train.compute", "bfloat16"),
    *(
        row
        for recipe, core in (("device", "core"), ("device", "distill"), ("server", "core"))
        for row in (
            ("4.1", recipe, core, "train.tokens", 6.3 * T),
            ("4.2", recipe, core, "train.seq_len", 4_096),
            ("4.5", recipe, core, "train.lr", 0.01),
            ("4.6", recipe, core, "train.warmup_steps", 5_000),
            ("4.7", recipe, core, "train.schedule", "cosine"),
            ("4.7", recipe, core, "train.floor", 0.005),
            ("4.8", recipe, core, "train.weight_decay", 3.16e-4),
            ("4.9", recipe, core, "model.rope_base", 500_000),
            ("4.16", recipe, core, "train.base_width", 768),
        )
    ),
    *(
        row
        for recipe in ("device", "server")
        for stage, tokens, seq_len, rope_base in (
            ("continued", 1 * T, 8_192, 500_000),
            ("lengthen", 0.1 * T, 32_768, 6_315_089),
        )
        for row in (
            ("4.1", recipe, stage, "train.tokens", tokens),
            ("4.2", recipe, stage, "train.seq_len", seq_len),
            ("4.5", recipe, stage, "train.lr", 3e-4),
            ("4.6", recipe, stage, "train.warmup_steps", 1_000),
            ("4.7", recipe, stage, "train.schedule", "cosine"),
            ("4.7", recipe, stage, "train.floor", 0.001),
            ("4.8", recipe, stage, "train.weight_decay", 1e-5),
            ("4.9", recipe, stage, "model.rope_base", rope_base),
            ("4.16", recipe, stage, "train.base_width", 768),
        )
    ),
    ("4.3", "server", "core", "train.batch_size", 4_096),
    ("4.3", "server", "continued", "tokens_per_step", 4_096 * 4_096),
    ("4.3", "server", "lengthen", "tokens_per_step", 4_096 * 4_096),
    ("4.14", "server", "core", "tokens_per_step", 16.8e6),
    ("4.4", "device", "distill", "train.batch_size", 2_048),
    ("4.12", "server", "core", "train.steps", 375.5e3),
    ("4.12", "server", "continued", "train.steps", 59.6e3),
    ("4.12", "server", "lengthen", "train.steps", 5.96e3),
    ("4.20", "device", "core", "parameters.non_embedding", 6.45e9),  # printed 6.4B, see 4.25
    ("4.20", "device", "core", "train.batch_size", 4_096),  # by the recipe of the server
    ("4.23", "device", "prune", "train.tokens", 188e9),
    ("4.24", "device", "prune", "d_ff", 8_064),
    ("4.25", "device", "core", "model.d_ff", 24_192),
    ("4.3 (distillation)", "device", "distill", "teacher_weight", 0.9),
    ("6.3", "device", "sft", "train.lr", 2e-5),
    ("6.3", "server", "sft", "train.lr", 5e-6),
    ("6.3", "server", "sft", "train.schedule", "constant"),
]


def at(stage: Any, path: str) -> Any:
    """A stage's value by its path; two are derived."""
    if path == "tokens_per_step":
        return stage.train.batch_size * stage.train.seq_len
    value = stage
    for name in path.split("."):
        value = value.model.n_params() if name == "parameters" else getattr(value, name)
    return value


@pytest.mark.parametrize(("fact", "recipe", "stage", "path", "value"), TABLE)
def test_every_number_of_the_report(fact: str, recipe: str, stage: str, path: str, value: Any) -> None:
    found = at(RECIPES[recipe][stage], path)
    if isinstance(value, float) and value >= 1_000:
        assert found == pytest.approx(value, rel=2e-3), fact
    elif path == "model.rope_base":
        assert round(found) == value, fact
    else:
        assert found == value, fact


def test_which_stage_follows_which() -> None:
    """4.11, 4.20-4.23, 4.27: the parent is pruned, the student distilled in its core run and in no later one."""
    device, there = RECIPES["device"], Graph(RECIPES["device"], "runs").label
    parents = {name: {f: there(s) for f, s in upstream(device[name]).items() if f != "tokens"} for name in device}
    assert parents["core"] == {}
    assert parents["prune"] == {"parent": "core"}
    assert parents["distill"] == {"start": "prune", "teacher": "core"}
    assert parents["continued"] == {"start": "distill"}
    assert parents["lengthen"] == {"start": "continued"}
    assert [name for name, stage in device.items() if isinstance(stage, Distill)] == ["distill"]
    core, prune, distill = device["core"], device["prune"], device["distill"]
    assert isinstance(core, Pretrain)
    assert prune.mixture == core.mixture == distill.mixture  # 4.23
    assert not any(isinstance(stage, Distill) for stage in RECIPES["server"].values())
    # 4.21: pruning changes the FFN and nothing else.
    assert {f for f, v in vars(core.model).items() if v != getattr(distill.model, f)} == {"d_ff"}


def test_the_optimizer_has_the_report_s_constants() -> None:
    """4.2 of the facts: decay and momentum 0.95, eps 1e-30 on the square, clips at 1, steps of norm 100 are skipped."""
    defaults = {name: p.default for name, p in inspect.signature(RMSPropMomentum).parameters.items()}
    expected = {"decay": 0.95, "momentum": 0.95, "eps": 1e-30, "update_clip": 1.0, "grad_clip": 1.0, "skip_above": 100}
    assert {name: defaults[name] for name in expected} == expected
    for recipe in RECIPES.values():
        assert {stage.train.optimizer for stage in recipe.values() if hasattr(stage, "train")} == {"rmsprop"}


@pytest.mark.parametrize(("preset", "factor"), [("afm-on-device", 0.25), ("afm-server", 0.09375)])
def test_mup_scales_matrices_and_nothing_else(preset: str, factor: float) -> None:
    """4.13, 4.16, 4.17: about 0.1 for the server, 0.25 for the device; embedding and norms are left alone."""
    import torch

    with torch.device("meta"):
        model = Transformer(PRESETS[preset])
    matrices = {module.weight for module in model.modules() if isinstance(module, Linear)}
    for group in param_groups(model):
        names = [name for name, _ in group["params"]]
        assert all((p in matrices) == (group["mup_factor"] == factor) for _, p in group["params"]), names
    assert {group["mup_factor"] for group in param_groups(model)} == {factor, 1.0}
