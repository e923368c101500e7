"""The programs of native/, built with sanitizers or for another processor, and the files that they are given."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from pippin.device.engine import _shape
from pippin.model.config import ModelConfig
from tests.conftest import REPOSITORY
from tests.device.models import add_adapter, write

CSRC = REPOSITORY / "src" / "pippin" / "device" / "csrc"


def need(*tools: str) -> None:
    """Skip the test that asks for a tool that is not there."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@cache
def build(sanitize: str = "", system: str = "", compiler: str = "") -> Path:
    """A build folder with the programs of native/; once in a test run for each way of building.

    `PIPPIN_TEST_BUILDS` names a folder that keeps them between runs.
    """
    need("cmake", compiler or "c++")
    kept = os.environ.get("PIPPIN_TEST_BUILDS")
    name = "-".join(filter(None, (sanitize.replace(",", "-"), system, compiler))) or "plain"
    checkout = hashlib.sha256(str(CSRC).encode()).hexdigest()[:8]  # a build folder belongs to its sources' place
    folder = Path(kept or mkdtemp(prefix="pippin-native-")) / checkout / name
    settings = {"SANITIZE": sanitize, "PIPPIN_TESTS": "ON"}
    if system:
        settings |= {"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": system}
    if compiler:
        settings |= {"CMAKE_CXX_COMPILER": compiler}
    command = ["cmake", "-S", str(CSRC), "-B", str(folder), *(f"-D{key}={value}" for key, value in settings.items())]
    subprocess.run(command, check=True, capture_output=True)
    outcome = subprocess.run(["cmake", "--build", str(folder), "--parallel", "2"], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "warning:" not in outcome.stdout + outcome.stderr, outcome.stdout + outcome.stderr
    return folder


def numbers(config: ModelConfig) -> str:
    """The fields of `pippin_config` in their order, as the programs read them."""
    shape = _shape(config)
    return " ".join(str(getattr(shape, name)) for name, _ in shape._fields_)


def model_files(folder: Path, config: ModelConfig, rank: int = 5, seed: int = 0) -> list[str]:
    """What names a model to a program: MODEL CONFIG ADAPTER RANK."""
    directory = write(folder / "model", config, seed=seed)
    adapter = add_adapter(directory, folder / "adapter", rank, seed)
    (folder / "config.txt").write_text(numbers(config), encoding="utf-8")
    files = (directory / "model.safetensors", folder / "config.txt", adapter / "adapter_model.safetensors")
    return [*map(str, files), str(rank)]


def run(
    *command: str | Path, under: tuple[str, ...] = (), settings: dict[str, str] | None = None, timeout: float = 1500
) -> str:
    """What a program printed; a report of a sanitizer, or any other failure, fails the test."""
    line = [*under, *map(str, command)]
    environment = os.environ | {
        "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=0:detect_stack_use_after_return=1",
        "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
        **(settings or {}),
    }
    outcome = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=timeout, errors="replace")
    assert outcome.returncode == 0, f"{line}: {outcome.returncode}\n{outcome.stdout[-4000:]}\n{outcome.stderr[-12000:]}"
    return outcome.stdout
