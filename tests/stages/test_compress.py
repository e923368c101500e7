"""The compress stage: plans chosen and given, the model whole or block by block, tables tuned with codes fixed."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny

from pippin.compress import matrix
from pippin.compress.palettize import candidates
from pippin.data.loader import Loader
from pippin.errors import UserError
from pippin.interop.load import load_model
from pippin.model.codes import GROUP_ROWS, unpack
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.stages.compress import CALIBRATION_ROWS, PLAN, SENSITIVITY, Compress
from pippin.training.loop import TrainSpec

_FULL = tiny()["compress"]
assert isinstance(_FULL, Compress)
STAGE = replace(_FULL, calibration_tokens=2_048, sensitivity_tokens=1_024)


def compressed(runs: Path, stage: Compress) -> Path:
    """Run a variant of the tiny chain's compress stage; returns its model directory."""
    graph = Graph(tiny() | {"compress": stage, "recover": tiny()["sft"], "evaluate": tiny()["sft"]}, runs)
    graph.run(["compress"], Screen())
    return graph.artifact(stage, "model")


@pytest.fixture(scope="module")
def runs(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("compress") / "runs"))


@pytest.fixture(scope="module")
def plain(runs: Path) -> Path:
    """With measured sensitivities, without tuning: the whole model in memory."""
    return compressed(runs, replace(STAGE, tune=None))


def packed(directory: Path) -> dict[str, torch.Tensor]:
    model = load_model(directory, torch.float32)
    return {name: linear.dense_weight() for name, linear in model.linears()}


def test_the_plan_and_what_it_was_made_from_are_kept(plain: Path) -> None:
    plan = json.loads((plain / PLAN).read_text())
    sensitivity = json.loads((plain / SENSITIVITY).read_text())
    model = load_model(plain)
    assert plan == {name: linear.bits for name, linear in model.linears()}
    assert set(plan.values()) == {2, 4}
    assert sensitivity["unit"] == "KL nats per token"
    assert sensitivity["tokens"] >= 1_000
    assert list(sensitivity["rises"]) == list(plan)
    assert all(set(options) == {"2", "4"} for options in sensitivity["rises"].values())


def test_block_by_block_is_the_same_but_for_the_weights_of_tokens(
    runs: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Path(shutil.copy(plain / PLAN, tmp_path / "plan.json"))
    given = replace(STAGE, tune=None, plan=str(plan))
    streamed = compressed(runs, replace(given, by_block=True))
    assert not (streamed / SENSITIVITY).exists()
    weighed = compressed(runs, given)
    assert (weighed / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    assert (streamed / "model.safetensors").read_bytes() != (plain / "model.safetensors").read_bytes()
    # The same without weights and with as little work, the model whole:
    thin = functools.partial(matrix.compensated, refits=0, sweeps=1)
    monkeypatch.setattr("pippin.compress.palettize.token_weights", lambda *_: None)
    monkeypatch.setattr("pippin.compress.palettize.compensated", thin)
    alike = compressed(runs, replace(given, sensitivity_tokens=999))  # another id
    assert (alike / "model.safetensors").read_bytes() == (streamed / "model.safetensors").read_bytes()


def test_block_by_block_needs_what_it_can_do() -> None:
    for stage in ({"sensitivity": "measured", "tune": None}, {"sensitivity": "proxy"}):
        with pytest.raises(UserError, match="by_block"):
            replace(STAGE, by_block=True, **stage)


def test_the_proxy_ranks_without_evaluations(runs: Path, plain: Path) -> None:
    by_proxy = compressed(runs, replace(STAGE, tune=None, sensitivity="proxy"))
    assert json.loads((by_proxy / SENSITIVITY).read_text())["unit"] == "relative output error"
    sizes = [sum(bits for bits in json.loads((d / PLAN).read_text()).values()) for d in (plain, by_proxy)]
    assert abs(sizes[0] - sizes[1]) <= 8  # the same budget


def test_tuning_moves_tables_and_scales_and_no_code(runs: Path, plain: Path, finished: Path) -> None:
    spec = TrainSpec(steps=20, batch_size=4, seq_len=64, lr=0.01, weight_decay=0.0)
    tuned = compressed(runs, replace(STAGE, tune=spec))
    assert (tuned / PLAN).read_text() == (plain / PLAN).read_text()
    for (name, before), (_, after) in zip(load_model(plain).linears(), load_model(tuned).linears(), strict=True):
        assert not torch.equal(before.dense_weight(), after.dense_weight()), name
        shape = before.bits, before.out_features, before.in_features
        old, new = unpack(before.codes, *shape).long(), unpack(after.codes, *shape).long()
        for first in range(0, len(old), GROUP_ROWS):  # a sorted table renumbers its codes, all alike in a group
            pairs = 16 * old[first : first + GROUP_ROWS] + new[first : first + GROUP_ROWS]
            assert len(pairs.unique()) == len(old[first : first + GROUP_ROWS].unique()), name
    steps = [json.loads(line) for line in (tuned.parent / "metrics.jsonl").read_text().splitlines()]
    losses = [step["loss"] for step in steps if "loss" in step]
    assert losses


def test_candidates_do_not_depend_on_what_else_is_tried(runs: Path, plain: Path) -> None:
    graph = Graph(tiny(), runs)
    model = load_model(graph.artifact(STAGE.start, "model"))
    tokens, seq_len = graph.artifact(STAGE.tokens, "tokens"), model.config.max_seq_len
    loader = Loader(tokens, STAGE.mixture, "train", seq_len, CALIBRATION_ROWS, STAGE.seed)
    batches = [loader.batch(i) for i in range(STAGE.calibration_tokens // loader.tokens_per_step)]
    plan = json.loads((plain / PLAN).read_text())
    found = candidates(model, batches, {name: (bits,) for name, bits in plan.items()})
    for name, weight in packed(plain).items():
        assert torch.equal(found[name][plan[name]].dense(*weight.shape), weight)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"blocks.0.attention.q": 4}', "lacks blocks.0.attention.k"),
        ("[1, 2]", "must be an object"),
        ("{", "not valid JSON"),
    ],
)
def test_a_plan_that_does_not_fit_is_one_line_and_writes_nothing(
    runs: Path, tmp_path: Path, text: str, message: str
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(text)
    stage = replace(STAGE, plan=str(plan))
    with pytest.raises(UserError, match=message) as caught:
        compressed(runs, stage)
    assert "\n" not in str(caught.value)
    assert str(plan) in str(caught.value)
    assert not list(Graph(tiny() | {"compress": stage, "recover": tiny()["sft"], "evaluate": tiny()["sft"]}, runs)
                    .directory(stage).glob("model*"))  # fmt: skip


def test_a_missing_plan_is_one_line(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        compressed(runs, replace(STAGE, plan=str(tmp_path / "nowhere.json")))
