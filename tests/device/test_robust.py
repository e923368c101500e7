"""Damaged files, little memory, threads and forks: the engine refuses in one line or goes on, and never crashes."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pippin.device.engine import Engine, Event, Model, _shape
from pippin.errors import UserError
from pippin.interop.directory import read_packed_config
from tests.conftest import REPOSITORY
from tests.device.building import build, model_files, need, run
from tests.device.models import SMALL, VARIANTS, add_adapter, write
from tests.device.mutations import change_json

X86_KERNELS = ("avx512", "avx2", "portable")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("robust") / "model")


def python(*arguments: str | Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Another interpreter, so that a crash is an outcome."""
    line = [sys.executable, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY, timeout=timeout)


def test_damaged_files(tmp_path: Path) -> None:
    """A hundredth of what `test_mutated_files` opens, with the engine as it is installed."""
    directory = write(tmp_path / "model")
    adapter = add_adapter(directory, tmp_path / "adapter", 3, 1)
    outcome = python("-m", "tests.device.mutations", directory, adapter, "1000", "1")
    assert outcome.returncode == 0, outcome
    assert 500 < int(outcome.stdout) < 1000  # most are refused, some are only other numbers


def test_damaged_configurations(directory: Path, tmp_path: Path) -> None:
    whole = json.loads((directory / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    chance = random.Random(2)
    read = opened = 0
    messages = []
    for i in range(1500):
        text = json.dumps(change_json(whole, chance)).encode("utf-8", "surrogatepass")
        if i % 10 == 9:
            at = chance.randrange(len(text))
            text = text[:at] + chance.randbytes(chance.randrange(3)) + text[at + chance.randrange(3) :]
        (tmp_path / "config.json").write_bytes(text)
        try:
            read_packed_config(tmp_path)
            read += 1
            model = Model(tmp_path)
            opened += 1
            # A length of context that no machine has room for is refused, not taken.
            Engine(model, threads=1).generate([[1, 2]], [None], max_tokens=1)
        except UserError as error:
            messages.append(str(error))
    assert 0 < opened < read < 1500
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 100_000, b"\xff\xfe", b"", b"null", b"[]"])
def test_configurations_that_are_none(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(UserError):
        read_packed_config(tmp_path)


def test_numbers_beyond_the_interface(directory: Path) -> None:
    """ctypes would cut 2^32 + 5 down to 5."""
    model = Model(directory)
    for name in ("threads", "max_sequences", "prefill_chunk", "kv_tokens"):
        settings: Any = {name: 2**64 + 64}
        with pytest.raises(UserError, match=f"{name}: value {2**64 + 64}: is outside"):
            Engine(model, **settings)
    engine = Engine(model, threads=1)
    with pytest.raises(UserError, match="max_tokens"):
        engine.submit([1], max_tokens=2**64 + 1)
    with pytest.raises(UserError, match="top_k"):
        engine.submit([1], max_tokens=1, top_k=2**32 + 1)
    with pytest.raises(UserError, match="max_seq_len"):
        _shape(replace(model.config, max_seq_len=2**32 + 64))


def test_threads_share_an_engine(directory: Path) -> None:
    """Whoever steps gets events; none is lost or given twice."""
    engine = Engine(Model(directory), threads=1, max_sequences=8)
    wanted = [engine.submit([1, 2, i], max_tokens=40) for i in range(24)]
    seen: list[Event] = []

    def step() -> None:
        while engine.pending():
            seen.extend(engine.step())

    steppers = [threading.Thread(target=step) for _ in range(4)]
    for thread in steppers:
        thread.start()
    for thread in steppers:
        thread.join()
    assert sorted(event.request for event in seen if event.finish == "length") == wanted
    assert len(seen) == 24 * 40


def test_a_pipe_is_no_model(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        Model(tmp_path)


def test_a_header_that_asks_for_memory(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    for text, message in (
        (b"[" + b"1," * 2_000_000 + b"1]", "more values than a model has"),
        (b"[" * 5_000_000, "nested too deep"),  # a stack, were each level a call
    ):
        (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
        with pytest.raises(UserError, match=message):
            Model(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.norm.weight", {"shape": [6, 8]}, "F32 [6, 8], but config.json says F32 [48]"),
        ("model.layers.0.mlp.up_proj.scale", {"dtype": "BF16"}, "BF16 [72], but config.json says F16 [72]"),
        ("model.layers.0.mlp.up_proj.codes", {"dtype": "I8"}, "I8 [5, 3, 64], but config.json says U8 [5, 3, 64]"),
        ("model.norm.weight", {"shape": [47]}, "has other bytes than its shape says"),
        ("model.norm.weight", {"shape": [2**52, 2**52]}, "is too large"),
        ("model.norm.weight", {"dtype": "F64"}, "another type [48], but config.json says F32 [48]"),
        ("model.norm.weight", {"data_offsets": [0, 192]}, "two of its tensors overlap"),
        ("model.norm.weight", {"data_offsets": [2**40, 2**40 + 192]}, "lies outside of the file"),
        ("model.norm.weight", {"data_offsets": [192, 0]}, "lies outside of the file"),
        ("model.norm.weight", {"data_offsets": [0]}, "has no shape or no place"),
    ],
)
def test_headers_that_do_not_fit(
    name: str, change: dict[str, Any], message: str, directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    data = (directory / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header[name] |= change
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    with pytest.raises(UserError, match=re.escape(message)):
        Model(tmp_path)


def test_a_file_larger_than_memory_is_not_read(directory: Path, tmp_path: Path) -> None:
    """A sparse file is small to send."""
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    size = 2**42
    text = json.dumps({"huge": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    with pytest.raises(UserError, match="tensor missing"):
        Model(tmp_path)


@pytest.mark.parametrize(
    ("name", "dtype", "value", "message"),
    [
        ("model.norm.weight", "<f4", np.nan, "holds NaN or infinity"),
        ("model.layers.1.input_layernorm.weight", "<f4", np.inf, "holds NaN or infinity"),
        ("model.embed_tokens.scale", "<f4", -np.inf, "holds NaN or infinity"),
        ("model.layers.0.mlp.up_proj.scale", "<f2", np.nan, "holds NaN or infinity"),
        ("model.layers.0.mlp.up_proj.table", "i1", -128, "must be from -127 to 127"),
    ],
)
def test_values_that_no_model_has(
    name: str, dtype: str, value: float, message: str, directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    data = bytearray((directory / "model.safetensors").read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    _, end = json.loads(data[8:start])[name]["data_offsets"]
    last = np.array(value, dtype).tobytes()
    data[start + end - len(last) : start + end] = last
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: .*{message}"):
        Model(tmp_path)


def test_names_do_not_steer_the_terminal(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    data = (directory / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["\x1b[2J\n\x9b1m"] = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    with pytest.raises(UserError, match="unknown tensor") as caught:
        Model(tmp_path)
    assert str(caught.value).isprintable()


def test_a_replaced_model_stays_open(directory: Path, tmp_path: Path) -> None:
    """Pippin replaces files and never writes into them; a mapped one keeps its bytes."""
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    engine = Engine(Model(tmp_path), threads=1)
    before = engine.generate([[1, 2, 3]], [None], max_tokens=8)
    (tmp_path / "new").write_bytes(b"")
    (tmp_path / "new").replace(tmp_path / "model.safetensors")
    assert Engine(engine.model, threads=1).generate([[1, 2, 3]], [None], max_tokens=8) == before


REFUSED_THREADS = """
import resource, sys
from pippin.device.engine import Engine, Model
from pippin.errors import UserError
model = Model(sys.argv[1])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, -1))
try:
    Engine(model, threads=256)
except UserError as error:
    print(error)
print(Engine(model, threads=2).generate([[1, 2, 3]], [None], max_tokens=2))
"""


def test_refused_threads(directory: Path) -> None:
    outcome = python("-c", REFUSED_THREADS, directory)
    assert outcome.returncode == 0, outcome
    assert "threads: value 256: the system gives this process only" in outcome.stdout


FORKED = """
import os, sys, time
from pippin.device.engine import Engine, Model
from pippin.errors import UserError
engine = Engine(Model(sys.argv[1]), threads=3)
engine.generate([[1, 2, 3]], [None], max_tokens=20)
time.sleep(0.3)  # the threads sleep by now
child = os.fork()
if child == 0:
    try:
        engine.generate([[1, 2, 3]], [None], max_tokens=20)
    except UserError as error:
        print(error, flush=True)
    sys.exit(7)  # gives the engine back as any program does at its end
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_ends(directory: Path) -> None:
    """The threads of an engine do not exist in a child, and it must not wait for them."""
    outcome = python("-c", FORKED, directory, timeout=60)
    assert outcome.returncode == 0 and outcome.stdout.endswith("; open one here\n7\n"), outcome


# --- with sanitizers and valgrind


def exercise(folder: Path, tmp_path: Path, kernels: str, requests: int, under: tuple[str, ...] = ()) -> str:
    model, config, adapter, rank = model_files(tmp_path / "big", SMALL)
    # The draft is the model itself: its guesses are right where no adapter says otherwise.
    return run(folder / "exercise", model, config, model, config, adapter, rank, kernels, str(requests), under=under)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", VARIANTS)
def test_mutated_files(name: str, tmp_path: Path) -> None:
    """100,000 damaged files in all, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    out = run(build("address,undefined") / "fuzz_loader", *model_files(tmp_path, VARIANTS[name]), "1", "20000")
    opened, refused = int(out.split()[1]), int(out.split()[3])
    assert opened + refused == 20_000
    assert opened > 1_000 and refused > 10_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kernels", X86_KERNELS)
@pytest.mark.parametrize("sanitize", ["address,undefined", "thread"])
def test_sanitizers(sanitize: str, kernels: str, tmp_path: Path) -> None:
    exercise(build(sanitize), tmp_path, kernels, 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kernels", X86_KERNELS[1:])  # valgrind has no AVX-512
def test_valgrind(kernels: str, tmp_path: Path) -> None:
    need("valgrind")
    checks = (
        "--error-exitcode=9",
        "--leak-check=full",
        "--show-leak-kinds=all",
        "--errors-for-leak-kinds=all",
        "-q",
        "--fair-sched=yes",
    )
    # The program has an operator new of its own, which must stay.
    exercise(build(), tmp_path, kernels, 20, ("valgrind", *checks, "--soname-synonyms=somalloc=nouserintercepts"))
