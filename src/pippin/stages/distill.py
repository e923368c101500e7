"""Distillation: a student learns from the teacher's top-1 token and the true one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch

from pippin.data.loader import Batch
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Loss, Targets
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.training import TrainingStage


def distillation_loss(
    student: Transformer, teacher: Transformer, teacher_weight: float, z_loss: float, batch: Batch, step: int
) -> Loss:
    """Cross-entropy with `teacher_weight` on the teacher's most likely token and the rest on the true token."""
    where = {"positions_BT": batch.positions, "segment_ids_BT": batch.segment_ids}
    with torch.no_grad():
        taught = teacher(batch.tokens, **where).argmax(-1)
    loss: Loss = student(batch.tokens, **where, targets=Targets(batch.targets, taught, teacher_weight, z_loss))
    return loss


@dataclass(frozen=True, kw_only=True)
class Distill(TrainingStage):
    """The student's core pre-training: hard teacher labels at weight 0.9, true labels at 0.1 (afm 4.3).

    `start` is the pruned model; `teacher` shares its tokenizer (the parent, afm 4.3), `teacher_model` is its shape.
    """

    start: Stage
    teacher: Stage
    teacher_model: ModelConfig
    teacher_weight: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.teacher_weight <= 1:
            raise UserError(f"teacher_weight={self.teacher_weight}: must lie between 0 and 1")

    def run(self, ctx: Context) -> None:
        student, teacher = self.load(ctx, self.start), self.load(ctx, self.teacher).requires_grad_(False)
        self.fit(ctx, student, partial(distillation_loss, student, teacher, self.teacher_weight, self.train.z_loss))
        self.save(ctx, student)

    def cost(self) -> Cost:
        teacher_flops = self.train.tokens * self.teacher_model.forward_flops_per_token(self.train.seq_len)
        own = super().cost()
        return replace(own, flops=own.flops + teacher_flops)
