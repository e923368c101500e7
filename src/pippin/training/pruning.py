"""Pruning of the FFN's hidden dimension with a learned Soft-Top-K mask, and slicing to a smaller dense model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pippin.errors import UserError
from pippin.model.linear import Linear
from pippin.model.transformer import Transformer


def soft_top_k(scores: Tensor, k: int, eps: float) -> Tensor:
    """Soft-Top-K (Lei et al. 2023, "Conditional Adapters", arXiv 2304.04947; report section 5 on pruning).

    lambda = argmax of s . lambda + eps H(lambda) under 0 <= lambda_i <= 1 and sum lambda = k has the form
    lambda_i = min(1, exp((s_i + a) / eps)), with `a` fixed by the sum. After sorting, `a` follows in closed form: if
    the m largest scores are saturated (lambda = 1), the others are (k - m) softmax(s / eps), and m is the smallest
    number for which none of these exceeds 1. So the sum is exact at every eps, and the gradient is the softmax's.

    CODA's alternating fixed-point iteration is not used: on 4,096 normal scores with k = 1,376, 20 rounds from zero
    reach a sum of 1,376 at eps = 1, but only 1,179 at eps = 0.1 and 49 at eps = 0.01.

    Args:
        scores: [..., F], each row by itself (rows are layers).
        k: the sum of each row, between 1 and F.
        eps: temperature. Towards 0 the result becomes the hard mask of the k largest; at 0 it is that mask, and has no
            gradient.
    Returns:
        Like `scores`, in [0, 1].

    Raises:
        UserError: `k` or `eps` is out of range.
    """
    _check_k(scores, k)
    if not eps >= 0:
        raise UserError(f"eps: value {eps}: must be at least 0")
    if eps == 0:
        return torch.zeros_like(scores).scatter(-1, hard_top_k(scores, k), 1.0)
    with torch.no_grad():
        ordered, order = scores.sort(dim=-1, descending=True)
        # Relative to the k-th score, -log F <= a / eps <= 0. So numbers are small where it matters whatever the scores'
        # size, and what lies above log F is saturated: cut there, it cannot swallow the digits of the rest.
        ordered = ((ordered - ordered[..., k - 1 : k]) / eps).clamp(max=math.log(scores.shape[-1]) + 1)
        tails = ordered.flip(-1).logcumsumexp(-1).flip(-1)[..., :k]  # logsumexp over all but the m largest, m = 0..k-1
        room = torch.arange(k, 0, -1, dtype=scores.dtype, device=scores.device)
        m = (ordered[..., :k] + room.log() <= tails).int().argmax(-1, keepdim=True)  # true at the latest for m = k - 1
        places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
        saturated = torch.empty_like(order).scatter_(-1, order, places) < m
        shift = scores.masked_fill(saturated, -math.inf).amax(-1, keepdim=True)
    share = ((scores - shift) / eps).masked_fill(saturated, -math.inf).softmax(-1) * (k - m)
    # Rounding may exceed 1 by one unit in the last place.
    return torch.where(saturated, 1.0, share.clamp(max=1.0))


def hard_top_k(scores: Tensor, k: int) -> Tensor:
    """Indices of the k largest scores of each row, ascending: [..., k] int64. Of equal scores, the first wins."""
    _check_k(scores, k)
    return scores.detach().sort(dim=-1, descending=True, stable=True).indices[..., :k].sort(dim=-1).values


def annealed_eps(step: int, *, steps: int, start: float = 1.0, end: float = 1e-3) -> float:
    """Temperature of the mask at a training step: geometric from `start` at step 0 to `end` in the last fifth, then 0.

    With eps = 0 the mask is hard, so in the last fifth the weights adapt to exactly the model that `slice_ffn` cuts
    out, and nothing has to be folded into them.

    Raises:
        UserError: not 0 < end <= start, or fewer than two steps.
    """
    if not 0 < end <= start:
        raise UserError(f"end: value {end}: must be above 0 and at most start ({start})")
    if steps < 2:
        raise UserError(f"steps: value {steps}: annealing needs at least 2")
    hard_from = max(1, steps * 4 // 5)
    if step >= hard_from:
        return 0.0
    return start * (end / start) ** (step / max(1, hard_from - 1))


def install_masks(model: Transformer, scores_LF: Tensor, k: int, eps: float) -> None:
    """Set each layer's FFN mask to the Soft-Top-K of its row of scores; call it before every forward pass.

    The mask multiplies silu(gate x) * up x, the input of the down projection, and carries gradients to the scores.

    Raises:
        ValueError: `scores_LF` is not [n_layers, d_ff].
    """
    expected = (model.config.n_layers, model.config.d_ff)
    if tuple(scores_LF.shape) != expected:
        raise ValueError(f"scores: shape {tuple(scores_LF.shape)}, the model needs {expected}")
    for down, mask_F in zip(_downs(model), soft_top_k(scores_LF, k, eps).unbind(0), strict=True):
        which, of = down.part
        down.mask = mask_F.chunk(of)[which]


def clear_masks(model: Transformer) -> None:
    """Remove the masks: the model is its dense self again."""
    for down in _downs(model):
        down.mask = None


def slice_ffn(model: Transformer, keep: Tensor | Sequence[Sequence[int]]) -> Transformer:
    """A smaller dense model with only the kept FFN dimensions; its logits are those of the hard-masked parent.

    Rows of gate and up and columns of down are copied, every other weight too. The parent's masks are left out:
    pass the indices of a hard mask.

    Args:
        keep: for each layer the indices to keep (as `hard_top_k` returns them), equally many in every layer.

    Raises:
        ValueError: indices repeat, are out of range or not equally many; or the model is quantised or has adapters.
    """
    config = model.config
    rows = [torch.as_tensor(indices, dtype=torch.int64).cpu() for indices in keep]
    if len(rows) != config.n_layers or len({row.numel() for row in rows}) != 1:
        raise ValueError(f"keep: the model needs {config.n_layers} equally long rows of indices")
    for row in rows:
        if row.unique().numel() != row.numel() or row.min() < 0 or row.max() >= config.d_ff:
            raise ValueError(f"keep: indices must be different and lie between 0 and {config.d_ff - 1}")
    if any(linear.weight is None or linear.lora_A is not None for _, linear in model.linears()):
        raise ValueError("slice a dense model, before quantisation and adapters")
    tensors = model.state_dict()
    for layer, row in enumerate(rows):
        for name, dim in [("gate", 0), ("up", 0), ("down", 1)]:
            key = f"blocks.{layer}.ffn.{name}.weight"
            tensors[key] = tensors[key].index_select(dim, row.to(tensors[key].device))
    with torch.device("meta"):
        small = Transformer(replace(config, d_ff=rows[0].numel()), model.compute_dtype)
    small.to_empty(device=tensors["embed.weight"].device)
    small.load_state_dict(tensors)
    return small


def _downs(model: Transformer) -> list[Linear]:
    return [linear for name, linear in model.linears() if name.endswith("ffn.down")]


def _check_k(scores: Tensor, k: int) -> None:
    if not 1 <= k <= scores.shape[-1]:
        raise UserError(f"k: value {k}: must lie between 1 and the {scores.shape[-1]} scores of a row")
