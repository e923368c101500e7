"""Payloads of the summarisation adapters with the summaries to learn: a teacher writes, filters decide what is kept."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pippin import files
from pippin.data.chat import render
from pippin.data.packing import TokenWriter
from pippin.data.payloads import HARDENING_TASKS, KINDS, UNSEEN_TASKS, Payload, injected, payload
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.summary_filters import problems
from pippin.generate import generate_many
from pippin.interop.load import load_model
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.tokenize import TokenStage, TrainTokenizer

SUITES = ("clean", "seen", "unseen")  # held-out payloads: nothing injected, tasks of the hardening set, other tasks
TEACHER_TOKENS = 64


def messages(item: Payload) -> list[dict[str, str]]:
    """The conversation that an adapter learns: the payload after its line, and the summary."""
    question = {"role": "user", "content": f"{item.ask}\n{item.text}"}
    return [question, {"role": "assistant", "content": item.summary}]


@dataclass(frozen=True, kw_only=True)
class Payloads(TokenStage):
    """Generate payloads of each kind, have them summed up, keep what passes the filters (afm 10.10-10.12).

    Artifacts: `tokens/` with the sources `<kind>`, `<kind>-injected` (payloads that contain an instruction or a
    question, with the summary that ignores it: the hardening set) and `<kind>-shuffled` (training summaries dealt out
    at random: a control); `payloads/<kind>.<suite>.jsonl`, held out; `payloads/filters.json`.

    Args:
        tokenizer: of the model that will be adapted.
        per_kind, injected_per_kind: training payloads of each kind.
        heldout_per_kind: of each kind and suite.
        teacher: a model that writes the training summaries; None: the rule that knows the generator's facts. Held-out
            summaries are always by rule.
        candidates: samples of the teacher for a payload; the first that passes the filters is kept (rejection
            sampling), the payload is dropped if none does.
    """

    tokenizer: TrainTokenizer
    per_kind: int = 3_000
    injected_per_kind: int = 1_000
    heldout_per_kind: int = 60
    teacher: Stage | None = None
    candidates: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("per_kind", "injected_per_kind", "heldout_per_kind", "candidates"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: value {getattr(self, name)}: must be at least 1")

    def tokenizer_dir(self, ctx: Context) -> Path:
        return ctx.artifact(self.tokenizer, "tokenizer")

    def run(self, ctx: Context) -> None:
        tokenizer = Tokenizer.load(self.tokenizer_dir(ctx))
        counts: dict[str, dict[str, Any]] = {}
        with TokenWriter(ctx.out("tokens"), tokenizer.vocab_size, tokenizer.eos_id) as writer:

            def write(source: str, split: str, items: Iterable[Payload]) -> None:
                for item in items:
                    rendered = render(tokenizer, messages(item))
                    writer.add(source, split, rendered.ids, len(item.summary.encode()), rendered.loss_mask)

            for kind in KINDS:
                plain = [payload(kind, self.seed, i, "train") for i in range(self.per_kind)]
                harder = [
                    injected(kind, self.seed, self.per_kind + i, "train", HARDENING_TASKS)
                    for i in range(self.injected_per_kind)
                ]
                for source, items in ((kind, plain), (f"{kind}-injected", harder)):
                    kept, rejected = self._summed_up(ctx, items)
                    counts[source] = {"made": len(items), "kept": len(kept), "rejected": dict(rejected)}
                    if not kept:
                        raise UserError(
                            f"{ctx.name}: no summary of {source} passed the filters ({dict(rejected)}); "
                            f"take another teacher or more candidates"
                        )
                    write(source, "train", kept)
                    if source == kind:
                        write(f"{kind}-shuffled", "train", _dealt(kept, self.seed))
                suites = self._suites(kind)
                for suite, items in suites.items():
                    lines = (json.dumps(item._asdict(), ensure_ascii=False) + "\n" for item in items)
                    files.write_text(ctx.out("payloads") / f"{kind}.{suite}.jsonl", "".join(lines))
                write(kind, "heldout", suites["clean"])
                write(f"{kind}-injected", "heldout", [*suites["seen"], *suites["unseen"]])
        files.write_json(ctx.out("payloads") / "filters.json", counts)
        ctx.result(filters=counts)

    def _suites(self, kind: str) -> dict[str, list[Payload]]:
        n = self.heldout_per_kind
        return {
            "clean": [payload(kind, self.seed, i, "heldout") for i in range(n)],
            "seen": [injected(kind, self.seed, n + i, "heldout", HARDENING_TASKS) for i in range(n)],
            "unseen": [injected(kind, self.seed, 2 * n + i, "heldout", UNSEEN_TASKS) for i in range(n)],
        }

    def _summed_up(self, ctx: Context, items: Sequence[Payload]) -> tuple[list[Payload], Counter[str]]:
        """The payloads with a summary that passes, and how many candidates broke which rule."""
        written = [[item.summary] for item in items] if self.teacher is None else self._taught(ctx, items)
        kept, rejected = [], Counter[str]()
        for item, candidates in zip(items, written, strict=True):
            for candidate in candidates:
                broken = problems(item.kind, item.clean, candidate)
                if not broken:
                    kept.append(item._replace(summary=candidate.strip()))
                    break
                rejected.update(broken)
        return kept, rejected

    def _taught(self, ctx: Context, items: Sequence[Payload]) -> list[list[str]]:
        """Candidates of the teacher model, a greedy one first. It is shown the payload without what is injected.

        The report's teacher does not follow what a payload says (afm 10.12); a small one might.
        """
        assert self.teacher is not None
        directory = ctx.artifact(self.teacher, "model")
        model, tokenizer = load_model(directory), Tokenizer.load(directory)
        asked = [messages(item._replace(text=item.clean))[:1] for item in items]
        prompts = [render(tokenizer, question, add_generation_prompt=True).ids for question in asked]
        written: list[list[str]] = [[] for _ in items]
        with ctx.track(len(items) * self.candidates, "teacher") as bar:
            for sample in range(self.candidates):
                found = generate_many(
                    model, tokenizer, prompts, batch_size=32, max_tokens=TEACHER_TOKENS, temperature=0.7 * (sample > 0),
                    seed=self.seed + sample, progress=bar.advance,
                )  # fmt: skip
                for row, ids in zip(written, found, strict=True):
                    row.append(tokenizer.decode(ids))
        return written

    def cost(self) -> Cost:
        made = len(KINDS) * (self.per_kind + self.injected_per_kind + 3 * self.heldout_per_kind)
        return Cost(bytes=600 * made, other_s=1 + made / 2_000)


def _dealt(items: Sequence[Payload], seed: int) -> list[Payload]:
    summaries = [item.summary for item in items]
    random.Random(f"deal/{seed}").shuffle(summaries)
    return [item._replace(summary=summary) for item, summary in zip(items, summaries, strict=True)]


def read_suite(directory: Path, kind: str, suite: str) -> list[Payload]:
    """The held-out payloads of a kind and suite."""
    lines = (directory / f"{kind}.{suite}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Payload(**json.loads(line)) for line in lines]
