"""The one training loop: batches are a function of the step, the loss is a sum over a count, a kill costs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import nn

from pippin.data.loader import Batch
from pippin.errors import Stopped, UserError
from pippin.model.cross_entropy import IGNORE, Loss
from pippin.model.host_memory import keep_freed_memory
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, canonical
from pippin.team import Released
from pippin.training.adamw import AdamW
from pippin.training.checkpoint import Checkpoints
from pippin.training.dropout import Dropping
from pippin.training.events import LossWatch
from pippin.training.metrics import Meter
from pippin.training.optimizer import RMSPropMomentum, param_groups
from pippin.training.parallel import Spread
from pippin.training.plan import Plan
from pippin.training.processes import Team
from pippin.training.schedule import constant, warmup_cosine

if TYPE_CHECKING:
    from pippin.model.config import ModelConfig

LossFunction = Callable[[Batch, int], Loss]


class Batches(Protocol):
    """Batches by step: `data.loader.Loader`, or pairs of answers."""

    def rows(self, step: int, start: int, stop: int) -> Batch:
        """Rows start..stop-1 of the batch of a step, the same at every call."""

    def identify(self, step: int) -> str:
        """What the batch of a step is made of, for a log."""


_RANDOM = "random.cpu"  # the generator's state
OPTIMIZERS = {"rmsprop": RMSPropMomentum, "adamw": AdamW}


@dataclass(frozen=True)
class TrainSpec:
    """The numbers of one training stage. Defaults are the report's for core pre-training (afm 4.5-4.8, 4.16-4.21).

    `batch_size` counts rows of `seq_len` tokens; `lr` is the peak; `floor` is the schedule's end as a fraction of it;
    `base_width` is the muP base; `log_every`, `eval_every` and `checkpoint_every` count steps; checkpoints of
    multiples of `keep_every` stay when the stage is done (0: none); `optimizer` is the report's, or the AdamW that it
    is compared with; `dropout` is of the trained model (`model.dropout`), 0.1 in the report's SFT (afm 6.3).
    """

    steps: int
    batch_size: int
    seq_len: int
    lr: float = 0.01
    warmup_steps: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    floor: float = 0.005
    weight_decay: float = 3.16e-4
    z_loss: float = 1e-6
    base_width: int = 768
    compute: Literal["bfloat16", "float32"] = "bfloat16"
    log_every: int = 10
    eval_every: int = 100
    checkpoint_every: int = 100
    keep_every: int = field(default=0, metadata={"later": True})
    optimizer: Literal["rmsprop", "adamw"] = field(default="rmsprop", metadata={"later": True})
    dropout: float = field(default=0.0, metadata={"later": True})

    def check(self) -> None:
        """Raise UserError for values out of range; called when the graph is built, after all overrides."""
        for name in ("steps", "batch_size", "seq_len", "base_width", "log_every", "eval_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.keep_every < 0:
            raise UserError(f"keep_every={self.keep_every}: must be at least 0")
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"optimizer={self.optimizer}: must be one of {', '.join(OPTIMIZERS)}")
        if not self.lr > 0:
            raise UserError(f"lr={self.lr}: must be above 0")
        for name in ("floor", "weight_decay", "z_loss", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 0 and below 1")
        if not 0 <= self.warmup_steps <= self.steps:
            raise UserError(f"warmup_steps={self.warmup_steps}: must lie between 0 and steps={self.steps}")

    @property
    def tokens(self) -> int:
        """Tokens of the whole stage."""
        return self.steps * self.batch_size * self.seq_len

    @property
    def dtype(self) -> torch.dtype:
        """The compute type."""
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[self.compute]

    def multiplier(self, step: int) -> float:
        """The schedule's value s(step), from warm-up over 1 down to `floor`."""
        if self.schedule == "constant":
            return constant(step, warmup_steps=self.warmup_steps)
        return warmup_cosine(step, steps=self.steps, warmup_steps=self.warmup_steps, floor=self.floor)

    def train_flops(self, config: ModelConfig) -> float:
        """FLOPs of the stage for a model of this shape."""
        return self.tokens * config.train_flops_per_token(self.seq_len)


def fit(
    module: nn.Module,
    loss_function: LossFunction,
    loader: Batches,
    spec: TrainSpec,
    ctx: Context,
    heldout: Callable[[], dict[str, float]] | None = None,
    frozen: Iterable[nn.Module] = (),
    flops: float | None = None,
    figures: Callable[[], dict[str, float]] = dict,
    period: int = 1,
) -> dict[str, float]:
    """Train the parameters of `module` that require gradients; resume from `ctx.dir/checkpoint` when it is there.

    With a team of several processes (`ctx.team`) all call this with the same arguments, and each reads its rows of the
    same global batches. Rank 0 returns with the trained module; the others are released.

    Args:
        module: holds every parameter to train (a Transformer, or one with extras such as mask scores).
        loss_function: (batch, step) -> Loss with a sum `total` and a `count`; the gradient is of total / count over
            the whole batch, in however many parts it is computed.
        loader: batches by step, so that a resumed run sees the same ones.
        heldout: metrics on held-out data, logged every `spec.eval_every` steps and at the end.
        frozen: models beside `module` that `loss_function` uses.
        flops: of all steps, teachers and all, for the MFU; None: of training the Transformers in `module`.
        figures: asked when training is over, while the model is still spread: all processes compute them.
        period: steps that belong together, because their batches were made by the model as it was at the first of
            them; the state is saved only between such groups.

    Returns:
        The figures.

    Raises:
        UserError: the loss is not finite for many steps on end, or a batch has no target; the plan does not suit the
            model; another process was lost.
        Stopped: SIGTERM came; the state is saved.
        Released: this process is not rank 0, and training is over.
    """
    for name, steps in (("steps", spec.steps), ("checkpoint_every", spec.checkpoint_every)):
        if steps % period:
            raise UserError(f"{name}={steps}: {period} steps belong together here; must be a multiple of {period}")
    keep_freed_memory()
    team = ctx.team if isinstance(ctx.team, Team) else Team(Plan())
    if flops is None:
        configs = [part.config for part in module.modules() if isinstance(part, Transformer)]
        flops = sum(spec.train_flops(config) for config in configs)
    if team.size > 1 and spec.optimizer != "rmsprop":
        raise UserError(f"optimizer={spec.optimizer}: trains in one process only; start it without torchrun")
    spread = Spread(team, module, frozen, ctx.compile)
    optimizer = OPTIMIZERS[spec.optimizer](
        param_groups(module, spec.base_width), lr=spec.lr, weight_decay=spec.weight_decay
    )
    if isinstance(optimizer, RMSPropMomentum):
        optimizer.copies = spread.copies
    meter = Meter(flops / spec.tokens, team.device, None if spread.mesh is None else spread.mesh.readers, team.size)
    watch = LossWatch()
    rows = team.plan.rows(team.rank, spec.batch_size)
    firsts = [first for first, _ in rows]
    dropping = Dropping(module, spec.dropout, int(ctx.id[:15], 16))  # the id has the seed in it

    def log() -> None:
        shown = meter.rows()
        for row in shown:
            if (problem := watch.see(row["loss"])) is not None:
                ctx.say(f"step {row['step']}: {problem}; batch: {loader.identify(int(row['step']))}")
        ctx.log_rows(shown)
        if shown:
            bar.advance(0, loss=shown[-1]["loss"], tok_s=shown[-1]["tokens_per_s"])

    with team.training(), Checkpoints(
        ctx.dir / "checkpoint", keep_every=spec.keep_every, alone=team.size == 1, timeout_s=team.plan.timeout_s
    ) as checkpoints:  # fmt: skip
        start, applied = _restore(checkpoints, _state(spread, optimizer), ctx)
        skipped_on_end = 0
        with ctx.track(spec.steps, initial=start) as bar:
            for step in range(start, spec.steps):
                team.alive()
                with meter.data():
                    parts = [loader.rows(step, *each) for each in rows]
                    count, stops = team.total(_targets(parts) / team.plan.sharers, team.stopping)
                if stops and step % period == 0:
                    if step > start:
                        log()
                        _save(checkpoints, _state(spread, optimizer), module, ctx, step, applied)
                        checkpoints.wait()
                    raise Stopped(f"{ctx.name}: asked to end after {step} steps; they are saved")
                if not count:
                    raise UserError(
                        f"{ctx.name}: step {step} has no target token; check the data and seq_len={spec.seq_len}"
                    )
                losses = _backward(loss_function, parts, step, count / spread.averaged, team.device, firsts, dropping)
                spread.sum_gradients()
                info = optimizer.step(spec.multiplier(applied))
                optimizer.zero_grad(set_to_none=True)
                applied += not info.skipped
                skipped_on_end = skipped_on_end + 1 if info.skipped else 0
                if info.skipped:
                    ctx.say(
                        f"step {step} skipped: gradient norm {info.grad_norm:.3g}; nothing was changed; "
                        f"batch: {loader.identify(step)}"
                    )
                if skipped_on_end >= 50:
                    raise UserError(f"{ctx.name}: 50 steps on end were skipped; lower lr={spec.lr} or check the data")
                meter.step(
                    step, spec.batch_size * spec.seq_len, *losses, grad_norm=_finite(info.grad_norm),
                    lr=spec.lr * spec.multiplier(applied),
                )  # fmt: skip
                last = step + 1 == spec.steps
                saving = (step + 1) % spec.checkpoint_every == 0 and not last
                if saving or last or (step + 1) % spec.log_every == 0:
                    log()
                bar.advance(1)
                if heldout is not None and ((step + 1) % spec.eval_every == 0 or last):
                    with meter.aside():
                        team.alive()
                        ctx.log(step, **heldout())
                        spread.rest()
                if saving:
                    team.alive()
                    with meter.checkpoint():
                        _save(checkpoints, _state(spread, optimizer), module, ctx, step + 1, applied)
        team.alive()
        found = figures()
        team.alive()
        spread.collect()
    if not team.main:
        raise Released
    ctx.keep_checkpoints = spec.keep_every > 0
    ctx.result(train_tokens=spec.tokens, skipped_steps=spec.steps - applied)
    return found


def _targets(parts: list[Batch]) -> int:
    """Positions that count, seen before anything is computed."""
    return sum(int((part.targets != IGNORE).sum()) for part in parts)


def _backward(
    loss_function: LossFunction,
    parts: list[Batch],
    step: int,
    divisor: float,
    device: torch.device,
    firsts: Sequence[int],
    dropping: Dropping,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the gradients of total / divisor of some micro-batches; returns the sums of their `nll` and `count`.

    `firsts` are the numbers of their first rows in the batch of the step.
    """
    sums = []
    for part, first in zip(parts, firsts, strict=True):
        with dropping(step, first):
            loss = loss_function(part.to(device), step)
            (loss.total / divisor).backward()
        sums.append((loss.nll, loss.count))
    nll, count = zip(*sums, strict=True)
    return (nll[0], count[0]) if len(parts) == 1 else (torch.stack(nll).sum(), torch.stack(count).sum())


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -1.0


def _state(spread: Spread, optimizer: RMSPropMomentum | AdamW) -> dict[str, torch.Tensor]:
    """Every tensor of the training state by name: the trained parameters and what the optimizer keeps for each."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in spread.parameters.items():
        tensors[f"parameter.{name}"] = spread.stored(name, parameter)
        tensors |= {f"{key}.{name}": spread.stored(name, value) for key, value in optimizer.state[parameter].items()}
    return tensors


def _save(
    checkpoints: Checkpoints,
    state: dict[str, torch.Tensor],
    module: nn.Module,
    ctx: Context,
    step: int,
    applied: int,
) -> None:
    """Begin to save the state after `step` steps, of which `applied` changed something.

    The data's position is the step itself (a batch is a function of seed and step) and the stage's id, which has the
    seed, the data and the schedule in it; the schedule's is `applied`.
    """
    models = {name: canonical(part.config) for name, part in module.named_modules() if isinstance(part, Transformer)}
    meta = {"stage": ctx.name, "id": ctx.id, "step": step, "applied": applied, "models": models}
    checkpoints.save(step, state | {_RANDOM: torch.get_rng_state()}, meta)


def _restore(checkpoints: Checkpoints, state: dict[str, torch.Tensor], ctx: Context) -> tuple[int, int]:
    """Copy the newest good state into place; returns (first step to run, steps applied so far)."""
    random = torch.get_rng_state()
    found, damaged = checkpoints.restore(state | {_RANDOM: random})
    for path, why in damaged.items():
        ctx.say(f"checkpoint set aside as {path.name}: {why}; using the one before")
    if found is None:
        ctx.rewind_metrics(0)
        return 0, 0
    torch.set_rng_state(random)
    ctx.rewind_metrics(found.step)
    ctx.say(f"resumed at step {found.step}")
    return found.step, found.meta["applied"]
