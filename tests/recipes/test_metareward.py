"""The miniature of Meta-Rewarding at the smallest size: its stages from end to end, with a scripted judge."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pippin.data.mixture import derive
from pippin.errors import UserError
from pippin.files import read_json
from pippin.pipeline import Graph, stage_id
from pippin.progress import Screen
from pippin.recipes.metareward import Params, metareward
from pippin.stages import metareward as stage_module
from pippin.stages.preference import PreferenceTuning
from pippin.stages.prompts import Prompts
from pippin.training.loop import TrainSpec

FEW = TrainSpec(steps=2, batch_size=4, seq_len=96, lr=0.001)
TINY = Params(
    documents=100, each=60, vocab_size=400, d_model=64, n_layers=1, core=FEW, sft=FEW, dpo=replace(FEW, seq_len=128),
    prompts=48, heldout=4,
)  # fmt: skip
MODELS = ["sft", "meta-1", "meta-2", "self-1", "self-2"]


class Scripted:
    """Answers right or wrong, judges well, and prefers the judgement that is longer."""

    name = "scripted"

    def __init__(self, right: Mapping[str, str]) -> None:
        self.right = right

    def write(
        self, conversations: Sequence[Sequence[Mapping[str, object]]], *, n: int = 1, max_tokens: int,
        temperature: float = 1.0, seed: int = 0,
    ) -> list[list[str]]:  # fmt: skip
        draws = [[random.Random(derive(seed, place, i)) for i in range(n)] for place in range(len(conversations))]
        return [
            [self.say(str(messages[-1]["content"]), draw) for draw in row]
            for messages, row in zip(conversations, draws, strict=True)
        ]

    def say(self, asked: str, draw: random.Random) -> str:
        lines = asked.split("\n")
        if asked in self.right:
            return self.right[asked] if draw.random() < 0.5 else draw.choice(("fig", "7"))
        if lines[-1] == "Which is better?":
            return "Better: A" if len(lines[-3]) > len(lines[-2]) else "Better: B"
        right = lines[1].removeprefix("Answer: ") == self.right[lines[0]]
        return "11111 Score: 5" if right == (draw.random() < 0.8) else draw.choice(("fig 11000 Score: 2", "fig"))


def test_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = metareward(TINY)
    asked = [stage for name, stage in stages.items() if name.startswith("prompts-")]
    right: dict[str, str] = {}
    for stage in asked:
        assert isinstance(stage, Prompts)
        for prompt in (stage._prompt(i, "train") for i in range(TINY.prompts)):
            assert prompt["verifier"] is not None
            right[prompt["messages"][0]["content"]] = prompt["verifier"]["answer"]
    assert len(right) > 1.5 * TINY.prompts  # the iterations have prompts of their own
    monkeypatch.setattr(stage_module, "ModelWriter", lambda *_: Scripted(right))
    graph = Graph(stages, tmp_path)
    graph.run(["report"], Screen(quiet=True))
    report = graph.directory(stages["report"]) / "report"
    found = read_json(report / "judging.json")
    assert list(found) == MODELS
    assert "meta-2" in (report / "summary.txt").read_text()
    for each in found.values():
        assert each["act"]["total"] == TINY.heldout
        assert each["act_sampled"]["total"] == TINY.heldout * TINY.answers
        assert each["judge"]["wrong"] > 0
        assert each["judge"]["right"] + each["judge"]["wrong"] == found["sft"]["judge"]["wrong"]  # none is right
        assert each["judge"]["auc"] is None
        assert each["meta"]["total"] == TINY.heldout
    pairs = {name: graph.record(stages[f"{name}-pairs-1"])["results"] for name in ("meta", "self")}
    assert pairs["meta"]["judge_pairs"] > 0 == pairs["self"]["judge_pairs"]
    assert pairs["meta"]["actor_pairs"] == pairs["self"]["actor_pairs"]
    for name in MODELS[1:]:
        tuned = stages[name]
        assert isinstance(tuned, PreferenceTuning)
        before = f"{name[:-1]}1" if name.endswith("2") else "sft"
        assert tuned.start is stages[before]


def test_seeds_and_iterations_are_parameters() -> None:
    ids = {stage_id(metareward(replace(TINY, seed=seed))["sft"]) for seed in range(3)}
    assert len(ids) == 3
    assert "meta-3" in metareward(replace(TINY, iterations=3))
    assert "meta-2" not in metareward(replace(TINY, iterations=1))
    with pytest.raises(UserError, match="iterations=0"):
        metareward(replace(TINY, iterations=0))
