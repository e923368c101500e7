"""Model directories without reading a weight: of which kind they are, their shape and files. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pippin.errors import UserError
from pippin.files import read_json
from pippin.interop.layouts import from_hf_config, hf_name
from pippin.model.config import ModelConfig

# What a packed model's quantization_config says (docs/format.md).
QUANT_METHOD = "pippin-palette"
FORMAT_VERSION = 2
GROUP_ROWS = 16
EMBEDDING_FORMAT = "int8-per-row"
BITS = (2, 4)
PROJECTIONS = ("attention.q", "attention.k", "attention.v", "attention.o", "ffn.gate", "ffn.up", "ffn.down")
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip


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


def read_config(directory: str | Path) -> ModelConfig:
    """The shape and settings of a dense directory, from its config.json.

    Raises:
        UserError: it is missing, damaged, or of a model that cannot be read.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; expected a Hugging Face model directory")
    where = directory / "config.json"
    values = read_json(where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: not an object; the file is damaged")
    settings = values.get("quantization_config")
    if settings is not None:
        method = settings.get("quant_method") if isinstance(settings, dict) else settings
        raise UserError(f"{where}: quant_method: value {method!r}: cannot be read; use the unquantised checkpoint")
    return from_hf_config(values, str(where))


def read_packed_config(directory: str | Path) -> tuple[ModelConfig, dict[str, int]]:
    """The shape of a packed directory, and the bits of every projection by tensor name, from its config.json.

    Raises:
        UserError: it is missing or damaged, not of a packed model, or newer than this version reads.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; expected a packed model")
    where = directory / "config.json"
    values = read_json(where)
    settings = values.get("quantization_config") if isinstance(values, dict) else None
    if not isinstance(settings, dict) or settings.get("quant_method") != QUANT_METHOD:
        raise UserError(f"{where}: quantization_config: not a packed model of Pippin; open it as a dense directory")
    version = settings.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise UserError(f"{where}: format_version: value {version!r}: must be a whole number; the file is damaged")
    if version < FORMAT_VERSION:
        raise UserError(
            f"{where}: format_version: value {version}: an early form of the format; compress the model again"
        )
    if version > FORMAT_VERSION:
        raise UserError(
            f"{where}: format_version: value {version}: newer than {FORMAT_VERSION}; update Pippin to read it"
        )
    for field, only in (("group_rows", GROUP_ROWS), ("embedding", EMBEDDING_FORMAT)):
        if settings.get(field) != only:
            raise UserError(f"{where}: {field}: value {settings.get(field)!r}: must be {only!r}; the file is damaged")
    config = from_hf_config(values, str(where))
    listed: Any = settings.get("bits")
    bits: dict[str, int] = {}
    for layer in range(config.n_layers):
        for projection in PROJECTIONS:
            stored = hf_name(f"blocks.{layer}.{projection}.weight").removesuffix(".weight")
            chosen: Any = listed.get(stored) if isinstance(listed, dict) else None
            if chosen not in BITS:
                raise UserError(
                    f"{where}: bits: value {chosen!r} for {stored}: must be one of {BITS}; the file is damaged"
                )
            bits[stored] = chosen
    return config, bits


def weight_files(directory: Path) -> dict[str, set[str] | None]:
    """The weight files of a directory by name, each with the tensors that the index puts there (None: no index).

    Raises:
        UserError: the index is damaged or names a file elsewhere.
    """
    if not (directory / INDEX).exists():
        return {"model.safetensors": None}
    index = read_json(directory / INDEX)
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise UserError(f"{directory / INDEX}: weight_map: missing or damaged; fetch the file again")
    files: dict[str, set[str] | None] = {}
    for file_name in sorted(set(listed.values())):
        if Path(file_name).name != file_name:
            raise UserError(f"{directory / INDEX}: {file_name!r}: must be a file of the same directory")
        files[file_name] = {name for name, file in listed.items() if file == file_name}
    return files


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
