"""The base install has no torch: the command line, settings, graphs and the model's arithmetic work without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# As on a machine where torch is not installed: no finder knows it.
BLOCK = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] == "torch" else find(name, *rest)
"""


def without_torch(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "module", ["pippin.cli", "pippin.config", "pippin.errors", "pippin.files", "pippin.model.config", "pippin.pipeline"]
)
def test_imports(module: str) -> None:
    done = without_torch(f"import {module}\nassert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_the_block_blocks() -> None:
    done = without_torch("import torch")
    assert done.returncode != 0
    assert "No module named 'torch'" in done.stderr


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return without_torch(f"sys.argv = {['pippin', *arguments]!r}\nfrom pippin.cli import main\nmain()")


def test_help() -> None:
    done = command("--help")
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


def test_show_a_preset() -> None:
    done = command("show", "afm-on-device")
    assert done.returncode == 0, done.stderr
    assert "2,737,739,264" in done.stdout


@pytest.mark.parametrize("arguments", [["run", "quickstart"], ["chat", "model"]])
def test_a_verb_that_needs_torch_says_so_in_one_line(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "pippin[train]" in done.stderr
