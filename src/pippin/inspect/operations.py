"""The operations of the one forward pass, and what can be counted of each without running it.

A pass is looked at in two modes: "token", the decoding of one token after a prompt of T, and "prompt", the T tokens
themselves, of which only the last gives logits. Both for one sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pippin.model.config import ModelConfig
from pippin.model.linear import Linear
from pippin.model.norm import RMSNorm
from pippin.model.transformer import Transformer

MODES = ("token", "prompt")
_ACTIVATION_BYTES = 2  # bfloat16
_INT8_ROW_BYTES = 4  # the float32 scale beside a row of an int8 table
_FLOAT32_BYTES = 4
# Multiplications, additions and roots of one element; an exponential counts as one.
_NORM_FLOPS, _ROPE_FLOPS, _SILU_FLOPS, _SOFTMAX_FLOPS = 4, 3, 5, 4


@dataclass
class Operation:
    """One step of the forward pass. What is a dict by mode is for one token, or for the whole prompt.

    Attributes:
        name: path of its module, or of the module whose own work it is, with a last word.
        kind: "projection", "norm", "rope", "attention", "activation", "add", "embedding" or "head".
        layer: which block; None outside of them.
        shape: as read by people, such as "320 × 960" (out × in).
        parameters: learnt numbers that are its own; a tied head has none.
        activation_bytes: of what it takes and gives, in bfloat16.
        kv_bytes: that it reads from and writes to the key/value cache.
    """

    name: str
    kind: str
    layer: int | None
    shape: str
    parameters: int
    flops: dict[str, float]
    activation_bytes: dict[str, int]
    kv_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODES, 0))


def operations(model: Transformer, prompt_tokens: int) -> list[Operation]:
    """All operations in the order in which they run; every parameter of the model belongs to exactly one."""
    counter = _Counter(model.config, prompt_tokens)
    width, vocab = model.config.d_model, model.config.vocab_size
    found = [counter.make("embed", "embedding", None, f"{vocab} × {width}", vocab * width, 0, width)]
    for number in range(model.config.n_layers):
        found += _layer(model, number, counter)
    found.append(counter.norm("norm", model.norm, None, once=True))
    own = 0 if model.config.tied else vocab * width
    head = counter.make("head", "head", None, f"{vocab} × {width}", own, 2 * vocab * width, width + vocab, once=True)
    return [*found, head]


class _Counter:
    def __init__(self, config: ModelConfig, prompt_tokens: int) -> None:
        self.config = config
        self.tokens = {"token": 1, "prompt": prompt_tokens}
        # Keys that all queries of a pass see together, and slots of the cache that it reads and writes.
        self.pairs = {"token": prompt_tokens + 1, "prompt": prompt_tokens * (prompt_tokens + 1) // 2}
        self.slots = {"token": prompt_tokens + 2, "prompt": 2 * prompt_tokens}

    def make(
        self, name: str, kind: str, layer: int | None, shape: str, parameters: int, flops: int, values: int,
        once: bool = False,
    ) -> Operation:  # fmt: skip
        """An operation with `flops` and `values` (elements in and out) for each token, or once for the last."""
        tokens = dict.fromkeys(MODES, 1) if once else self.tokens
        return Operation(
            name, kind, layer, shape, parameters,
            {mode: float(flops * tokens[mode]) for mode in MODES},
            {mode: _ACTIVATION_BYTES * values * tokens[mode] for mode in MODES},
        )  # fmt: skip

    def norm(self, name: str, norm: RMSNorm, layer: int | None, once: bool = False) -> Operation:
        size = norm.weight.numel()
        return self.make(name, "norm", layer, str(size), size, _NORM_FLOPS * size, 2 * size, once)

    def projection(self, name: str, linear: Linear, layer: int) -> Operation:
        out, width = linear.out_features, linear.in_features
        bias = 0 if linear.bias is None else out
        flops = 2 * out * width + bias
        return self.make(name, "projection", layer, f"{out} × {width}", out * width + bias, flops, out + width)

    def rope(self, name: str, norms: list[RMSNorm], layer: int) -> Operation:
        """QK norm and rotation of queries and keys."""
        config = self.config
        values = (config.n_heads + config.n_kv_heads) * config.d_head
        flops = values * (_ROPE_FLOPS + (_NORM_FLOPS if norms else 0))
        shape = f"{config.n_heads} + {config.n_kv_heads} heads × {config.d_head}"
        return self.make(name, "rope", layer, shape, sum(n.weight.numel() for n in norms), flops, 2 * values)

    def attention(self, name: str, layer: int) -> Operation:
        """Scores, softmax and mixing of values, with the writing and reading of the cache."""
        config = self.config
        queries, keys = config.n_heads * config.d_head, 2 * config.n_kv_heads * config.d_head
        shape = f"{config.n_heads} heads × {config.d_head}"
        made = self.make(name, "attention", layer, shape, 0, 0, 2 * queries + keys)
        pair_flops = 4 * queries + _SOFTMAX_FLOPS * config.n_heads
        made.flops = {mode: float(pair_flops * self.pairs[mode]) for mode in MODES}
        made.kv_bytes = {mode: _ACTIVATION_BYTES * keys * self.slots[mode] for mode in MODES}
        return made


def _layer(model: Transformer, number: int, counter: _Counter) -> list[Operation]:
    block = model.get_submodule(f"blocks.{number}")
    prefix = f"blocks.{number}"
    width = model.config.d_model

    def projection(name: str) -> Operation:
        linear = block.get_submodule(name)
        assert isinstance(linear, Linear)
        return counter.projection(f"{prefix}.{name}", linear, number)

    def norm(name: str) -> Operation:
        module = block.get_submodule(name)
        assert isinstance(module, RMSNorm)
        return counter.norm(f"{prefix}.{name}", module, number)

    def add(name: str) -> Operation:
        return counter.make(f"{prefix}.{name}", "add", number, str(width), 0, width, 3 * width)

    qk_norms = [m for m in block.get_submodule("attention").children() if isinstance(m, RMSNorm)]
    attention = [
        *(projection(f"attention.{name}") for name in "qkv"),
        counter.rope(f"{prefix}.attention.rope", qk_norms, number),
        counter.attention(f"{prefix}.attention.mix", number),
        projection("attention.o"),
    ]
    hidden = model.config.d_ff
    silu = counter.make(f"{prefix}.ffn.silu", "activation", number, str(hidden), 0, _SILU_FLOPS * hidden, 3 * hidden)
    ffn = [projection("ffn.gate"), projection("ffn.up"), silu, projection("ffn.down")]
    if model.config.post_norm:
        return [*attention, norm("attention_norm"), add("attention_add"), *ffn, norm("ffn_norm"), add("ffn_add")]
    return [norm("attention_norm"), *attention, add("attention_add"), norm("ffn_norm"), *ffn, add("ffn_add")]


def stored_bytes(operation: Operation, model: Transformer, weight_bytes: float) -> dict[str, int]:
    """Bytes in the file that are not a projection's weights: {"0": in the model as it is, "8": once it is palettized}.

    Palettizing makes every table int8 with a scale for each row, and leaves the rest (gains, biases) in float32.

    Args:
        weight_bytes: of one parameter in the files of a dense model.
    """
    own = operation.parameters
    if operation.kind == "projection":
        own -= weights_of(operation, model)
    table = operation.kind in ("embedding", "head") and own
    packed = own + _INT8_ROW_BYTES * model.config.vocab_size if table else _FLOAT32_BYTES * own
    return {"0": packed if is_palettized(model) else round(weight_bytes * own), "8": packed}


def read_bytes(
    operation: Operation, model: Transformer, stored: dict[str, int], tied: dict[str, int]
) -> dict[str, dict[str, int]]:
    """Bytes of those that a pass reads, by mode: all, but only its tokens' rows of the embedding.

    Args:
        stored: from `stored_bytes`.
        tied: the same of the embedding, which a tied head reads whole.
    """
    if operation.kind == "embedding":
        row = {key: value // model.config.vocab_size for key, value in stored.items()}
        tokens = {
            mode: round(operation.activation_bytes[mode] / (_ACTIVATION_BYTES * model.config.d_model)) for mode in MODES
        }
        return {mode: {key: value * tokens[mode] for key, value in row.items()} for mode in MODES}
    whole = tied if operation.kind == "head" and not operation.parameters else stored
    return {mode: dict(whole) for mode in MODES}


def weights_of(operation: Operation, model: Transformer) -> int:
    """Weights of a projection's matrix, without its bias."""
    linear = model.get_submodule(operation.name)
    assert isinstance(linear, Linear)
    return linear.out_features * linear.in_features


def is_palettized(model: Transformer) -> bool:
    """Whether the tables (and so the projections) are packed."""
    return model.embed.codes is not None
