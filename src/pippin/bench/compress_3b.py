"""What it takes to compress AFM-on-device: one block of its shape is done, 26 are extrapolated.

The block and the text are random: times and memory do not depend on the values. In the whole model each block is read,
calibrated, palettized at 2 and 4 bits and dropped, as in the compress stage with the proxy; only its packed form stays.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, replace

import torch

from pippin.bench.result import Result
from pippin.compress.palettize import Candidate, candidates
from pippin.data.loader import Batch
from pippin.model.config import PRESETS, ModelConfig
from pippin.model.transformer import Transformer
from pippin.progress import Screen

SHAPE = PRESETS["afm-on-device"]
AIM_S, AIM_BYTES = 3_600.0, 8 << 30
_SEQ_LEN, _ROWS = 512, 4


@dataclass(frozen=True)
class Params:
    """Calibration text, and how many blocks are really done."""

    calibration_tokens: int = 16_384
    blocks: int = 1


def run(params: Params = Params(), quick: bool = False) -> Result:
    """Palettize `blocks` blocks and extrapolate.

    Args:
        quick: a narrow block and little text: shows that it runs.
    """
    whole = SHAPE
    if quick:
        params = Params(calibration_tokens=1_024)
        whole = ModelConfig(512, 256, 4, n_heads=4, n_kv_heads=2, d_head=64, d_ff=512, max_seq_len=_SEQ_LEN)
    slice_ = replace(whole, n_layers=params.blocks)
    torch.manual_seed(0)
    start = time.perf_counter()
    model = Transformer(slice_).requires_grad_(False)
    made_s = time.perf_counter() - start
    marks = [time.perf_counter()]
    with Screen().track(slice_.n_matmul_params(), "palettize") as bar:
        batches = _text(slice_, params.calibration_tokens)
        found = candidates(model, batches, load_block=lambda _: None, progress=bar.advance)  # as if it were read
    marks.append(time.perf_counter())
    model.embed.pack_int8()
    marks.append(time.perf_counter())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    block_s, embedding_s = (marks[1] - marks[0]) / params.blocks, marks[2] - marks[1]
    packed = sum(_bytes(option) for options in found.values() for option in options.values()) / params.blocks
    # The slice holds what is there once and its own packed blocks; the packed form of the others comes on top.
    total_s = whole.n_layers * block_s + embedding_s
    total_bytes = peak + (whole.n_layers - params.blocks) * packed

    result = Result("compress_3b")
    name = f"{whole.n_params().total:,} parameters" + (" (trial)" if quick else "")
    result.row(name, "pippin", "one block", block_s, "s")
    result.row(name, "pippin", "embedding", embedding_s, "s")
    result.row(name, "pippin", "making random weights (not counted)", made_s, "s")
    result.row(name, "pippin", "peak memory of the slice", peak, "bytes")
    result.row(name, "pippin", "packed at 2 and 4 bits, a block", packed, "bytes")
    result.row(name, "pippin", f"{whole.n_layers} blocks, extrapolated", total_s, "s")
    result.row(name, "pippin", "peak memory, extrapolated", total_bytes, "bytes")
    result.ratio(name, "time, extrapolated", "an hour", total_s / AIM_S, "<=", 1.0)
    result.ratio(name, "memory, extrapolated", "8 GiB", total_bytes / AIM_BYTES, "<=", 1.0)
    return result


def _text(config: ModelConfig, tokens: int) -> list[Batch]:
    """Random batches of about so many tokens."""
    generator = torch.Generator().manual_seed(1)
    positions = torch.arange(_SEQ_LEN).expand(_ROWS, -1)
    segments = torch.ones_like(positions)
    return [
        Batch(torch.randint(config.vocab_size, (_ROWS, _SEQ_LEN), generator=generator), segments, positions, segments)
        for _ in range(max(1, tokens // (_ROWS * _SEQ_LEN)))
    ]


def _bytes(candidate: Candidate) -> int:
    return candidate.codes.nbytes + candidate.table.nbytes + candidate.scale.nbytes
