"""LoRA adapters on all seven projections: task adapters, and the accuracy-recovery adapter of a compressed model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from pippin.errors import UserError
from pippin.interop.peft import base_signature, load_adapter, save_adapter
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.training import TrainingStage

SLOT = 0


@dataclass(frozen=True, kw_only=True)
class Adapter(TrainingStage):
    """Train a low-rank adapter over the frozen model of `start`, dense or palettized (afm 10, 11.2).

    The artifact is a PEFT directory in 16 bits with the signature of its base. `mode` says how rows are made:
    whole conversations ("bins") for a task, "windows" for a mix with plain text.
    """

    start: Stage
    rank: int
    alpha: float
    mode: Literal["windows", "bins"] = "bins"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1 or not self.alpha > 0:
            raise UserError(
                f"rank={self.rank}, alpha={self.alpha}: an adapter needs a rank of at least 1 and alpha above 0"
            )

    def run(self, ctx: Context) -> None:
        torch.manual_seed(self.seed)
        model = self.load(ctx, self.start).requires_grad_(False)
        for _, linear in model.linears():
            linear.add_adapters(1, self.rank)
            linear.lora_scale.fill_(self.alpha / self.rank)
        before = self.figures(ctx, model)
        self.fit(ctx, model, mode=self.mode, slot=SLOT)
        signature = base_signature(ctx.artifact(self.start, "model"))
        save_adapter(model, SLOT, ctx.out("adapter"), signature)
        load_adapter(model, SLOT, ctx.out("adapter"), signature)  # what is measured is what was stored, in 16 bits
        size = sum(p.numel() for p in model.parameters() if p.requires_grad)
        ctx.result(
            adapter_parameters=size,
            **self.figures(ctx, model, SLOT),
            before=before,
        )

    def cost(self) -> Cost:
        # Frozen weights need no gradient of their own: two of the three products remain.
        own = super().cost()
        return replace(own, flops=own.flops * 2 / 3)
