"""AdamW as the baseline that the report compares its optimizer with (appendix A; afm 4.15)."""

from __future__ import annotations

from typing import Any

import torch

from pippin.errors import UserError
from pippin.training.optimizer import StepInfo


class AdamW(torch.optim.AdamW):
    """AdamW with the report's surroundings: what differs from `RMSPropMomentum` is the update rule alone.

    Betas 0.9 and 0.95, eps 1e-8. As there, gradients are clipped to a global norm of 1, a step with a norm of 100 or
    more changes nothing, the update of matrices is multiplied by the muP factor of their group, and weight decay
    follows the schedule s, not the learning rate: p <- p - s (`lr` * mup_factor * m_hat / (sqrt(v_hat) + eps) +
    `weight_decay` * p). Moments have bias correction, updates are not clipped.

    Args:
        groups: from `param_groups`, or plain parameters (muP factor 1).
        lr: peak learning rate.
        weight_decay: fraction of p subtracted per step at s = 1.

    Raises:
        UserError: a hyperparameter is out of range.
    """

    def __init__(
        self,
        groups: Any,
        lr: float,
        weight_decay: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        grad_clip: float = 1.0,
        skip_above: float = 100.0,
    ) -> None:
        for name, value in [("lr", lr), ("grad_clip", grad_clip), ("skip_above", skip_above)]:
            if not value > 0:
                raise UserError(f"{name}: value {value}: must be above 0")
        if not 0 <= weight_decay < 1:
            raise UserError(f"weight_decay: value {weight_decay}: must be at least 0 and below 1")
        self.peak, self.decay = lr, weight_decay
        self.grad_clip, self.skip_above = grad_clip, skip_above
        # torch's own decay would be multiplied by the learning rate.
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=0.0, foreach=True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters and create their state, so that a checkpoint can be copied into place before any step."""
        super().add_param_group({"mup_factor": 1.0, **param_group})
        for p in self.param_groups[-1]["params"]:
            self.state[p] = {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, multiplier: float = 1.0) -> StepInfo:  # type: ignore[override]
        """Apply the gradients once.

        Args:
            multiplier: s(t), the schedule's value in [floor, 1].
        """
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not parameters:
            raise ValueError("no parameter has a gradient: call backward first")
        gradients = [p.grad for p in parameters]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not norm < self.skip_above:  # also when it is not a number
            return StepInfo(norm, True)
        if norm > self.grad_clip:
            torch._foreach_mul_(gradients, self.grad_clip / norm)
        for group in self.param_groups:
            group["lr"] = multiplier * self.peak * group["mup_factor"]
        if self.decay:
            torch._foreach_mul_(parameters, 1 - multiplier * self.decay)
        super().step()
        return StepInfo(norm, False)
