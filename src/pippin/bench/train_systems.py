"""The systems of the training bench: from a shape and tokens to a function that takes one training step.

All start from the same weights and compute the same loss, the mean cross-entropy of the next token, with float32
parameters and bfloat16 products; the peers under torch.autocast with fused AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pippin.bench.plain import GPT
from pippin.interop.layouts import hf_name, to_hf_config
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Targets
from pippin.model.transformer import Transformer
from pippin.training.optimizer import RMSPropMomentum, param_groups

SIZES = {
    "1M": ModelConfig(4096, 128, 4, n_heads=4, n_kv_heads=2, d_head=32, d_ff=336, max_seq_len=256),
    "10M": ModelConfig(8192, 320, 6, n_heads=10, n_kv_heads=5, d_head=32, d_ff=840, max_seq_len=256),
    "30M": ModelConfig(8192, 512, 8, n_heads=8, n_kv_heads=4, d_head=64, d_ff=1344, max_seq_len=256),
    # For an accelerator: AXLearn's proxy of the family, and two with its proportions.
    "100M": ModelConfig(49_152, 768, 12, n_heads=12, n_kv_heads=6, d_head=64, d_ff=2304, max_seq_len=4096),
    "400M": ModelConfig(49_152, 1280, 20, n_heads=10, n_kv_heads=5, d_head=128, d_ff=3360, max_seq_len=4096),
    "1B": ModelConfig(49_152, 2048, 20, n_heads=16, n_kv_heads=8, d_head=128, d_ff=5376, max_seq_len=4096),
}
OURS, OURS_ADAMW, PLAIN, THEIRS = "pippin", "pippin, fused AdamW", "torch only (nanoGPT style)", "transformers"

Step = Callable[[], float]


def new_step(system: str, config: ModelConfig, tokens_BT: Tensor, mode: str) -> Step:
    """A training step of a system ("eager" or "compiled") on the tokens' device; it returns the loss.

    Raises:
        ImportError: the peer is not installed.
    """
    if system == PLAIN:
        return plain_step(config, tokens_BT, mode)
    if system == THEIRS:
        return their_step(config, tokens_BT, mode)
    return our_step(config, tokens_BT, mode, adamw=system == OURS_ADAMW)


def our_step(config: ModelConfig, tokens_BT: Tensor, mode: str, adamw: bool = False) -> Step:
    """Ours, with the report's optimizer or fused AdamW. On an accelerator blocks are compiled one by one."""
    model = fresh(config).to(tokens_BT.device)
    forward: Any = model
    if mode == "compiled" and tokens_BT.is_cuda:
        for block in model.blocks:
            block.compile()
    elif mode == "compiled":
        forward = torch.compile(model)
    optimizer: Any
    if adamw:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    else:
        optimizer = RMSPropMomentum(param_groups(model), lr=1e-4)
    targets = Targets(next_tokens(tokens_BT))

    def step() -> float:
        loss = forward(tokens_BT, targets=targets)
        mean = loss.total / loss.count
        mean.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(mean.detach())

    return step


def plain_step(config: ModelConfig, tokens_BT: Tensor, mode: str) -> Step:
    """The peer that is written with torch alone."""
    model = GPT(config)
    model.load_state_dict(fresh(config).state_dict())
    forward, optimizer = _peer(model, tokens_BT, mode)
    targets_BT = next_tokens(tokens_BT)

    def step() -> float:
        with torch.autocast(tokens_BT.device.type, dtype=torch.bfloat16):
            loss = forward(tokens_BT, targets_BT)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def their_step(config: ModelConfig, tokens_BT: Tensor, mode: str) -> Step:
    """Qwen3 of transformers."""
    import transformers

    shape = {name: value for name, value in to_hf_config(config).items() if name not in ("architectures", "model_type")}
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**shape)).train()
    ours = {hf_name(name): parameter for name, parameter in fresh(config).named_parameters()}
    model.load_state_dict(ours, strict=False)
    forward, optimizer = _peer(model, tokens_BT, mode)

    def step() -> float:
        with torch.autocast(tokens_BT.device.type, dtype=torch.bfloat16):
            loss = forward(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _peer(model: nn.Module, tokens_BT: Tensor, mode: str) -> tuple[Any, torch.optim.Optimizer]:
    model.to(tokens_BT.device)
    forward = torch.compile(model) if mode == "compiled" else model
    return forward, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def next_tokens(tokens_BT: Tensor) -> Tensor:
    """What each position must predict; -100 at the last."""
    return torch.cat((tokens_BT[:, 1:], torch.full_like(tokens_BT[:, :1], -100)), dim=1)


def fresh(config: ModelConfig) -> Transformer:
    """The model that all systems start from."""
    torch.manual_seed(0)
    return Transformer(config)
