"""An adapter of your own: a file of conversations in, an adapter and its evaluation out (docs/adapters.md).

    pippin run adapter model=DIRECTORY_OR_RUN data=chats.jsonl rank=16

The model may be dense or packed; when it is the run of an adapter stage, such as a recovery adapter's, the new adapter
starts from that adapter (afm 10.5). The numbers are ours, chosen on the quickstart's model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pippin.data.guards import Limits
from pippin.errors import UserError
from pippin.interop.load import locate, read_shape
from pippin.pipeline import Stage
from pippin.stages.adapter import Adapter
from pippin.stages.adapter_report import AdapterReport
from pippin.stages.chats import SHUFFLED, SOURCE, Chats
from pippin.stages.external import ExternalAdapter, ExternalModel
from pippin.stages.guard import GuardChats
from pippin.training.loop import TrainSpec


@dataclass(frozen=True)
class Params:
    """What goes in, and every number.

    Attributes:
        model: a model directory of Pippin's, dense or packed, or the run directory of a stage.
        data: a .jsonl, .json or .parquet file, a conversation a row: {"messages": [{"role": ..., "content": ...},
            ...]}, or another layout of docs/posttraining_data.md.
        start: an adapter directory to start from; by default that of `model`, if it is an adapter's run.
        rank: 8, 16 or 32 in the report (afm 10.4); small models do with less.
        control: also train the same adapter on answers dealt out at random.
        guard: drop what breaks a rule of `limits`; what falls, and why, is in the run directory of the stage `guard`.
        near: cosine from which a conversation repeats an earlier one (docs/sft.md); with `embed` by the model's own
            hidden states, else by words.
        benchmarks: a file or folder of evaluation prompts that must not be learnt; `mode` as in docs/data.md.
    """

    model: str = ""
    data: str = ""
    start: str = ""
    rank: int = 16
    alpha_per_rank: float = 1.0
    heldout_share: float = 0.1
    control: bool = False
    guard: bool = False
    limits: Limits = field(default_factory=Limits)
    near: float | None = None
    embed: bool = False
    benchmarks: str = ""
    mode: str = "own"
    train: TrainSpec = field(
        default_factory=lambda: TrainSpec(
            steps=200, batch_size=8, seq_len=256, lr=0.003, warmup_steps=10, floor=0.05, weight_decay=1e-5
        )
    )
    seed: int = 0


PARAMS = Params()


def adapter(p: Params = PARAMS) -> dict[str, Stage]:
    """Stages of the recipe."""
    if not p.model:
        raise UserError("model: value '': name the model to adapt, for example model=runs/recover-1a2b3c4d")
    if not p.data:
        raise UserError("data: value '': name a file of conversations, for example data=chats.jsonl")
    directory, own = locate(Path(p.model).expanduser())
    shape = read_shape(directory)
    model = ExternalModel(directory=str(directory))
    start = p.start or (str(own) if own is not None else "")
    stages: dict[str, Stage] = {"model": model}
    initial: Stage | None = None
    if start:
        initial = stages["start"] = ExternalAdapter(base=model, directory=start)
    guard = _guard(p, model)
    if guard is not None:
        stages["guard"] = guard
    chats = stages["chats"] = Chats(model=model, data=p.data, heldout_share=p.heldout_share, guard=guard)
    common: dict[str, Any] = {
        "tokens": chats,
        "train": replace(p.train, seq_len=min(p.train.seq_len, shape.max_seq_len)),
        "model": shape,
        "start": model,
        "initial": initial,
        "rank": p.rank,
        "alpha": p.alpha_per_rank * p.rank,
        "heldout_sources": (SOURCE,),
        "seed": p.seed,
    }
    trained = stages["adapter"] = Adapter(mixture={SOURCE: 1.0}, **common)
    shuffled: Adapter | None = None
    if p.control:
        shuffled = stages["shuffled"] = Adapter(mixture={SHUFFLED: 1.0}, **common)
    return stages | {"evaluate": AdapterReport(chats=chats, adapter=trained, control=shuffled)}


def _guard(p: Params, model: Stage) -> GuardChats | None:
    if not p.guard:
        asked = [name for name in ("near", "embed", "benchmarks") if getattr(p, name)]
        if asked or p.limits != Limits():
            raise UserError(f"guard: value False: {', '.join(asked) or 'limits'}: only with it; add guard=true")
        return None
    return GuardChats(
        data=p.data, heldout_share=p.heldout_share, limits=p.limits, benchmarks=p.benchmarks, mode=p.mode, near=p.near,
        embedder=model if p.embed else None,
    )  # fmt: skip
