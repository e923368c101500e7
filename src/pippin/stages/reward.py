"""The reward model: preferences of people (or of a judge) to a model that scores answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pippin.data.loader import IGNORE
from pippin.data.preferences import PROPERTIES, Preference
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.preferences import by_level, calibration, figures
from pippin.files import write_json
from pippin.interop.reward import save_reward
from pippin.model.reward import RewardModel
from pippin.pipeline import Context
from pippin.stages.pairs import PairStage
from pippin.training.loop import fit
from pippin.training.pairs import (
    KINDS,
    EncodedPair,
    Kind,
    PairLoader,
    PairVerdict,
    judge_pairs,
    pair_batch,
    pair_loss,
)

NO_LEVEL = "no level"
LOOK_PAIRS = 64  # held-out pairs looked at while training


@dataclass(frozen=True, kw_only=True)
class Reward(PairStage):
    """Train a reward model on pairs, from the SFT model (its start, `grade_weight` and the lr are ours; afm 7.6, 7.9).

    Artifacts: `reward/` (see `interop.reward`, with the tokenizer of `start`) and `report/reward.json` of the held-out
    prompts. See `PairStage` for what it reads.

    Args:
        kind: of the ranking loss: "soft" labels by level, "hard" ones, or a "margin" by level.
        grade_weight: lambda of the regulariser.
    """

    kind: Kind = "soft"
    grade_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise UserError(f"kind={self.kind}: must be one of {', '.join(KINDS)}")
        if not 0 <= self.grade_weight < float("inf"):
            raise UserError(f"grade_weight={self.grade_weight}: must be at least 0 and finite")

    def run(self, ctx: Context) -> None:
        directory, model = self.begin(ctx)
        train, pairs, kept, counts = self.pairs(ctx, Tokenizer.load(directory))
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
