"""A reward model trained as a stage: planted preferences are found, a cut run ends with the same bits, errors."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pippin.data.tokenizer import Tokenizer, train_tokenizer
from pippin.errors import UserError
from pippin.files import read_json
from pippin.interop.hf import save_hf
from pippin.interop.reward import load_reward
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Graph, Stage, stage_id
from pippin.progress import Screen
from pippin.stages import reward as reward_stage
from pippin.stages.reward import NO_LEVEL, Reward
from pippin.training.loop import TrainSpec

WORDS = ("red", "green", "blue", "north", "south", "stone", "river", "cloud")
KIND_WORD = "please"


@dataclass(frozen=True, kw_only=True)
class Begin(Stage):
    """A random language model with a tokenizer: what an SFT stage leaves."""

    def run(self, ctx: Context) -> None:
        tokenizer = train_tokenizer([" ".join((*WORDS, KIND_WORD, "Say"))] * 50, ctx.out("tokenizer"), 320, True)
        config = ModelConfig(
            vocab_size=tokenizer.vocab_size, d_model=32, n_layers=1, n_heads=2, n_kv_heads=1, d_head=16, d_ff=48,
            max_seq_len=64,
        )  # fmt: skip
        torch.manual_seed(0)
        save_hf(Transformer(config), ctx.out("model"), ctx.out("tokenizer"))


def planted(path: Path, n: int = 400, level: str | None = "better") -> Path:
    """The answer with the kind word is the chosen one; its place, the other words and the lengths are random."""
    draw = random.Random(0)
    lines = []
    for number in range(n):
        plain = [draw.choices(WORDS, k=draw.randint(2, 6)) for _ in range(2)]
        plain[0].insert(draw.randint(0, len(plain[0])), KIND_WORD)
        value = {
            "prompt": [{"role": "user", "content": f"Say {number}"}],
            "chosen": " ".join(plain[0]),
            "rejected": " ".join(plain[1]),
            "level": level,
            "grades": {"chosen": {"harmlessness": 2}, "rejected": {"harmlessness": 0, "truthfulness": None}},
        }
        lines.append(json.dumps(value))
    path.write_text("\n".join(lines))
    return path


SHORT = TrainSpec(
    steps=6, batch_size=4, seq_len=64, lr=0.01, compute="float32", log_every=1, eval_every=3, checkpoint_every=2
)


def run(place: Path, data: Path, train: TrainSpec = SHORT, **fields: Any) -> Path:
    """Run the stage; its directory."""
    begin = Begin()
    made = Reward(start=begin, data=str(data), train=train, **fields)
    graph = Graph({"begin": begin, "reward": made}, place)
    graph.run(["reward"], Screen(quiet=True))
    return graph.directory(made)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


def test_planted_preferences_are_found(data: Path, tmp_path: Path) -> None:
    train = replace(SHORT, steps=60, batch_size=32, warmup_steps=5, eval_every=60, checkpoint_every=60)
    directory = run(tmp_path, data, train, heldout_share=0.25)
    report = read_json(directory / "report" / "reward.json")
    counts = report["counts"]
    assert counts["train"] + counts["heldout"] == 400
    assert counts["heldout"] > 60
    assert report["heldout"]["accuracy"] > 0.95
    assert report["heldout"]["accuracy"] > max(report["always_longer"], report["always_shorter"])
    assert 0.5 < report["heldout"]["margin"] < 4.0  # logit(0.85) is 1.73: soft labels keep it there
    assert list(report["levels"]) == ["better"]
    assert report["levels"]["better"] == report["heldout"]
    assert sum(row["pairs"] for row in report["calibration"]) == counts["heldout"]
    assert report["grades"]["harmlessness"]["accuracy"] > 0.9
    assert "truthfulness" not in report["grades"]
    tokenizer, reward = Tokenizer.load(directory / "reward"), load_reward(directory / "reward", torch.float32)
    ids = [
        [*[tokenizer.role_id("user"), *tokenizer.encode("Say 7"), tokenizer.end_id, tokenizer.role_id("assistant")],
         *tokenizer.encode(answer), tokenizer.end_id]
        for answer in (f"red {KIND_WORD} stone", "red river stone")
    ]  # fmt: skip
    with torch.no_grad():
        kind, plain = (float(reward(torch.tensor([row]), torch.tensor([[0, len(row) - 1]])).rewards_N) for row in ids)
    assert kind > plain


def test_a_cut_run_ends_with_the_same_bits(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole", data)
    plain: Callable[..., Any] = reward_stage.pair_loss

    def cut(*arguments: Any) -> Any:
        if arguments[-1] == 5:
            raise KeyboardInterrupt
        return plain(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(reward_stage, "pair_loss", cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", data)
    again = run(tmp_path / "cut", data)
    assert "resumed at step 4" in (again / "log").read_text()
    for name in ("reward/model.safetensors", "reward/grades.safetensors", "report/reward.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name


@dataclass(frozen=True, kw_only=True)
class Collected(Stage):
    """What a stage leaves that collected preferences."""

    def run(self, ctx: Context) -> None:
        planted(ctx.out("preferences") / "preferences.jsonl")


def test_preferences_of_a_stage_train_as_those_of_a_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, collected = Begin(), Collected()
    made = Reward(start=begin, preferences=collected, train=SHORT)
    graph = Graph({"begin": begin, "collected": collected, "reward": made}, tmp_path / "stage")
    graph.run(["reward"], Screen(quiet=True))
    model = run(tmp_path / "file", data) / "reward" / "model.safetensors"
    assert (graph.directory(made) / "reward" / "model.safetensors").read_bytes() == model.read_bytes()
    monkeypatch.chdir(data.parent)
    older = stage_id(Reward(start=begin, data=data.name, train=SHORT))
    assert older.startswith("82b60ae0d841")  # as before stages could be given


@pytest.mark.parametrize("kind", ["hard", "margin"])
def test_the_kinds_differ_and_pairs_without_a_level_have_their_line(data: Path, tmp_path: Path, kind: str) -> None:
    soft = run(tmp_path, data)
    other = run(tmp_path, data, kind=kind)
    assert (soft / "reward/model.safetensors").read_bytes() != (other / "reward/model.safetensors").read_bytes()
    bare = run(tmp_path, planted(tmp_path / "bare.jsonl", 40, None), heldout_share=0.3, kind=kind)
    assert list(read_json(bare / "report" / "reward.json")["levels"]) == [NO_LEVEL]


def test_what_is_wrong_is_one_line(data: Path, tmp_path: Path) -> None:
    def fails(match: str, at: Path = data, **fields: Any) -> None:
        with pytest.raises(UserError, match=match) as raised:
            run(tmp_path, at, **fields)
        assert "\n" not in str(raised.value)

    fails("batch_size=3: a pair is two rows", train=replace(SHORT, batch_size=3))
    fails("preferences: give either a stage that collected them or a file", preferences=Begin())
    with pytest.raises(UserError, match="preferences: give either a stage that collected them or a file"):
        Reward(start=Begin(), train=SHORT)
    fails("kind=ranked: must be one of soft, hard, margin", kind="ranked")
    fails("grade_weight=nan: must be at least 0", grade_weight=float("nan"))
    fails("seq_len=128: the model's max_seq_len is 64", train=replace(SHORT, seq_len=128))
    fails("no held-out pair fits seq_len=4", train=replace(SHORT, seq_len=4))
    fails("level: value 'good': must be one of", at=planted(tmp_path / "level.jsonl", 9, "good"))
    assert not list(tmp_path.glob("reward-*/DONE"))


def test_a_reward_that_is_not_a_number_is_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = reward_stage.RewardModel

    def broken(*arguments: Any, **named: Any) -> Any:
        reward = made(*arguments, **named)
        torch.nn.init.constant_(reward.score.weight, float("nan"))
        return reward

    monkeypatch.setattr(reward_stage, "RewardModel", broken)
    with pytest.raises(UserError, match="reward: value nan or inf in the batch of pairs.jsonl:"):
        run(tmp_path, data)
    assert not list(tmp_path.glob("reward-*/reward/config.json"))
