"""The plan's bytes against tensors that are really kept and allocated; its FLOPs, exchanges and days by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.tracking import Tracker
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from pippin.errors import UserError
from pippin.model.config import PRESETS, ModelConfig
from pippin.model.cross_entropy import Loss, Targets
from pippin.model.transformer import Transformer
from pippin.training.chips import CHIPS
from pippin.training.estimate import (
    Work,
    activation_bytes,
    choose,
    estimate,
    exchanged,
    kept_by_block,
    memory,
    remedies,
)
from pippin.training.optimizer import RMSPropMomentum, param_groups
from pippin.training.parallel import Spread
from pippin.training.plan import Plan
from pippin.training.processes import Team

ONE = Plan()
DTYPES = {4: torch.float32, 2: torch.bfloat16}
SMALL = ModelConfig(4096, 128, 4, n_heads=4, n_kv_heads=2, d_head=32, d_ff=336, max_seq_len=256)
WIDE = ModelConfig(512, 192, 3, n_heads=3, n_kv_heads=1, d_head=64, d_ff=704, max_seq_len=512)


def work(model: ModelConfig, rows: int, seq_len: int, itemsize: int = 2, steps: int = 1) -> Work:
    return Work(model, rows, seq_len, steps, model.train_flops_per_token(seq_len), itemsize=itemsize)


def batch(w: Work) -> dict[str, Any]:
    tokens = torch.randint(0, w.model.vocab_size, (w.rows, w.seq_len))
    positions = torch.arange(w.seq_len).expand(w.rows, w.seq_len).contiguous()
    where = {"positions_BT": positions, "segment_ids_BT": torch.ones_like(tokens)}
    return {"tokens_BT": tokens, "targets": Targets(tokens), **where}


def new_model(w: Work, plan: Plan) -> Transformer:
    model = Transformer(w.model, DTYPES[w.itemsize])
    if plan.recompute == "block":
        for block in model.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    return model


def kept(w: Work, plan: Plan) -> int:
    """Bytes of the storages that a forward pass keeps, but for parameters and the batch."""
    model, given = new_model(w, plan), batch(w)
    known = {t.untyped_storage()._cdata for t in (*model.parameters(), *given.values()) if torch.is_tensor(t)}
    found: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = model(**given)
        assert isinstance(loss, Loss)
        return sum(found.values())


@pytest.mark.parametrize("itemsize", [4, 2])
@pytest.mark.parametrize(("model", "rows", "seq_len"), [(SMALL, 2, 256), (SMALL, 1, 640), (WIDE, 3, 320)])
def test_activations_are_what_is_kept(model: ModelConfig, rows: int, seq_len: int, itemsize: int) -> None:
    w = work(model, rows, seq_len, itemsize)
    assert activation_bytes(w, ONE, on_cpu=True) == pytest.approx(kept(w, ONE), rel=0.03)


@pytest.mark.parametrize("seq_len", [4_096, 8_192])
def test_activations_at_full_size_by_tensors_without_memory(seq_len: int) -> None:
    """Two layers of the on-device model on fake tensors: shapes and types as in a real run, and nothing allocated."""
    model = replace(PRESETS["afm-on-device"], n_layers=2, max_seq_len=seq_len)
    for rows, itemsize in ((1, 2), (2, 4)):
        w = work(model, rows, seq_len, itemsize)
        with FakeTensorMode():
            assert activation_bytes(w, ONE, on_cpu=True) == pytest.approx(kept(w, ONE), rel=0.01)


@pytest.mark.parametrize("itemsize", [4, 2])
def test_recomputation_keeps_the_inputs_of_blocks(itemsize: int) -> None:
    w, plan = work(SMALL, 2, 256, itemsize), Plan(recompute="block")
    model, given = new_model(w, plan), batch(w)
    with Tracker() as tracker:
        for parameter in model.parameters():
            tracker.see(parameter)
        before = tracker.now
        loss = model(**given)
    assert activation_bytes(w, plan, on_cpu=True) == pytest.approx(tracker.now - before, rel=0.03)
    del loss
    assert activation_bytes(w, plan, on_cpu=True) < 0.35 * activation_bytes(w, ONE, on_cpu=True)


@pytest.mark.parametrize("itemsize", [4, 2])
@pytest.mark.parametrize("plan", [ONE, Plan(recompute="block"), Plan(micro_batch=2)], ids=["plain", "block", "micro"])
@pytest.mark.parametrize(("model", "rows", "seq_len"), [(SMALL, 8, 128), (WIDE, 4, 256)])
def test_a_step_allocates_what_the_plan_says(
    model: ModelConfig, rows: int, seq_len: int, plan: Plan, itemsize: int
) -> None:
    """Weights, gradients, optimizer, activations and what is held for a moment: the peak of a whole step."""
    w = work(model, rows, seq_len, itemsize)
    with Tracker() as tracker:
        net = new_model(w, plan)
        for parameter in net.parameters():
            tracker.see(parameter)
        optimizer = RMSPropMomentum(param_groups(net), lr=1e-3)
        for _ in range(2):
            for _ in range(w.rows // (plan.micro_batch or w.rows)):
                loss = net(**batch(replace(w, rows=plan.micro_batch or w.rows)))
                (loss.total / loss.count).backward()
                del loss
            optimizer.step()
            optimizer.zero_grad()
    found = memory(w, plan, on_cpu=True)
    count = model.n_params().total
    assert (found.weights, found.optimizer) == (4 * count, 8 * count)
    assert found.total == pytest.approx(tracker.peak, rel=0.04)


# --- exchanges


class Exchanges(TorchDispatchMode):
    """Bytes that this process would receive, by the ranks of the group: of collectives that exchange nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.received: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if name.startswith("c10d."):
            group = next(dist.ProcessGroup.unbox(a) for a in args if isinstance(a, torch.ScriptObject))
            whole = args[1] if "reduce_scatter" in name else args[0][0] if isinstance(args[0], list) else args[0]
            share = (group.size() - 1) / group.size() * (2 if "allreduce" in name else 1)
            self.received[tuple(dist.get_process_group_ranks(group))] += whole.nbytes * share
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("line", "processes"),
    [
        ("replica=2 fsdp=4 context=2 tensor=2 micro_batch=1", 32),
        ("replica=2 fsdp=4 context=2 tensor=2 recompute=block", 32),
        ("replica=4 fsdp=2", 8),
        ("tensor=2 recompute=block", 2),
    ],
)
def test_exchanges_are_those_of_the_mesh(line: str, processes: int) -> None:
    """A whole step of rank 0 in a team whose other processes do not exist."""
    plan = Plan.parse(line, processes)
    model = ModelConfig(64, 32, 2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=64, max_seq_len=64)
    w = work(model, 2 * plan.readers, 64)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=processes)
    try:
        team = Team(plan, 0, processes)
        net = Transformer(model)
        spread = Spread(team, net)
        with Exchanges() as exchanges:
            for _ in range(2 // (plan.micro_batch or 2)):
                given = batch(replace(w, rows=plan.micro_batch or 2))
                loss = net(given.pop("tokens_BT"), **given)
                loss.total.backward()
            spread.sum_gradients()
        inner, size = plan.tensor * plan.context, plan.size
        groups = {
            "tensor": tuple(range(plan.tensor)),
            "context": tuple(range(0, inner, plan.tensor)),
            "fsdp": tuple(range(0, inner * plan.fsdp, plan.tensor)),
            "replica": tuple(range(0, size, size // plan.replica)),
        }
        for axis, expected in exchanged(w, plan).items():
            if len(groups[axis]) > 1:
                small = 0.14 * expected + 1_000  # positions and segments of the context, sums of the loss
                found = exchanges.received[groups[axis]]
                assert expected <= found <= expected + (0 if axis in ("fsdp", "replica") else small), axis
    finally:
        dist.destroy_process_group()


# --- at scale


def afm(preset: str, rows: int, seq_len: int, steps: int) -> Work:
    return work(PRESETS[preset], rows, seq_len, steps=steps)


SERVER = afm("afm-server", 4_096, 4_096, 375_509)
DEVICE = afm("afm-on-device", 2_048, 4_096, 750_000)


def test_sharing_divides_what_is_shared() -> None:
    whole, shared = memory(DEVICE, Plan(replica=64)), memory(DEVICE, Plan(fsdp=64))
    count = DEVICE.model.n_params().total
    assert (whole.weights, shared.weights) == (4 * count, 4 * count / 64)
    assert (whole.optimizer, shared.optimizer) == (8 * count, 8 * count / 64)
    assert memory(DEVICE, Plan(fsdp=8, tensor=8)).weights == shared.weights
    assert memory(DEVICE, Plan(fsdp=8, context=8)).weights == shared.weights


def test_cuts_divide_what_is_kept() -> None:
    """Tokens cut by 2 halve all but the keys and values of attention; heads cut by 2 halve all but gathered inputs."""
    m, n = DEVICE.model, 32 * 4_096
    plain = kept_by_block(DEVICE, Plan(fsdp=64))
    by_context = kept_by_block(DEVICE, Plan(fsdp=64, context=2))
    assert 2 * by_context - plain == pytest.approx(2 * n * 2 * m.n_heads * m.d_head, rel=1e-9)
    by_tensor = kept_by_block(DEVICE, Plan(fsdp=64, tensor=2))
    assert 2 * by_tensor - plain == pytest.approx(2 * n * 2 * m.d_model, rel=1e-9)


def test_exchanges_by_hand() -> None:
    """A model of 2 layers, d 8, on 2 x 4 x 2 x 2 devices, in 16 bits: every number below is counted from the model."""
    model = ModelConfig(32, 8, 2, n_heads=4, n_kv_heads=2, d_head=2, d_ff=16, max_seq_len=64)
    w = work(model, 16, 64)
    found = exchanged(w, Plan(replica=2, fsdp=4, context=2, tensor=2, micro_batch=1))
    matrices = 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16) // 2  # of both layers, half of each here
    table = 32 * 8 // 2
    tokens = 2 * 32  # two rows of 64, half of each
    assert found["fsdp"] == 2 * 7 / 8 * (2 * (2 * matrices + table) + 4 * (matrices + table))
    assert found["replica"] == 2 * 2 * 1 / 2 * 4 * (matrices + table) / 8
    assert found["tensor"] == 1 / 2 * 2 * tokens * 8 * (2 * 4 * 2 + 4)
    assert found["context"] == 1 / 2 * 2 * (2 * tokens) * (2 * 4 // 2) * 2 * 2
    alone = exchanged(w, Plan())
    assert set(alone.values()) == {0.0}


def test_the_report_s_server_run() -> None:
    """8,192 TPU v4 at 52 % MFU and 6.3T tokens (4.1, 4.33): 5.0 s a step and 22 days; our model of the chip, which
    knows no latency and no straggler, must promise more than that, but not half as much again."""
    chip = CHIPS["tpu-v4"]
    flops = 6.3e12 * (6 * 55.2e9 + 6 * 80 * 8_192 * 4_096)  # 6 N and attention over half the square
    days = flops / (8_192 * 275e12 * 0.52) / 86_400
    assert days == pytest.approx(21.7, abs=0.3)
    assert SERVER.flops_per_token * SERVER.tokens_per_step * SERVER.steps == pytest.approx(flops, rel=0.01)
    found = choose(SERVER, 8_192, chip)
    assert found.fits
    assert found.plan.size == 8_192
    assert 1 < found.mfu / 0.52 < 1.5
    assert found.days == pytest.approx(days * 0.52 / found.mfu, rel=0.01)


@pytest.mark.parametrize("devices", [256, 1_024, 8_192])
@pytest.mark.parametrize("chip", ["h100", "tpu-v5p"])
@pytest.mark.parametrize(
    "w", [SERVER, DEVICE, afm("afm-on-device", 256, 32_768, 11_921)], ids=["server", "device", "long"]
)
def test_a_plan_is_found_and_fits(w: Work, chip: str, devices: int) -> None:
    found = choose(w, devices, CHIPS[chip])
    assert found.fits
    assert found.plan.size == devices
    assert 0.05 < found.mfu < 0.75
    assert found.seconds.step >= max(found.seconds.computed, found.seconds.hidden)


def test_what_does_not_fit_has_remedies_that_do() -> None:
    plan = Plan(replica=128, fsdp=2, micro_batch=8)
    failed = estimate(DEVICE, plan, CHIPS["h100"])
    assert not failed.fits
    found = dict(remedies(failed))
    assert {"recompute=block", "micro_batch=1", "fsdp=4 replica=64"} & set(found)
    assert all(each.fits for each in found.values())
    hopeless = estimate(SERVER, Plan(), CHIPS["h100"])
    assert not hopeless.fits
    assert all("on" not in words or each.plan.size > 1 for words, each in remedies(hopeless))


def test_a_plan_that_does_not_divide_is_one_line() -> None:
    with pytest.raises(UserError, match="tensor=3 does not divide n_kv_heads=8"):
        estimate(DEVICE, Plan(tensor=3), CHIPS["h100"])
    with pytest.raises(UserError, match="devices=7: no plan spreads 2048 rows of 4096 tokens"):
        choose(DEVICE, 7, CHIPS["h100"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["fsdp=8", "fsdp=8 recompute=block", "fsdp=4 tensor=2 recompute=block", "fsdp=4 context=2"]
)
def test_a_sharded_step_holds_what_the_plan_says(line: str) -> None:
    """The peak that PyTorch's tracker for FSDP counts on rank 0 of a team whose other processes do not exist."""
    plan = Plan.parse(line, 8)
    model = ModelConfig(8192, 256, 4, n_heads=4, n_kv_heads=2, d_head=64, d_ff=704, max_seq_len=512)
    w = work(model, 4 * plan.readers, 512)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        net = Transformer(model)
        spread = Spread(Team(plan, 0, 8), net)
        # Two moments in float32, as ours; the tracker knows torch's own optimizers.
        optimizer = torch.optim.AdamW(list(spread.parameters.values()), lr=1e-3, foreach=False)
        tracker = FSDPMemTracker(net, optimizer)
        given = batch(replace(w, rows=4))
        tokens = given.pop("tokens_BT")
        tracker.track_inputs((tokens,))
        with tracker:
            for step in range(2):
                net(tokens, **given).total.backward()
                spread.sum_gradients()
                optimizer.step()
                optimizer.zero_grad()
                if step == 0:
                    tracker.reset_mod_stats()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    finally:
        dist.destroy_process_group()
    assert memory(w, plan, on_cpu=True).total == pytest.approx(peak["Total"], rel=0.1)
