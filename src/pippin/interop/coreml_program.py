"""The decoder as a Core ML program, built from operations directly: no torch, no tracing, the palette's very codes.

One function computes one chunk of tokens: `tokens` and `positions` int32 [1, T] (positions rise by one) and two
states, `keys` and `values` float16 [layers, kv heads, context, head dim], to `logits` [1, 1, V] of the chunk's last
token. Every adapter is a function of its own over the same weights.

Weights stay as they are stored: a palettized matrix is `constexpr_lut_to_dense` of the codes (uint4 or uint2) and a
table for 16 rows, times the scale of each row by `constexpr_blockwise_shift_scale`; the int8 embedding is another of
those. In a float32 program these are Pippin's own weights to the last bit; in a float16 one each is rounded twice.
Norms are computed in float32 in both: the square of an activation may not fit float16.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pippin.errors import UserError
from pippin.interop.directory import GROUP_ROWS
from pippin.interop.gguf import rope_divisors
from pippin.interop.stored import TABLE_STEPS, Floats, StoredModel
from pippin.model.config import ModelConfig

logging.disable(logging.WARNING)  # it tells every import that it cannot run models here, and of torch's version
try:
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types
except ImportError:
    raise UserError("coreml: coremltools is not installed; pip install 'pippin[export]'") from None
finally:
    logging.disable(logging.NOTSET)

KINDS = ("float16", "float32")
_HIDDEN = 4e4  # what an invisible key's score is lowered by: within float16, and exp(-4e4) is 0


@dataclass(frozen=True)
class LowRank:
    """An adapter of one projection: adds `scale * B (A x)`; A [rank, in] and B [out, rank] in float16."""

    a: NDArray[np.float16]
    b: NDArray[np.float16]
    scale: float


Adapter = Mapping[str, LowRank]
"""By the name of the projection's parameter ("blocks.0.attention.q.weight")."""


def build_program(
    model: StoredModel, kind: str, context: int, chunk: int, adapters: Mapping[str, Adapter], progress: Any
) -> Program:
    """The program of a model, with the function "main" and one for each adapter.

    Args:
        model: packed or dense; a dense weight is stored in `kind`.
        kind: float16 or float32, of activations, tables and scales.
        context: tokens that the states hold.
        chunk: the most tokens of one call.
        adapters: by the name of the function.
        progress: called with 1 for each layer of each function.
    """
    program = Program()
    weights = _Weights(model, kind)
    for name, adapter in {"main": {}, **adapters}.items():
        program.add_function(name, _function(model.config, weights, adapter, context, chunk, progress))
    program.default_function_name = "main"
    program.export_as_multifunction = bool(adapters)
    program.skip_all_passes = True  # nothing may fold a constant or change an operation that was chosen here
    return program


class _Weights:
    """Constants of a model as variables of the function that is being built.

    A constant of the same name in another function shares the bytes of the file.
    """

    def __init__(self, model: StoredModel, kind: str) -> None:
        self.model = model
        self.dtype = np.float16 if kind == "float16" else np.float32
        self._arrays: dict[str, NDArray[Any]] = {}

    def constant(self, name: str, make: Any) -> Any:
        """`make()` under `name`, which is made once."""
        if name not in self._arrays:
            self._arrays[name] = np.ascontiguousarray(make())
        var = mb.const(val=self._arrays[name], name=name.replace(".", "_"))
        var.op.weight_id = name
        return var

    def vector(self, name: str, dtype: Any = np.float32) -> Any:
        """A norm's gain or a bias."""
        return self.constant(name, lambda: self.model.dense(name).astype(dtype))

    def matrix(self, name: str) -> Any:
        """The weight of a projection."""
        if not self.model.packed:
            return self.constant(name, lambda: self.model.dense(name).astype(self.dtype))
        palette = self.model.palette(name)
        index_type = types.nptype_from_builtin(types.string_to_builtin(f"uint{palette.bits}"))
        tables = palette.table.astype(np.float32) / np.float32(TABLE_STEPS)
        if len(palette.indices) % GROUP_ROWS:  # groups must divide the rows: give every row its own copy of the table
            tables = tables.repeat(GROUP_ROWS, 0)[: len(palette.indices)]
        lut = tables.astype(self.dtype)[:, None, :, None]
        scale = palette.scale.astype(self.dtype)[:, None]
        dense = mb.constexpr_lut_to_dense(
            indices=self.constant(f"{name}.codes", lambda: palette.indices.astype(index_type)),
            lut=self.constant(f"{name}.table", lambda: lut),
            name=f"{name}.looked_up".replace(".", "_"),
        )
        return self._scaled(name, dense, scale)

    def table(self, name: str) -> Any:
        """An embedding."""
        if not self.model.packed:
            return self.constant(name, lambda: self.model.dense(name).astype(self.dtype))
        rows = self.model.int8_rows(name)
        codes = self.constant(f"{name}.codes", lambda: rows.codes)
        return self._scaled(name, codes, rows.scale.astype(self.dtype)[:, None])

    def _scaled(self, name: str, data: Any, scale: NDArray[Any]) -> Any:
        factor = self.constant(f"{name}.scale", lambda: scale)
        return mb.constexpr_blockwise_shift_scale(data=data, scale=factor, name=name.replace(".", "_"))


def _function(
    config: ModelConfig, weights: _Weights, adapter: Adapter, context: int, chunk: int, progress: Any
) -> Function:
    length = get_new_symbol()
    cache = (config.n_layers, config.n_kv_heads, context, config.d_head)
    placeholders = {
        "tokens": mb.placeholder((1, length), types.int32),
        "positions": mb.placeholder((1, length), types.int32),
        "keys": mb.state_tensor_placeholder(cache, types.fp16),
        "values": mb.state_tensor_placeholder(cache, types.fp16),
    }
    with Function(placeholders, opset_version=ct.target.iOS18) as function:
        block = _Decoder(config, weights, adapter, function.inputs, context)
        for layer in range(config.n_layers):
            block.layer(layer)
            progress(1)
        function.set_outputs([block.logits()])
    shape = (1, ct.RangeDim(1, chunk, default=1))
    inputs = [ct.TensorType(name=name, shape=shape, dtype=np.int32) for name in ("tokens", "positions")]
    function.set_input_types(tuple(inputs))
    return function


class _Decoder:
    """The operations of one function; the order and meaning of each are those of `pippin.model`."""

    def __init__(self, config: ModelConfig, weights: _Weights, adapter: Adapter, inputs: Any, context: int) -> None:
        self.config, self.weights, self.adapter, self.inputs, self.context = config, weights, adapter, inputs, context
        self.type = "fp16" if weights.dtype == np.float16 else "fp32"
        self.embedding = weights.table("embed.weight")
        self.x = mb.gather(x=self.embedding, indices=inputs["tokens"], axis=0, name="embedded")
        cos, sin = rope_values(config, context)
        positions = inputs["positions"]
        self.cos = mb.expand_dims(
            x=mb.gather(x=weights.constant("cos", lambda: cos.astype(weights.dtype)), indices=positions, axis=0),
            axes=[1],
        )
        self.sin = mb.expand_dims(
            x=mb.gather(x=weights.constant("sin", lambda: sin.astype(weights.dtype)), indices=positions, axis=0),
            axes=[1],
        )
        # A query at position p sees the keys at 0 .. p; slots beyond hold nothing yet.
        slots = weights.constant("slots", lambda: np.arange(context, dtype=np.int32)[None, :])
        visible = mb.less_equal(x=slots, y=mb.transpose(x=positions, perm=[1, 0]))
        seen = mb.sub(x=mb.cast(x=visible, dtype=self.type), y=self._number(1.0))  # 0, or -1 where hidden
        self.bias = mb.mul(x=seen, y=self._number(_HIDDEN), name="bias")
        first = mb.slice_by_index(x=positions, begin=[0, 0], end=[1, 1], squeeze_mask=[True, False])
        count = mb.slice_by_index(x=mb.shape(x=positions), begin=[1], end=[2])
        self.first, self.after = first, mb.add(x=first, y=count)
        self.caches = {name: mb.read_state(input=inputs[name]) for name in ("keys", "values")}

    @staticmethod
    def _cast(x: Any, dtype: str) -> Any:
        return x if types.builtin_to_string(x.dtype) == dtype else mb.cast(x=x, dtype=dtype)

    def _number(self, value: float) -> Any:
        return self.weights.dtype(value)

    def layer(self, number: int) -> None:
        """Add a layer to the stream of activations."""
        prefix = f"blocks.{number}."
        for norm, sublayer in (("attention_norm", self._attention), ("ffn_norm", self._ffn)):
            gain = f"{prefix}{norm}.weight"
            if self.config.post_norm:
                change = self._norm(sublayer(number, prefix, self.x), gain)
            else:
                change = sublayer(number, prefix, self._norm(self.x, gain))
            self.x = mb.add(x=self.x, y=change)

    def logits(self) -> Any:
        """The head over the last token of the chunk, [1, 1, V] in float32."""
        last = mb.slice_by_index(
            x=self.x, begin=[0, -1, 0], end=[1, 0, self.config.d_model], end_mask=[False, True, False]
        )
        table = self.embedding if self.config.tied else self.weights.table("head.weight")
        found = self._product(self._norm(last, "norm.weight"), table)
        return mb.identity(x=self._cast(found, "fp32"), name="logits")

    def _norm(self, x: Any, gain: str) -> Any:
        wide = self._cast(x, "fp32")
        mean = mb.reduce_mean(x=mb.mul(x=wide, y=wide), axes=[-1], keep_dims=True)
        scaled = mb.mul(x=wide, y=mb.rsqrt(x=mean, epsilon=np.float32(self.config.norm_eps)))
        return self._cast(mb.mul(x=scaled, y=self.weights.vector(gain)), self.type)

    def _linear(self, x: Any, name: str) -> Any:
        weight, bias = f"{name}.weight", None
        if name.endswith((".q", ".k", ".v")) and self.config.qkv_bias:
            bias = self.weights.vector(f"{name}.bias", self.weights.dtype)
        y = self._product(x, self.weights.matrix(weight), bias)
        if weight not in self.adapter:
            return y
        low = self.adapter[weight]
        inner = self._product(x, low.a.astype(self.weights.dtype))
        outer = self._product(inner, low.b.astype(self.weights.dtype))
        return mb.add(x=y, y=mb.mul(x=outer, y=self._number(low.scale)))

    def _product(self, x: Any, weight: Any, bias: Any = None) -> Any:
        """A linear operation has a bias always: one of zeros for all of a width."""
        if bias is None:
            width = weight.shape[0]
            bias = self.weights.constant(f"zeros_{width}", lambda: np.zeros(width, self.weights.dtype))
        return mb.linear(x=x, weight=weight, bias=bias)

    def _heads(self, x: Any, count: int, norm: str | None) -> Any:
        """[1, T, heads * H] to [1, heads, T, H], normalised and rotated; `norm` None: neither."""
        c = self.config
        if norm is not None and c.qk_norm == "width":
            x = self._norm(x, norm)
        x = mb.reshape(x=x, shape=[1, -1, count, c.d_head])
        if norm is not None and c.qk_norm == "head":
            x = self._norm(x, norm)
        x = mb.transpose(x=x, perm=[0, 2, 1, 3])
        if norm is None:
            return x
        first, second = mb.split(x=x, num_splits=2, axis=-1)
        swapped = mb.concat(values=[second, first], axis=-1)
        return mb.add(x=mb.mul(x=x, y=self.cos), y=mb.mul(x=swapped, y=self.sin))

    def _cached(self, name: str, number: int, x: Any) -> Any:
        """Write new keys or values [1, K, T, H] behind the old ones; returns all of the layer, [K, 1, context, H]."""
        c = self.config
        begin = mb.concat(values=[[number, 0], self.first, [0]], axis=0)
        end = mb.concat(values=[[number + 1, c.n_kv_heads], self.after, [c.d_head]], axis=0)
        filled = mb.slice_update(x=self.caches[name], update=self._cast(x, "fp16"), begin=begin, end=end)
        self.caches[name] = mb.coreml_update_state(state=self.inputs[name], value=filled)
        layer = mb.slice_by_index(
            x=self.caches[name], begin=[number, 0, 0, 0], end=[number + 1, c.n_kv_heads, self.context, c.d_head]
        )
        return mb.reshape(x=self._cast(layer, self.type), shape=[c.n_kv_heads, 1, self.context, c.d_head])

    def _attention(self, number: int, prefix: str, x: Any) -> Any:
        c, at = self.config, f"{prefix}attention."
        normed = c.qk_norm != "none"
        q = self._heads(self._linear(x, f"{at}q"), c.n_heads, f"{at}q_norm.weight" if normed else "")
        k = self._heads(self._linear(x, f"{at}k"), c.n_kv_heads, f"{at}k_norm.weight" if normed else "")
        v = self._heads(self._linear(x, f"{at}v"), c.n_kv_heads, None)
        keys, values = self._cached("keys", number, k), self._cached("values", number, v)
        # Each key/value head serves n_heads / n_kv_heads queries: [K, group, T, H] against [K, 1, context, H].
        q = mb.reshape(x=q, shape=[c.n_kv_heads, c.n_heads // c.n_kv_heads, -1, c.d_head])
        scores = mb.mul(x=mb.matmul(x=q, y=keys, transpose_y=True), y=self._number(c.d_head**-0.5))
        shares = mb.softmax(x=mb.add(x=scores, y=self.bias), axis=-1)
        mixed = mb.reshape(x=mb.matmul(x=shares, y=values), shape=[1, c.n_heads, -1, c.d_head])
        flat = mb.reshape(x=mb.transpose(x=mixed, perm=[0, 2, 1, 3]), shape=[1, -1, c.n_heads * c.d_head])
        return self._linear(flat, f"{at}o")

    def _ffn(self, number: int, prefix: str, x: Any) -> Any:
        gate = mb.silu(x=self._linear(x, f"{prefix}ffn.gate"))
        return self._linear(mb.mul(x=gate, y=self._linear(x, f"{prefix}ffn.up")), f"{prefix}ffn.down")


def rope_values(config: ModelConfig, context: int) -> tuple[Floats, Floats]:
    """Cosine and sine of every position, float32 [context, d_head], the sine of the first half negated.

    As `pippin.model.rope.rope_tables`, without torch.
    """
    frequencies = config.rope_base ** (-np.arange(0, config.d_head, 2, dtype=np.float64) / config.d_head)
    if config.rope_scaling is not None:
        frequencies = frequencies / rope_divisors(config, config.rope_scaling)
    angles = np.arange(context, dtype=np.float64)[:, None] * frequencies
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return np.concatenate([cos, cos], -1), np.concatenate([-sin, sin], -1)
