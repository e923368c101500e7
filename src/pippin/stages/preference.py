"""DPO and IPO: a model learns from preferences without a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.preferences import figures
from pippin.model.transformer import Transformer
from pippin.pipeline import Context
from pippin.stages.pairs import PairStage
from pippin.stages.policies import save_policy
from pippin.training.loop import fit
from pippin.training.pairs import EncodedPair, PairLoader
from pippin.training.policy import (
    PreferenceKind,
    Response,
    ResponsePair,
    pair_responses,
    preference_loss,
    score_responses,
)

LOOK_PAIRS = 64  # held-out pairs looked at while training


@dataclass(frozen=True, kw_only=True)
class PreferenceTuning(PairStage):
    """Train `start` on pairs by DPO or IPO (afm 8.1; Rafailov et al. 2023, Azar et al. 2023). Artifact: `model/`.

    The reference is `start` itself, whose log-probabilities are computed once. See `PairStage` for what it reads.

    Args:
        kind: "dpo" or "ipo".
        beta: DPO's beta, IPO's tau; 0.1 is ours (afm 8.7).
        by_length: IPO's log-ratios as means over a response's tokens, as TRL has them; otherwise sums, as the paper.
    """

    kind: PreferenceKind = "dpo"
    beta: float = 0.1
    by_length: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in ("dpo", "ipo"):
            raise UserError(f"kind={self.kind}: must be dpo or ipo")
        if not 0 < self.beta < float("inf"):
            raise UserError(f"beta={self.beta}: must be above 0 and finite")
        if self.by_length and self.kind != "ipo":
            raise UserError("by_length=True: is IPO's; DPO has no such form here")

    def run(self, ctx: Context) -> None:
        directory, model = self.begin(ctx)
        own, held, _, counts = self.pairs(ctx, Tokenizer.load(directory))
        model.eval()
        train, heldout = (_with_reference(model, pairs) for pairs in (own, held))
        before = self._figures(model, heldout)
        model.train()
        loss = partial(preference_loss, model, self.kind, self.beta, self.by_length)

        def look() -> dict[str, float]:
            found = self._figures(model, heldout[:LOOK_PAIRS])
            return {f"heldout_{name}": found[name] for name in ("accuracy", "log_loss", "margin")}

        loader = PairLoader(train, self.train.batch_size, self.seed, pair_responses)
        fit(model, loss, loader, self.train, ctx, look)
        save_policy(ctx, model, directory)
        after = self._figures(model, heldout)
        ctx.result(counts=counts, before=before, **after)

    def _figures(self, model: Transformer, pairs: Sequence[ResponsePair]) -> dict[str, float]:
        """Of held-out pairs by the implied reward beta (log pi - log pi_ref): accuracy, log loss, margin."""
        sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
        ratios = [own - side.reference for own, side in zip(score_responses(model, sides), sides, strict=True)]
        return figures([self.beta * (c - r) for c, r in zip(ratios[0::2], ratios[1::2], strict=True)])


def _with_reference(model: Transformer, pairs: Sequence[EncodedPair]) -> list[ResponsePair]:
    """The pairs as responses, each with its log-probability under the model as it is now."""
    sides = [Response(list(ids[: pair.prompt]), list(ids[pair.prompt :])) for pair in pairs for ids in pair.sides]
    scored = score_responses(model, sides)
    known = [side._replace(reference=value) for side, value in zip(sides, scored, strict=True)]
    return [
        ResponsePair(pair.id, chosen, rejected)
        for pair, chosen, rejected in zip(pairs, known[0::2], known[1::2], strict=True)
    ]
