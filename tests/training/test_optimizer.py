"""The optimizer against an independent scalar implementation; skips, accumulation, continuation, groups."""

from __future__ import annotations

import math
import random

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Targets
from pippin.model.transformer import Loss, Transformer
from pippin.training import optimizer as optimizer_module
from pippin.training.optimizer import RMSPropMomentum, param_groups

LR, DECAY = 0.02, 3.16e-4


class Scalar:
    """The report's optimizer for lists of floats, written from its description, one number at a time."""

    def __init__(self, blocks: dict[str, list[float]], factors: dict[str, float]) -> None:
        self.p = {name: list(values) for name, values in blocks.items()}
        self.v = {name: [0.0] * len(values) for name, values in blocks.items()}
        self.m = {name: [0.0] * len(values) for name, values in blocks.items()}
        self.factors = factors
        self.t = 0
        self.clipped_globally = self.clipped_blocks = self.free_blocks = 0

    def step(self, gradients: dict[str, list[float]], s: float) -> tuple[float, bool]:
        total = 0.0
        for values in gradients.values():
            for g in values:
                total += g * g
        norm = total**0.5
        if math.isnan(norm) or math.isinf(norm) or norm >= 100:
            return norm, True
        self.t += 1
        if norm > 1:
            self.clipped_globally += 1
        for name, values in gradients.items():
            u = []
            for i, g in enumerate(values):
                if norm > 1:
                    g = g / norm
                self.v[name][i] = 0.95 * self.v[name][i] + 0.05 * (g * g + 1e-30)
                u.append(g / math.sqrt(self.v[name][i] / (1 - 0.95**self.t)))
            rms = math.sqrt(sum(x * x for x in u) / len(u))
            if rms > 1:
                u = [x / rms for x in u]
                self.clipped_blocks += 1
            else:
                self.free_blocks += 1
            for i, x in enumerate(u):
                self.m[name][i] = 0.95 * self.m[name][i] + 0.05 * x
                self.p[name][i] += -s * (LR * self.factors[name] * self.m[name][i] + DECAY * self.p[name][i])
        return norm, False


def trace(dtype: torch.dtype, tolerance: float) -> None:
    """25 steps of several parameters with skips, both clips on and off, and a parameter whose gradient is often 0."""
    rng = random.Random(0)
    shapes = {"matrix": (3, 5), "wide": (4, 4), "gain": (6,), "stack": (2, 2, 3), "quiet": (4,)}
    factors = {"matrix": 0.25, "wide": 0.1, "gain": 1.0, "stack": 1.0, "quiet": 1.0}
    params = {
        n: nn.Parameter(torch.randn(s, dtype=dtype, generator=torch.Generator().manual_seed(1)))
        for n, s in shapes.items()
    }
    groups = [{"params": [(n, params[n])], "mup_factor": factors[n]} for n in ("matrix", "wide")]
    groups.append({"params": [(n, params[n]) for n in ("gain", "stack", "quiet")]})
    ours = RMSPropMomentum(groups, lr=LR)
    # A stack of two matrices is two blocks for the scalar version.
    blocks = {n: p.flatten().tolist() for n, p in params.items() if n != "stack"}
    blocks |= {f"stack{i}": params["stack"][i].flatten().tolist() for i in range(2)}
    theirs = Scalar(blocks, factors | {"stack0": 1.0, "stack1": 1.0})
    skips = 0
    for t in range(25):
        size = 10 ** rng.uniform(-3, 0.7)
        gradients = {n: [rng.gauss(0, 1) * size * rng.choice([0.1, 1, 3]) for _ in v] for n, v in blocks.items()}
        if t % 5:
            gradients["quiet"] = [0.0] * 4
        if t == 7:
            gradients["gain"][2] = 150.0
        if t == 11:
            gradients["matrix"][0] = math.nan
        if t == 12:
            gradients["wide"][0] = math.inf
        for name, p in params.items():
            flat = gradients["stack0"] + gradients["stack1"] if name == "stack" else gradients[name]
            p.grad = torch.tensor(flat, dtype=dtype).view(p.shape)
        s = 0.3 + 0.7 * t / 24
        norm, skipped = theirs.step(gradients, s)
        info = ours.step(s)
        skips += skipped
        assert info.skipped == skipped == (t in (7, 11, 12))
        if math.isfinite(norm):
            assert info.grad_norm == pytest.approx(norm, rel=tolerance)
        for name, p in params.items():
            parts = ["stack0", "stack1"] if name == "stack" else [name]
            state = ours.state[p]
            for tensor, expected in [(p, theirs.p), (state["square"], theirs.v), (state["momentum"], theirs.m)]:
                flat = [x for part in parts for x in expected[part]]
                near = 1e-34 if expected is theirs.v else tolerance / 100  # v of a quiet parameter is tiny and right
                assert tensor.flatten().tolist() == pytest.approx(flat, rel=tolerance, abs=near), (name, t)
            assert state["step"] == theirs.t
    assert skips == 3
    assert 3 < theirs.clipped_globally < 20
    assert theirs.clipped_blocks > 20
    assert theirs.free_blocks > 20


def test_trace_float64() -> None:
    trace(torch.float64, 1e-9)


def test_trace_float32() -> None:
    trace(torch.float32, 3e-5)


def test_trace_in_small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer_module, "CPU_BUCKET_ELEMENTS", 8)
    trace(torch.float64, 1e-9)


def test_skipped_step_leaves_every_bit() -> None:
    p = nn.Parameter(torch.randn(4, 4))
    optimizer = RMSPropMomentum([p], lr=0.1)
    p.grad = torch.randn(4, 4)
    assert not optimizer.step(1.0).skipped
    before = [t.clone() for t in (p, *optimizer.state[p].values())]
    for bad in (100.0 / 4, math.nan, math.inf, 1e30):  # the first has norm 100 exactly
        p.grad = torch.full((4, 4), bad)
        assert optimizer.step(1.0).skipped
        assert all(torch.equal(a, b) for a, b in zip(before, (p, *optimizer.state[p].values()), strict=True))
    p.grad = torch.full((4, 4), 24.9)
    assert not optimizer.step(1.0).skipped


def test_zero_gradient_only_decays() -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = RMSPropMomentum([p], lr=0.1, weight_decay=0.5)
    p.grad = torch.zeros(3)
    assert optimizer.step(0.5) == optimizer_module.StepInfo(0.0, False)
    assert p.tolist() == [0.75] * 3


def test_no_gradient_is_left_alone_and_counts_for_itself() -> None:
    a, b, c = (nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)) for _ in range(3))
    both, alone = RMSPropMomentum([a, b], lr=0.1, grad_clip=1e9), RMSPropMomentum([c], lr=0.1, grad_clip=1e9)
    for step in range(6):
        a.grad = torch.ones(2, dtype=torch.float64)
        b.grad = torch.tensor([0.3, step - 3.5], dtype=torch.float64) if step % 2 else None
        both.step(1.0)
        if b.grad is not None:
            c.grad = b.grad.clone()
            alone.step(1.0)
    assert torch.equal(b, c)
    assert both.state[b]["step"] == 3
    a.grad = b.grad = None
    with pytest.raises(ValueError, match="backward"):
        both.step(1.0)


def test_gradients_are_not_changed() -> None:
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.tensor([3.0, -4.0, 50.0])
    RMSPropMomentum([p], lr=0.1).step(1.0)
    assert p.grad.tolist() == [3.0, -4.0, 50.0]


def tiny(seed: int = 0, d_model: int = 32, dtype: torch.dtype = torch.float32) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(ModelConfig(60, d_model, 2, 4, 2, 8, 48, 32), dtype)


def backward(model: Transformer, tokens: torch.Tensor, count: int) -> None:
    loss = model(tokens[:, :-1], targets=Targets(tokens[:, 1:]))
    assert isinstance(loss, Loss)
    (loss.total / count).backward()


def test_accumulation_is_neutral() -> None:
    """Sum over the global count: one batch, and its two halves accumulated, give the same parameters."""
    results = []
    for pieces in (1, 2):
        model = tiny().double()
        model.compute_dtype = torch.float64
        optimizer = RMSPropMomentum(param_groups(model, 16), lr=0.01)
        tokens = torch.randint(60, (3, 4, 17), generator=torch.Generator().manual_seed(5))
        for batch in tokens:
            optimizer.zero_grad()
            for part in batch.chunk(pieces):
                backward(model, part, batch.shape[0] * 16)
            optimizer.step(1.0)
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert (results[0] - results[1]).abs().max() < 1e-6  # u = g / sqrt(v) magnifies rounding where g is near 0


def test_state_dict_continues_to_the_bit() -> None:
    tokens = torch.randint(60, (6, 4, 17), generator=torch.Generator().manual_seed(6))

    def steps(model: Transformer, optimizer: RMSPropMomentum, batches: torch.Tensor) -> None:
        for batch in batches:
            optimizer.zero_grad()
            backward(model, batch, 64)
            optimizer.step(0.7)

    model = tiny()
    optimizer = RMSPropMomentum(param_groups(model, 16), lr=0.01)
    steps(model, optimizer, tokens[:3])
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    state = optimizer.state_dict()
    # Through safetensors bytes: every state is a named tensor, nothing else has to be kept.
    flat = {f"{key}.{names[i]}": t for i, values in state["state"].items() for key, t in values.items()}
    flat = load(save(flat))
    weights = load(save(model.state_dict()))
    steps(model, optimizer, tokens[3:])

    resumed = tiny(seed=1)
    resumed.load_state_dict(weights)
    second = RMSPropMomentum(param_groups(resumed, 16), lr=0.01)
    fresh = second.state_dict()
    fresh["state"] = {
        i: {k: flat[f"{k}.{names[i]}"] for k in ("square", "momentum", "step")} for i in range(len(names))
    }
    second.load_state_dict(fresh)
    steps(resumed, second, tokens[3:])
    for (name, a), b in zip(model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name
        for key, value in optimizer.state[a].items():
            assert torch.equal(value, second.state[b][key]), (name, key)


@pytest.mark.parametrize(("base", "factor"), [(8, 0.25), (32, 1.0), (768, 1.0)])
def test_groups_of_the_real_model(base: int, factor: float) -> None:
    model = tiny()
    model.blocks[0].attention.q.add_adapters(2, 4)
    model.norm.weight.requires_grad_(False)
    groups = param_groups(model, base)
    given = [(name, p, group["mup_factor"]) for group in groups for name, p in group["params"]]
    expected = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(given) == len(expected) == len({id(p) for _, p, _ in given})
    matrices = {f"{name}.weight" for name, _ in model.linears()}
    assert len(matrices) == 14
    for name, p, mup_factor in given:
        assert expected[name] is p
        assert mup_factor == (factor if name in matrices else 1.0), name
    RMSPropMomentum(groups, lr=0.1)


def test_factor_scales_the_first_update_only_of_matrices() -> None:
    """Gains, embedding and decay do not feel muP; matrices move by exactly the factor."""
    moves = {}
    for base in (768, 8):
        model = tiny()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer = RMSPropMomentum(param_groups(model, base), lr=0.01, weight_decay=0.0)
        backward(model, torch.randint(60, (2, 9), generator=torch.Generator().manual_seed(7)), 16)
        optimizer.step(1.0)
        moves[base] = {n: (p - before[n]).abs().mean().item() for n, p in model.named_parameters()}
    matrices = {f"{name}.weight" for name, _ in model.linears()}
    for name, move in moves[8].items():
        assert move / moves[768][name] == pytest.approx(0.25 if name in matrices else 1.0, rel=1e-3), name


def test_adapters_train_the_same_in_any_number_of_slots() -> None:
    gradient = torch.randn(4, 6)
    one, three = nn.Parameter(torch.ones(1, 4, 6)), nn.Parameter(torch.ones(3, 4, 6))
    one.grad = gradient[None].clone()
    three.grad = torch.zeros(3, 4, 6)
    three.grad[1] = gradient
    for p in (one, three):
        optimizer = RMSPropMomentum([p], lr=0.1)
        for _ in range(3):
            optimizer.step(1.0)
    assert torch.equal(one[0], three[1])
    assert not torch.equal(three[0], three[1])


@pytest.mark.parametrize(
    "bad", [{"lr": 0.0}, {"lr": math.nan}, {"decay": 1.0}, {"weight_decay": -0.1}, {"skip_above": 0.0}]
)
def test_impossible_numbers_are_one_clear_line(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"^\w+: value [^\n]*$"):
        RMSPropMomentum([nn.Parameter(torch.ones(1))], **({"lr": 0.1} | bad))


def test_misuse() -> None:
    with pytest.raises(UserError, match="base_width"):
        param_groups(tiny(), 0)
    with pytest.raises(ValueError, match="float32 master"):
        RMSPropMomentum([nn.Parameter(torch.ones(1, dtype=torch.bfloat16))], lr=0.1)
