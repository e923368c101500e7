"""One step of a checkpoint on disk: safetensors shards in the layout of DCP's Hugging Face storage, and a manifest.

    step-00000100/
        shard-00001-model-00001-of-00001.safetensors    pieces of tensors, each with its offsets in the whole tensor
        manifest.json                                   written last: what must be there, and its digests

The pieces of a tensor are rectangles that cover it once. A shard's header carries what
`torch.distributed.checkpoint.HuggingFaceStorageReader` needs (`DCP_SHARDING_INFO`), so that DCP loads the directory
too. The manifest has the size and the digest of each shard, and a digest of itself; nothing is read before both are
right. Nothing here is or reads a pickle, and nothing here needs a process group.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pippin import files
from pippin.errors import UserError

FORMAT_VERSION = 2  # 1 was one file of one process
MANIFEST = "manifest.json"
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
_CHUNK_BYTES = 16 << 20
_NO_DIGEST = "0" * 32
Shape = tuple[int, ...]


class Damaged(Exception):
    """A step is not what its manifest says, or has none."""


class Piece(NamedTuple):
    """A rectangle of a tensor: where it begins and how long it is in each dimension."""

    name: str
    offsets: Shape
    shape: Shape


class Described(NamedTuple):
    """The type (safetensors' name for it) and the shape of a whole tensor."""

    dtype: str
    shape: Shape


@dataclass(frozen=True)
class Shard:
    """One file: its size and digest, and its pieces by the name of their tensor."""

    bytes: int
    digest: str
    pieces: dict[str, tuple[Shape, Shape]]


@dataclass(frozen=True)
class Manifest:
    """What a step is made of. `meta` is the trainer's own: JSON."""

    step: int
    world_size: int
    meta: dict[str, Any]
    tensors: dict[str, Described]
    shards: dict[str, Shard] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Write `directory/manifest.json`; the shards must be on the device by then.

        Raises:
            ValueError: the pieces do not cover each tensor once.
        """
        check_coverage(self)
        content: dict[str, Any] = {
            "digest": _NO_DIGEST,
            "digests": "xxh3_128",
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "world_size": self.world_size,
            "signature": signature(self.tensors),
            "meta": self.meta,
            "tensors": self.tensors,
            "shards": {name: [s.bytes, s.digest, s.pieces] for name, s in self.shards.items()},
        }
        lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items())
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        own = xxhash.xxh3_128_hexdigest(text.encode())
        files.write_text(directory / MANIFEST, text.replace(_NO_DIGEST, own, 1))


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a step, checked against its own digest.

    Raises:
        Damaged: it is missing, cut or changed.
        UserError: it is of another version of the format.
    """
    try:
        text = (directory / MANIFEST).read_text(encoding="utf-8")
        content = json.loads(text)
        own = content["digest"]
        if xxhash.xxh3_128_hexdigest(text.replace(own, _NO_DIGEST, 1).encode()) != own:
            raise Damaged(f"{MANIFEST}: differs from its digest")
    except FileNotFoundError:
        if (directory / "state.json").is_file():
            raise UserError(
                f"{directory}: written by an older Pippin; delete {directory.parent} to begin anew"
            ) from None
        raise Damaged(f"{MANIFEST}: is missing") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST}: cannot be read ({type(error).__name__})") from None
    if content["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{directory / MANIFEST}: format_version {content['format_version']}: this Pippin reads {FORMAT_VERSION}; "
            "use the Pippin that wrote it"
        )
    return Manifest(
        content["step"],
        content["world_size"],
        content["meta"],
        {name: Described(dtype, tuple(shape)) for name, (dtype, shape) in content["tensors"].items()},
        {
            name: Shard(size, digest, {key: (tuple(o), tuple(s)) for key, (o, s) in pieces.items()})
            for name, (size, digest, pieces) in content["shards"].items()
        },
    )


def signature(tensors: Mapping[str, Described]) -> str:
    """Digest of names, types and shapes: equal for the same model under the same optimizer."""
    listed = sorted((name, found.dtype, list(found.shape)) for name, found in tensors.items())
    return xxhash.xxh3_128_hexdigest(json.dumps(listed).encode())


def difference(here: Mapping[str, Described], there: Mapping[str, Described]) -> str | None:
    """The first difference between the tensors of a run (`here`) and of a checkpoint, in words; None if equal."""
    if signature(here) == signature(there):
        return None
    differ = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]

    def words(found: Described | None) -> str:
        return "missing" if found is None else f"{found.dtype} {list(found.shape)}"

    name = differ[0]
    return f"{name} is {words(there.get(name))} in it and {words(here.get(name))} here, {len(differ)} tensors differ"


def check_coverage(manifest: Manifest) -> None:
    """Raise ValueError unless the pieces of each tensor lie in it and cover every element once."""
    pieces: dict[str, list[tuple[Shape, Shape]]] = {name: [] for name in manifest.tensors}
    for shard in manifest.shards.values():
        for name, piece in shard.pieces.items():
            pieces[name].append(piece)
    for name, found in pieces.items():
        shape = manifest.tensors[name].shape
        # Cut every dimension where any piece begins or ends: a piece is then a block of whole cells.
        cuts = [
            sorted({0, length} | {e for o, s in found for e in (o[d], o[d] + s[d])}) for d, length in enumerate(shape)
        ]
        places = [{cut: i for i, cut in enumerate(each)} for each in cuts]
        count = np.zeros([len(each) - 1 for each in cuts], np.int64)
        for o, s in found:
            count[tuple(slice(p[a], p[a + n]) for p, a, n in zip(places, o, s, strict=True))] += 1
        inside = all(each[0] == 0 and each[-1] == length for each, length in zip(cuts, shape, strict=True))
        if not inside or (count != 1).any():
            raise ValueError(f"{name}: its pieces do not cover it once")


class Layout:
    """Where the pieces of one shard lie in its file.

    Args:
        pieces: with the type of each.

    Attributes:
        header: the file's beginning, up to the data.
        places: piece and its first and last byte + 1 in the data, the widest types first: each is aligned.
        bytes: of the data.
    """

    def __init__(self, pieces: Iterable[tuple[Piece, torch.dtype]]) -> None:
        self.places: list[tuple[Piece, torch.dtype, int, int]] = []
        end = 0
        for piece, dtype in sorted(pieces, key=lambda each: (-each[1].itemsize, each[0].name)):
            begin, end = end, end + math.prod(piece.shape) * dtype.itemsize
            self.places.append((piece, dtype, begin, end))
        self.bytes = end
        sharding = {piece.name: {"saved_offsets": piece.offsets} for piece, *_ in self.places}
        head: dict[str, Any] = {
            "__metadata__": {"DCP_SHARDING_INFO": json.dumps(sharding), "DCP_VERSION": "1.0", "format": "pt"}
        }
        for piece, dtype, begin, stop in self.places:
            head[piece.name] = {"dtype": DTYPES[dtype], "shape": piece.shape, "data_offsets": [begin, stop]}
        text = json.dumps(head, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.header = len(text).to_bytes(8, "little") + text

    def views(self, data: Tensor) -> list[tuple[Piece, Tensor]]:
        """Each piece as a tensor in the bytes of `data`."""
        return [(p, data[begin:end].view(dtype).view(p.shape)) for p, dtype, begin, end in self.places]


def shard_name(number: int) -> str:
    """The name that DCP gives the one file of the n-th rank, counted from 1."""
    return f"shard-{number:05d}-model-00001-of-00001.safetensors"


def write_shard(path: Path, layout: Layout, data: Tensor) -> Shard:
    """Write a shard and flush it to the device; what is hashed is what was in memory.

    Args:
        data: uint8 on the CPU, `layout.bytes` long.
    Raises:
        UserError: the disk is full.
    """
    digest = xxhash.xxh3_128()
    view = data.numpy().data
    parts = [memoryview(layout.header), *(view[i : i + _CHUNK_BYTES] for i in range(0, len(view), _CHUNK_BYTES))]
    with files.atomic_path(path) as temporary, open(temporary, "wb", buffering=0) as file:
        for part in parts:
            digest.update(part)
            while part:
                part = part[file.write(part) :]
    pieces = {piece.name: (piece.offsets, piece.shape) for piece, *_ in layout.places}
    return Shard(len(layout.header) + layout.bytes, digest.hexdigest(), pieces)


def verify_shard(directory: Path, name: str, shard: Shard) -> None:
    """Raise Damaged unless the file has the size and the digest of the manifest."""
    digest = xxhash.xxh3_128()
    try:
        with open(directory / name, "rb", buffering=0) as file:
            if (size := os.fstat(file.fileno()).st_size) != shard.bytes:
                raise Damaged(f"{name}: {size:,} bytes instead of {shard.bytes:,}")
            while part := file.read(_CHUNK_BYTES):
                digest.update(part)
    except FileNotFoundError:
        raise Damaged(f"{name}: is missing") from None
    except OSError as error:
        raise Damaged(f"{name}: {error.strerror}") from None
    if digest.hexdigest() != shard.digest:
        raise Damaged(f"{name}: differs from its digest")


def read_pieces(directory: Path, manifest: Manifest, wanted: Sequence[tuple[Piece, Tensor]]) -> None:
    """Copy pieces of tensors into place, however the checkpoint has cut them; only what is needed is read.

    Args:
        wanted: a piece and the tensor of its shape that receives it.
    Raises:
        Damaged: a file cannot be read.
    """
    for name, shard in manifest.shards.items():
        parts = [(w, t, found) for w, t in wanted if (found := _overlap(w, shard.pieces.get(w.name))) is not None]
        if not parts:
            continue
        try:
            with safe_open(directory / name, framework="pt") as handle:
                for piece, target, (ours, theirs) in parts:
                    # A scalar has no slice.
                    stored = handle.get_slice(piece.name)[theirs] if theirs else handle.get_tensor(piece.name)
                    target[ours].copy_(stored)
        except (SafetensorError, OSError) as error:
            raise Damaged(f"{name}: cannot be read ({error})") from None


def _overlap(piece: Piece, stored: tuple[Shape, Shape] | None) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Where a wanted and a stored piece meet: as slices of the wanted one and of the stored one."""
    if stored is None:
        return None
    ours, theirs = [], []
    for o, n, at, length in zip(piece.offsets, piece.shape, *stored, strict=True):
        begin, end = max(o, at), min(o + n, at + length)
        if begin >= end:
            return None
        ours.append(slice(begin - o, end - o))
        theirs.append(slice(begin - at, end - at))
    return tuple(ours), tuple(theirs)


def step_directory(directory: Path, step: int) -> Path:
    return directory / f"step-{step:08d}"


def steps_in(directory: Path) -> list[int]:
    """The steps in a directory of checkpoints, good or not, in order."""
    found = directory.glob("step-*") if directory.is_dir() else ()
    return sorted(int(path.name[5:]) for path in found if path.name[5:].isdigit())


def remove(path: Path) -> None:
    """Remove a step, so that a kill leaves no half of one under its name."""
    doomed = path.with_name(f".{path.name}.gone.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed)
