"""Synthetic code as a stage: questions, tests, solutions; all tests run on all solutions, and the best is kept."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pippin import files
from pippin.data.mixture import derive
from pippin.data.prompts import Prompt, write_prompts
from pippin.data.records import Message, split_of
from pippin.data.synthesis.code_ask import Question, ask_question, ask_solution, ask_tests, read_question
from pippin.data.synthesis.code_problems import Problem, problem
from pippin.data.synthesis.code_select import STUBS, Selection, select, stubs
from pippin.data.synthesis.code_templates import TEXTS
from pippin.data.synthesis.code_templates_numbers import NUMBERS
from pippin.data.synthesis.code_templates_search import SEARCH
from pippin.data.synthesis.code_tests import as_check, read_tests, renamed
from pippin.data.synthesis.code_topics import TOPICS
from pippin.data.words import normalise
from pippin.errors import UserError
from pippin.evaluate.verify.code import check, passes, sources
from pippin.pipeline import Context, Cost
from pippin.safety.sandbox import Limits, Sandbox
from pippin.stages.writing import WritingStage

TEMPLATES = {template.topic: template for template in (*TEXTS, *SEARCH, *NUMBERS)}
TRIPLETS = "code.jsonl"
CONVERSATIONS = "code.jsonl"
PROMPTS = "prompts.jsonl"
LIMITS = Limits(memory=256 << 20)
_STUB = "stub_"


class Written(NamedTuple):
    """A question with its tests and solutions, before any has run; `planted` where a template wrote them."""

    id: str
    topic: str
    question: Question
    tests: tuple[str, ...]
    solutions: tuple[str, ...]
    planted: Problem | None = None


class Judged(NamedTuple):
    """What came of it; `code` is the kept solution, or ""."""

    written: Written
    selection: Selection
    code: str
    verifier: dict[str, Any]
    reason: str


@dataclass(frozen=True, kw_only=True)
class SynthesizeCode(WritingStage):
    """Triplets of question, tests and solution by self-instruction (afm 5.10).

    From each topic questions as in an interview, for each question tests and several solutions; all tests run on all
    solutions in the sandbox, and the solution that passes most is kept, if it passes at least `threshold` of them
    (`data.synthesis.code_select`). Without a writer templates give the problems of the topics that have one, with wrong
    solutions and wrong tests on purpose.

    Artifacts: `triplets/code.jsonl`, `conversations/code.jsonl` (question and solution, of the train side),
    `prompts/prompts.jsonl` (verifier "code"), `report/code.json`.

    Args:
        topics: of `data.synthesis.code_topics.TOPICS`.
        per_topic: questions that are asked for.
        solutions, tests: that the writer is asked for, of a question.
        threshold: the least share of the tests; the report gives none.
        min_tests: the fewest that a question must have.
        temperature, max_tokens: of the writer.
        run_s: seconds of the clock that all tests of one solution may take.
        sandboxes: that run at the same time.
    """

    topics: tuple[str, ...] = TOPICS
    per_topic: int = 2
    solutions: int = 4
    tests: int = 8
    threshold: float = 0.75
    min_tests: int = 3
    temperature: float = 0.8
    max_tokens: int = 768
    run_s: float = 5.0
    sandboxes: int = field(default=2, metadata={"how": True})
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for topic in self.topics:
            if topic not in TOPICS:
                raise UserError(
                    f"topics: value {topic!r}: not one of the {len(TOPICS)} of data/synthesis/code_topics.py"
                )
        if not self.topics or len(set(self.topics)) < len(self.topics):
            raise UserError(f"topics: {len(self.topics)} given: give at least one, and none twice")
        for name in ("per_topic", "solutions", "tests", "min_tests", "max_tokens", "sandboxes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: value {getattr(self, name)}: must be at least 1")
        if not 0 < self.threshold <= 1:
            raise UserError(f"threshold: value {self.threshold}: must be above 0 and at most 1")
        if not 0 <= self.temperature <= 5:
            raise UserError(f"temperature: value {self.temperature}: must lie between 0 and 5")
        if not 0 < self.run_s <= 600:
            raise UserError(f"run_s: value {self.run_s}: must be above 0 and at most 600")

    @property
    def calls(self) -> int:
        """The most samples that the writer is asked for."""
        return 0 if self.offline else len(self.topics) * self.per_topic * (2 + self.solutions)

    def cost(self) -> Cost:
        questions = len(self.topics) * self.per_topic
        runs = 0.1 * questions * (self.solutions + 2) / self.sandboxes
        return Cost(bytes=6_000 * questions, other_s=1 + runs + self.seconds(self.calls))

    def run(self, ctx: Context) -> None:
        sandbox = Sandbox(LIMITS)  # refuses before anything is asked or written
        counts = Counter[str]()
        written = self._from_templates(counts) if self.offline else self._from_writer(ctx, counts)
        counts["questions"] = len(written)
        with ctx.track(len(written), "run") as bar, ThreadPoolExecutor(self.sandboxes) as pool:
            judged = []
            for one in pool.map(lambda each: self._judge(each, sandbox), written):
                judged.append(one)
                bar.advance()
        kept = [one for one in judged if one.code]
        report = _report(judged, counts)
        if not kept:
            lost = counts - Counter(questions=len(written)) + Counter(report["left_out"])
            why = ", ".join(f"{reason} {n}" for reason, n in lost.most_common(5))
            raise UserError(f"{ctx.name}: nothing is kept of {len(written)} questions ({why})")
        _write(ctx, kept)
        files.write_json(ctx.out("report") / "code.json", report)
        ctx.result(**report)
        reasons = "".join(f", {reason} {n}" for reason, n in report["left_out"].items())
        ctx.say(f"{len(written)} questions, {len(kept)} kept{reasons}")

    def _from_templates(self, counts: Counter[str]) -> list[Written]:
        found, seen = [], set()
        for topic in self.topics:
            if topic not in TEMPLATES:
                counts["topics without a template"] += 1
                continue
            for index in range(self.per_topic):
                made = problem(TEMPLATES[topic], self.seed, index)
                if made.question in seen:
                    counts["repeated"] += 1
                    continue
                seen.add(made.question)
                name, question = f"code/{topic}:{self.seed}:{index}", Question(made.question, made.signature)
                found.append(Written(name, topic, question, made.tests, made.solutions, made))
        return found

    def _from_writer(self, ctx: Context, counts: Counter[str]) -> list[Written]:
        with ctx.track(self.calls, "calls") as bar:
            writer = self.opened(ctx, self.calls, bar.advance)

            def ask(conversations: Sequence[Sequence[dict[str, str]]], n: int, stream: int) -> list[list[str]]:
                return writer.write(
                    conversations, n=n, max_tokens=self.max_tokens, temperature=self.temperature,
                    seed=derive(self.seed, stream),
                )  # fmt: skip

            asked, seen = [], set()
            answers = ask([ask_question(topic) for topic in self.topics], self.per_topic, 1)
            for topic, texts in zip(self.topics, answers, strict=True):
                for index, text in enumerate(texts):
                    try:
                        question = read_question(text)
                    except ValueError as error:
                        counts[f"question: {error}"] += 1
                        continue
                    if normalise(question.text) in seen:
                        counts["repeated"] += 1
                        continue
                    seen.add(normalise(question.text))
                    asked.append((f"code/{topic}:{self.seed}:{index}", topic, question))
            tests = ask([ask_tests(question, self.tests) for _, _, question in asked], 1, 2)
            solutions = ask([ask_solution(question) for _, _, question in asked], self.solutions, 3)
        ctx.result(writer=writer.name, calls=writer.before + writer.calls)
        return [
            Written(
                name, topic, question, tuple(read_tests(test, question.entry)), tuple(dict.fromkeys(filter(None, own)))
            )
            for (name, topic, question), (test,), own in zip(asked, tests, solutions, strict=True)
        ]

    def _judge(self, one: Written, sandbox: Sandbox) -> Judged:
        """All tests on all solutions, and on programs that solve nothing."""
        entry = one.question.entry
        if len(one.tests) < self.min_tests or not one.solutions:
            return Judged(one, select([], [], self.threshold, self.min_tests), "", {}, "too few tests or solutions")
        passed = [passes(one.tests, entry, solution, sandbox, self.run_s) for solution in one.solutions]
        names = [f"{_STUB}{number}" for number in range(len(STUBS))]
        each = [renamed(test, entry, name) for name in names for test in one.tests]
        flat = passes(each, names[0], stubs(_STUB), sandbox, self.run_s)
        wrong = [flat[begin : begin + len(one.tests)] for begin in range(0, len(flat), len(one.tests))]
        chosen = select(passed, wrong, self.threshold, self.min_tests)
        if chosen.solution is None:
            return Judged(one, chosen, "", {}, chosen.reason)
        code = _code(one.solutions[chosen.solution], entry)
        tests = as_check(one.tests[number] for number in chosen.tests)
        verifier = {"kind": "code", "prompt": "", "test": tests, "entry_point": entry}
        if not check(verifier, code, sandbox, self.run_s).correct:
            return Judged(one, chosen, "", {}, "not the same twice")
        return Judged(one, chosen, code, verifier, "")


def _code(solution: str, entry: str) -> str:
    """The text of a solution that ran: the first reading of the answer that is Python."""
    readings = sources("", solution, entry)
    for text in readings:
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return text.strip("\n") + "\n"
    return readings[0]


def _write(ctx: Context, kept: Sequence[Judged]) -> None:
    triplets: list[dict[str, Any]] = []
    conversations: list[dict[str, Any]] = []
    prompts: list[Prompt] = []
    for one in kept:
        name, topic, question = one.written.id, one.written.topic, one.written.question
        split = split_of(f"code/{question.text}")
        tests = [one.written.tests[number] for number in one.selection.tests]
        triplets.append(
            {
                "id": name, "topic": topic, "split": split, "question": question.text, "signature": question.signature,
                "tests": tests, "solution": one.code, "share": one.selection.share, "verifier": one.verifier,
            }
        )  # fmt: skip
        asked: Message = {"role": "user", "content": question.message}
        answer: Message = {"role": "assistant", "content": f"```python\n{one.code}```"}
        if split == "train":
            conversations.append({"id": name, "task": "code", "source": "code", "messages": [asked, answer]})
        prompts.append(
            {"id": name, "split": split, "messages": [asked], "verifier": one.verifier, "source": f"code/{topic}"}
        )
    for kind, name, rows in (("triplets", TRIPLETS, triplets), ("conversations", CONVERSATIONS, conversations)):
        files.write_text(ctx.out(kind) / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_prompts(ctx.out("prompts") / PROMPTS, prompts)


def _report(judged: Sequence[Judged], counts: Counter[str]) -> dict[str, Any]:
    """Counts of questions, tests and solutions; of templates also whether what was kept is right."""
    tests, planted = Counter[str](), Counter[str]()
    for one in judged:
        tests["written"] += len(one.written.tests)
        tests["no solution passes"] += len(one.selection.never)
        tests["wrong programs pass"] += len(one.selection.empty)
        if not one.code:
            continue
        left = len(one.written.tests) - len(one.selection.empty) - len(one.selection.never) - len(one.selection.tests)
        tests["only others pass"] += left
        tests["kept"] += len(one.selection.tests)
        if one.written.planted is not None:
            right = one.selection.solution in one.written.planted.right
            planted["right solution kept" if right else "wrong solution kept"] += 1
            planted["wrong test kept"] += one.written.planted.planted[0] in one.selection.tests
            planted["empty test kept"] += one.written.planted.planted[1] in one.selection.tests
    return {
        "kept": sum(bool(one.code) for one in judged),
        "topics_kept": len({one.written.topic for one in judged if one.code}),
        "solutions": sum(len(one.written.solutions) for one in judged),
        "questions": dict(sorted(counts.items())),
        "left_out": dict(sorted(Counter(one.reason for one in judged if not one.code).items())),
        "tests": dict(tests),
        "planted": dict(planted),
    }
