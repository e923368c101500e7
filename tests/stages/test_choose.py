"""The checkpoint that goes on is the best by what was asked for, whatever is injected, cut or damaged on the way."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.test_reward import SHORT as PAIRS
from tests.stages.test_reward import Begin, planted

from pippin.errors import UserError
from pippin.files import read_json
from pippin.interop.load import load_model
from pippin.model.config import ModelConfig
from pippin.pipeline import Graph, Stage
from pippin.progress import Screen
from pippin.stages.chats import Chats
from pippin.stages.choose import Choose, best_step
from pippin.stages.prompts import Prompts
from pippin.stages.reward import Reward
from pippin.stages.sft import Sft
from pippin.training.checkpoint_model import step_model
from pippin.training.loop import TrainSpec

# A rate that is too high: the later steps are worse.
TRAIN = TrainSpec(
    steps=8, batch_size=4, seq_len=64, lr=0.3, compute="float32", log_every=1, eval_every=8, checkpoint_every=2,
    keep_every=2,
)  # fmt: skip
WORDS = ("red", "green", "blue", "north", "south", "stone", "river", "cloud")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Stage]]:
    """The runs directory, and the stages that are there: fine-tuning with its checkpoints, a reward model, prompts."""
    place = tmp_path_factory.mktemp("chosen")
    rows = [(f"Say {a} {b}", f"{b} {a}") for a in WORDS for b in WORDS]
    lines = [
        json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}) for q, a in rows
    ]
    (place / "chats.jsonl").write_text("\n".join(lines))
    asked = [
        {"messages": [{"role": "user", "content": q}], "split": "heldout", "verifier": {"kind": "exact", "answer": a}}
        for q, a in rows[:6]
    ]
    (place / "prompts.jsonl").write_text("\n".join(map(json.dumps, asked)))
    begin = Begin()
    chats = Chats(model=begin, data=str(place / "chats.jsonl"))
    stages: dict[str, Stage] = {"begin": begin}
    graph = Graph(stages, place / "runs")
    graph.run([], Screen(quiet=True))
    shape = load_model(graph.directory(begin) / "model").config
    stages |= {
        "chats": chats,
        "sft": Sft(tokens=chats, start=begin, train=TRAIN, mixture={"chat": 1.0}, model=ModelConfig(**vars(shape))),
        "reward": Reward(start=begin, data=str(planted(place / "pairs.jsonl", 80)), train=PAIRS),
        "prompts": Prompts(data=str(place / "prompts.jsonl")),
    }
    Graph(stages, place / "runs").run([], Screen(quiet=True))
    return place / "runs", stages


def choose(made: tuple[Path, dict[str, Stage]], **fields: Any) -> Path:
    runs, stages = made
    trained = stages["sft"]
    assert isinstance(trained, Sft)
    choice = Choose(trained=trained, **fields)
    graph = Graph(stages | {"choice": choice}, runs)
    graph.run(["choice"], Screen(quiet=True))
    return graph.directory(choice)


def told(directory: Path) -> dict[str, Any]:
    return dict(read_json(directory / "report" / "choice.json"))


def scores(directory: Path) -> dict[int, float]:
    return {int(step): each["score"] for step, each in told(directory)["steps"].items()}


def checkpoints(made: tuple[Path, dict[str, Stage]]) -> Path:
    return next(made[0].glob("sft-*")) / "checkpoint"


def test_the_lowest_bits_win_and_it_is_that_steps_model(made: tuple[Path, dict[str, Stage]]) -> None:
    directory = choose(made, metric="bpb_chat")
    found = scores(directory)
    assert list(found) == [2, 4, 6, 8]  # kept ones and the end; not the newest two that a killed run would leave
    step = told(directory)["step"]
    assert step == min(found, key=lambda each: found[each])
    assert len(set(found.values())) == 4
    end = read_json(next(made[0].glob("sft-*")) / "stage.json")["results"]["bpb_chat"]
    assert found[8] == pytest.approx(end, rel=1e-6)
    saved = load_file(directory / "model" / "model.safetensors")
    if step == 8:
        expected = load_model(next(made[0].glob("sft-*")) / "model", torch.float32)
    else:
        expected = step_model(checkpoints(made) / f"step-{step:08d}", torch.float32)
    tokens = torch.tensor([[5, 6, 7]])
    opened = load_model(directory / "model", torch.float32)
    assert saved
    assert torch.equal(opened(tokens), expected(tokens))
    assert (directory / "model" / "tokenizer.json").is_file()


def test_what_is_not_a_number_never_wins(made: tuple[Path, dict[str, Stage]], monkeypatch: pytest.MonkeyPatch) -> None:
    best = told(choose(made, metric="bpb_chat"))["step"]
    plain = Choose._tried

    def injected(self: Choose, ctx: Any, step: int) -> dict[str, Any]:
        return {"score": None} if step == best else plain(self, ctx, step)

    with monkeypatch.context() as patched:
        patched.setattr(Choose, "_tried", injected)
        directory = choose(made, metric="bpb_chat", seed=1)  # another stage
    found = {step: value for step, value in scores(directory).items() if step != best}
    assert scores(directory)[best] is None
    assert told(directory)["step"] == min(found, key=lambda each: found[each])


def test_the_choice_survives_a_restart(made: tuple[Path, dict[str, Stage]], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = told(choose(made, metric="bpb_chat"))
    plain = Choose._tried
    tried: list[int] = []

    def counted(self: Choose, ctx: Any, step: int) -> dict[str, Any]:
        tried.append(step)
        if tried == [2, 4, 6]:
            raise KeyboardInterrupt
        return plain(self, ctx, step)

    with monkeypatch.context() as patched:
        patched.setattr(Choose, "_tried", counted)
        with pytest.raises(KeyboardInterrupt):
            choose(made, metric="bpb_chat", seed=2)
        again = told(choose(made, metric="bpb_chat", seed=2))
    assert tried == [2, 4, 6, 6, 8]
    assert again == whole


def test_a_damaged_step_is_left_out_and_said(made: tuple[Path, dict[str, Stage]]) -> None:
    best = told(choose(made, metric="bpb_chat"))["step"]
    step = 2 if best == 8 else best
    (shard,) = (checkpoints(made) / f"step-{step:08d}").glob("*.safetensors")
    content = shard.read_bytes()
    try:
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        directory = choose(made, metric="bpb_chat", seed=3)
    finally:
        shard.write_bytes(content)
    assert f"step {step} is left out" in (directory / "log").read_text()
    assert "damaged" in (directory / "report" / "summary.txt").read_text()
    assert told(directory)["step"] != step


def test_exact_match_and_a_tie_goes_to_the_earlier_step(made: tuple[Path, dict[str, Stage]]) -> None:
    directory = choose(made, metric="exact_match", instruct=made[1]["chats"], per_task=3)
    found = scores(directory)
    assert all(0 <= value <= 1 for value in found.values())
    most = max(found.values())
    assert told(directory)["step"] == min(step for step, value in found.items() if value == most)
    assert told(directory)["larger_is_better"]


def test_best_of_n_reports_what_the_reward_model_picked(made: tuple[Path, dict[str, Stage]]) -> None:
    fields = {"metric": "best_of_n", "prompts": made[1]["prompts"], "reward": made[1]["reward"], "max_tokens": 6}
    several = told(choose(made, samples=4, **fields))
    one = told(choose(made, samples=1, **fields))
    for step, each in several["steps"].items():
        assert each["score"] > each["mean_reward"], step
        assert {"right_picked", "right_mean", "right_any", "ended"} <= set(each)
        assert 0 <= each["right_picked"] <= each["right_any"] <= 1
    assert all(each["score"] == each["mean_reward"] for each in one["steps"].values())
    found = {int(step): each["score"] for step, each in several["steps"].items()}
    assert several["step"] == best_step(found, larger=True)


def test_the_best_step() -> None:
    assert best_step({8: 0.5, 2: 0.5, 4: 0.4}, larger=True) == 2
    assert best_step({8: 0.5, 2: 0.5, 4: 0.6}, larger=False) == 2
    assert best_step({2: math.nan, 4: -1.0, 6: math.inf, 8: -math.inf}, larger=True) == 4
    assert best_step({2: math.nan, 4: 9.0, 6: math.inf, 8: -math.inf}, larger=False) == 4
    with pytest.raises(UserError, match="steps 1, 2: no score is a finite number"):
        best_step({2: math.nan, 1: math.inf}, larger=True)


def test_mistakes_are_one_line(made: tuple[Path, dict[str, Stage]]) -> None:
    sft = made[1]["sft"]
    assert isinstance(sft, Sft)
    with pytest.raises(UserError, match="metric: value 'loss': choose from bpb_chat, exact_match, best_of_n"):
        Choose(trained=sft, metric="loss")
    with pytest.raises(UserError, match="instruct: missing"):
        Choose(trained=sft, metric="exact_match")
    with pytest.raises(UserError, match="prompts, reward: metric=best_of_n needs"):
        Choose(trained=sft, metric="best_of_n", prompts=made[1]["prompts"])
    for keep_every in (0, 8):
        with pytest.raises(UserError, match=f"keep_every={keep_every}, checkpoint_every=2: no checkpoint"):
            Choose(trained=replace(sft, train=replace(TRAIN, keep_every=keep_every)), metric="bpb_chat")
