"""LoRA adapters on all seven projections: task adapters, and the accuracy-recovery adapter of a compressed model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from pippin.data.loader import Batch, Packing
from pippin.errors import UserError
from pippin.interop.lora import adapter_rank, base_signature
from pippin.interop.peft import load_adapter, save_adapter
from pippin.model.cross_entropy import Loss
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.training import TrainingStage
from pippin.training.kl import kl_divergence

SLOT = 0


@dataclass(frozen=True, kw_only=True)
class Adapter(TrainingStage):
    """Train a low-rank adapter over the frozen model of `start`, dense or palettized (afm 10, 11.2).

    The artifact is a PEFT directory in 16 bits with the signature of its base.

    Args:
        rank: the report's suite has 8, 16 and 32 (afm 10.4).
        alpha: alpha / rank multiplies the low-rank path (as in AXLearn, afm 10.8).
        mode: how rows are made: whole conversations ("bins") for a task, "windows" for a mix with plain text.
        initial: an adapter of the same base to start from, as task adapters start from the accuracy-recovery adapter
            (afm 10.5). A smaller rank is padded; the start computes what `initial` does.
        teacher: a model, such as the one before compression, whose distribution is matched too: the loss is
            (1 - teacher_weight) CE + teacher_weight KL(teacher || adapted model), per token. The report names no
            losses but those of pre- and post-training; this one is ours.
    """

    start: Stage
    rank: int
    alpha: float
    mode: Literal["windows", "bins"] = "bins"
    initial: Stage | None = None
    teacher: Stage | None = None
    teacher_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1 or not self.alpha > 0:
            raise UserError(
                f"rank={self.rank}, alpha={self.alpha}: an adapter needs a rank of at least 1 and alpha above 0"
            )
        if not 0 <= self.teacher_weight <= 1:
            raise UserError(f"teacher_weight={self.teacher_weight}: must lie between 0 and 1")

    @property
    def packing(self) -> Packing:
        return self.mode

    def run(self, ctx: Context) -> None:
        torch.manual_seed(self.seed)
        signature = base_signature(ctx.artifact(self.start, "model"))
        model = self.load(ctx, self.start).requires_grad_(False)
        for _, linear in model.linears():
            linear.add_adapters(1, self.rank)
            linear.lora_scale.fill_(self.alpha / self.rank)
        before = self.figures(ctx, model)
        if self.initial is not None:
            begin_with(model, SLOT, ctx.artifact(self.initial, "adapter"), signature)
            ctx.result(initial=self.figures(ctx, model, SLOT))
        teacher = None if self.teacher is None else self.begin(ctx, self.teacher).requires_grad_(False)
        loss = None
        if teacher is not None:
            loss = partial(_taught_loss, model, teacher, self.teacher_weight, self.train.z_loss)
        figures = self.fit(
            ctx, model, loss, slot=SLOT, frozen=() if teacher is None else (teacher,),
            closing=partial(as_stored, model),
        )  # fmt: skip
        save_adapter(model, SLOT, ctx.out("adapter"), signature)
        size = sum(p.numel() for p in model.parameters() if p.requires_grad)
        ctx.result(
            adapter_parameters=size,
            **figures,
            before=before,
        )

    def cost(self) -> Cost:
        # Frozen weights need no gradient of their own: two of the three products remain. A teacher adds a forward pass.
        own = super().cost()
        return replace(own, flops=own.flops * (2 / 3 if self.teacher is None else 1))


def _taught_loss(
    model: Transformer, teacher: Transformer, weight: float, z_loss: float, batch: Batch, step: int
) -> Loss:
    return kl_divergence(model, teacher, batch, SLOT, weight, z_loss)


@torch.no_grad()
def as_stored(model: Transformer) -> None:
    """Round the adapters of a model to what `save_adapter` writes, so that what is measured is what is stored."""
    for _, linear in model.linears():
        for tensor in (linear.lora_A, linear.lora_B):
            if tensor is not None:
                tensor.copy_(tensor.half())


@torch.no_grad()
def begin_with(model: Transformer, slot: int, directory: Path, signature: str) -> None:
    """Put the adapter of `directory` into a slot to train on from there; the slot's rank and scale stay.

    What the slot computes is the adapter's function: where the scales differ, B takes the ratio (so without any
    rounding if it is a power of two, as for equal alpha / rank). Where the adapter has nothing, beyond its rank or in a
    projection that it leaves alone, A keeps its random start with B zero, so that it can learn.

    Raises:
        UserError: the adapter is of another base, or its rank is above the slot's.
    """
    rank = adapter_rank(directory)
    fresh = []
    for name, linear in model.linears():
        if linear.lora_A is None:
            raise ValueError(f"{name}: has no adapter slots")
        if rank > linear.lora_A.shape[1]:
            raise UserError(
                f"rank: value {linear.lora_A.shape[1]}: the adapter to start from has rank {rank}; "
                f"set rank={rank} or more"
            )
        fresh.append((linear, linear.lora_A[slot].clone(), float(linear.lora_scale[slot])))
    load_adapter(model, slot, directory, signature)
    for linear, a, scale in fresh:
        unused = ~(linear.lora_A[slot].any(1) | linear.lora_B[slot].any(0))
        linear.lora_A[slot, unused] = a[unused]
        linear.lora_B[slot] *= float(linear.lora_scale[slot]) / scale
        linear.lora_scale[slot] = scale
