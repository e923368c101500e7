"""KL divergence to a teacher's whole distribution: for recovery of what compression lost, and for small drafts."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from pippin.data.loader import Batch
from pippin.model.cross_entropy import Loss, SoftTeacher, Targets
from pippin.model.transformer import Transformer


def kl_divergence(
    student: Transformer,
    teacher: Transformer,
    batch: Batch,
    slot: int | None = None,
    weight: float = 1.0,
    z_loss: float = 0.0,
) -> Loss:
    """Sum over the counted positions of (1 - weight) CE(true token) + weight KL(teacher || student), in nats.

    The sums are per token: divide `total` by `count` over the whole batch. Neither model's logits are ever whole in
    memory, only those of some hundreds of tokens at a time. The teacher runs without adapters and without gradients.

    Args:
        student: what the gradient is for; dense or palettized.
        teacher: of the same vocabulary, any other shape.
        batch: positions whose target is -100 count for nothing.
        slot: adapter slot of the student; None: no adapter.
        weight: of the KL; 1 leaves the true tokens out of the gradient.
        z_loss: as in `Targets`.
    """
    where = {"positions_BT": batch.positions, "segment_ids_BT": batch.segment_ids}
    with torch.no_grad():
        h_BTD = cast(Tensor, teacher(batch.tokens, **where, hidden_only=True))
        taught = SoftTeacher(h_BTD, (teacher.embed if teacher.head is None else teacher.head).dense_weight())
    slots_B = None if slot is None else torch.full((len(batch.tokens),), slot, device=batch.tokens.device)
    targets = Targets(batch.targets, taught, weight, z_loss)
    return cast(Loss, student(batch.tokens, **where, slots_B=slots_B, targets=targets))
