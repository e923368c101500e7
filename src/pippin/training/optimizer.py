"""RMSProp with momentum, update clipping and simplified muP: the optimizer of the AFM report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pippin.errors import UserError
from pippin.model.linear import Linear

# On CPU a foreach operation walks through its whole list. Short lists stay in the cache between operations, and only as
# much scratch memory is needed: measured 1.2 to 1.6 times faster for 9M and 27M parameters than one list.
CPU_BUCKET_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class StepInfo:
    """What `RMSPropMomentum.step` did: the global L2 norm of the gradients before clipping, and whether it skipped."""

    grad_norm: float
    skipped: bool


@dataclass(frozen=True)
class _Block:
    """One matrix (or vector) that is clipped by itself: views of its parameter, gradient and state.

    On several processes these are the part that is here, which may be empty, and `copies` counts the processes that
    have the same part.
    """

    parameter: Tensor
    gradient: Tensor
    square: Tensor
    momentum: Tensor
    debias: float  # sqrt(1 - decay^t)
    copies: int = 1


class RMSPropMomentum(torch.optim.Optimizer):
    """The report's optimizer (section 3.2; order of operations and constants as in AXLearn's `adastar`).

    For the t-th applied step with gradient g, parameter p and schedule multiplier s:

    1. N = global L2 norm of all gradients. If N >= `skip_above` or N is not finite: nothing changes at all.
       Otherwise g <- g * min(1, `grad_clip` / N).
    2. v <- `decay` v + (1 - `decay`) (g^2 + `eps`); v_hat = v / (1 - `decay`^t); u = g / sqrt(v_hat).
    3. Per matrix: u <- u / max(1, RMS(u) / `update_clip`). The root mean square, not the L2 norm.
    4. m <- `momentum` m + (1 - `momentum`) u, without bias correction.
    5. p <- p - s (`lr` * mup_factor * m + `weight_decay` * p). Decay follows the schedule, not `lr` and not muP,
       and applies to every parameter.

    The unit of step 3 is one matrix of one layer: q, k and v are three (AXLearn fuses them). A tensor of rank 3, such
    as stacked adapters `lora_A` [slots, r, in], is a stack of matrices and each is clipped alone, so that an
    adapter trains the same in any number of slots.

    State of a parameter: `square` (v) and `momentum` (m), float32 of its shape, and `step` (t, one number).
    A parameter whose gradient is None keeps value and state, and its own t.

    Args:
        groups: from `param_groups`, or plain parameters (muP factor 1).
        lr: peak learning rate.
        weight_decay: fraction of p subtracted per step at s = 1.
        decay: of the squared gradients.
        momentum: of the smoothed update.
        eps: added to the instantaneous square.
        update_clip: largest RMS of a matrix's update.
        grad_clip: largest global gradient norm.
        skip_above: gradient norm from which a step is skipped.
        copies: on several processes, how many hold each element of a parameter (a part of a DTensor, or of a matrix
            that is cut otherwise, counts as its elements); all processes step together. Sums over matrices then take
            two exchanges a step, however many matrices there are. None: this process has all.

    Raises:
        UserError: a hyperparameter is out of range.
        ValueError: a parameter is not float32 (or float64): the master weights are, `compute_dtype` is the model's.
    """

    def __init__(
        self,
        groups: Any,
        lr: float,
        weight_decay: float = 3.16e-4,
        decay: float = 0.95,
        momentum: float = 0.95,
        eps: float = 1e-30,
        update_clip: float = 1.0,
        grad_clip: float = 1.0,
        skip_above: float = 100.0,
        copies: Mapping[Tensor, int] | None = None,
    ) -> None:
        for name, value in [("decay", decay), ("momentum", momentum), ("weight_decay", weight_decay)]:
            if not 0 <= value < 1:
                raise UserError(f"{name}: value {value}: must be at least 0 and below 1")
        for name, value in [
            ("lr", lr), ("eps", eps), ("update_clip", update_clip), ("grad_clip", grad_clip), ("skip_above", skip_above)
        ]:  # fmt: skip
            if not value > 0:
                raise UserError(f"{name}: value {value}: must be above 0")
        self.grad_clip, self.skip_above, self.copies = grad_clip, skip_above, copies
        super().__init__(
            groups,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "decay": decay,
                "momentum": momentum,
                "eps": eps,
                "update_clip": update_clip,
                "mup_factor": 1.0,
            },
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters and create their state, so that a checkpoint can be copied into place before any step."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"parameter of {p.dtype}: the optimizer keeps float32 master weights")
            self.state[p] = {"square": torch.zeros_like(p), "momentum": torch.zeros_like(p), "step": torch.zeros(())}

    @torch.no_grad()
    def step(self, multiplier: float = 1.0) -> StepInfo:  # type: ignore[override]
        """Apply the gradients once.

        Args:
            multiplier: s(t), the schedule's value in [floor, 1].
        """
        with_gradient = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not with_gradient:
            raise ValueError("no parameter has a gradient: call backward first")
        squares = _sums_of_squares([_local(p.grad) for p in with_gradient])
        if self.copies is not None:
            squares = _total(squares, [self.copies[p] for p in with_gradient])
        # The one wait for the device in a step: everything after it depends on whether the step is taken.
        norm = math.sqrt(float(squares.sum(dtype=torch.float64)))
        if not norm < self.skip_above:  # also when it is not a number
            return StepInfo(norm, True)
        clip = min(1.0, self.grad_clip / norm) if norm > 0 else 1.0
        if self.copies is None:
            for group in self.param_groups:
                for blocks in _buckets(self._blocks(group)):
                    raw = _smooth(blocks, group, clip)
                    sizes = torch.tensor([float(b.parameter.numel()) for b in blocks], device=raw[0].device)
                    _apply(blocks, raw, _sums_of_squares(raw) / sizes, group, multiplier, clip)
        else:
            self._step_together(multiplier, clip)
        return StepInfo(norm, False)

    def _step_together(self, multiplier: float, clip: float) -> None:
        """The same with one exchange for the mean squares of all matrices: their updates wait for it in memory."""
        waiting = []
        sums, sizes, copies = [], [], []
        for group in self.param_groups:
            for blocks in _buckets(self._blocks(group)):
                raw = _smooth(blocks, group, clip)
                waiting.append((blocks, raw, group))
                sums.append(_sums_of_squares(raw))
                sizes += [float(b.parameter.numel()) for b in blocks]
                copies += [b.copies for b in blocks]
        local = torch.cat(sums)
        both = _total(torch.cat((local, local.new_tensor(sizes))), copies + copies)
        squares, numbers = both.chunk(2)
        means = (squares / numbers).split([len(blocks) for blocks, _, _ in waiting])
        for (blocks, raw, group), mean in zip(waiting, means, strict=True):
            _apply(blocks, raw, mean, group, multiplier, clip)

    def _blocks(self, group: dict[str, Any]) -> Iterator[_Block]:
        """The matrices of a group, with their steps counted up."""
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            state["step"] += 1
            debias = math.sqrt(1 - group["decay"] ** state["step"].item())  # a CPU tensor: no wait
            copies = 1 if self.copies is None else self.copies[p]
            if p.ndim >= 3 and isinstance(p, DTensor):
                raise ValueError("stacks of matrices must be whole on each process, or cut otherwise than by DTensor")
            whole = [_local(t) for t in (p, p.grad, state["square"], state["momentum"])]
            for parts in zip(*(t.unbind(0) for t in whole), strict=True) if p.ndim >= 3 else [whole]:
                yield _Block(parts[0], parts[1], parts[2], parts[3], debias, copies)


def _local(tensor: Tensor) -> Tensor:
    """The part of a tensor that is here."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _total(sums: Tensor, copies: list[int]) -> Tensor:
    """Sums over all processes of what each has a part of; what several have is counted once."""
    sums = sums / sums.new_tensor(copies)
    dist.all_reduce(sums)
    return sums


def _sums_of_squares(tensors: list[Tensor]) -> Tensor:
    """Sum of squares of each tensor, stacked into one."""
    return torch.stack(torch._foreach_norm(tensors)).square_()


def _buckets(blocks: Iterator[_Block]) -> Iterator[list[_Block]]:
    """Lists of blocks that are worked on together: all at once on an accelerator, cache-sized on CPU."""
    bucket: list[_Block] = []
    elements = 0
    for block in blocks:
        size = block.parameter.numel()
        if bucket and block.parameter.device.type == "cpu" and elements + size > CPU_BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(block)
        elements += size
    if bucket:
        yield bucket


def _smooth(blocks: list[_Block], group: dict[str, Any], clip: float) -> list[Tensor]:
    """Step 2 for some blocks of one group: g / sqrt(v), without the scalar factors of u."""
    g, v = [b.gradient for b in blocks], [b.square for b in blocks]
    decay = group["decay"]
    torch._foreach_mul_(v, decay)
    torch._foreach_addcmul_(v, g, g, (1 - decay) * clip**2)
    torch._foreach_add_(v, (1 - decay) * group["eps"])
    raw = torch._foreach_rsqrt(v)
    torch._foreach_mul_(raw, g)
    return list(raw)


def _apply(
    blocks: list[_Block], raw: list[Tensor], mean_squares: Tensor, group: dict[str, Any], multiplier: float, clip: float
) -> None:
    """Steps 3 to 5; scalar factors are folded to spare passes over memory."""
    p, m = [b.parameter for b in blocks], [b.momentum for b in blocks]
    # u = clip * g / sqrt(v / debias^2) is `raw` times the factor clip * debias.
    factors = torch.tensor([clip * b.debias for b in blocks], dtype=raw[0].dtype, device=raw[0].device)
    rms = mean_squares.sqrt() * factors
    factors = factors / (rms / group["update_clip"]).clamp(min=1)
    torch._foreach_mul_(raw, list(factors.unbind(0)))
    torch._foreach_lerp_(m, raw, 1 - group["momentum"])
    torch._foreach_mul_(p, 1 - multiplier * group["weight_decay"])
    torch._foreach_add_(p, m, alpha=-multiplier * group["lr"] * group["mup_factor"])


def param_groups(model: nn.Module, base_width: int = 768) -> list[dict[str, Any]]:
    """Group the trainable parameters of a model by their simplified muP factor (report section 3.1; Wortsman et al.
    2023, section 3.2.4).

    The update of the weight of a `Linear` is multiplied by min(1, `base_width` / `mup_width`); everything else
    (embedding, norms, adapters, other heads) has factor 1.

    Returns:
        Groups for `RMSPropMomentum`: {"params": [(name, parameter), ...], "mup_factor": factor}; every parameter that
        requires a gradient is in exactly one, a shared one under its first name.

    Raises:
        UserError: `base_width` is below 1.
    """
    if base_width < 1:
        raise UserError(f"base_width: value {base_width}: must be at least 1; the report uses 768")
    widths = {module.weight: module.mup_width for module in model.modules() if isinstance(module, Linear)}
    groups: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = min(1.0, base_width / widths.get(parameter, base_width))
            groups.setdefault(factor, []).append((name, parameter))
    return [{"params": named, "mup_factor": factor} for factor, named in groups.items()]
