"""The model that `pippin bench compress` compresses: 13M parameters, trained once on the text of the recipe `small`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pippin.model.config import ModelConfig
from pippin.pipeline import Graph
from pippin.recipes.chain import chain
from pippin.recipes.small import PARAMS
from pippin.stages.pretrain import Pretrain
from pippin.training.loop import TrainSpec

# Widths are multiples of 256, so that no K-quant of llama.cpp falls back to another type.
MODEL = ModelConfig(
    PARAMS.vocab_size, 512, 4, n_heads=8, n_kv_heads=4, d_head=64, d_ff=1_280, max_seq_len=512, rope_base=10_000
)
TRAIN = TrainSpec(steps=1_200, batch_size=4, seq_len=512, lr=0.005, warmup_steps=40)


def model_graph(runs: Path, steps: int) -> Graph:
    """Curated text, tokenizer and tokens of the recipe `small`, and `core`: the bench's model."""
    stages = chain(PARAMS)
    core = stages["core"]
    assert isinstance(core, Pretrain)
    train = replace(TRAIN, steps=steps, warmup_steps=min(TRAIN.warmup_steps, steps // 2))
    stages["core"] = replace(core, model=MODEL, train=train)
    return Graph({name: stages[name] for name in ("curate", "tokenizer", "tokens", "core")}, runs, "compress")
