"""Open a model directory of either kind."""

from __future__ import annotations

from pathlib import Path

import torch

from pippin.compress.packed import load_packed
from pippin.interop.directory import is_packed, locate, read_shape
from pippin.interop.hf import load_hf
from pippin.model.transformer import Transformer

__all__ = ["is_packed", "load_model", "locate", "read_shape"]


def load_model(directory: str | Path, compute_dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """Read a dense Hugging Face directory (trainable float32) or a packed one (frozen) into a `Transformer`.

    Raises:
        UserError: what `load_hf` and `load_packed` raise.
    """
    if is_packed(directory):
        return load_packed(directory, compute_dtype)
    return load_hf(directory, compute_dtype)
