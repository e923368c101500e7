"""The search for the mixture of fine-tuning, in the smallest numbers: every run is there, and the end follows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests import tiny

from pippin.data.autoscale_project import read_mixture
from pippin.data.mixture_search import BASE
from pippin.errors import UserError
from pippin.files import read_json
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.recipes.sft_mixture import Params, sft_mixture
from pippin.training.loop import TrainSpec

WEIGHTS = {"chat": 0.97, "chat-describe": 0.03}
PARAMS = Params(
    base=replace(tiny.PARAMS, mixtures=replace(tiny.PARAMS.mixtures, sft=WEIGHTS)),
    delta=0.02,
    seeds=2,
    fresh_seeds=1,
    tasks=("add",),
    per_task=1,
    train=TrainSpec(steps=2, batch_size=2, seq_len=64, lr=0.003, schedule="constant"),
)


def test_the_search_ends_in_a_mixture_that_was_tried(finished: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(finished, runs)
    graph = Graph(sft_mixture(PARAMS), runs)
    ran = graph.run(["choice"], Screen(quiet=True))
    mixtures = [BASE, "chat+0.02", "chat-0.02", "chat-describe+0.02", "chat-describe-0.02"]
    made = {f"{kind}-{name}-{seed}" for kind in ("sft", "score") for name in mixtures for seed in (0, 1)}
    made |= {f"{kind}-{name}-2" for kind in ("sft", "score") for name in (BASE, "candidate")}
    made |= {"search", "choice"}  # the chain up to the start is there already
    # Of two components the same shares are two trials' ("chat -0.02", "chat-describe +0.02"), and run once.
    assert set(ran) == {graph.label(graph.stages[name]) for name in made}
    search = read_json(graph.directory(graph.stages["search"]) / "report" / "summary.json")
    assert list(search["scores"]) == [BASE, "chat +0.02", "chat -0.02", "chat-describe +0.02", "chat-describe -0.02"]
    assert all(len(each) == 2 for each in search["scores"].values())
    assert set(search["trials"]) == set(search["scores"]) - {BASE}
    for name, row in search["scores"].items():
        for seed, value in enumerate(row):
            stage = graph.stages[f"score-{name.replace(' ', '')}-{seed}"]
            assert graph.record(stage)["results"]["score"] == value
    chosen = read_mixture(graph.directory(graph.stages["choice"]) / "mixture" / "mixture.json")
    candidate = read_mixture(graph.directory(graph.stages["search"]) / "mixture" / "mixture.json")
    assert chosen in (candidate, WEIGHTS)
    assert sum(chosen.values()) == pytest.approx(1)
    shares = [graph.record(graph.stages[f"sft-{name}-0"])["fields"]["mixture"]["chat"] for name in mixtures]
    assert shares == pytest.approx([0.97, 0.99, 0.95, 0.95, 0.99])
    assert "standard error" in (graph.directory(graph.stages["search"]) / "report" / "summary.txt").read_text()


def test_one_seed_tells_no_noise() -> None:
    with pytest.raises(UserError, match="seeds=1"):
        sft_mixture(replace(PARAMS, seeds=1))
