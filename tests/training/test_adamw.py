"""The AdamW baseline against one number at a time; its surroundings are those of the report's optimizer."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import nn

from pippin.errors import UserError
from pippin.training.adamw import AdamW

LR, DECAY = 0.02, 0.01


def test_steps_are_those_of_the_formula() -> None:
    """Ten steps with a schedule, a muP factor, clipped and unclipped gradients and one that is skipped."""
    draw = random.Random(0)
    start = {"plain": [draw.gauss(0, 1) for _ in range(3)], "matrix": [draw.gauss(0, 1) for _ in range(4)]}
    factors = {"plain": 1.0, "matrix": 0.25}
    parameters = {n: nn.Parameter(torch.tensor(v, dtype=torch.float64)) for n, v in start.items()}
    groups = [{"params": [(n, p)], "mup_factor": factors[n]} for n, p in parameters.items()]
    optimizer = AdamW(groups, LR, DECAY)
    p = {n: list(v) for n, v in start.items()}
    m, v = ({n: [0.0] * len(values) for n, values in start.items()} for _ in range(2))
    t = 0
    skipped = []
    for step in range(10):
        s = 1.0 - 0.05 * step
        size = 200.0 if step == 4 else 0.1 * (step + 1)
        gradients = {n: [size * draw.gauss(0, 1) for _ in values] for n, values in start.items()}
        norm = math.sqrt(sum(g * g for values in gradients.values() for g in values))
        for n, parameter in parameters.items():
            parameter.grad = torch.tensor(gradients[n], dtype=torch.float64)
        info = optimizer.step(s)
        optimizer.zero_grad()
        assert info.grad_norm == pytest.approx(norm)
        skipped.append(info.skipped)
        if norm >= 100:
            continue
        t += 1
        for n, values in gradients.items():
            for i, g in enumerate(values):
                g *= min(1.0, 1.0 / norm)
                m[n][i] = 0.9 * m[n][i] + 0.1 * g
                v[n][i] = 0.95 * v[n][i] + 0.05 * g * g
                update = m[n][i] / (1 - 0.9**t) / (math.sqrt(v[n][i] / (1 - 0.95**t)) + 1e-8)
                p[n][i] -= s * (LR * factors[n] * update + DECAY * p[n][i])
    assert skipped == [step == 4 for step in range(10)]
    for n, parameter in parameters.items():
        assert parameter.tolist() == pytest.approx(p[n], rel=1e-9)


def test_state_is_there_before_the_first_step() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = AdamW([parameter], LR)
    assert sorted(optimizer.state[parameter]) == ["exp_avg", "exp_avg_sq", "step"]
    parameter.grad = torch.full((3,), math.nan)
    assert optimizer.step().skipped
    assert parameter.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="no parameter has a gradient"):
        parameter.grad = None
        optimizer.step()


def test_bad_numbers() -> None:
    for wrong in ({"lr": 0.0}, {"lr": 0.1, "weight_decay": 1.0}):
        with pytest.raises(UserError):
            AdamW([nn.Parameter(torch.ones(1))], **wrong)
