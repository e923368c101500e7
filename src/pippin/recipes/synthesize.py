"""Synthetic data with verified answers (docs/synthesis.md).

pippin run synthesize                                                   word problems by templates, offline
pippin run synthesize maths.seeds=gsm8k.jsonl writer=RUN_OR_DIRECTORY   a model of ours writes and judges
pippin run synthesize what=tools writer=NAME url=http://localhost:8000/v1 max_calls=5000
pippin run synthesize what=code                                         programming problems by templates, offline
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pippin.data.synthesis.maths import Plan
from pippin.errors import UserError
from pippin.pipeline import Stage
from pippin.stages.synthesize import SynthesizeMaths
from pippin.stages.synthesize_code import TOPICS, SynthesizeCode
from pippin.stages.synthesize_tools import KINDS, UNSEEN, SynthesizeTools
from pippin.stages.writing import KEY

TEMPLATE = "template"


@dataclass(frozen=True)
class Maths:
    """As in `SynthesizeMaths`: seeds (a file, or templates), how many, and what is made of them."""

    seeds: str = ""
    n: int = 200
    plan: Plan = field(default_factory=Plan)


@dataclass(frozen=True)
class Tools:
    """As in `SynthesizeTools`."""

    kinds: tuple[str, ...] = KINDS
    per_kind: int = 200
    wordings: int = 2
    max_tokens: int = 256
    corpus: str = ""
    unseen: tuple[str, ...] = UNSEEN
    seed: int = 0


@dataclass(frozen=True)
class Code:
    """As in `SynthesizeCode`; no topic named: all 71."""

    topics: tuple[str, ...] = ()
    per_topic: int = 2
    solutions: int = 4
    tests: int = 8
    threshold: float = 0.75
    max_tokens: int = 768
    seed: int = 0


@dataclass(frozen=True)
class Params:
    """What is made, and who writes.

    Attributes:
        writer: "template" (offline), a model directory or run of ours, or with `url` a model's name.
        url: of an OpenAI-compatible server, such as http://localhost:8000/v1.
        key_variable: environment variable that holds the server's key.
        workers, timeout_s: requests at the same time, and seconds for one.
        max_calls: samples that may be asked for, those of earlier attempts included.
    """

    what: Literal["maths", "tools", "code"] = "maths"
    writer: str = TEMPLATE
    url: str = ""
    key_variable: str = KEY
    workers: int = 4
    timeout_s: float = 120.0
    max_calls: int = 10_000
    maths: Maths = field(default_factory=Maths)
    tools: Tools = field(default_factory=Tools)
    code: Code = field(default_factory=Code)


PARAMS = Params()


def synthesize(p: Params = PARAMS) -> dict[str, Stage]:
    """Stages of the recipe: the writer, where it is a model of ours, and what it writes."""
    stages: dict[str, Stage] = {}
    common: dict[str, Any] = {"max_calls": p.max_calls}
    if p.url:
        if p.writer == TEMPLATE:
            raise UserError(f"writer: value {p.writer!r}: with a url, give the name that the server knows the model by")
        common |= {"served": p.writer, "url": p.url, "key_variable": p.key_variable}
        common |= {"workers": p.workers, "timeout_s": p.timeout_s}
    elif p.writer != TEMPLATE:
        from pippin.interop.directory import locate
        from pippin.stages.external import ExternalModel  # torch, which the other writers do without

        directory, adapter = locate(Path(p.writer).expanduser())
        if adapter is not None:
            raise UserError(f"writer: value {p.writer!r}: the run of an adapter; give a model, or that of a whole one")
        stages["writer"] = common["writer"] = ExternalModel(directory=str(directory))
    if p.what == "maths":
        stages["maths"] = SynthesizeMaths(seeds=p.maths.seeds, n=p.maths.n, plan=p.maths.plan, **common)
    elif p.what == "code":
        c = p.code
        stages["code"] = SynthesizeCode(
            topics=c.topics or TOPICS, per_topic=c.per_topic, solutions=c.solutions, tests=c.tests,
            threshold=c.threshold, max_tokens=c.max_tokens, seed=c.seed, **common,
        )  # fmt: skip
    else:
        t = p.tools
        stages["tools"] = SynthesizeTools(
            kinds=t.kinds, per_kind=t.per_kind, wordings=t.wordings, max_tokens=t.max_tokens, corpus=t.corpus,
            unseen=t.unseen, seed=t.seed, **common,
        )  # fmt: skip
    return stages
