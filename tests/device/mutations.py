"""Damaged files, from a seed: by bytes, header and JSON structure. `python -m tests.device.mutations` opens them."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pippin.device.engine import Adapter, Engine, Model, kernels
from pippin.errors import UserError

VALUES: list[Any] = [
    0, -1, 1, 2, 3, 7, 16, 255, 2**24, 2**31, 2**32, 2**32 + 1, 2**53, 2**63, 2**64, 10**30,
    0.5, -0.0, 1e-300, 1e300, float("inf"), float("nan"), None, True, False, "", "8", "x" * 3000, "\x1b[2J",
    [], {}, [0], [1, 2, 3], {"a": 1}, "U8", "F16", "pippin-palette",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def at(value: Any, path: Iterable[Any]) -> Any:
    """What is at a path."""
    for key in path:
        value = value[key]
    return value


def change_json(value: Any, chance: random.Random) -> Any:
    """One to three changes of a JSON value: something else in a place, left out, moved, or given twice."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 3)):
        paths = list(places(value))
        if not paths:
            return chance.choice(VALUES)
        *up, last = chance.choice(paths)
        parent = at(value, up)
        kind = chance.randrange(6)
        if kind < 2:
            parent[last] = chance.choice(VALUES)
        elif kind == 2:
            del parent[last]
        elif kind == 3 and isinstance(parent[last], int | float) and not isinstance(parent[last], bool):
            parent[last] += chance.randint(-70, 70)
        elif kind == 4:
            parent[last] = json.loads(json.dumps(at(value, chance.choice(list(places(value))))))
        elif isinstance(parent, dict):
            parent[f"{last}x"] = parent[last]
    return value


def change_file(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file with a few faults: in its header's structure, its text, its length, its bytes or its end."""
    out = bytearray(data)
    length = int.from_bytes(data[:8], "little")
    for _ in range(chance.randint(1, 2)):
        kind = chance.randrange(8)
        if kind < 3 and out[:8] == data[:8]:
            header = change_json(json.loads(data[8 : 8 + length]), chance)
            text = json.dumps(header).encode("utf-8", "surrogatepass")
            out = bytearray(len(text).to_bytes(8, "little") + text + data[8 + length :])
        elif kind == 3:
            out[:8] = chance.choice([0, 1, len(out), 2**32, 2**63, 2**64 - 1, length + 1]).to_bytes(8, "little")
        elif kind == 4:
            del out[chance.randrange(len(out) + 1) :]
        elif kind == 5 and len(out) > 64:
            place, n = chance.randrange(len(out)), chance.randrange(64)
            noise = [b"\xff" * n, b"\0" * n, b"\0\0\x80\x7f" * (n // 4), chance.randbytes(n), b""]
            out[place : place + n] = chance.choice(noise)
        elif kind == 6 and length < len(out):
            out[8 + chance.randrange(length)] = chance.randrange(256)
        elif out:
            out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def main(model: Path, adapter: Path, count: int, seed: int) -> None:
    """Open damaged models and adapters in turn, and answer with those that open; prints how many were refused."""
    chance = random.Random(seed)
    base = Model(model)
    damaged_model, damaged_adapter = model.with_name("damaged"), adapter.with_name("damaged_adapter")
    for folder, whole in ((damaged_model, model), (damaged_adapter, adapter)):
        folder.mkdir()
        for file in whole.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    weights, lora = model / "model.safetensors", adapter / "adapter_model.safetensors"
    files = weights.read_bytes(), lora.read_bytes()
    names, refused = kernels(), 0
    for i in range(count):
        try:
            if i % 4 == 3:
                (damaged_adapter / lora.name).write_bytes(change_file(files[1], chance))
                opened, with_adapter = base, Adapter(base, damaged_adapter)
            else:
                # A new file each time, as models are written: a mapped one must not change.
                (damaged_model / weights.name).unlink()
                (damaged_model / weights.name).write_bytes(change_file(files[0], chance))
                opened, with_adapter = Model(damaged_model), None
        except UserError as error:
            if not str(error).isprintable():
                raise ValueError(repr(str(error))) from None
            refused += 1
            continue
        mode: Any = chance.choice(["fast", "exact"])
        engine = Engine(opened, mode=mode, threads=1, kv_tokens=64, kernels=chance.choice(names))
        settings: Any = {"temperature": chance.choice([0.0, 1.0]), "top_k": chance.choice([0, 5]), "top_p": 0.9}
        engine.generate([[1, 2, 3]], [with_adapter], max_tokens=2, **settings)
    print(refused)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
