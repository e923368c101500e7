"""How long each operation takes here, inside whole forward passes of the torch model.

An operation on its own would find its weights in the cache; in a pass it does not. So whole passes are timed, and the
time between the hooks of two modules goes to the one operation that ran there. Every projection is measured at every
choice of bits: random codes stand in for those that the palettizer would find, since a product takes as long whatever
it multiplies. Rounds go over all kinds of weights in turn, so that a busy moment of the machine meets all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pippin.inspect.operations import MODES
from pippin.model.attention import Attention
from pippin.model.cache import KVCache
from pippin.model.codes import BITS, codes_shape
from pippin.model.embedding import Embedding
from pippin.model.linear import Linear
from pippin.model.norm import RMSNorm
from pippin.model.transformer import FFN, Block, Transformer

# Above this, the stand-ins of all projections of one shape are the same memory.
_STAND_IN_BYTES = 2 << 30

Plan = Mapping[str, int]

clock = time.perf_counter  # seconds


class Spread(NamedTuple):
    """Milliseconds over the rounds: median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


@dataclass
class Times:
    """Milliseconds of every round; operations by name, passes by the name of a plan, each by mode."""

    operations: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)  # plan, mode, operation
    passes: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # plan, mode

    def scale(self, first: str, changing: Collection[str]) -> None:
        """Make operations add up to the passes without hooks.

        All operations of the plan `first` are scaled to its pass. In the other plans the `changing` operations are, to
        what their pass takes beyond the rest of `first`: so what unpacking does to its neighbours, such as clearing
        the processor's caches, counts as its own.
        """
        for plan in [first, *(name for name in self.operations if name != first)]:
            for mode, operations in self.operations[plan].items():
                kept = set() if plan == first else operations.keys() - changing
                rest = sum(statistics.median(self.operations[first][mode][name]) for name in kept)
                own = sum(statistics.median(values) for name, values in operations.items() if name not in kept)
                beyond = statistics.median(self.passes[plan][mode]) - rest
                if beyond > 0:  # else noise was larger than the pass
                    for name in operations.keys() - kept:
                        operations[name] = [beyond / own * value for value in operations[name]]


def measure(
    model: Transformer,
    prompt_tokens: int,
    plans: Mapping[str, Plan],
    rounds: int,
    progress: Callable[[int], None] | None = None,
) -> Times:
    """Time whole passes of `model`, and the operations in them, under every plan; the model is left as it was.

    Args:
        prompt_tokens: T: one pass takes T tokens at once, another the token after them.
        plans: by a name; 0 leaves a projection as it is. One with any other bits has int8 tables too.
        rounds: each times every plan twice: with the hooks that tell operations apart, and without them.
        progress: called with 1 after each plan of each round.
    """
    device = next(model.parameters()).device
    cache = KVCache(model.config, 1, prompt_tokens + 1, model.compute_dtype, device)
    tokens = torch.randint(model.config.vocab_size, (1, prompt_tokens), device=device)
    times = Times(
        {plan: {mode: {} for mode in MODES} for plan in plans}, {plan: {mode: [] for mode in MODES} for plan in plans}
    )

    def run(mode: str) -> float:
        start = 0 if mode == "prompt" else prompt_tokens
        cache.length, cache.plain = start, True
        begin = clock()
        model(tokens if mode == "prompt" else tokens[:, -1:], cache=cache, last_only=True)
        return (clock() - begin) * 1e3

    names = list(plans)
    with torch.inference_mode(), _stand_ins(model, plans) as use:
        for round_ in range(rounds):
            for plan in names[round_ % len(names) :] + names[: round_ % len(names)]:
                use(plans[plan])
                for mode in MODES:
                    run(mode)  # the caches of the processor now hold this plan's weights, as in a long answer
                    times.passes[plan][mode].append(run(mode))
                    with _Clock(model) as hooks:
                        run(mode)
                    for operation, seconds in hooks.seconds().items():
                        times.operations[plan][mode].setdefault(operation, []).append(seconds * 1e3)
                if progress is not None:
                    progress(1)
    return times


@contextmanager
def _stand_ins(model: Transformer, plans: Mapping[str, Plan]) -> Iterator[Callable[[Plan], None]]:
    """A function that gives every projection weights of a plan's bits; at the end all have their own again."""
    linears = dict(model.linears())
    tables = [m for m in model.modules() if isinstance(m, Embedding)]
    own = {name: _state(linear) for name, linear in linears.items()}
    own_tables = [_state(table) for table in tables]
    needed = {bits for plan in plans.values() for bits in plan.values()} & set(BITS)
    total = sum(linear.out_features * linear.in_features * bits // 8 for linear in linears.values() for bits in needed)
    made: dict[Any, tuple[Tensor, Tensor, Tensor]] = {}

    def packed(name: str, bits: int) -> tuple[Tensor, Tensor, Tensor]:
        linear = linears[name]
        out, width = linear.out_features, linear.in_features
        key = (bits, name if total <= _STAND_IN_BYTES else (out, width))
        if key not in made:
            shape = codes_shape(bits, out, width)
            codes = torch.randint(0, 256, shape, dtype=torch.uint8)
            # Of the size of trained weights: numbers that grow or vanish from layer to layer would be slow ones.
            made[key] = codes, torch.linspace(-1, 1, 2**bits).expand(shape[0], -1), torch.full((out,), width**-0.5)
        return made[key]

    int8 = [
        {"codes": torch.randint(-127, 128, (t.num_embeddings, t.embedding_dim), dtype=torch.int8),
         "scale": torch.full((t.num_embeddings,), 1 / 127), "weight": None}
        for t in tables if t.codes is None
    ]  # fmt: skip

    def use(plan: Plan) -> None:
        for name, linear in linears.items():
            if plan[name] in (0, own[name]["bits"]):
                _restore(linear, own[name])
            else:
                linear.pack(*packed(name, plan[name]), plan[name])
        for table, state in zip(tables, int8 if any(plan.values()) and int8 else own_tables, strict=True):
            _restore(table, state)

    try:
        yield use
    finally:
        for name, linear in linears.items():
            _restore(linear, own[name])
        for table, state in zip(tables, own_tables, strict=True):
            _restore(table, state)


def _state(module: Linear | Embedding) -> dict[str, Any]:
    kept = {"weight": module.weight, "codes": module.codes, "scale": module.scale}
    return kept | ({"table": module.table, "bits": module.bits} if isinstance(module, Linear) else {})


def _restore(module: nn.Module, state: Mapping[str, Any]) -> None:
    for name, value in state.items():
        setattr(module, name, value)


class _Clock:
    """Hooks on every module of a model for as long as the block lasts, and the time between them by operation."""

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self._events: list[tuple[str, bool, float]] = []

    def __enter__(self) -> _Clock:
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._modules = {n: m for n, m in self._model.named_modules() if not isinstance(m, nn.ModuleList)}
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_pre_hook(self._marker(name, True)))
            self._handles.append(module.register_forward_hook(self._marker(name, False)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _marker(self, name: str, enters: bool) -> Callable[..., None]:
        events = self._events

        def mark(*_: object) -> None:
            events.append((name, enters, clock()))

        return mark

    def seconds(self) -> dict[str, float]:
        """Seconds by the names of `pippin.inspect.operations`."""
        found: dict[str, float] = {}
        stack: list[str] = []
        ended: set[str] = set()
        before = 0.0
        for name, enters, now in self._events:
            if stack:
                operation = self._operation(stack[-1], ended)
                found[operation] = found.get(operation, 0.0) + now - before
            if enters:
                stack.append(name)
            else:
                ended.add(stack.pop())
            before = now
        return found

    def _operation(self, name: str, ended: set[str]) -> str:
        """The operation whose work it is between two events, `name` being the innermost module that runs."""
        module = self._modules[name]
        if isinstance(module, Attention):
            return f"{name}.mix" if f"{name}.v" in ended else f"{name}.rope"
        if isinstance(module, FFN):
            return f"{name}.silu"
        if isinstance(module, Block):
            return f"{name}.ffn_add" if f"{name}.ffn" in ended else f"{name}.attention_add"
        if isinstance(module, RMSNorm) and name.endswith((".q_norm", ".k_norm")):
            return f"{name.rsplit('.', 1)[0]}.rope"
        if module is self._model:
            return "head" if "norm" in ended else "embed"
        return name
