"""Guards between a file of conversations and its tokens: what is dropped is counted by reason and kept to be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pippin import files
from pippin.data import embedding_dedup as near
from pippin.data.chat import render
from pippin.data.conversations import read_conversations
from pippin.data.decontaminate.benchmarks import benchmarks_at
from pippin.data.decontaminate.index import MODES, Mode
from pippin.data.decontaminate.messages import contaminated
from pippin.data.decontaminate.scan import COMMON
from pippin.data.guards import RULES, SHOWN, Limits, broken_rules
from pippin.data.judging import BEST, BRIEF, FULL, judge_prompt, read_score
from pippin.data.records import Instruction
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.text_table import text_table
from pippin.pipeline import Context, Cost, Stage, digest_tree
from pippin.stages.writing import WritingStage

FILE = "chats.jsonl"
BENCHMARK, NEAR, JUDGED = "benchmark", "near duplicate", "judged low"
JUDGEMENT_TOKENS = {False: 400, True: 16}  # of a judge with the full rubric, or the brief one


@dataclass(frozen=True, kw_only=True)
class GuardChats(WritingStage):
    """Drop conversations by rules, for text of evaluation prompts, as near duplicates, and by a judge (afm 6.1).

    In this order, the cheap ones first; a conversation is counted under the first reason. Artifacts: what is left, in
    order, as `chats/chats.jsonl`; `report/` with `dropped.jsonl`, every conversation that was dropped with its reason
    and the evidence, and `summary.txt`. The judge is a model (see `WritingStage`), never a person; without one none is
    asked. What it gave no score for stays, and is counted.

    Args:
        data: the file (see `data.conversations`).
        heldout_share: with which the file will be split: both sides are guarded, and neither may repeat the other.
        limits: of the rules.
        benchmarks: a file or folder of evaluation prompts; "": none.
        mode: which of their n-grams count (`decontaminate.index.MODES`). "own" asks for all of a prompt, or for 13 of
            its words on end; "small" for 8, or for most of a shorter prompt, and drops common phrases with it.
        near: cosine of the embeddings from which a conversation repeats an earlier one; None: none is looked for.
        embedder: whose mean hidden states are the embeddings; None: hashed words and pairs of words.
        min_score: of 5 points that a judge gives the last answer (the rubric is Meta-Rewarding's).
        brief: ask in few words, as a small model that was taught to judge understands.
    """

    data: str
    heldout_share: float = 0.1
    limits: Limits = field(default_factory=Limits)
    benchmarks: str = ""
    mode: str = "own"
    near: float | None = None
    embedder: Stage | None = None
    min_score: float = 3.0
    brief: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise UserError(f"mode: value {self.mode!r}: is not known; choose from {', '.join(MODES)}")
        if self.near is not None and not 0 < self.near <= 1:
            raise UserError(f"near: value {self.near}: a cosine from which texts are alike is above 0 and at most 1")
        if not 0 <= self.min_score <= BEST:
            raise UserError(f"min_score: value {self.min_score}: a judge gives 0 to {BEST:g} points")

    def inputs(self) -> Mapping[str, str]:
        given = {"data": self.data} | ({"benchmarks": self.benchmarks} if self.benchmarks else {})
        return {name: digest_tree(Path(path).expanduser()) for name, path in given.items()}

    def run(self, ctx: Context) -> None:
        records, repeated = read_conversations(Path(self.data).expanduser(), self.heldout_share)
        dropped: dict[int, tuple[str, str]] = {}

        def drop(found: Mapping[int, tuple[str, str]]) -> list[int]:
            """Take them out; the places that are left."""
            dropped.update(found)
            return [place for place in range(len(records)) if place not in dropped]

        left = drop({place: told for place, told in enumerate(map(self._rule, records)) if told})
        if self.benchmarks:
            left = drop(self._contaminated(ctx, records, left))
        if self.near is not None:
            left = drop(self._alike(ctx, records, left))
        unjudged = 0
        if not self.offline:
            low, unjudged = self._judged(ctx, records, left)
            left = drop(low)
        reasons = Counter(reason for reason, _ in dropped.values())
        if not left:
            reason, n = reasons.most_common(1)[0]
            raise UserError(f"{self.data}: none of its {len(records)} conversations is left; {n} fell for {reason!r}")
        _write(ctx.out("chats") / FILE, ({"messages": records[place]["messages"]} for place in left))
        _write(ctx.out("report") / "dropped.jsonl", (
            {"id": records[place]["id"], "reason": reason, "evidence": evidence, "messages": records[place]["messages"]}
            for place, (reason, evidence) in sorted(dropped.items())
        ))  # fmt: skip
        ordered = {reason: reasons[reason] for reason in (*RULES, BENCHMARK, NEAR, JUDGED) if reasons[reason]}
        rows = [[reason, str(n), f"{n / len(records):.2%}"] for reason, n in ordered.items()]
        rows.append(["kept", str(len(left)), f"{len(left) / len(records):.2%}"])
        title = f"Conversations dropped, by the first reason ({len(records)} read, {repeated} repeated to the letter)"
        files.write_text(ctx.out("report") / "summary.txt", text_table(title, ["reason", "conversations", ""], rows))
        for reason, n in ordered.items():
            ctx.say(f"{n} dropped: {reason}")
        ctx.say(f"{len(left)} of {len(records)} kept" + (f"; the judge gave {unjudged} no score" if unjudged else ""))
        ctx.result(read=len(records), repeated=repeated, kept=len(left), dropped=ordered, unjudged=unjudged)

    def _rule(self, record: Instruction) -> tuple[str, str] | None:
        broken = broken_rules(record["messages"], self.limits)
        return next(iter(broken.items()), None)

    def _contaminated(
        self, ctx: Context, records: Sequence[Instruction], left: Sequence[int]
    ) -> dict[int, tuple[str, str]]:
        texts = [[message["content"] for message in records[place]["messages"]] for place in left]
        benchmarks = benchmarks_at(self.benchmarks)
        found = contaminated(texts, benchmarks, ctx.dir / "index", cast(Mode, self.mode), COMMON)
        return {left[row]: (BENCHMARK, evidence) for row, evidence in found.items()}

    def _alike(self, ctx: Context, records: Sequence[Instruction], left: Sequence[int]) -> dict[int, tuple[str, str]]:
        assert self.near is not None
        if self.embedder is None:
            texts = ["\n".join(message["content"] for message in records[place]["messages"]) for place in left]
            vectors = near.unit(near.hashed_ngrams(texts))
        else:
            from pippin.evaluate.embed import mean_hidden_states  # torch, which the other guards do without
            from pippin.interop.load import load_model

            directory = ctx.artifact(self.embedder, "model")
            tokenizer = Tokenizer.load(directory)
            ids = [render(tokenizer, records[place]["messages"]).ids for place in left]
            vectors = near.unit(mean_hidden_states(load_model(directory), ids), centre=True)
        earlier = near.duplicates_of(vectors, self.near)
        return {
            left[row]: (NEAR, f"{float(vectors[row] @ vectors[first]):.3f} of {records[left[first]]['id']}")
            for row, first in enumerate(earlier)
            if first >= 0
        }

    def _judged(
        self, ctx: Context, records: Sequence[Instruction], left: Sequence[int]
    ) -> tuple[dict[int, tuple[str, str]], int]:
        """What a judge gave less than `min_score`, and how many it gave no score."""
        rubric = BRIEF if self.brief else FULL
        asked = [
            judge_prompt(rubric, records[place]["messages"][:-1], records[place]["messages"][-1]["content"])
            for place in left
        ]
        with ctx.track(len(asked), "judge") as bar:
            judge = self.opened(ctx, len(asked), bar.advance)
            said = judge.write(asked, max_tokens=JUDGEMENT_TOKENS[self.brief], temperature=0.0)
        found, unjudged = {}, 0
        for place, (verdict,) in zip(left, said, strict=True):
            score = read_score(verdict)
            unjudged += score is None
            if score is not None and score < self.min_score:
                found[place] = (JUDGED, f"{score:g} by {judge.name}: {' '.join(verdict.split())[-SHOWN:]}")
        return found, unjudged

    def cost(self) -> Cost:
        return Cost(other_s=5)


def _write(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
