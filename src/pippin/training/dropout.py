"""Dropout is on in the models that are trained while a micro-batch's loss and gradient are computed, nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from pippin.model.dropout import Dropout
from pippin.model.transformer import Transformer


class Dropping:
    """For each Transformer in `module` that has parameters to train.

    Args:
        rate: see `model.dropout.Dropout`; at 0 nothing is ever set.
        seed: of the masks.
    """

    def __init__(self, module: nn.Module, rate: float, seed: int) -> None:
        self._rate, self._seed = rate, seed
        self._models = [
            part
            for part in module.modules()
            if rate and isinstance(part, Transformer) and any(p.requires_grad for p in part.parameters())
        ]

    @contextmanager
    def __call__(self, step: int, first_row: int) -> Iterator[None]:
        """While the rows from `first_row` on of the batch of `step` go forward and backward."""
        for model in self._models:
            model.dropout = Dropout(self._rate, self._seed, step, first_row)
        try:
            yield
        finally:
            for model in self._models:
                model.dropout = None
