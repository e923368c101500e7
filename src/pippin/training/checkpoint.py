"""Training state of one process: named tensors in safetensors, everything else in JSON, verified by digest.

`<dir>/step-00000100/{state.safetensors, state.json}` is written under a temporary name and renamed when it is whole.
The last two are kept. A directory whose digest is wrong is set aside and the one before is used. Never a pickle.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pippin import files
from pippin.errors import UserError

KEEP = 2


@dataclass
class State:
    """What a loop needs to go on: tensors by name, and JSON-able counters."""

    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]


def save(directory: str | Path, step: int, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
    """Write the state after `step` steps; older ones beyond the last two are removed.

    Raises:
        UserError: the disk is full; the checkpoints before are untouched.
    """
    directory = Path(directory)
    final, temporary = directory / f"step-{step:08d}", directory / f".step-{step:08d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with files.full_disk_is_one_line(temporary), files.atomic_path(temporary / "state.safetensors") as path:
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
        sha256 = files.digest(temporary / "state.safetensors")
        files.write_json(temporary / "state.json", {"format_version": 1, "step": step, "sha256": sha256, **meta})
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
        files.fsync_path(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _steps(directory)[:-KEEP]:
        shutil.rmtree(old)


def load_latest(directory: str | Path) -> tuple[State | None, list[Path]]:
    """The newest state that passes its digest (None when there is none), and the damaged ones that were set aside."""
    directory = Path(directory)
    quarantined: list[Path] = []
    for path in reversed(_steps(directory)):
        try:
            meta = files.read_json(path / "state.json")
            if files.digest(path / "state.safetensors") == meta["sha256"]:
                return State(load_file(path / "state.safetensors"), meta), quarantined
        except (UserError, OSError, KeyError, TypeError):
            pass
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
        quarantined.append(aside)
    return None, quarantined


def _steps(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*")) if directory.is_dir() else []
