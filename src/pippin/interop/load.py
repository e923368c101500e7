"""Open a model directory of either kind."""

from __future__ import annotations

from pathlib import Path

import torch

from pippin.compress.packed import QUANT_METHOD, load_packed
from pippin.errors import UserError
from pippin.files import read_json
from pippin.interop.hf import load_hf, read_config
from pippin.interop.layouts import from_hf_config
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer


def is_packed(directory: str | Path) -> bool:
    """Whether a model directory is a packed one (of Pippin), going by its config.json.

    Raises:
        UserError: no such directory, or config.json is missing or damaged, or names another quantisation.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; expected a model directory with a config.json")
    where = directory / "config.json"
    values = read_json(where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: not an object; the file is damaged")
    settings = values.get("quantization_config")
    if settings is None:
        return False
    method = settings.get("quant_method") if isinstance(settings, dict) else settings
    if method != QUANT_METHOD:
        raise UserError(f"{where}: quant_method: value {method!r}: cannot be read; use the unquantised checkpoint")
    return True


def load_model(directory: str | Path, compute_dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """Read a dense Hugging Face directory (trainable float32) or a packed one (frozen) into a `Transformer`.

    Raises:
        UserError: what `load_hf` and `load_packed` raise.
    """
    if is_packed(directory):
        return load_packed(directory, compute_dtype)
    return load_hf(directory, compute_dtype)


def read_shape(directory: Path) -> ModelConfig:
    """The shape of a model directory of either kind, from its config.json.

    Raises:
        UserError: what `is_packed` raises, or a setting that cannot be computed.
    """
    if is_packed(directory):
        return from_hf_config(read_json(directory / "config.json"), str(directory / "config.json"))
    return read_config(directory)


def locate(path: Path) -> tuple[Path, Path | None]:
    """The model directory and the adapter directory that a path stands for.

    A model directory stands for itself; a stage's run directory for its `model/`; the run directory of an adapter
    stage for its `adapter/` over the model that it was trained on.

    Raises:
        UserError: there is no model.
    """
    if (path / "config.json").is_file():
        return path, None
    if (path / "model" / "config.json").is_file():
        return path / "model", None
    if (path / "adapter" / "adapter_config.json").is_file() and (path / "stage.json").is_file():
        record = read_json(path / "stage.json")
        upstream = record.get("upstream") if isinstance(record, dict) else None
        base = upstream.get("start") if isinstance(upstream, dict) else None
        if isinstance(base, str) and (path.parent / base / "model" / "config.json").is_file():
            return path.parent / base / "model", path / "adapter"
        raise UserError(f"{path}: the model that this adapter belongs to, {base}, is not beside it")
    if not path.exists():
        raise UserError(f"{path}: no such directory; `pippin show RECIPE` lists where the models are")
    raise UserError(f"{path}: holds no model (config.json); `pippin show RECIPE` lists where the models are")
