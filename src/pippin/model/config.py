"""The shape of a model, its named presets, and everything that can be counted without allocating it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, get_args

from pippin.errors import UserError

QKNorm = Literal["head", "width", "none"]
# A field that came after the first runs: at its default it is no part of a stage's id or a base's signature.
_LATER = {"later": True}


class ParamCount(NamedTuple):
    """Numbers of parameters; the tied embedding is counted once, an untied head is part of `embedding`."""

    embedding: int
    non_embedding: int
    total: int


@dataclass(frozen=True)
class RopeScaling:
    """Slower rotation of the long waves, as Llama 3.1 lengthens its context (rope type "llama3").

    A frequency whose wave turns fewer than `low_freq_factor` times within `original_max_seq_len` tokens is divided by
    `factor`, one that turns more than `high_freq_factor` times stays, and between the two it is interpolated.

    Raises:
        UserError: a value is out of range.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_seq_len: int

    def __post_init__(self) -> None:
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise UserError(f"rope_scaling.{name}: value {value!r}: must be a number above 0")
        if not self.low_freq_factor < self.high_freq_factor:
            raise UserError(
                f"rope_scaling.low_freq_factor: value {self.low_freq_factor}: must be below high_freq_factor "
                f"{self.high_freq_factor}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape and constants of a `Transformer` (report section 2; afm-on-device is its Table 1).

    `max_seq_len` is the length that the model was trained for, in tokens. `rope_base` is the base of the rotary
    frequencies; it can be changed on a model that already has weights (context lengthening, report section 3.2.3).
    `rope_before_norm` rotates before the QK norm, the order of AXLearn; the default is the order of Qwen3, which
    exports without loss.

    The last fields are for imported models; their defaults are what Pippin itself trains:
    - `qk_norm`: RMSNorm of queries and keys, over each "head" (Qwen3), over the whole projected "width" (OLMo2), or
      "none" (Qwen2, Llama, Mistral);
    - `qkv_bias`: the q, k and v projections add a bias (Qwen2);
    - `post_norm`: a layer normalises what its sublayers give instead of what they take (OLMo2);
    - `tied`: logits come from the embedding; otherwise from a second table, `head`;
    - `rope_scaling`: see `RopeScaling` (Llama 3.1 and later).

    Raises:
        UserError: a value is out of range, or heads do not divide.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int
    max_seq_len: int
    rope_base: float = 500_000.0
    norm_eps: float = 1e-5
    rope_before_norm: bool = False
    qk_norm: QKNorm = field(default="head", metadata=_LATER)
    qkv_bias: bool = field(default=False, metadata=_LATER)
    post_norm: bool = field(default=False, metadata=_LATER)
    tied: bool = field(default=True, metadata=_LATER)
    rope_scaling: RopeScaling | None = field(default=None, metadata=_LATER)

    def __post_init__(self) -> None:
        for each in fields(self):
            value: Any = getattr(self, each.name)
            if each.type == "int" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UserError(f"{each.name}: value {value!r}: must be a whole number of at least 1")
            if each.type == "bool" and not isinstance(value, bool):
                raise UserError(f"{each.name}: value {value!r}: must be true or false")
        if self.n_heads % self.n_kv_heads:
            raise UserError(
                f"n_kv_heads: value {self.n_kv_heads}: does not divide n_heads {self.n_heads}; "
                "choose a divisor, so that every key/value head serves as many query heads"
            )
        if self.d_head % 2:
            raise UserError(f"d_head: value {self.d_head}: must be even, RoPE rotates its two halves")
        if not self.rope_base > 1:
            raise UserError(f"rope_base: value {self.rope_base!r}: must be above 1; the report uses 500000")
        if not 0 < self.norm_eps < 1:
            raise UserError(f"norm_eps: value {self.norm_eps!r}: must lie between 0 and 1; the default is 1e-5")
        if self.qk_norm not in get_args(QKNorm):
            raise UserError(f"qk_norm: value {self.qk_norm!r}: must be one of {', '.join(get_args(QKNorm))}")
        if self.rope_before_norm and self.qk_norm != "head":
            raise UserError(f"rope_before_norm: value True: needs a norm of each head, but qk_norm is {self.qk_norm!r}")

    def n_matmul_params(self) -> int:
        """Weights of the layers' matrices, each of which one token multiplies once (the head is not among them)."""
        attention = 2 * self.d_model * self.d_head * (self.n_heads + self.n_kv_heads)
        return self.n_layers * (attention + 3 * self.d_model * self.d_ff)

    def n_params(self) -> ParamCount:
        """Parameters of the dense model without adapters."""
        embedding = (1 if self.tied else 2) * self.vocab_size * self.d_model
        qk_norms = {
            "head": 2 * self.d_head,
            "width": self.d_head * (self.n_heads + self.n_kv_heads),
            "none": 0,
        }[self.qk_norm]
        biases = self.d_head * (self.n_heads + 2 * self.n_kv_heads) if self.qkv_bias else 0
        vectors = self.n_layers * (2 * self.d_model + qk_norms + biases) + self.d_model
        non_embedding = self.n_matmul_params() + vectors
        return ParamCount(embedding, non_embedding, embedding + non_embedding)

    def forward_flops_per_token(self, seq_len: int) -> float:
        """Multiplications and additions of one forward pass, per token, averaged over a causal row of `seq_len`.

        Two for each weight of the matrices and of the head, and the two products of attention over the half of the
        keys that is visible on average. Norms, softmax and the embedding's gather are not counted.
        """
        attention = 4 * self.n_layers * self.n_heads * self.d_head * seq_len / 2
        return 2 * (self.n_matmul_params() + self.vocab_size * self.d_model) + attention

    def train_flops_per_token(self, seq_len: int) -> float:
        """Forward and backward pass: three times the forward (the usual 6 N plus attention)."""
        return 3 * self.forward_flops_per_token(seq_len)

    def kv_cache_bytes_per_token(self, bytes_per_value: float = 2) -> float:
        """Bytes that one token adds to the key/value cache."""
        return 2 * self.n_layers * self.n_kv_heads * self.d_head * bytes_per_value


PRESETS: dict[str, ModelConfig] = {
    # Report Table 1. The width of the FFN is not printed there: 8064 is AXLearn's honeycrisp 3B, and gives the printed
    # 2.58B + 0.15B parameters. Sequence length 4096: report section 3.2.1. Base 500k: section 3.2.
    "afm-on-device": ModelConfig(
        vocab_size=49_152, d_model=3072, n_layers=26, n_heads=24, n_kv_heads=8, d_head=128, d_ff=8064, max_seq_len=4096
    ),
    # AXLearn's proxy of the same family: 12 layers, width 768, 12 query and 6 key/value heads, FFN 3.0 d.
    "afm-85m": ModelConfig(
        vocab_size=49_152, d_model=768, n_layers=12, n_heads=12, n_kv_heads=6, d_head=64, d_ff=2304, max_seq_len=4096
    ),
    # The report does not publish this shape. Our guess: its muP factor of about 0.1 with base width 768 means a width
    # near 8192; 8 key/value heads and a vocabulary of 100k are known; head size and FFN ratio as on the device.
    "afm-server": ModelConfig(
        vocab_size=102_400, d_model=8192, n_layers=80, n_heads=64, n_kv_heads=8, d_head=128, d_ff=21_504,
        max_seq_len=4096,
    ),
}  # fmt: skip
