"""Labels of the reward model: soft ones with the grades' regulariser beside hard ones and a margin, held-out log loss.

Planted pairs have answers with so many mistakes, levels by the difference, grades, and a preferred side that is drawn
with the probability of its level: there soft labels are right by construction, and what is measured is by how much.
Real pairs are the published hh-rlhf ones where they are at hand (PIPPIN_TEST_DATA); they have no levels, so all are
taken as "slightly better".
"""

from __future__ import annotations

import json
import os
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pippin import files
from pippin.bench.result import Result
from pippin.data.preferences import LEVELS, Preference, read_preferences
from pippin.data.tokenizer import train_tokenizer
from pippin.data.world_tasks import exercise
from pippin.data.world_words import LIST_WORDS, Draw
from pippin.interop.hf import save_hf
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Graph, Stage
from pippin.progress import Screen
from pippin.recipes import posttrain as recipe
from pippin.recipes.committee import spec
from pippin.recipes.posttrain import start_of
from pippin.stages.reward import Reward
from pippin.training.loop import TrainSpec
from pippin.training.losses import SOFT_LABELS

SYSTEMS: dict[str, dict[str, Any]] = {
    "soft labels, grades": {"kind": "soft", "grade_weight": 0.1},
    "soft labels": {"kind": "soft", "grade_weight": 0.0},
    "margin": {"kind": "margin", "grade_weight": 0.0},
    "hard labels": {"kind": "hard", "grade_weight": 0.0},
}
OURS = "soft labels, grades"
HELDOUT = 0.25
PLANTED = 2_000
REAL = "hh-rlhf/harmless-base-test.jsonl.gz"


def compare_labels(result: Result, runs: Path, p: recipe.Params, seeds: int, quick: bool = False) -> None:
    """Add rows and ratios to a result; `quick`: two steps on few pairs."""
    pairs = 100 if quick else PLANTED
    path = runs / "posttrain-labels" / f"planted-{pairs}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, planted(pairs))
    train = replace(spec(300, 32, 0.002), steps=2 if quick else 300, warmup_steps=0)
    losses: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    accuracies: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for seed in range(seeds):
        stages = start_of(replace(p, seed=seed))
        for name, fields in SYSTEMS.items():
            stages[name] = Reward(
                start=stages["sft"], data=str(path), train=train, heldout_share=HELDOUT, seed=seed, **fields
            )
        _train(stages, runs, losses, accuracies)
    _report(result, "planted preferences", losses, accuracies, list(SYSTEMS)[2:])
    _real(result, runs, seeds, quick)


def _train(
    stages: dict[str, Stage], runs: Path, losses: dict[str, list[float]], accuracies: dict[str, list[float]]
) -> None:
    graph = Graph(stages, runs, "posttrain")
    graph.run(list(losses), Screen())
    for name in losses:
        found = graph.record(stages[name])["results"]
        losses[name].append(found["log_loss"])
        accuracies[name].append(found["accuracy"])


def _report(
    result: Result, case: str, losses: dict[str, list[float]], accuracies: dict[str, list[float]], versus: Sequence[str]
) -> None:
    for metric, unit, values in (
        ("held-out log loss of the preferred side", "nats", losses),
        ("held-out accuracy", "1", accuracies),
    ):
        for name, each in values.items():
            result.row(case, name, metric, statistics.median(each), unit, min(each), max(each))
    ours = losses[OURS] if OURS in losses else losses["soft labels"]
    for name in versus:
        worst = max(own / other for own, other in zip(ours, losses[name], strict=True))
        result.ratio(case, "held-out log loss, worst seed", name, worst, "<=", 1.0)


def planted(n: int) -> str:
    """Pairs of answers to list exercises with 0 to 3 mistakes each, as JSON lines.

    The level is that of the difference: 3, 2, 1 mistakes, or a remark that one of two equally right answers has. The
    preferred side is the better one with the probability of its level.
    """
    draw = random.Random(0)
    lines = []
    for index in range(n):
        task = ("sort", "digits", "reverse")[index % 3]
        made = exercise(task, Draw("planted", 0, index), "train")
        words = made.answer.split()
        level = draw.randrange(len(LEVELS))
        worse = min(len(words), 3 - level) if level < 3 else 0
        mistakes = draw.randint(0, 3 - worse) if worse and len(words) == 3 else 0
        better = _spoilt(words, mistakes, draw)
        other = _spoilt(words, mistakes + worse, draw)
        if level == 3:
            other = f"{other} I hope this helps."
        sides = [(better, mistakes, 2), (other, mistakes + worse, 2 if level < 3 else 0)]
        if draw.random() >= SOFT_LABELS[level]:
            sides.reverse()
        grades = [{"truthfulness": max(0, 2 - wrong), "conciseness": concise} for _, wrong, concise in sides]
        lines.append(
            json.dumps(
                {
                    "prompt": [{"role": "user", "content": made.question}],
                    "chosen": sides[0][0],
                    "rejected": sides[1][0],
                    "level": LEVELS[level],
                    "grades": {"chosen": grades[0], "rejected": grades[1]},
                }
            )
        )
    return "".join(line + "\n" for line in lines)


def _spoilt(words: Sequence[str], mistakes: int, draw: random.Random) -> str:
    """The answer with so many words exchanged for others."""
    found = list(words)
    for place in draw.sample(range(len(words)), min(mistakes, len(words))):
        found[place] = draw.choice([word for word in LIST_WORDS if word not in words])
    return " ".join(found)


# --- real pairs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RandomStart(Stage):
    """A random model of one layer, its tokenizer trained on the pairs that are not held out."""

    data: str
    seed: int

    def run(self, ctx: Context) -> None:
        pairs = [pair for pair in read_preferences(self.data, HELDOUT).pairs if pair["split"] == "train"]
        texts = [text for p in pairs for text in (p["chosen"], p["rejected"], *(m["content"] for m in p["prompt"]))]
        tokenizer = train_tokenizer(texts, ctx.out("tokenizer"), 1_024)
        config = ModelConfig(
            vocab_size=tokenizer.vocab_size, d_model=64, n_layers=1, n_heads=4, n_kv_heads=4, d_head=16, d_ff=128,
            max_seq_len=256,
        )  # fmt: skip
        torch.manual_seed(self.seed)
        save_hf(Transformer(config), ctx.out("model"), ctx.out("tokenizer"))


def _real(result: Result, runs: Path, seeds: int, quick: bool) -> None:
    case, names = "hh-rlhf, all taken as slightly better", ("soft labels", "hard labels")
    folder = os.environ.get("PIPPIN_TEST_DATA")
    if folder is None or not (Path(folder) / REAL).exists():
        result.ratio(
            case, "held-out log loss, worst seed", "hard labels", None, "<=", 1.0, "PIPPIN_TEST_DATA has no such pairs"
        )
        return
    read = read_preferences(Path(folder) / REAL, HELDOUT)
    path = runs / "posttrain-labels" / "hh.jsonl"
    files.write_text(path, "".join(_levelled(pair) for pair in read.pairs))
    train = TrainSpec(
        steps=2 if quick else 50, batch_size=64, seq_len=256, lr=2e-3, warmup_steps=0 if quick else 10,
        weight_decay=2e-4, base_width=64, compute="float32", eval_every=50, checkpoint_every=50, optimizer="adamw",
    )  # fmt: skip
    losses: dict[str, list[float]] = {name: [] for name in names}
    accuracies: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(seeds):
        begin = RandomStart(data=str(path), seed=seed)
        stages: dict[str, Stage] = {"begin": begin}
        for name in names:
            stages[name] = Reward(
                start=begin, data=str(path), train=train, heldout_share=HELDOUT, seed=seed, **SYSTEMS[name]
            )
        _train(stages, runs, losses, accuracies)
    _report(result, case, losses, accuracies, names[1:])


def _levelled(pair: Preference) -> str:
    kept = {"prompt": pair["prompt"], "chosen": pair["chosen"], "rejected": pair["rejected"], "level": LEVELS[2]}
    return json.dumps(kept) + "\n"
