"""Small packed models with random weights, and their torch twins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pippin.bench.device_models import write_random_packed
from pippin.compress.packed import load_packed, save_packed
from pippin.interop.lora import base_signature
from pippin.interop.peft import save_adapter
from pippin.interop.stored import parameter_shapes
from pippin.model.config import ModelConfig, RopeScaling
from pippin.model.transformer import Transformer

SMALL = ModelConfig(
    vocab_size=90, d_model=48, n_layers=2, n_heads=4, n_kv_heads=2, d_head=12, d_ff=72, max_seq_len=256, rope_base=1e4
)
# No size is a multiple of the engine's units: groups of 16 rows, blocks of 8 or 16 inputs, spans of 64, heads of 16.
ODD = ModelConfig(
    vocab_size=67, d_model=70, n_layers=2, n_heads=18, n_kv_heads=2, d_head=6, d_ff=100, max_seq_len=200, rope_base=1e4
)
VARIANTS = {
    "qwen3": SMALL,
    "odd sizes, nine queries a key": ODD,
    "qwen2": replace(SMALL, qk_norm="none", qkv_bias=True),
    "llama 3.1, untied": replace(
        SMALL, qk_norm="none", tied=False, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 32), d_model=96, n_heads=8
    ),
    "olmo2": replace(SMALL, qk_norm="width", post_norm=True, tied=False),
}


def write(
    directory: Path, config: ModelConfig = SMALL, bits: int | None = None, seed: int = 0, gain: float = 8
) -> Path:
    """A packed model; `bits` for all projections, or 4 and 2 by turns. Norms and biases are random too.

    `gain`: how far apart the logits of a model with a tied embedding lie.
    """
    names = [
        name.removesuffix(".weight")
        for name, shape in parameter_shapes(config).items()
        if len(shape) == 2 and name.startswith("blocks.")
    ]
    write_random_packed(directory, config, {name: bits or (4, 2)[i % 2] for i, name in enumerate(names)}, seed)
    model = load_packed(directory)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise if name.endswith("bias") else 1 + 0.3 * noise)
        # Small embeddings and a large last gain: else the last token's own row wins, and every text repeats one token.
        model.embed.scale.mul_(0.1 * (torch.rand(model.embed.scale.shape, generator=generator) + 0.5))
        model.norm.weight.mul_(gain if config.tied else 1)
    save_packed(model, directory)
    return directory


def twin(directory: Path) -> Transformer:
    """The torch model, in float32."""
    return load_packed(directory, torch.float32)


def add_adapter(directory: Path, to: Path, rank: int, seed: int, slots: Transformer | None = None) -> Path:
    """A random adapter for the model of `directory`."""
    model = slots or twin(directory)
    generator = torch.Generator().manual_seed(seed)
    for _, linear in model.linears():
        linear.add_adapters(1, rank)
        a = torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5
        b = torch.randn(linear.out_features, rank, generator=generator) * 0.3
        linear.load_adapter(0, a.half().float(), b.half().float(), 2.0)
    save_adapter(model, 0, to, base_signature(directory))
    return to


def tokens(config: ModelConfig, n: int, seed: int = 0) -> list[int]:
    """Random token ids."""
    return [int(token) for token in np.random.default_rng(seed).integers(0, config.vocab_size, n)]
