"""The one forward pass: training, rollouts, evaluation, serving and the parity tests all use this model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pippin.model.attention import Attention, Layout, make_layout
from pippin.model.cache import KVCache
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Loss, Targets, linear_cross_entropy
from pippin.model.dropout import Drop, Dropout, dropped
from pippin.model.embedding import Embedding
from pippin.model.linear import Linear
from pippin.model.norm import RMSNorm
from pippin.model.prepacked import Joined, join, prepack


class FFN(nn.Module):
    """SwiGLU: down(silu(gate x) * up x) (Shazeer 2020; report section 2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_ff, mup_width=config.d_model, shard="column")
        self.up = Linear(config.d_model, config.d_ff, mup_width=config.d_model, shard="column")
        self.down = Linear(config.d_ff, config.d_model, mup_width=config.d_model, shard="row")
        self.joined: Joined | None = None  # gate and up at once, while `unchanging` is open

    def forward(self, x_BTD: Tensor, slots_B: Tensor | None = None) -> Tensor:
        """Transform each token: [B, T, D] to [B, T, D]."""
        if self.joined is None or slots_B is not None:
            gate_BTF, up_BTF = self.gate(x_BTD, slots_B), self.up(x_BTD, slots_B)
        else:
            gate_BTF, up_BTF = self.joined(x_BTD).chunk(2, -1)
        return self.down(F.silu(gate_BTF) * up_BTF, slots_B)

    def join(self) -> tuple[Linear, ...]:
        """Set `joined`, if these projections can be; which projections it stands for."""
        self.joined = join(self.gate, self.up)
        return () if self.joined is None else (self.gate, self.up)

    def part(self) -> None:
        """Forget what `join` has made."""
        self.joined = None


class Block(nn.Module):
    """Pre-norm layer: x + attention(norm(x)), then x + ffn(norm(x)); with `post_norm`, x + norm(attention(x)) ..."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.post_norm = config.post_norm
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, layer)
        self.ffn_norm = RMSNorm(config.d_model, config.norm_eps)
        self.ffn = FFN(config)

    def forward(self, x_BTD: Tensor, layout: Layout, slots_B: Tensor | None = None, drop: Drop | None = None) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        if self.post_norm:
            x_BTD = x_BTD + dropped(self.attention_norm(self.attention(x_BTD, layout, slots_B)), drop)
            return x_BTD + dropped(self.ffn_norm(self.ffn(x_BTD, slots_B)), drop, 1)
        x_BTD = x_BTD + dropped(self.attention(self.attention_norm(x_BTD), layout, slots_B), drop)
        return x_BTD + dropped(self.ffn(self.ffn_norm(x_BTD), slots_B), drop, 1)


class Transformer(nn.Module):
    """Decoder of the report's section 2: pre-norm, QK norm, grouped-query attention, SwiGLU, RoPE, tied embedding.

    Parameters are float32; activations, and weights while they multiply, have `compute_dtype`, which may be changed
    at any time. `config.rope_base` is read at every forward pass: to lengthen a model, replace `model.config`.
    Quantised weights, adapters and masks are states of its `Linear` modules, not other classes; the models of other
    makers are settings of `ModelConfig`. `head` is None while the embedding is tied.

    A model that no memory should hold whole is made with its parameters on the meta device; `fill` then brings the
    weights of one of its `parts` by name. It is None where the weights are there.

    While `dropout` is set, which the training loop does for the batch that it learns from, forward passes drop.
    """

    fill: Callable[[str], None] | None = None
    dropout: Dropout | None = None

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self.embed = Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = None if config.tied else Embedding(config.vocab_size, config.d_model)

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """The pieces in which weights come and are shared out, with their names, in the order of their random draws."""
        yield "embed", self.embed
        for layer, block in enumerate(self.blocks):
            yield f"blocks.{layer}", block
        yield "norm", self.norm
        if self.head is not None:
            yield "head", self.head

    def reset_parameters(self, part: str = "") -> None:
        """Draw the weights of a part, or all, anew from the global random generator; those on meta come to the CPU.

        Part after part draws what a new model draws at once.
        """
        drawn = self.get_submodule(part)
        if any(p.is_meta for p in drawn.parameters()):
            drawn.to_empty(device="cpu")
        for module in drawn.modules():
            if isinstance(module, Embedding | Linear | RMSNorm):
                module.reset_parameters()

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        segment_ids_BT: Tensor | None = None,
        cache: KVCache | None = None,
        slots_B: Tensor | None = None,
        targets: Targets | None = None,
        last_only: bool = False,
        hidden_only: bool = False,
    ) -> Tensor | Loss:
        """Logits of the next token, or the loss against `targets`.

        Args:
            tokens_BT: int64 token ids.
            positions_BT: position of each token in its document; None: its place in the row, after the cache.
            segment_ids_BT: document of each token, 1, 2, 3 ..., 0 for padding; None: a row is one document.
            cache: keys and values of earlier tokens; the tokens of this call are appended to it.
            slots_B: adapter slot of each row, -1 for none; None: no adapters.
            targets: what to compare with; then the result is a `Loss` and logits are never kept.
            last_only: logits of the last place of each row only.
            hidden_only: what the head would multiply, [B, T, D], instead of logits.
        Returns:
            Logits [B, T, V] float32 ([B, 1, V] with `last_only`), or `Loss`.
        """
        layout = make_layout(self.config, tokens_BT, positions_BT, segment_ids_BT, cache, self.compute_dtype)
        x_BTD = self.embed(tokens_BT).to(self.compute_dtype)
        drop = None
        if self.dropout is not None:
            drop = self.dropout.tokens(tokens_BT, positions_BT, segment_ids_BT)
            if (part := self.embed.part) is not None:  # each process has the embedding of its part of the tokens
                drop = drop.own(part.start // part.size, x_BTD.shape[1])
            x_BTD = dropped(x_BTD, drop)
        for number, block in enumerate(self.blocks, 1):
            x_BTD = block(x_BTD, layout, slots_B, None if drop is None else drop.at(number))
        if last_only:
            x_BTD = x_BTD[:, -1:]
        x_BTD = self.norm(x_BTD)
        if hidden_only:
            return x_BTD
        if targets is not None:
            return linear_cross_entropy(x_BTD, self.head_weight(), targets)
        logits_BTV = (self.embed if self.head is None else self.head).logits(x_BTD)
        return logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))

    def head_weight(self) -> Tensor:
        """The table [V, D] that writes logits, float32: the embedding's, if it is tied."""
        return (self.embed if self.head is None else self.head).dense_weight()

    def linears(self) -> Iterator[tuple[str, Linear]]:
        """The matrices of the layers with their names, in order (q k v o gate up down per layer)."""
        for name, module in self.named_modules():
            if isinstance(module, Linear):
                yield name, module

    @contextmanager
    def unchanging(self, *, adapters: bool = False) -> Iterator[None]:
        """While it is open the weights must not change, and there are no gradients: products are those of copies.

        The copies (`model.prepacked`) take the memory of the layers' matrices and of the head once more. Packed weights
        are made dense once. Where nothing can be prepacked, nothing changes.

        Args:
            adapters: whether forward passes will ask for adapter slots; without, fewer and larger products are made.
        """
        sublayers: list[Any] = [sublayer for block in self.blocks for sublayer in (block.attention, block.ffn)]
        modules: list[Any] = [self.embed if self.head is None else self.head]
        modules += (linear for _, linear in self.linears())
        try:
            if self.compute_dtype == torch.float32:
                joined: set[nn.Module] = set()
                for sublayer in () if adapters else sublayers:
                    joined.update(sublayer.join())
                for module in modules:
                    if module not in joined:
                        module.prepacked = prepack(module.dense_weight())
            with torch.no_grad():
                yield
        finally:
            for sublayer in sublayers:
                sublayer.part()
            for module in modules:
                module.prepacked = None
