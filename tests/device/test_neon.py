"""The NEON kernels, with and without the matrix product, under QEMU, against the portable ones there and here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.device.building import build, model_files, need, run
from tests.device.models import VARIANTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ARM = ("qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu")


def dumped(text: str) -> dict[str, np.ndarray]:
    """What `dump_logits` printed, by the first five words of each line."""
    lines = [line.split() for line in text.splitlines()]
    out = {" ".join(words[:5]): np.array(words[5:], np.float64) for words in lines}
    assert len(out) == len(lines) == 2 * 3 * 2 * 2 * 3 + 2 * 2 * 7
    return out


def same(name: str, a: np.ndarray, b: np.ndarray) -> None:
    """Equal up to the order of float sums: tokens, and numbers as a share of the largest."""
    assert a.shape == b.shape, name
    assert np.isfinite(a).all(), name
    kind, exact, cache, *_ = name.split()
    if kind == "project":
        limit = 2e-6  # of one input; in fast mode the integers are the same
    elif exact == "1" and cache == "0":
        limit = 0.0 if kind == "greedy" else 1e-5
    else:
        # A number that is rounded to its other neighbour, int8 or bfloat16, moves all that follows: a random model's
        # greedy text may turn there.
        limit = np.inf if kind == "greedy" else 5e-2
    assert np.abs(a - b).max() <= limit * np.abs(b).max(), (name, np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("name", VARIANTS)
def test_neon_and_portable_agree(name: str, tmp_path: Path) -> None:
    need("qemu-aarch64", "aarch64-linux-gnu-g++")
    files = model_files(tmp_path, VARIANTS[name])
    arm = build(system="aarch64", compiler="aarch64-linux-gnu-g++") / "dump_logits"
    neon = dumped(run(arm, *files, "neon", under=ARM))
    pairs = dumped(run(arm, *files, "i8mm", under=ARM))
    portable = dumped(run(arm, *files, "portable", under=ARM))
    here = dumped(run(build() / "dump_logits", *files, "portable"))
    assert neon.keys() == pairs.keys() == portable.keys() == here.keys()
    for each in neon:
        assert np.array_equal(pairs[each], neon[each]), each  # whole numbers: no sum depends on the instruction
        same(each, neon[each], portable[each])
        same(each, portable[each], here[each])


def test_a_processor_without_the_dot_product(tmp_path: Path) -> None:
    """There the portable kernels run, and the NEON ones are refused."""
    need("qemu-aarch64", "aarch64-linux-gnu-g++")
    files = model_files(tmp_path, VARIANTS["qwen3"])
    arm = build(system="aarch64", compiler="aarch64-linux-gnu-g++") / "dump_logits"
    old = (*ARM[:2], "cortex-a53", *ARM[3:])
    assert dumped(run(arm, *files, "", under=old)).keys()
    with pytest.raises(
        AssertionError, match="kernels: value 'neon': not usable on this processor; choose one of portable"
    ):
        run(arm, *files, "neon", under=old)
