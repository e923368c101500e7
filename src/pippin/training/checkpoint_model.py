"""A step of a checkpoint as a model: every file is compared with its digest before anything is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pippin.errors import UserError
from pippin.model.config import ModelConfig, RopeScaling
from pippin.model.transformer import Transformer
from pippin.training import checkpoint_files as stored
from pippin.training.checkpoint_files import Damaged, Manifest, Piece

_TYPES = {name: dtype for dtype, name in stored.DTYPES.items()}
_PARAMETER = "parameter."


def whole_manifest(directory: Path) -> Manifest:
    """The manifest of a step whose every digest is right.

    Raises:
        UserError: the step is damaged, or of another version of the format.
    """
    try:
        manifest = stored.read_manifest(directory)
        stored.check_coverage(manifest)
        for name, shard in manifest.shards.items():
            stored.verify_shard(directory, name, shard)
    except (Damaged, ValueError) as error:
        raise UserError(f"{directory}: {plain(str(error))}; the step is damaged, use another") from None
    return manifest


def read_tensor(directory: Path, manifest: Manifest, name: str) -> Tensor:
    """One tensor of a step, whole, on the CPU.

    Raises:
        UserError: the step is damaged.
    """
    dtype, shape = manifest.tensors[name]
    found = torch.empty(shape, dtype=_TYPES[dtype])
    try:
        stored.read_pieces(directory, manifest, [(Piece(name, (0,) * len(shape), shape), found)])
    except Damaged as error:
        raise UserError(f"{directory}: {plain(str(error))}") from None
    return found


def step_model(directory: Path, compute_dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """The language model of a step.

    Raises:
        UserError: the step is damaged, or does not hold the whole of one model, such as a step of an adapter.
    """
    manifest = whole_manifest(directory)
    try:
        ((prefix, values),) = manifest.meta["models"].items()
        config = ModelConfig(**values | {"rope_scaling": _scaling(values.get("rope_scaling"))})
    except (KeyError, ValueError, TypeError, AttributeError):
        raise UserError(f"{directory}: says nothing of one model; only a language model's can be merged") from None
    with torch.device("meta"):
        model = Transformer(config, compute_dtype)
    begin = _PARAMETER + (f"{prefix}." if prefix else "")
    names = [name for name, _ in model.named_parameters()]
    if missing := [name for name in names if begin + name not in manifest.tensors]:
        raise UserError(
            f"{directory}: {len(missing)} of the model's {len(names)} parameters are not in it ({missing[0]}): "
            "it is of an adapter or of another part that is trained alone, and cannot be merged"
        )
    model.load_state_dict({name: read_tensor(directory, manifest, begin + name) for name in names}, assign=True)
    return model


def plain(text: str) -> str:
    """Text that came from a file, so that nothing of it commands the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _scaling(values: dict[str, Any] | None) -> RopeScaling | None:
    return None if values is None else RopeScaling(**values)
