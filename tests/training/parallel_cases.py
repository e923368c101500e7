"""Small training runs that must not depend on how many processes do them; for the parent and for its spawned ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pippin.compress.matrix import sorted_palette
from pippin.data.loader import Batch
from pippin.model import codes as code_layout
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import IGNORE, Loss
from pippin.model.transformer import Transformer
from pippin.stages.adapter import _taught_loss
from pippin.stages.distill import distillation_loss
from pippin.stages.prune import Masked
from pippin.stages.training import next_token_loss
from pippin.training.checkpoint import Checkpoints
from pippin.training.dropout import Dropping
from pippin.training.loop import LossFunction, _backward, _state, _targets
from pippin.training.optimizer import RMSPropMomentum, param_groups
from pippin.training.parallel import Spread, local_part
from pippin.training.processes import Team
from pippin.training.pruning import annealed_eps, install_masks

ROWS, LENGTH, STEPS, VOCABULARY = 4, 32, 6, 96
CONFIG = ModelConfig(
    vocab_size=VOCABULARY, d_model=48, n_layers=2, n_heads=4, n_kv_heads=2, d_head=16, d_ff=64, max_seq_len=LENGTH,
    rope_base=10_000,
)  # fmt: skip


@dataclass
class Run:
    """A module to train, its loss, and the models that take part."""

    module: nn.Module
    model: Transformer
    loss: LossFunction
    frozen: tuple[nn.Module, ...] = ()
    slot: int | None = None


def packed_batch(step: int) -> Batch:
    """Rows of several documents of uneven length with padding at the end; most of the targets are in the first rows."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(1, VOCABULARY, (ROWS, LENGTH), generator=generator)
    targets = torch.randint(1, VOCABULARY, (ROWS, LENGTH), generator=generator)
    positions, segments = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for row in range(ROWS):
        at, number = 0, 0
        while at < LENGTH - 3:
            length = min(int(torch.randint(2, 14, (), generator=generator)), LENGTH - 3 - at)
            number += 1
            positions[row, at : at + length] = torch.arange(length)
            segments[row, at : at + length] = number
            at += length
        targets[row, at:] = IGNORE
        tokens[row, at:] = 0
    targets[2, 5:] = IGNORE
    targets[3] = IGNORE  # one reader may have nothing to learn
    return Batch(tokens, targets, positions, segments)


def make(case: str, hollow: bool = False) -> Run:
    """A run by name: "plain", "dropped", "untied", "prune", "adapter" (over packed codes), "distill" or "kl".

    With `hollow` the weights are still to come, where that is possible; they are the same.
    """
    torch.manual_seed(3)
    hollow = hollow and case not in ("adapter", "kl")
    if case == "untied":
        config = ModelConfig(**{**vars(CONFIG), "tied": False, "qkv_bias": True})
        model = new_model(hollow, config)
        return Run(model, model, partial(next_token_loss, model, 1e-3))
    model = new_model(hollow)
    if case in ("plain", "dropped"):
        return Run(model, model, partial(next_token_loss, model, 1e-3))
    if case == "prune":
        masked = Masked(model, 10.0, 1e-1, 0)
        return Run(masked, model, partial(pruning_loss, masked))
    teacher = new_model(hollow).requires_grad_(False)
    if case == "distill":
        return Run(model, model, partial(distillation_loss, model, teacher, 0.9, 1e-3), (teacher,))
    pack(model.requires_grad_(False))
    for _, linear in model.linears():
        linear.add_adapters(2, 3)
        nn.init.normal_(linear.lora_B, std=0.1)
    if case == "adapter":
        return Run(model, model, partial(next_token_loss, model, 1e-3, slot=1), slot=1)
    assert case == "kl"
    return Run(model, model, partial(_taught_loss, model, teacher, 0.5, 1e-3), (teacher,), slot=0)


def new_model(hollow: bool, config: ModelConfig = CONFIG) -> Transformer:
    with torch.device("meta" if hollow else "cpu"):
        model = Transformer(config, torch.float32)
    if hollow:
        model.fill = model.reset_parameters
    return model


def pack(model: Transformer) -> None:
    """4-bit codes in all matrices, an int8 table of tokens."""
    for _, linear in model.linears():
        out, width = linear.out_features, linear.in_features
        indices = torch.randint(0, 16, (out, width))
        table = torch.randn(-(-out // code_layout.GROUP_ROWS), 16).sort(dim=1).values
        palette = sorted_palette(indices, table, torch.full((out,), width**-0.5), 4)
        linear.pack(code_layout.pack(palette.indices, 4), palette.table, palette.scale, 4)
    model.embed.pack_int8()


def pruning_loss(masked: Masked, batch: Batch, step: int) -> Loss:
    eps = annealed_eps(step, steps=STEPS, start=1.0, end=0.1)
    install_masks(masked.model, masked.scores, 32, eps)
    return next_token_loss(masked.model, 1e-3, batch, step)


def train(team: Team, case: str, compile: bool = False, save: Path | None = None) -> dict[str, Any]:
    """Some steps; what each process has found, and on rank 0 the module put together again.

    Args:
        save: where to leave a checkpoint of the end.
    Returns:
        losses and norms by step; `gradients` of step 0 by name, whole; `look` and `after`, the loss of another batch
        before and after the module was put together (`after` on rank 0 only); `held`, elements of matrices that are
        trained and of frozen ones, here; `module`.
    """
    run = make(case, hollow=team.size > 1)
    filled = watch_filling(run)
    spread = Spread(team, run.module, run.frozen, compile)
    optimizer = RMSPropMomentum(param_groups(run.module, 16), lr=0.01, copies=spread.copies)
    losses, norms, gradients = [], [], {}
    rows = team.plan.rows(team.rank, ROWS)
    dropping = Dropping(run.module, 0.2 if case == "dropped" else 0.0, seed=11)
    for step in range(STEPS):
        whole = packed_batch(step)
        parts = [
            Batch(*(t[first:last] for t in (whole.tokens, whole.targets, whole.positions, whole.segment_ids)))
            for first, last in rows
        ]
        (count,) = team.total(_targets(parts) / team.plan.sharers)
        assert count == int((whole.targets != IGNORE).sum())
        firsts = [first for first, _ in rows]
        nll, seen = _backward(run.loss, parts, step, count / spread.averaged, team.device, firsts, dropping)
        assert int(seen) == _targets(parts)
        (total,) = team.total(float(nll) / team.plan.sharers)
        spread.sum_gradients()
        if step == 0:
            gradients = {
                name: full(spread.stored(name, p.grad)) for name, p in spread.parameters.items() if p.grad is not None
            }
        norms.append(optimizer.step().grad_norm)
        optimizer.zero_grad(set_to_none=True)
        losses.append(total / count)
    found: dict[str, Any] = {"losses": losses, "norms": norms, "gradients": gradients, "look": look(run)}
    spread.rest()
    whole_ones = [t for name, t in spread.parameters.items() if not isinstance(spread.stored(name, t), DTensor)]
    found["alike"] = all(agreed(t, team) for t in whole_ones)
    found["state"] = {name: full(spread.stored(name, p)) for name, p in spread.parameters.items()}
    found["held"] = [matrices(run.module, True), sum(matrices(module, False) for module in (run.module, *run.frozen))]
    found["filled"] = filled
    if save is not None:
        with Checkpoints(save, alone=team.size == 1) as checkpoints:
            checkpoints.save(STEPS, _state(spread, optimizer), {})
    spread.collect()
    if team.main:
        found |= {"after": look(run), "module": run.module}
    return found


def watch_filling(run: Run) -> list[list[int]]:
    """While a hollow run is spread, a row for each part that comes: elements of the model that are here before and
    after."""
    filled: list[list[int]] = []

    def here(model: Transformer) -> int:
        return sum(local_part(p).numel() for p in model.parameters() if not p.is_meta)

    def watched(model: Transformer, part: str) -> None:
        before = here(model)
        model.reset_parameters(part)
        filled.append([before, here(model)])

    for root in (run.module, *run.frozen):
        for model in root.modules():
            if isinstance(model, Transformer) and model.fill is not None:
                model.fill = partial(watched, model)
    return filled


def matrices(module: nn.Module, trained: bool) -> int:
    """Elements of a module's dense matrices that this process holds, all models'."""
    found = [p for p in module.parameters() if p.ndim == 2 and p.requires_grad == trained]
    return sum(local_part(p).numel() for p in found)


@torch.no_grad()
def look(run: Run) -> float:
    """Loss of a batch that was not trained on, as held-out figures are computed."""
    loss = next_token_loss(run.model, 0.0, packed_batch(99), 0, run.slot)
    return float(loss.nll / loss.count)


def full(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def agreed(tensor: Tensor, team: Team) -> bool:
    """Whether what is whole on every process is the same on every process."""
    if team.size == 1:
        return True
    other = tensor.detach().clone()
    torch.distributed.broadcast(other, 0)
    (different,) = team.total(float(not torch.equal(other, tensor)))
    return different == 0
