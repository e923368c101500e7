"""Reinforcement learning as a stage: it learns what is rewarded, goes on exactly after a cut, errors are one line."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.stages.speaking import Speaker, preferences, prompts

from pippin.errors import UserError
from pippin.pipeline import Graph, read_metrics
from pippin.progress import Screen
from pippin.stages import reinforce as reinforce_stage
from pippin.stages.policies import ComparePolicies
from pippin.stages.prompts import Prompts
from pippin.stages.reinforce import Reinforce
from pippin.stages.reward import Reward
from pippin.training.loop import TrainSpec

SHORT = TrainSpec(
    steps=8, batch_size=16, seq_len=64, lr=0.01, weight_decay=0.0, compute="float32", log_every=1, eval_every=8,
    checkpoint_every=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the speaker is trained once."""
    return tmp_path_factory.mktemp("reinforce")


def run(place: Path, train: TrainSpec = SHORT, compare: bool = False, **fields: Any) -> Path:
    asked = Prompts(data=str(prompts(place / "prompts.jsonl")))
    begin = Speaker()
    stages = {"begin": begin, "prompts": asked}
    if fields.pop("rewarded", False):
        pairs = preferences(place / "pairs.jsonl")
        own = TrainSpec(steps=30, batch_size=16, seq_len=64, lr=0.01, compute="float32", eval_every=99)
        stages["reward"] = fields["reward"] = Reward(start=begin, data=str(pairs), train=own)
    made = Reinforce(start=begin, prompts=asked, train=train, max_tokens=6, **({"responses": 4} | fields))
    stages["reinforce"] = made
    if compare:
        members = {"start": begin, "trained": made}
        stages["compare"] = ComparePolicies(prompts=asked, reference=begin, members=members, max_tokens=6)
    graph = Graph(stages, place)
    graph.run(["compare" if compare else "reinforce"], Screen(quiet=True))
    return graph.directory(stages["compare"] if compare else made)


@pytest.mark.parametrize(("kind", "rewarded"), [("mdloo", False), ("rloo", False), ("mdloo", True)])
def test_what_is_rewarded_is_learnt(place: Path, kind: str, rewarded: bool) -> None:
    train = replace(SHORT, steps=24, checkpoint_every=24, eval_every=24)
    report = run(place, train, compare=True, kind=kind, rewarded=rewarded) / "report" / "policies.json"
    found = json.loads(report.read_text())
    before, after = found["start"], found["trained"]
    assert 0.2 < before["sampled"]["share"] < 0.8
    assert after["sampled"]["share"] > 0.95
    assert after["by_source"]["say"]["greedy"]["share"] == 1.0
    assert abs(before["kl"]) < 1e-6
    assert 0.2 < after["kl"] < 1.5  # from about 1/2 to 1: ln 2
    assert after["stopped"] == 1.0


def test_figures_and_responses_of_each_iteration_are_kept(place: Path) -> None:
    directory = run(place)
    figures = [entry for entry in read_metrics(directory / "metrics.jsonl") if "reward" in entry]
    assert [entry["step"] for entry in figures] == [0, 2, 4, 6]
    assert figures[0]["kl_reference"] == pytest.approx(0, abs=1e-6)
    assert all(entry["log_prob_error"] < 1e-4 for entry in figures)
    lines = [json.loads(line) for line in (directory / "responses" / "iteration-00001.jsonl").open()]
    assert len(lines) == 32
    assert figures[1]["reward"] == pytest.approx(statistics.fmean(line["reward"] for line in lines))
    groups = [lines[i : i + 4] for i in range(0, 32, 4)]
    assert all(len({line["prompt"] for line in group}) == 1 for group in groups)
    for line in lines:
        assert line["reward"] == (line["response"].strip() == "blue" and line["stopped"]) - (not line["stopped"])


def test_a_cut_run_ends_with_the_same_bits(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(place)
    plain: Callable[..., Any] = reinforce_stage.policy_loss

    def cut(*arguments: Any) -> Any:
        if arguments[-1] == 7:  # in the middle of the last iteration
            raise KeyboardInterrupt
        return plain(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(reinforce_stage, "policy_loss", cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    again = run(tmp_path)
    assert "resumed at step 4" in (again / "log").read_text()
    files = ["model/model.safetensors", *(f"responses/iteration-{n:05}.jsonl" for n in range(4))]
    for name in files:
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    assert [m for m in read_metrics(again / "metrics.jsonl") if "reward" in m] == [
        m for m in read_metrics(whole / "metrics.jsonl") if "reward" in m
    ]


def test_what_is_wrong_is_one_line(place: Path) -> None:
    def fails(match: str, **fields: Any) -> None:
        with pytest.raises(UserError, match=match) as raised:
            run(place, **fields)
        assert "\n" not in str(raised.value)

    fails("responses=1: leave-one-out compares", responses=1)
    fails("batch_size=16: counts responses; must be a multiple of responses=3", responses=3)
    fails("checkpoint_every=4: an iteration is minibatches x epochs = 8 steps", minibatches=4, epochs=2)
    fails("kind=grpo: must be one of mdloo, rloo, ppo", kind="grpo")
    fails("gamma=nan: must be at least 0 and finite", gamma=float("nan"))
    fails("temperature=0: must be above 0", temperature=0)
    fails(r"prompt \d+: its \d+ tokens and max_tokens=6 exceed", train=replace(SHORT, seq_len=8))


def test_a_reward_model_that_is_broken_or_of_another_tokenizer_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = reinforce_stage.load_reward

    def broken(*arguments: Any) -> Any:
        reward = plain(*arguments)
        reward.score.weight.data.fill_(float("nan"))
        return reward

    with monkeypatch.context() as patched:
        patched.setattr(reinforce_stage, "load_reward", broken)
        with pytest.raises(UserError, match="reward: value nan or inf: every response needs a finite reward"):
            run(place, replace(SHORT, lr=0.011), rewarded=True)
    with monkeypatch.context() as patched:
        patched.setattr("pippin.interop.reward.read_json", lambda path: str(path))
        with pytest.raises(UserError, match="differs from the one of"):
            run(place, replace(SHORT, lr=0.012), rewarded=True)
