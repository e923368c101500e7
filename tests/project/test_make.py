"""The Makefile and the script of a bare machine, without installing anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k not in {"CI", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON"}}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=inherited | environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    """The files that make reads, as in a fresh clone: no environment yet."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, tmp_path)
    return tmp_path


def test_help_names_the_two_commands(clone: Path) -> None:
    done = make(clone)
    assert done.returncode == 0
    assert "make quickstart" in done.stdout
    assert "make test " in done.stdout


def test_quickstart_installs_once_what_it_needs_and_runs(clone: Path) -> None:
    plan = make(clone, "-n", "quickstart").stdout
    assert "--constraint constraints.txt --editable '.[train,data]'" in plan
    assert plan.rstrip().endswith(".venv/bin/pippin run quickstart")
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").touch()
    (clone / ".venv" / ".installed-run").touch()
    assert make(clone, "-n", "quickstart").stdout.strip() == ".venv/bin/pippin run quickstart"
    os.utime(clone / "constraints.txt", (2**31, 2**31))
    assert "--editable" in make(clone, "-n", "quickstart").stdout


def test_test_checks_style_types_and_tests_in_this_order(clone: Path) -> None:
    plan = make(clone, "-n", "test").stdout
    steps = ["'.[all]'", "-m ruff check", "-m mypy", "-m pytest --numprocesses 2 --dist loadfile  ||", "command -v"]
    places = [plan.index(step) for step in steps]
    assert places == sorted(places)
    assert '--dist loadfile -m "slow or not slow" ||' in make(clone, "-n", "test-all").stdout
    assert not (clone / ".venv").exists(), "-n ran something"


@pytest.mark.parametrize("broken", ["", "ruff", "mypy", "pytest"])
def test_every_check_speaks_and_any_failure_fails(clone: Path, broken: str) -> None:
    folder = clone / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text(f'#!/bin/sh\necho "$2 ran"\ntest "$2" != "{broken}"\n')
    (folder / "python").chmod(0o755)
    (clone / ".venv" / ".installed-test").touch()
    done = make(clone, "test")
    spoken = [line for line in done.stdout.splitlines() if line.endswith(" ran")]
    assert spoken == ["ruff ran", "mypy ran", "pytest ran"]
    assert (done.returncode != 0) == bool(broken), done.stderr


@pytest.mark.parametrize("python", ["false", "no-such-python"])
def test_an_old_python_is_one_clear_line(clone: Path, python: str) -> None:
    done = make(clone, "test", f"PYTHON={python}")
    assert done.returncode != 0
    assert f"Python 3.11 or newer is needed, '{python}' is not that" in done.stdout
    assert not (clone / ".venv").exists()


def test_a_missing_tool_is_said_and_fails_only_in_ci(clone: Path) -> None:
    tools = clone / "tools"
    tools.mkdir()
    for name in ("sh", "g++", "git", "bwrap"):
        (tools / name).symlink_to(shutil.which("sh") or "sh")
    program = shutil.which("make")

    def check(**environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), "tools"], cwd=clone, env={"PATH": str(tools)} | environment, capture_output=True, text=True
        )

    done = check()
    assert done.returncode == 0, done.stderr
    assert done.stdout == "missing: chromium (pages in a browser); tests that need it were skipped\n"
    assert check(CI="1").returncode != 0
    (tools / "chromium").symlink_to(shutil.which("sh") or "sh")
    done = check(CI="1")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_ci_script_is_sound_bash(repository: Path) -> None:
    subprocess.run(["bash", "-n", str(repository / ".ci" / "run")], check=True, timeout=60)
