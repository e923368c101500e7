"""Cross-entropy of the head without the logits ever being whole in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pippin.model.vocabulary import VocabularyPart

IGNORE = -100
# Logits held in float32 at a time: few enough for a processor's cache, but at least MIN_CHUNK rows for fast products.
CHUNK_LOGITS = 2**19
MIN_CHUNK = 256


@dataclass
class SoftTeacher:
    """A teacher's whole distribution: its final hidden states and its head; logits exist for a chunk at a time only."""

    h_BTD: Tensor
    weight_VD: Tensor


@dataclass
class Targets:
    """What the model should have said.

    `tokens_BT` are the true next tokens, int64, -100 where a position does not count. `teacher_BT`, if given, are
    the teacher's most likely next tokens (report section 3.1.2: hard targets, weight 0.9); where it is -100 the true
    token stands in. Instead of them it may be a `SoftTeacher` (no gradient flows to it): then the teacher's part is
    KL(teacher || model). `z_loss` multiplies logsumexp^2 (AXLearn uses 1e-6). `part` says which rows of the head (and
    of a soft teacher's) this process holds; None: all.
    """

    tokens_BT: Tensor
    teacher_BT: Tensor | SoftTeacher | None = None
    teacher_weight: float = 0.0
    z_loss: float = 0.0
    part: VocabularyPart | None = None


@dataclass
class Loss:
    """Sums over the counted positions; divide by the global `count`, never average averages.

    `total` is differentiable: (1 - w) CE(true) + w CE(teacher) + z_loss logsumexp^2, with w KL(teacher || model) for a
    soft teacher. `nll` is the detached sum of CE(true) in nats; `count` the number of counted positions (int64 scalar).
    """

    total: Tensor
    nll: Tensor
    count: Tensor


def linear_cross_entropy(h_BTD: Tensor, weight_VD: Tensor, targets: Targets) -> Loss:
    """Loss of logits h W^T against `targets`.

    The gradients with respect to h and W are computed during the forward pass, chunk by chunk over tokens, while a
    chunk's probabilities exist; softmax is float32, the products run in h's dtype, W's gradient is summed in float32.
    Of a head that is cut over processes (`targets.part`), each computes its columns of the logits; three small sums
    a chunk make the loss whole, the same on each. The gradient of h is then this part's share: the caller adds them.

    Args:
        h_BTD: final hidden states, in the compute dtype.
        weight_VD: the table that writes logits, float32; or this process's rows of it.
        targets: see `Targets`.
    """
    tokens = targets.tokens_BT.flatten()
    teacher, teacher_weight = None, 0.0
    soft: tuple[Tensor, Tensor] | None = None
    if isinstance(targets.teacher_BT, SoftTeacher):
        soft, teacher_weight = _flat(targets.teacher_BT), float(targets.teacher_weight)
    elif targets.teacher_BT is not None:
        teacher, teacher_weight = targets.teacher_BT.flatten(), float(targets.teacher_weight)
        teacher = torch.where(teacher == IGNORE, tokens, teacher)
    total, nll = _LinearCrossEntropy.apply(
        h_BTD.flatten(0, 1), weight_VD, tokens, teacher, soft, teacher_weight, targets.z_loss, targets.part,
        torch.is_grad_enabled(),
    )  # fmt: skip
    return Loss(total, nll, (tokens != IGNORE).sum())


def _flat(teacher: SoftTeacher) -> tuple[Tensor, Tensor]:
    """Hidden states [B T, D] and the head in their type."""
    h = teacher.h_BTD.detach().flatten(0, 1)
    return h, teacher.weight_VD.detach().to(h.dtype)


def _softmax(logits: Tensor, part: VocabularyPart | None) -> tuple[Tensor, Tensor]:
    """Probabilities of these columns, and logsumexp [C, 1] over the whole vocabulary."""
    if part is None:
        p = torch.softmax(logits, dim=-1)
        # The largest probability is exp(0) / sum(exp(logits - max)).
        return p, logits.amax(1, keepdim=True) - p.amax(1, keepdim=True).log()
    top = part.largest(logits.amax(1, keepdim=True))
    p = (logits - top).exp_()
    total = part.total(p.sum(1, keepdim=True))
    return p.div_(total), top + total.log()


def _log_softmax(logits: Tensor, part: VocabularyPart | None) -> Tensor:
    return torch.log_softmax(logits, dim=-1) if part is None else logits - _softmax(logits, part)[1]


def _pick(logits: Tensor, ids: Tensor, part: VocabularyPart | None) -> Tensor:
    return logits.gather(1, ids) if part is None else part.pick(logits, ids)


def _subtract_at(delta: Tensor, ids: Tensor, values: Tensor, part: VocabularyPart | None) -> None:
    """delta[i, ids[i]] -= values[i], where the column is here."""
    if part is not None:
        ids, inside = part.local(ids)
        values = values * inside
    delta.scatter_add_(1, ids, -values)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        tokens: Tensor,
        teacher: Tensor | None,
        soft: tuple[Tensor, Tensor] | None,
        teacher_weight: float,
        z_loss: float,
        part: VocabularyPart | None,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(h.dtype, torch.float32)
        head = weight.to(h.dtype)
        need_h = with_gradient and ctx.needs_input_grad[0]
        need_weight = with_gradient and ctx.needs_input_grad[1]
        grad_h = torch.empty_like(h) if need_h else None
        grad_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device) if need_weight else None
        total = torch.zeros((), dtype=wide, device=h.device)
        nll = torch.zeros((), dtype=wide, device=h.device)
        chunk = max(MIN_CHUNK, CHUNK_LOGITS // weight.shape[0])
        for start in range(0, h.shape[0], chunk):
            rows = slice(start, start + chunk)
            counted = (tokens[rows] != IGNORE)[:, None].to(wide)
            true = tokens[rows].clamp(min=0)[:, None]
            logits = F.linear(h[rows], head).to(wide)
            p, lse = _softmax(logits, part)
            true_nll = lse - _pick(logits, true, part)
            loss = (1 - teacher_weight) * true_nll + z_loss * lse.square()
            if teacher is not None:
                taught = teacher[rows].clamp(min=0)[:, None]
                loss += teacher_weight * (lse - _pick(logits, taught, part))
            if soft is not None:
                log_q = _log_softmax(F.linear(soft[0][rows], soft[1]).to(wide), part)
                q = log_q.exp()
                cross = (q * (log_q - logits)).sum(1, keepdim=True)
                loss += teacher_weight * ((cross if part is None else part.total(cross)) + lse)
            total += (loss * counted).sum()
            nll += (true_nll * counted).sum()
            if not (need_h or need_weight):
                continue
            # d loss / d logits = p (1 + 2 z lse) - target distribution
            delta = p.mul_((1 + 2 * z_loss * lse) * counted)
            _subtract_at(delta, true, (1 - teacher_weight) * counted, part)
            if teacher is not None:
                _subtract_at(delta, taught, teacher_weight * counted, part)
            if soft is not None:
                delta.sub_(q.mul_(teacher_weight * counted))
            delta = delta.to(h.dtype)
            if grad_h is not None:
                grad_h[rows] = delta @ head
            if grad_weight is not None:
                grad_weight += delta.mT @ h[rows]
        ctx.save_for_backward(grad_h, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(nll)
        return total, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, grad_nll: Tensor) -> tuple[Tensor | None, ...]:
        grad_h, grad_weight = ctx.saved_tensors
        if grad_h is not None:
            grad_h = (grad_h * grad_total).to(grad_h.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad_total).to(ctx.weight_dtype)
        return grad_h, grad_weight, None, None, None, None, None, None, None
