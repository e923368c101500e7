"""Any mesh of processes computes what one process computes: losses, gradients, norms, and the model put together."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tests.running import REPOSITORY, environment
from tests.training import checkpoint_layouts
from tests.training.parallel_cases import CONFIG, STEPS, make, train
from tests.training.parallel_ranks import HALVES, TOGETHER
from torch import nn

from pippin.errors import UserError
from pippin.model.transformer import Transformer
from pippin.training.checkpoint import Checkpoints
from pippin.training.context_parallel import own_chunks
from pippin.training.events import LossWatch
from pippin.training.loop import _state
from pippin.training.optimizer import RMSPropMomentum, param_groups
from pippin.training.parallel import Spread
from pippin.training.plan import Plan
from pippin.training.processes import Team, meet
from pippin.training.tensor_parallel import cut_dim

EVERY = [*TOGETHER, *HALVES[0], *HALVES[1]]
# Float32 sums in another order; measured: losses 2e-7, norms 2e-7, gradients 1.3e-6.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What four spawned processes left: a directory for each layout and case."""
    directory = tmp_path_factory.mktemp("ranks")
    (directory / "checkpoints").mkdir()
    checkpoint_layouts.prepare(directory / "checkpoints")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.training.parallel_ranks", str(directory)]
    children = [
        subprocess.Popen(
            [*command, str(rank), str(port)], cwd=REPOSITORY, env=environment(), stderr=subprocess.PIPE, text=True
        )
        for rank in range(4)
    ]
    errors = [""] * 4

    def drain(rank: int) -> None:
        _, errors[rank] = children[rank].communicate()
        if children[rank].returncode:  # the others wait for it
            for child in children:
                child.kill()

    threads = [threading.Thread(target=drain, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [errors[rank] for rank in range(4) if children[rank].returncode not in (0, -9)]
    assert not failed, failed[0]
    return directory


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    """The same cases on one process."""
    return {case: train(Team(Plan()), case) for case in sorted({case for _, case in EVERY})}


@pytest.mark.parametrize(("line", "case"), EVERY)
def test_a_mesh_computes_what_one_process_does(
    found: Path, alone: dict[str, dict[str, Any]], line: str, case: str
) -> None:
    place, expected = found / f"{line} {case}", alone[case]
    told = json.loads((place / "found.json").read_text())
    assert told["losses"] == pytest.approx(expected["losses"], rel=TOLERANCE)
    # A factor that Adam-like updates and clipping hide shows in the norm; so do gradients that were not cleared.
    assert told["norms"] == pytest.approx(expected["norms"], rel=TOLERANCE)
    gradients = load_file(place / "gradients.safetensors")
    assert gradients.keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        assert float((gradients[name] - gradient).norm()) <= TOLERANCE * float(gradient.norm()), name
    # What every process keeps whole has not drifted apart.
    assert told["alike"]
    assert told["look"] == pytest.approx(expected["look"], rel=TOLERANCE)


@pytest.mark.parametrize(("line", "case"), EVERY)
def test_the_model_is_put_together_in_place(
    found: Path, alone: dict[str, dict[str, Any]], line: str, case: str
) -> None:
    place, expected = found / f"{line} {case}", alone[case]
    told = json.loads((place / "found.json").read_text())
    module = load_file(place / "module.safetensors")
    state = expected["module"].state_dict()
    assert told["class"] == type(expected["module"]).__name__
    assert list(module) and module.keys() == state.keys()
    for name, tensor in load_file(place / "state.safetensors").items():  # as the checkpoint would have it
        assert torch.equal(module[name], tensor), name
    for name, tensor in state.items():
        assert torch.allclose(module[name], tensor, atol=1e-4), name  # a hundredth of an update
    if case != "prune":  # there the mask is gone
        assert told["after"] == pytest.approx(told["look"], rel=TOLERANCE)


@pytest.mark.parametrize(("line", "case"), EVERY)
def test_matrices_are_held_once(found: Path, alone: dict[str, dict[str, Any]], line: str, case: str) -> None:
    """Trained or frozen: over fsdp, context and tensor each element is on one process, replicas apart."""
    held = json.loads((found / f"{line} {case}" / "found.json").read_text())["held"]
    plan = Plan.parse(line, 4 if (line, case) in TOGETHER else 2)
    scores = CONFIG.n_layers * CONFIG.d_ff if case == "prune" else 0  # small: on every process
    for here, whole in zip(held, alone[case]["held"], strict=True):
        kept = scores if here and whole > scores else 0
        assert (here - kept) * plan.fsdp * plan.context * plan.tensor == whole - kept
        scores = 0


@pytest.mark.parametrize(("line", "case"), [each for each in EVERY if each[1] not in ("adapter", "kl")])
def test_no_process_holds_a_whole_model(found: Path, alone: dict[str, dict[str, Any]], line: str, case: str) -> None:
    """Weights come part by part, and what is not this process's own goes before the next part comes."""
    filled = json.loads((found / f"{line} {case}" / "found.json").read_text())["filled"]
    model = make(case).model
    parts = list(model.parts())
    assert len(filled) == len(parts) * (2 if case == "distill" else 1)
    plan = Plan.parse(line, 4 if (line, case) in TOGETHER else 2)
    own = 0
    for (before, after), (name, part) in zip(filled, parts * 2, strict=False):
        own = 0 if name == "embed" else own
        sizes = [p.numel() for p in part.parameters()]
        assert (before, after) == (own, own + sum(sizes))
        # A block is shared out when it is there; tables and the last norm when all blocks are, but cut before.
        shards = plan.tensor * (plan.fsdp * plan.context if name.startswith("blocks") else 1)
        for key, p in part.named_parameters():
            own += p.numel() // (shards if p.ndim == 2 or key.endswith("bias") else 1)


@pytest.mark.parametrize(("line", "case"), TOGETHER)
def test_one_process_goes_on_from_a_mesh(found: Path, alone: dict[str, dict[str, Any]], line: str, case: str) -> None:
    run = make(case)
    spread = Spread(Team(Plan()), run.module)
    optimizer = RMSPropMomentum(param_groups(run.module, 16), lr=0.01)
    state = _state(spread, optimizer)
    with Checkpoints(found / "saved" / f"{line} {case}") as checkpoints:
        restored, set_aside = checkpoints.restore(state)
    assert restored is not None
    assert (restored.step, set_aside) == (STEPS, {})
    trained = load_file(found / f"{line} {case}" / "state.safetensors")
    assert trained.keys() == spread.parameters.keys()
    for name, tensor in trained.items():
        assert torch.equal(spread.parameters[name], tensor), name
    for name, tensor in state.items():
        kind, _, parameter = name.partition(".")
        if kind == "square" and parameter in alone[case]["gradients"]:
            assert float(tensor.sum()) > 0, name
        if kind == "step":
            assert 0 < float(tensor) <= STEPS, name


def test_checkpoints_under_every_layout(found: Path) -> None:
    checkpoint_layouts.finish(found / "checkpoints")


def test_the_cases_would_notice(alone: dict[str, dict[str, Any]]) -> None:
    """Each case has something to train and moves it; teachers and frozen bases stay."""
    for case, run in alone.items():
        untouched = make(case).module.state_dict()
        moved = {
            name for name, tensor in run["module"].state_dict().items() if not torch.equal(tensor, untouched[name])
        }
        assert moved == set(run["gradients"]), case
        assert len(run["norms"]) == STEPS
        assert ("lora" in "".join(moved)) == (case in ("adapter", "kl"))


def test_one_process_trains_the_module_itself() -> None:
    run = make("plain")
    spread = Spread(Team(Plan()), run.module)
    assert {id(p) for p in spread.parameters.values()} == {id(p) for p in run.module.parameters()}
    assert spread.copies is None


def test_micro_batches_and_recomputation_on_one_process(alone: dict[str, dict[str, Any]]) -> None:
    for case in ("plain", "dropped"):
        run = train(Team(Plan(micro_batch=1, recompute="block")), case)
        assert run["losses"] == pytest.approx(alone[case]["losses"], rel=TOLERANCE)
        assert run["norms"] == pytest.approx(alone[case]["norms"], rel=TOLERANCE)
        for name, gradient in alone[case]["gradients"].items():
            assert float((run["gradients"][name] - gradient).norm()) <= TOLERANCE * float(gradient.norm()), name


def test_each_matrix_of_the_model_is_cut() -> None:
    model = Transformer(CONFIG)
    cut = {name for name, p in model.named_parameters() if cut_dim(*owner(model, name)) is not None}
    assert cut == {name for name, p in model.named_parameters() if p.ndim == 2}


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, key = name.rpartition(".")
    return model.get_submodule(path), key


def test_head_and_tail_chunks() -> None:
    row = torch.arange(12)[None]
    assert own_chunks(row, 0, 3).tolist() == [[0, 1, 10, 11]]
    assert own_chunks(row, 2, 3).tolist() == [[4, 5, 6, 7]]
    with pytest.raises(ValueError, match="do not divide"):
        own_chunks(row, 0, 4)


@pytest.mark.parametrize(
    ("line", "processes", "message"),
    [
        ("fsdp=2 tensor=2", 2, "replica=1 x fsdp=2 x context=1 x tensor=2 needs 4 processes, there are 2"),
        ("fsdp=auto tensor=2", 3, "there are 3"),
        ("fsdp=auto tensor=auto", 4, "tensor=auto"),
        ("data=2", 2, "'data=2': write NAME=VALUE"),
        ("fsdp=2 fsdp=2", 4, "'fsdp=2'"),
        ("fsdp", 1, "'fsdp'"),
        ("fsdp=-1", 1, "at least 1"),
        ("fsdp=0", 1, "at least 1"),
        ("recompute=all", 1, "none, block"),
    ],
)
def test_a_bad_line_is_one_clear_line(line: str, processes: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Plan.parse(line, processes)
    assert str(caught.value).startswith("parallel: ")
    assert "\n" not in str(caught.value)


def test_a_line_may_leave_an_axis_open() -> None:
    assert Plan.parse("tensor=2 fsdp=auto micro_batch=4", 8) == Plan(fsdp=4, tensor=2, micro_batch=4)
    assert Plan.parse("", 1) == Plan()
    assert str(Plan()) == ""
    plan = Plan(replica=2, fsdp=4, context=2, tensor=2, micro_batch=4, recompute="block", timeout_s=9)
    assert Plan.parse(str(plan), 32) == plan


@pytest.mark.parametrize(
    ("plan", "batch_size", "seq_len", "message"),
    [
        (Plan(tensor=4), 8, 64, "tensor=4 does not divide n_kv_heads=2"),
        (Plan(tensor=8), 8, 64, "tensor=8 does not divide n_heads=4"),
        (Plan(fsdp=8), 4, 64, "8 processes, but a batch has batch_size=4 rows"),
        (Plan(fsdp=3), 8, 64, "does not divide batch_size=8"),
        (Plan(fsdp=2, micro_batch=3), 8, 64, "micro_batch=3 does not divide the 4 rows"),
        (Plan(context=2), 8, 62, "seq_len=62 is not a multiple"),
        (Plan(context=2, tensor=2), 8, 62, "seq_len=62 is not a multiple"),
        (Plan(tensor=2), 8, 63, "seq_len=63 is not a multiple"),
    ],
)
def test_a_mesh_that_does_not_suit_is_one_clear_line(plan: Plan, batch_size: int, seq_len: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        plan.check(CONFIG, batch_size, seq_len)
    assert "\n" not in str(caught.value)


def test_every_row_has_one_reader() -> None:
    plan = Plan(replica=2, fsdp=3, context=2, tensor=2, micro_batch=2)
    rows = [plan.rows(rank, 24) for rank in range(plan.size)]
    assert rows[0] == [(0, 2), (2, 4)]
    read = [row for rank in range(0, plan.size, plan.sharers) for part in rows[rank] for row in range(*part)]
    assert read == list(range(24))
    assert all(rows[rank] == rows[rank - rank % plan.sharers] for rank in range(plan.size))


def test_the_living_agree_on_a_name_beside_the_words_of_the_dead() -> None:
    """The store of a launcher that starts processes again still has what the last attempt wrote."""
    store = dist.HashStore()

    def attempt(size: int, late: int) -> set[str]:
        names: list[str] = []
        threads = [threading.Thread(target=lambda r=r: names.append(meet(store, r, size))) for r in range(size)]
        for thread in [*threads[late:], *threads[:late]]:
            thread.start()
            thread.join(0.05)
        for thread in threads:
            thread.join()
        assert len(names) == size
        return set(names)

    first, second, third = attempt(3, 0), attempt(3, 1), attempt(3, 2)
    assert len(first) == len(second) == len(third) == 1
    assert len(first | second | third) == 3


def test_spikes_and_no_numbers_are_seen() -> None:
    watch = LossWatch()
    noise = torch.Generator().manual_seed(0)
    usual = (5 - 0.005 * torch.arange(200) + 0.1 * torch.randn(200, generator=noise)).tolist()
    assert [watch.see(loss) for loss in usual] == [None] * 200
    assert "spike" in str(watch.see(9.0))
    assert "nan" in str(watch.see(float("nan")))
    assert watch.see(4.0) is None
