"""What every test shares: the environment of child processes, Hypothesis settings, optional real data."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

# A test never asserts a time, so no deadline; examples are the same in every run.
settings.register_profile(
    "pippin", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pippin")

# The models of tests are so small that a second thread only waits for the first, at length on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Child processes see this checkout, and nothing reaches for a network or a colour.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH")]))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_COLOR"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("PIPPIN_RUNS", None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def test_data() -> Path:
    """A folder with optional real data sets (`PIPPIN_TEST_DATA`); tests that ask for it are skipped without it."""
    folder = os.environ.get("PIPPIN_TEST_DATA")
    if not folder:
        pytest.skip("PIPPIN_TEST_DATA is not set")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"PIPPIN_TEST_DATA={folder}: no such folder")
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one uninterrupted `pippin run tests/tiny.py`; what it printed is in `output`. Read only: copy it."""
    from tests.running import TINY, finish

    runs = tmp_path_factory.mktemp("finished") / "runs"
    outcome = finish("run", TINY, "--runs", runs)
    assert outcome.code == 0, outcome
    (runs / "output").write_text(outcome.out, encoding="utf-8")
    return runs


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own of a size that can be changed: `disk("100k")` gives its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        options = f"{'remount,' if os.path.ismount(folder) else ''}size={size},nr_inodes=10k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        return folder

    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", folder], check=True)
