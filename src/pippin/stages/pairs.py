"""What the stages share that train on preferences: where pairs come from, which fit, what is held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pippin.data.preferences import Preference, read_preferences
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.interop.load import load_model
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage, digest_tree
from pippin.training.loop import TrainSpec
from pippin.training.pairs import EncodedPair, encode_pair

PREFERENCES = "preferences.jsonl"


class Pairs(NamedTuple):
    """Pairs to train on, held-out ones with their texts, and how many there are, or were left out and why."""

    train: list[EncodedPair]
    heldout: list[EncodedPair]
    texts: list[Preference]
    counts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class PairStage(Stage):
    """Base of the stages that train on pairs, in one process.

    Pairs with a side longer than `seq_len` are left out and counted: cut, they would lose the end of the answer. Rows
    are as wide as the longest of their batch; tokens/s counts them as full.

    Args:
        start: whose `model/` it begins from.
        preferences: a stage with `preferences/`; or
        data: a file of them (see `data.preferences`).
        train: the numbers; `batch_size` counts rows, two a pair.
        heldout_share: of the prompts, by a hash of their text.
        seed: of what is drawn.
    """

    start: Stage
    data: str = ""
    preferences: Stage | None = field(default=None, metadata={"later": True})
    train: TrainSpec
    heldout_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        self.train.check()
        if self.train.batch_size % 2:
            raise UserError(f"batch_size={self.train.batch_size}: a pair is two rows; must be even")
        if bool(self.data) == (self.preferences is not None):
            raise UserError("preferences: give either a stage that collected them or a file (data)")
        if not 0 < self.heldout_share < 1:
            raise UserError(f"heldout_share={self.heldout_share}: must lie between 0 and 1")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed}: must be at least 0 and below 2**63")

    def inputs(self) -> Mapping[str, str]:
        return {"data": digest_tree(Path(self.data).expanduser())} if self.data else {}

    def begin(self, ctx: Context) -> tuple[Path, Transformer]:
        """The directory of `start`'s model, and the model."""
        directory = ctx.artifact(self.start, "model")
        model = load_model(directory, self.train.dtype)
        if self.train.seq_len > model.config.max_seq_len:
            raise UserError(f"seq_len={self.train.seq_len}: the model's max_seq_len is {model.config.max_seq_len}")
        return directory, model

    def pairs(self, ctx: Context, tokenizer: Tokenizer) -> Pairs:
        """The pairs as token ids.

        Raises:
            UserError: none of a side fits `seq_len`; what `read_preferences` raises.
        """
        if self.preferences is None:
            path = Path(self.data).expanduser()
        else:
            path = ctx.artifact(self.preferences, "preferences") / PREFERENCES
        read = read_preferences(path, self.heldout_share)
        fitting = [
            (pair, encoded)
            for pair in read.pairs
            if max(map(len, (encoded := encode_pair(tokenizer, pair)).sides)) <= self.train.seq_len
        ]
        train = [encoded for pair, encoded in fitting if pair["split"] == "train"]
        held = [(pair, encoded) for pair, encoded in fitting if pair["split"] == "heldout"]
        for name, own in (("held-out", held), ("training", train)):
            if not own:
                raise UserError(f"{path}: no {name} pair fits seq_len={self.train.seq_len}; raise it")
        counts = {
            "train": len(train), "heldout": len(held), "repeated": read.repeated, "equal": read.equal,
            "apart": read.apart, "tied": read.tied, "too_long": len(read.pairs) - len(fitting),
        }  # fmt: skip
        ctx.say(", ".join(f"{name} {n}" for name, n in counts.items()))
        return Pairs(train, [encoded for _, encoded in held], [pair for pair, _ in held], counts)

    def cost(self) -> Cost:
        return Cost(tokens=self.train.tokens, other_s=2)
