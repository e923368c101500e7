"""What a training stage takes on many accelerators, computed instead of tried: bytes, exchanges, seconds.

Bytes follow from what the model's operations keep for the backward pass (tests compare with the tensors that are really
kept) and from how `parallel` spreads it. Seconds are a simple model over a chip's public figures: products run at a
share of the peak, everything else at the speed of memory, exchanges at the speed of links. It leaves out latencies,
stragglers and kernels that are worse than they could be: trust ratios between plans before absolute seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pippin.errors import UserError
from pippin.model.attention import MAX_BLOCKED
from pippin.model.blocked_attention import BLOCK
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import CHUNK_LOGITS, MIN_CHUNK
from pippin.training.chips import Chip
from pippin.training.optimizer import CPU_BUCKET_ELEMENTS
from pippin.training.plan import Plan

MATMUL_SHARE = 0.75
"""Of a chip's peak, what large products in bfloat16 reach (ours, a round figure)."""
PASSES = 4
"""How often each byte that is kept for the backward pass goes to memory or comes from it (ours)."""
USABLE = 0.92
"""Of a chip's memory: the rest is taken by the driver, exchange buffers and gaps (ours)."""


@dataclass(frozen=True)
class Work:
    """A training stage in numbers.

    Attributes:
        model: the shape that is trained.
        rows, seq_len, steps: a batch, and how many of them.
        flops_per_token: of forward and backward pass, recomputation not counted, teachers counted.
        trained: parameters that are trained; None: all of `model`.
        frozen: shapes of other models that are in memory, such as a teacher.
        itemsize: bytes of a value that is computed.
    """

    model: ModelConfig
    rows: int
    seq_len: int
    steps: int
    flops_per_token: float
    trained: int | None = None
    frozen: tuple[ModelConfig, ...] = ()
    itemsize: int = 2

    @property
    def tokens_per_step(self) -> int:
        return self.rows * self.seq_len


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the worst moment of a step."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    working: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.working


@dataclass(frozen=True)
class Seconds:
    """One step: what is computed, what is exchanged meanwhile, and what is exchanged while nothing is computed."""

    computed: float
    hidden: float
    exposed: float
    step: float


@dataclass(frozen=True)
class Estimate:
    """A stage under a plan on a chip.

    Attributes:
        exchanged: bytes that one device receives in a step, by axis of the plan.
        mfu: FLOPs of the model over what the chips could do at their peak.
    """

    work: Work
    plan: Plan
    chip: Chip
    memory: Memory
    exchanged: dict[str, float]
    seconds: Seconds
    mfu: float
    limit: float = field(default=0.0)

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.limit

    @property
    def days(self) -> float:
        return self.seconds.step * self.work.steps / 86_400


def kept_by_block(work: Work, plan: Plan, on_cpu: bool = False) -> float:
    """Bytes that one block keeps for its backward pass, for the tokens of one micro-batch on one device.

    Inputs of the norms, of the products, and of attention, with float32 statistics; weights are not counted. On a CPU
    in 16 bits attention keeps its probabilities; on an accelerator its masked kernel wants keys and values repeated for
    every query head.
    """
    m, e, t, c = work.model, work.itemsize, plan.tensor, plan.context
    rows = _micro_rows(work, plan)
    n = rows * work.seq_len / c
    q, kv = m.n_heads * m.d_head / t, m.n_kv_heads * m.d_head / t
    keys = 2 * n * c * (kv if on_cpu else q) if c > 1 or not on_cpu else 2 * n * kv
    values = n * (2 * m.d_model / t + 2 * m.d_model + 3 * q + kv + 4 * m.d_ff / t) + keys
    statistics = n * (2 / t + (2 * m.n_heads + m.n_kv_heads) / t)
    if _blocked(work, plan, on_cpu):
        ends = [min(start + BLOCK, work.seq_len) for start in range(0, work.seq_len, BLOCK)]
        seen = sum((end - start) * end for start, end in zip([0, *ends], ends, strict=False))
        values += rows * m.n_heads / t * seen
        statistics -= n * m.n_heads / t
    return e * values + 4 * statistics


def activation_bytes(work: Work, plan: Plan, on_cpu: bool = False) -> float:
    """Bytes that a forward pass of one micro-batch keeps for the backward pass, beside parameters and inputs.

    With `recompute="block"` a block keeps its input only. Without FSDP the weights that were cast to the compute type
    are kept too; FSDP gathers them anew.
    """
    m, e, t = work.model, work.itemsize, plan.tensor
    rows = _micro_rows(work, plan)
    n = rows * work.seq_len / plan.context
    if plan.recompute == "block":
        blocks = m.n_layers * n * m.d_model / t * e
    else:
        blocks = m.n_layers * kept_by_block(work, plan, on_cpu)
        if e < 4 and not _fsdp(plan):
            blocks += e * m.n_matmul_params() / t
    # The final norm's input; the loss has its two gradients ready. RoPE's tables and the mask are of all layers.
    root = n * m.d_model * e * (1 / t + 1) + 4 * n / t + 4 * m.vocab_size / t * m.d_model
    masked = plan.recompute == "block" or not _blocked(work, plan, on_cpu)
    shared = 2 * 4 * n * m.d_head + masked * e * n * work.seq_len
    return blocks + root + shared


def memory(work: Work, plan: Plan, on_cpu: bool = False) -> Memory:
    """Bytes on one device at the worst moment: in the loss, in the first block's backward pass, or in the update."""
    m, e, t = work.model, work.itemsize, plan.tensor
    shards = t * plan.fsdp * plan.context
    count = m.n_params()
    trained = count.total if work.trained is None else work.trained
    adapters = work.trained or 0
    own = 1 if work.trained is not None else shards  # adapters are whole on every process
    base = 4 * (count.total / shards + adapters + sum(f.n_params().total for f in work.frozen) / shards)
    block, table = m.n_matmul_params() / m.n_layers / t, m.vocab_size / t * m.d_model
    n = _micro_rows(work, plan) * work.seq_len / plan.context
    activations = activation_bytes(work, plan, on_cpu)
    gathered = e * (table + 2 * block) if _fsdp(plan) else 0.0
    cast = e if e < 4 else 0  # of what is also held in the compute type
    chunk = max(MIN_CHUNK, CHUNK_LOGITS * t // m.vocab_size)
    logits = min(chunk, n) * m.vocab_size / t
    # From the second chunk on, the arrays of the one before are still there.
    in_loss = cast * table + (logits * (12 + 2 * cast) if n > chunk else logits * (8 + cast) + e * table)
    backwards = 2 * e * n * m.d_ff / t
    if _fsdp(plan):  # a block's gradients twice, as they are and as they are sent; the table's is narrow by now
        backwards += (4 + e) * block - (4 - e) * table
    if plan.recompute == "block":
        backwards += kept_by_block(work, plan, on_cpu) + (0 if _fsdp(plan) else (4 + cast) * block)
    in_backward = max(4 * table + e * n * m.d_model, backwards)
    gradients = 4 * trained / own
    update = gradients if not on_cpu or plan.size > 1 else min(gradients, 4 * CPU_BUCKET_ELEMENTS)
    accumulated = gradients if work.rows // plan.readers > _micro_rows(work, plan) else 0.0
    in_step = accumulated + activations + gathered + max(in_loss, in_backward)
    if in_step >= gradients + update:
        found = Memory(base, accumulated, 2 * gradients, activations, gathered + max(in_loss, in_backward))
    else:
        found = Memory(base, gradients, 2 * gradients, 0.0, update)
    return found


def exchanged(work: Work, plan: Plan) -> dict[str, float]:
    """Bytes that one device receives in a step, by axis; small sums (norms, losses) are left out."""
    m, e, t, c = work.model, work.itemsize, plan.tensor, plan.context
    again = plan.recompute == "block"
    own_rows = work.rows / plan.readers
    micro = own_rows / _micro_rows(work, plan)
    n = own_rows * work.seq_len / c
    shard = plan.fsdp * c
    blocks, table = m.n_matmul_params() / t, m.vocab_size / t * m.d_model
    gradients = 0.0 if work.trained is not None else blocks + table
    found = dict.fromkeys(("replica", "fsdp", "context", "tensor"), 0.0)
    if _fsdp(plan):
        outside = (shard - 1) / shard
        frozen = sum(f.n_params().total for f in work.frozen) / t
        # Blocks are gathered for the forward and again for the backward pass, the table once; sums are float32.
        found["fsdp"] = micro * outside * (e * (2 * blocks + table + frozen) + 4 * gradients)
        found["replica"] = micro * 2 * (plan.replica - 1) / plan.replica * 4 * gradients / shard
    # Two gathers and two sums a block, and as many backwards; computed again, all but the last sum.
    found["tensor"] = (t - 1) / t * e * n * m.d_model * ((8 + 3 * again) * m.n_layers + 4)
    found["context"] = (c - 1) / c * e * n * c * 2 * m.n_kv_heads * m.d_head / t * (2 + again) * m.n_layers
    return found


def estimate(work: Work, plan: Plan, chip: Chip, limit: float | None = None) -> Estimate:
    """Everything about a stage under a plan.

    Args:
        limit: bytes of a device that may be used; None: the usable part of the chip's memory.

    Raises:
        UserError: the plan does not divide the model or its batches.
    """
    plan.check(work.model, work.rows, work.seq_len)
    m = work.model
    n = work.tokens_per_step / plan.readers / plan.context
    forward = m.forward_flops_per_token(work.seq_len) / plan.tensor
    # The masked kernel computes the whole square, of which the model's own FLOPs count the visible half.
    square = 2 * m.n_layers * m.n_heads * m.d_head * work.seq_len / plan.tensor
    flops = work.flops_per_token / plan.tensor + 3 * square + (plan.recompute == "block") * (forward + square)
    kept = kept_by_block(work, plan) * m.n_layers / (_micro_rows(work, plan) * work.seq_len / plan.context)
    traffic = n * PASSES * kept * (1.25 if plan.recompute == "block" else 1)
    parameters = m.n_params().total if work.trained is None else work.trained
    update = 48 * parameters / (plan.tensor * plan.fsdp * plan.context if work.trained is None else 1)
    computed = n * flops / (MATMUL_SHARE * chip.flops_per_s) + (traffic + update) / chip.memory_bytes_per_s
    received = exchanged(work, plan)
    seconds = {axis: volume / _bandwidth(axis, plan, chip) for axis, volume in received.items()}
    hidden, exposed = seconds["fsdp"] + seconds["replica"], seconds["tensor"] + seconds["context"]
    step = max(computed, hidden) + exposed
    mfu = work.flops_per_token * work.tokens_per_step / (step * chip.flops_per_s * plan.size)
    return Estimate(
        work, plan, chip, memory(work, plan), received, Seconds(computed, hidden, exposed, step), mfu,
        USABLE * chip.memory_bytes if limit is None else limit,
    )  # fmt: skip


def _bandwidth(axis: str, plan: Plan, chip: Chip) -> float:
    """Bytes a second that a device receives over an axis: links inside a domain, the network's share beyond it.

    Neighbouring ranks share `tensor` first, then `context`, `fsdp` and `replica`; `fsdp` here is fsdp x context. Of a
    group with several members in a domain each brings in a part over the network and hands it on over the links.
    """
    stride = {"tensor": 1, "context": plan.tensor, "fsdp": plan.tensor, "replica": plan.size // plan.replica}[axis]
    size = {
        "tensor": plan.tensor, "context": plan.context, "fsdp": plan.fsdp * plan.context, "replica": plan.replica
    }[axis]  # fmt: skip
    if stride * size <= chip.domain:
        return chip.link_bytes_per_s
    inside = max(1, chip.domain // stride)
    return min(chip.link_bytes_per_s, inside * chip.network_bytes_per_s)


def choose(work: Work, devices: int, chip: Chip, limit: float | None = None) -> Estimate:
    """The fastest plan that fits, of all that divide the work; the least demanding one where none fits.

    Among plans within a hundredth of the fastest the one with the fewest cuts is taken.

    Raises:
        UserError: no plan divides the batch over so many devices.
    """
    found: list[Estimate] = []
    for tensor in _divisors(devices, min(chip.domain, work.model.n_kv_heads)):
        for context in _divisors(devices // tensor, 16):
            readers = devices // tensor // context
            if work.rows % readers:
                continue
            own = work.rows // readers
            for replica in _divisors(readers, readers):
                for micro in _divisors(own, 16):
                    for recompute in ("none", "block"):
                        plan = Plan(
                            replica, readers // replica, context, tensor, micro if micro < own else 0, recompute
                        )
                        try:
                            found.append(estimate(work, plan, chip, limit))
                        except UserError:
                            continue
    if not found:
        raise UserError(
            f"devices={devices}: no plan spreads {work.rows} rows of {work.seq_len} tokens over them; choose a number "
            f"that divides {work.rows} rows x 16 parts of context x {work.model.n_kv_heads} key/value heads"
        )
    fitting = [each for each in found if each.fits]
    if not fitting:
        return min(found, key=lambda each: each.memory.total)
    fastest = min(each.seconds.step for each in fitting)
    near = [each for each in fitting if each.seconds.step <= 1.01 * fastest]
    return min(near, key=lambda e: (e.plan.tensor * e.plan.context, e.plan.recompute != "none", e.plan.replica))


def remedies(failed: Estimate) -> list[tuple[str, Estimate]]:
    """Single changes to a plan that would make it fit, in words, with the gentlest first."""
    plan, found = failed.plan, []
    changes: list[tuple[str, Plan]] = []
    own = failed.work.rows // plan.readers
    micro = _micro_rows(failed.work, plan)
    if plan.recompute == "none":
        changes.append(("recompute=block", replace(plan, recompute="block")))
    for smaller in sorted((d for d in _divisors(own, own) if d < micro), reverse=True):
        changes.append((f"micro_batch={smaller}", replace(plan, micro_batch=smaller)))
        changes.append(
            (f"micro_batch={smaller} recompute=block", replace(plan, micro_batch=smaller, recompute="block"))
        )
    for factor in (2, 4, 8, 16):
        if plan.replica % factor == 0:
            moved = replace(plan, replica=plan.replica // factor, fsdp=plan.fsdp * factor)
            changes.append((f"fsdp={moved.fsdp} replica={moved.replica}", moved))
        for axis in ("tensor", "context"):
            if plan.fsdp % factor == 0:
                moved = replace(plan, fsdp=plan.fsdp // factor, **{axis: getattr(plan, axis) * factor})
                changes.append((f"{axis}={getattr(moved, axis)} fsdp={moved.fsdp}", moved))
        more = replace(plan, fsdp=plan.fsdp * factor)
        changes.append((f"fsdp={more.fsdp} on {more.size} devices", more))
    for words, changed in changes:
        try:
            now = estimate(failed.work, changed, failed.chip, failed.limit)
        except UserError:
            continue
        if now.fits:
            found.append((words, now))
    return found


def _micro_rows(work: Work, plan: Plan) -> int:
    return plan.micro_batch or max(1, work.rows // plan.readers)


def _blocked(work: Work, plan: Plan, on_cpu: bool) -> bool:
    """Whether attention keeps its probabilities instead of a mask and statistics."""
    return on_cpu and work.itemsize == 2 and plan.context == 1 and work.seq_len <= MAX_BLOCKED


def _fsdp(plan: Plan) -> bool:
    return plan.replica * plan.fsdp * plan.context > 1


def _divisors(number: int, most: int) -> list[int]:
    return [d for d in range(1, min(number, most) + 1) if number % d == 0]
