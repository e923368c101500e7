"""Small models of every family, with random gains, biases and weights: what the tests of the exporters write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from pippin.compress.packed import save_packed
from pippin.compress.palettize import palettize
from pippin.data.tokenizer import train_tokenizer
from pippin.interop.hf import save_hf
from pippin.model.config import ModelConfig, RopeScaling
from pippin.model.transformer import Transformer

BASE = ModelConfig(vocab_size=384, d_model=48, n_layers=2, n_heads=4, n_kv_heads=2, d_head=16, d_ff=72, max_seq_len=64)
SCALING = RopeScaling(8.0, 1.0, 4.0, 16)
CONFIGS = {
    "qwen3": BASE,
    "qwen3-untied": replace(BASE, tied=False),
    "qwen2": replace(BASE, d_head=12, qk_norm="none", qkv_bias=True),
    "llama3.1": replace(BASE, qk_norm="none", tied=False, rope_base=500.0, rope_scaling=SCALING),
    "mistral": replace(BASE, d_model=50, qk_norm="none"),
    "olmo2": replace(BASE, d_head=12, qk_norm="width", post_norm=True, tied=False),
    "olmo2-tied": replace(BASE, d_head=12, qk_norm="width", post_norm=True),
}
TEXT = ["The fox and the dog saw 12 red houses.\n Then they ran home, and 345 birds sang: <|end|> la la la.\n"] * 4


def make_model(config: ModelConfig) -> Transformer:
    """Random, with logits that are not all alike."""
    torch.manual_seed(0)
    model = Transformer(config, torch.float32)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.requires_grad_(False)


def tokenizer_dir(directory: Path, vocab_size: int = BASE.vocab_size) -> Path:
    """A tokenizer of Pippin's, of the size of BASE."""
    train_tokenizer(TEXT, directory, vocab_size)
    return directory


def dense_dir(directory: Path, config: ModelConfig = BASE, tokenizer: Path | None = None) -> Path:
    """A Hugging Face directory in float32."""
    save_hf(make_model(config), directory, tokenizer)
    return directory


def packed_dir(directory: Path, config: ModelConfig = BASE, tokenizer: Path | None = None) -> Path:
    """A packed directory, the up projections at 2 bits."""
    model = make_model(config)
    palettize(model, {name: 2 if "up" in name else 4 for name, _ in model.linears()})
    save_packed(model, directory, tokenizer)
    return directory
