"""The wheel and the sdist: built offline, complete, free of tests, and installable in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from pippin import __version__
from pippin.device.library import NAME


@pytest.fixture(scope="module")
def dist(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and a wheel that was built from that sdist, as a packager would."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(repository)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("pippin-*.whl")
    return path


@pytest.fixture(scope="module")
def in_wheel(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def source_files(repository: Path) -> set[str]:
    package = repository / "src" / "pippin"
    files = (p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(package.parent).as_posix() for p in files if p.suffix not in (".pyc", ".so")}


def test_wheel_holds_the_package_and_nothing_else(in_wheel: set[str], repository: Path) -> None:
    outside = {name for name in in_wheel if ".dist-info/" not in name}
    assert outside == source_files(repository) | {f"pippin/device/{NAME}"}
    assert "pippin/py.typed" in in_wheel


def test_wheel_carries_its_licence_and_notice(in_wheel: set[str]) -> None:
    base = f"pippin-{__version__}.dist-info/licenses"
    assert {f"{base}/LICENSE", f"{base}/NOTICE"} <= in_wheel


def test_wheel_metadata(wheel: Path) -> None:
    text = zipfile.ZipFile(wheel).read(f"pippin-{__version__}.dist-info/METADATA").decode()
    fields = message_from_string(text)
    assert fields["Name"] == "pippin"
    assert fields["Version"] == __version__
    assert fields["Requires-Python"] == ">=3.11"
    assert fields["License-Expression"] == "Apache-2.0"
    assert "torch" not in {r.split(">")[0] for r in fields.get_all("Requires-Dist", []) if "extra ==" not in r}


def test_sdist_holds_what_a_build_needs_and_no_tests(dist: Path, repository: Path) -> None:
    (path,) = dist.glob("pippin-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {f"src/{name}" for name in source_files(repository)} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "constraints.txt"} <= names
    assert not {name for name in names if name.startswith(("tests", "runs", ".venv", ".git/"))}


def test_wheel_installs_and_runs_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True, with_pip=False)
    python = environment / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q", str(wheel)],
        check=True,
        capture_output=True,
        timeout=120,
        env=clean,
    )
    # The third-party packages of this environment, without this checkout (whose .pth file PYTHONPATH does not read).
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    clean["PYTHONPATH"] = os.pathsep.join(paths)

    def call(*arguments: str) -> str:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=clean, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = call(str(python), "-c", "import pippin; print(pippin.__file__)")
    assert Path(where.strip()).is_relative_to(environment), "the checkout was imported, not the wheel"
    assert call(str(environment / "bin" / "pippin"), "--version") == f"pippin {__version__}\n"
    loads = "from pippin.device.library import library, library_path; library(); print(library_path())"
    assert Path(call(str(python), "-c", loads).strip()).is_relative_to(environment), "the checkout's engine was loaded"
    assert "RECIPE" in call(str(environment / "bin" / "pippin"), "run", "--help").upper()
