"""The reward model: preferences of people (or of a judge) to a model that scores answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pippin.data.loader import IGNORE
from pippin.data.preferences import PROPERTIES, Preference, read_preferences
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.preferences import by_level, calibration, figures
from pippin.files import write_json
from pippin.interop.load import load_model
from pippin.interop.reward import save_reward
from pippin.model.reward import RewardModel
from pippin.pipeline import Context, Cost, Stage, digest_tree
from pippin.stages.preference import PREFERENCES
from pippin.training.loop import TrainSpec, fit
from pippin.training.pairs import (
    KINDS,
    EncodedPair,
    Kind,
    PairLoader,
    PairVerdict,
    encode_pair,
    judge_pairs,
    pair_batch,
    pair_loss,
)

NO_LEVEL = "no level"
LOOK_PAIRS = 64  # held-out pairs looked at while training


@dataclass(frozen=True, kw_only=True)
class Reward(Stage):
    """Train a reward model on pairs, from the SFT model (its start, `grade_weight` and the lr are ours; afm 7.6, 7.9).

    Artifacts: `reward/` (see `interop.reward`, with the tokenizer of `start`) and `report/reward.json` of the held-out
    prompts. It runs in one process. Pairs with a side longer than `seq_len` are left out and counted: cut, they would
    lose the end of the answer. Rows are as wide as the longest of their batch; tokens/s counts them as full.

    Args:
        start: whose `model/` it begins from.
        preferences: a stage with `preferences/`; or
        data: a file of them (see `data.preferences`).
        train: the numbers; `batch_size` counts rows, two a pair.
        kind: of the ranking loss: "soft" labels by level, "hard" ones, or a "margin" by level.
        grade_weight: lambda of the regulariser.
        heldout_share: of the prompts, by a hash of their text.
        seed: of the heads and the order.
    """

    start: Stage
    data: str = ""
    preferences: Stage | None = field(default=None, metadata={"later": True})
    train: TrainSpec
    kind: Kind = "soft"
    grade_weight: float = 0.1
    heldout_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        self.train.check()
        if self.train.batch_size % 2:
            raise UserError(f"batch_size={self.train.batch_size}: a pair is two rows; must be even")
        if self.kind not in KINDS:
            raise UserError(f"kind={self.kind}: must be one of {', '.join(KINDS)}")
        if not 0 <= self.grade_weight < float("inf"):
            raise UserError(f"grade_weight={self.grade_weight}: must be at least 0 and finite")
        if bool(self.data) == (self.preferences is not None):
            raise UserError("preferences: give either a stage that collected them or a file (data)")
        if not 0 < self.heldout_share < 1:
            raise UserError(f"heldout_share={self.heldout_share}: must lie between 0 and 1")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed}: must be at least 0 and below 2**63")

    def inputs(self) -> Mapping[str, str]:
        return {"data": digest_tree(Path(self.data).expanduser())} if self.data else {}

    def run(self, ctx: Context) -> None:
        directory = ctx.artifact(self.start, "model")
        model = load_model(directory, self.train.dtype)
        if self.train.seq_len > model.config.max_seq_len:
            raise UserError(f"seq_len={self.train.seq_len}: the model's max_seq_len is {model.config.max_seq_len}")
        path = (
            Path(self.data).expanduser()
            if self.preferences is None
            else ctx.artifact(self.preferences, "preferences") / PREFERENCES
        )
        read = read_preferences(path, self.heldout_share)
        tokenizer = Tokenizer.load(directory)
        encoded = [encode_pair(tokenizer, pair) for pair in read.pairs]
        fits = [max(map(len, each.sides)) <= self.train.seq_len for each in encoded]
        train = [e for e, p, fit_in in zip(encoded, read.pairs, fits, strict=True) if fit_in and p["split"] == "train"]
        held = [
            (e, p) for e, p, fit_in in zip(encoded, read.pairs, fits, strict=True) if fit_in and p["split"] == "heldout"
        ]
        if not held:
            raise UserError(f"{path}: no held-out pair fits seq_len={self.train.seq_len}; raise it")
        pairs, kept = [e for e, _ in held], [p for _, p in held]
        counts = {
            "train": len(train), "heldout": len(held), "repeated": read.repeated, "equal": read.equal,
            "apart": read.apart, "too_long": fits.count(False),
        }  # fmt: skip
        ctx.say(", ".join(f"{name} {n}" for name, n in counts.items()))
        reward = RewardModel(model, PROPERTIES, seed=self.seed)
        loader = PairLoader(train, self.train.batch_size, self.seed, pair_batch)

        def look() -> dict[str, float]:
            found = figures([v.chosen - v.rejected for v in judge_pairs(reward, pairs[:LOOK_PAIRS])])
            return {"heldout_accuracy": found["accuracy"], "heldout_log_loss": found["log_loss"]}

        fit(reward, partial(pair_loss, reward, self.kind, self.grade_weight), loader, self.train, ctx, look)
        found = heldout_report(kept, pairs, judge_pairs(reward, pairs))
        save_reward(reward, ctx.out("reward"), directory)
        write_json(
            ctx.out("report") / "reward.json",
            {"kind": self.kind, "grade_weight": self.grade_weight, "counts": counts} | found,
        )
        ctx.result(counts=counts, **found["heldout"])

    def cost(self) -> Cost:
        return Cost(tokens=self.train.tokens, other_s=2)


def heldout_report(
    pairs: Sequence[Preference], encoded: Sequence[EncodedPair], verdicts: Sequence[PairVerdict]
) -> dict[str, Any]:
    """Figures in all, by level and by length rules, the calibration table, the accuracy of each property's grades."""
    margins = [v.chosen - v.rejected for v in verdicts]
    longer = [float(len(p["chosen"].encode()) - len(p["rejected"].encode())) for p in pairs]
    grades: dict[str, dict[str, float]] = {}
    for number, name in enumerate(PROPERTIES):
        given = [
            (truth[number], said[number])
            for each, verdict in zip(encoded, verdicts, strict=True)
            for truth, said in zip(each.grades, verdict.grades, strict=True)
            if truth[number] != IGNORE
        ]
        if given:
            grades[name] = {"answers": len(given), "accuracy": sum(t == s for t, s in given) / len(given)}
    return {
        "heldout": figures(margins),
        "always_longer": figures(longer)["accuracy"],
        "always_shorter": figures([-each for each in longer])["accuracy"],
        "levels": by_level(margins, [p["level"] or NO_LEVEL for p in pairs]),
        "calibration": calibration(margins),
        "grades": grades,
    }
