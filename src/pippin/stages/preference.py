"""DPO and IPO: a model learns from preferences without a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pippin.data.preferences import read_preferences
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.preferences import figures
from pippin.interop.load import load_model
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage, digest_tree
from pippin.stages.policies import save_policy
from pippin.training.loop import TrainSpec, fit
from pippin.training.pairs import EncodedPair, PairLoader, encode_pair
from pippin.training.policy import (
    PreferenceKind,
    Response,
    ResponsePair,
    pair_responses,
    preference_loss,
    score_responses,
)

LOOK_PAIRS = 64  # held-out pairs looked at while training
PREFERENCES = "preferences.jsonl"


@dataclass(frozen=True, kw_only=True)
class PreferenceTuning(Stage):
    """Train `start` on pairs by DPO or IPO (afm 8.1; Rafailov et al. 2023, Azar et al. 2023), in one process.

    The reference is `start` itself, whose log-probabilities are computed once. Pairs with a side longer than `seq_len`
    are left out and counted. Artifact: `model/`.

    Args:
        start: whose `model/` it begins from.
        preferences: a stage with `preferences/`; or
        data: a file of them (see `data.preferences`).
        train: the numbers; `batch_size` counts rows, two a pair.
        kind: "dpo" or "ipo".
        beta: DPO's beta, IPO's tau; 0.1 is ours (afm 8.7).
        by_length: IPO's log-ratios as means over a response's tokens, as TRL has them; otherwise sums, as the paper.
        heldout_share: of the prompts, by a hash of their text.
        seed: of the order.
    """

    start: Stage
    preferences: Stage | None = None
    data: str = ""
    train: TrainSpec
    kind: PreferenceKind = "dpo"
    beta: float = 0.1
    by_length: bool = False
    heldout_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        self.train.check()
        if self.train.batch_size % 2:
            raise UserError(f"batch_size={self.train.batch_size}: a pair is two rows; must be even")
        if self.kind not in ("dpo", "ipo"):
            raise UserError(f"kind={self.kind}: must be dpo or ipo")
        if not 0 < self.beta < float("inf"):
            raise UserError(f"beta={self.beta}: must be above 0 and finite")
        if self.by_length and self.kind != "ipo":
            raise UserError("by_length=True: is IPO's; DPO has no such form here")
        if bool(self.data) == (self.preferences is not None):
            raise UserError("preferences: give either a stage that collected them or a file (data)")
        if not 0 < self.heldout_share < 1:
            raise UserError(f"heldout_share={self.heldout_share}: must lie between 0 and 1")

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
        kept: dict[str, list[EncodedPair]] = {"train": [], "heldout": []}
        too_long = 0
        for pair in read.pairs:
            encoded = encode_pair(tokenizer, pair)
            if max(map(len, encoded.sides)) <= self.train.seq_len:
                kept[pair["split"]].append(encoded)
            else:
                too_long += 1
        for split, pairs in kept.items():
            if not pairs:
                raise UserError(f"{path}: no {split} pair fits seq_len={self.train.seq_len}; raise it")
        counts = {split: len(pairs) for split, pairs in kept.items()} | {"too_long": too_long}
        ctx.say(", ".join(f"{name} {n}" for name, n in counts.items()))
        model.eval()
        train, heldout = (_with_reference(model, kept[split]) for split in ("train", "heldout"))
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

    def cost(self) -> Cost:
        return Cost(tokens=self.train.tokens, other_s=2)


def _with_reference(model: Transformer, pairs: Sequence[EncodedPair]) -> list[ResponsePair]:
    """The pairs as responses, each with its log-probability under the model as it is now."""
    sides = [Response(list(ids[: pair.prompt]), list(ids[pair.prompt :])) for pair in pairs for ids in pair.sides]
    scored = score_responses(model, sides)
    known = [side._replace(reference=value) for side, value in zip(sides, scored, strict=True)]
    return [
        ResponsePair(pair.id, chosen, rejected)
        for pair, chosen, rejected in zip(pairs, known[0::2], known[1::2], strict=True)
    ]
