"""Palettization: choose bits per projection, then 4- or 2-bit tables, int8 embedding, one packed model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn

from pippin.compress import allocate
from pippin.compress.packed import save_packed
from pippin.compress.palettize import Candidates, candidates, check_plan, install
from pippin.compress.size import model_size
from pippin.compress.tune import Tunable
from pippin.data.loader import Batch, Loader
from pippin.errors import UserError
from pippin.files import read_json, write_json
from pippin.interop.hf import BlockReader
from pippin.interop.load import load_model
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Loss
from pippin.model.linear import Linear
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage, digest_tree
from pippin.stages.heldout import as_bpb, heldout
from pippin.stages.tokenize import TokenStage
from pippin.stages.training import FULL_LOOK_TOKENS
from pippin.training.kl import kl_divergence
from pippin.training.loop import TrainSpec, fit

CALIBRATION_ROWS = 4
SENSITIVITY_ROW = 128  # many short rows: a mixture of texts even in few tokens
PLAN, SENSITIVITY = "bitplan.json", "sensitivity.json"


@dataclass(frozen=True, kw_only=True)
class Compress(Stage):
    """Palettize `start` to at most `bits_per_weight` over the projections, tables and scales included (afm 11).

    `model/bitplan.json` has the bits chosen and `model/sensitivity.json` what the choice was made from.

    Args:
        tokens, mixture, seed: the calibration text.
        start: a dense model; `model` is its shape.
        bits_per_weight: target of the plan.
        calibration_tokens: for the second moments of the layers' inputs.
        sensitivity: how the plan is chosen: "measured" KL to the float model on `sensitivity_tokens`, one projection
            at 2 and at 4 bits at a time; or "proxy", the share of its output that each projection loses, which needs no
            evaluation.
        plan: a bitplan.json to use instead.
        tune: trains tables and row scales with KL to the float model, codes fixed; None leaves them.
        by_block: the float model is never whole in memory, it passes block by block. Then there is no tuning, the plan
            is given or made from the proxy, all tokens of the calibration text count alike, and codes get less work.
    """

    version = 3

    tokens: TokenStage
    start: Stage
    model: ModelConfig
    mixture: dict[str, float]
    bits_per_weight: float
    heldout_sources: tuple[str, ...]
    calibration_tokens: int = 32_768
    sensitivity: Literal["measured", "proxy"] = "measured"
    sensitivity_tokens: int = 2_048
    plan: str = ""
    tune: TrainSpec | None = None
    by_block: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tune is not None:
            self.tune.check()
        if self.by_block and (self.tune is not None or (self.sensitivity == "measured" and not self.plan)):
            raise UserError(
                "by_block=True: needs sensitivity=proxy or a plan, and no tuning: both need the whole model"
            )
        for name in ("calibration_tokens", "sensitivity_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")

    def inputs(self) -> Mapping[str, str]:
        return {"plan": digest_tree(Path(self.plan).expanduser())} if self.plan else {}

    def run(self, ctx: Context) -> None:
        reader = BlockReader(ctx.artifact(self.start, "model"))
        model = reader.skeleton()
        for part in ("embed", "norm", "head") if self.by_block else ("",):
            if part != "head" or model.head is not None:
                reader.load(model, part)
        given = self._given_plan(model)
        choices = {name: (bits,) for name, bits in given.items()} if given else None
        batches = self._batches(ctx, self.calibration_tokens)
        with ctx.track(self.model.n_matmul_params()) as bar:
            load = partial(_load_block, reader, model) if self.by_block else None
            drop = partial(_drop_weights, model) if self.by_block else None
            found = candidates(model, batches, choices, load, drop, bar.advance)
        plan = given or self._choose(ctx, model, found)
        install(model, {name: found[name][bits] for name, bits in plan.items()})
        if self.tune is not None:
            self._tune(ctx, model)
        save_packed(model, ctx.out("model"), self.tokens.tokenizer_dir(ctx))
        write_json(ctx.out("model") / PLAN, plan)
        size = model_size(model)
        ctx.result(
            parameters=self.model.n_params().total,
            bits_per_weight=size.bits_per_weight,
            bits_per_parameter=size.bits_per_parameter,
            **self._figures(ctx, model),
        )

    def _batches(self, ctx: Context, tokens: int, seq_len: int | None = None) -> list[Batch]:
        directory = ctx.artifact(self.tokens, "tokens")
        seq_len = min(seq_len or self.model.max_seq_len, self.model.max_seq_len)
        loader = Loader(directory, self.mixture, "train", seq_len, CALIBRATION_ROWS, self.seed)
        return [loader.batch(step) for step in range(max(1, tokens // loader.tokens_per_step))]

    def _given_plan(self, model: Transformer) -> dict[str, int]:
        if not self.plan:
            return {}
        path = Path(self.plan).expanduser()
        plan = read_json(path)
        if not isinstance(plan, dict):
            raise UserError(f"{path}: must be an object of projection: bits; export it again")
        try:
            check_plan(plan, (name for name, _ in model.linears()))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return plan

    def _choose(self, ctx: Context, model: Transformer, found: Candidates) -> dict[str, int]:
        if self.sensitivity == "measured":
            batches = self._batches(ctx, self.sensitivity_tokens, SENSITIVITY_ROW)
            rises = allocate.kl_rises(model, found, batches)
            tokens = sum(int((batch.segment_ids != 0).sum()) for batch in batches)
            record = allocate.as_sensitivity(rises, "KL nats per token", tokens)
        else:
            rises = allocate.error_rises(found)
            record = allocate.as_sensitivity(rises, "relative output error", self.calibration_tokens)
        write_json(ctx.out("model") / SENSITIVITY, record)
        shapes = {name: (linear.out_features, linear.in_features) for name, linear in model.linears()}
        return allocate.choose_bits(rises, shapes, self.bits_per_weight)

    def _tune(self, ctx: Context, model: Transformer) -> None:
        assert self.tune is not None
        teacher = load_model(ctx.artifact(self.start, "model"), self.tune.dtype).requires_grad_(False)
        tunable = Tunable(model.requires_grad_(False))
        model.compute_dtype = self.tune.dtype

        def loss(batch: Batch, step: int) -> Loss:
            tunable.install()
            found = kl_divergence(model, teacher, batch)
            return replace(found, nll=found.total.detach())  # what is logged is the KL

        directory = ctx.artifact(self.tokens, "tokens")
        loader = Loader(directory, self.mixture, "train", self.tune.seq_len, self.tune.batch_size, self.seed + 1)
        fit(tunable, loss, loader, self.tune, ctx, partial(self._figures, ctx, model), [model, teacher])
        tunable.finish()

    def _figures(self, ctx: Context, model: Transformer) -> dict[str, float]:
        tokens = ctx.artifact(self.tokens, "tokens")
        return as_bpb(heldout(model, tokens, self.heldout_sources, self.model.max_seq_len, FULL_LOOK_TOKENS))

    def cost(self) -> Cost:
        count = self.model.n_params()
        forward = self.model.forward_flops_per_token(self.model.max_seq_len)
        measured = 2 * 7 * self.model.n_layers * self.sensitivity_tokens if self.sensitivity == "measured" else 0
        flops = (self.calibration_tokens + measured) * forward
        tokens = self.calibration_tokens
        if self.tune is not None:  # a student's step without gradients of weights, and the teacher's forward pass
            flops += self.tune.train_flops(self.model)
            tokens += self.tune.tokens
        size = int(count.non_embedding * self.bits_per_weight / 8 + count.embedding)
        return Cost(count.total, tokens, flops, size, other_s=1 + 1e-5 * count.non_embedding)


def _load_block(reader: BlockReader, model: Transformer, number: int) -> None:
    reader.load(model, f"blocks.{number}")


def _drop_weights(model: Transformer, number: int) -> None:
    """Free the matrices of a block; its norms stay."""
    for linear in model.blocks[number].modules():
        if isinstance(linear, Linear):
            linear.weight = nn.Parameter(linear.weight.to("meta"), requires_grad=False)
