"""Palettization: choose bits per projection, then 4- or 2-bit tables, int8 embedding, one packed model."""

from __future__ import annotations

from dataclasses import dataclass

from pippin.compress.allocate import plan_bits
from pippin.compress.packed import save_packed
from pippin.compress.palettize import collect_second_moments, palettize
from pippin.compress.size import model_size
from pippin.data.loader import Loader
from pippin.files import write_json
from pippin.interop.load import load_model
from pippin.model.config import ModelConfig
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.heldout import as_bpb, heldout
from pippin.stages.tokenize import Tokenize
from pippin.stages.training import FULL_LOOK_TOKENS

CALIBRATION_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Compress(Stage):
    """Palettize `start` to at most `bits_per_weight` over the projections, tables and scales included (afm 11).

    `mixture` is the calibration text: it weighs the inputs by their second moments and ranks the projections.
    The plan is kept as `model/bitplan.json`. `model` is the shape.
    """

    tokens: Tokenize
    start: Stage
    model: ModelConfig
    mixture: dict[str, float]
    bits_per_weight: float
    heldout_sources: tuple[str, ...]
    calibration_tokens: int = 16_384
    seed: int = 0

    def run(self, ctx: Context) -> None:
        model = load_model(ctx.artifact(self.start, "model"))
        tokens = ctx.artifact(self.tokens, "tokens")
        seq_len = self.model.max_seq_len
        loader = Loader(tokens, self.mixture, "train", seq_len, CALIBRATION_ROWS, self.seed)
        steps = max(1, self.calibration_tokens // loader.tokens_per_step)
        moments = collect_second_moments(model, (loader.batch(step) for step in range(steps)))
        plan = plan_bits(model, self.bits_per_weight, moments)
        with ctx.track(self.model.n_params().total) as bar:
            palettize(model, plan, moments, progress=bar.advance)
        save_packed(model, ctx.out("model"), ctx.artifact(self.tokens.tokenizer, "tokenizer"))
        write_json(ctx.out("model") / "bitplan.json", plan)
        size = model_size(model)
        ctx.result(
            parameters=self.model.n_params().total,
            bits_per_weight=size.bits_per_weight,
            bits_per_parameter=size.bits_per_parameter,
            **as_bpb(heldout(model, tokens, self.heldout_sources, seq_len, FULL_LOOK_TOKENS)),
        )

    def cost(self) -> Cost:
        count = self.model.n_params()
        forward = self.calibration_tokens * self.model.forward_flops_per_token(self.model.max_seq_len)
        size = int(count.non_embedding * self.bits_per_weight / 8 + count.embedding)
        return Cost(count.total, self.calibration_tokens, forward, size, other_s=1 + 2e-6 * count.non_embedding)
