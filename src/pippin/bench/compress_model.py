"""The model that `pippin bench compress` compresses: 13M parameters, trained on Python text and the small world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pippin.model.config import ModelConfig
from pippin.pipeline import Graph
from pippin.recipes.small import PARAMS
from pippin.stages.pretrain import Pretrain
from pippin.stages.tokenize import Tokenize, TrainTokenizer
from pippin.training.loop import TrainSpec

# Widths are multiples of 256, so that no K-quant of llama.cpp falls back to another type.
MODEL = ModelConfig(
    PARAMS.vocab_size, 512, 4, n_heads=8, n_kv_heads=4, d_head=64, d_ff=1_280, max_seq_len=512, rope_base=10_000
)
TRAIN = TrainSpec(steps=1_200, batch_size=4, seq_len=512, lr=0.005, warmup_steps=40)
MIXTURE = {"python": 0.4, "packages": 0.4, "stories": 0.07, "tasks": 0.13}
CORPUS = replace(PARAMS.corpus, package_bytes=12_000_000)


def model_graph(runs: Path, steps: int) -> Graph:
    """Curated text, tokenizer, tokens, and `core`: the bench's model."""
    tokenizer = TrainTokenizer(curate=CORPUS, vocab_size=MODEL.vocab_size)
    tokens = Tokenize(curate=CORPUS, tokenizer=tokenizer)
    train = replace(TRAIN, steps=steps, warmup_steps=min(TRAIN.warmup_steps, steps // 2))
    core = Pretrain(tokens=tokens, train=train, mixture=MIXTURE, model=MODEL, heldout_sources=tuple(MIXTURE))
    return Graph({"curate": CORPUS, "tokenizer": tokenizer, "tokens": tokens, "core": core}, runs, "compress")
