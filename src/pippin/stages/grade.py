"""The stages that make classifiers: from shipped labels, and from the grades that a model or rules give a sample."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pippin import files
from pippin.data.chat import render
from pippin.data.classify import grade, labelled
from pippin.data.classify.graders import GRADES, Grader, Message, ModelGrader, RuleGrader, ask_endpoint
from pippin.data.classify.linear import Classifier
from pippin.data.endpoint import Endpoint
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.generate import generate
from pippin.pipeline import Context, Cost, Stage, digest_tree

GRADED = "graded.jsonl"
KEY = "PIPPIN_GRADER_KEY"  # environment variable with the key of an endpoint


@dataclass(frozen=True, kw_only=True)
class TrainClassifier(Stage):
    """`classifier/<name>.safetensors`, trained from the labelled texts that are shipped (`data.classify.labelled`).

    Attributes:
        name: "safety" or "math".
        labelled: a file of your own labelled texts, beside those shipped.
    """

    version: ClassVar[int] = 2

    name: str
    labelled: str = ""

    def __post_init__(self) -> None:
        if self.name not in labelled.TASKS:
            raise UserError(f"name: value {self.name!r}: no such classifier; choose from {', '.join(labelled.TASKS)}")

    def inputs(self) -> Mapping[str, str]:
        shipped = {"shipped": files.digest(labelled.LABELLED / f"{self.name}.tsv")}
        return shipped | ({"labelled": digest_tree(Path(self.labelled).expanduser())} if self.labelled else {})

    def cost(self) -> Cost:
        return Cost(bytes=300_000, other_s=2)

    def run(self, ctx: Context) -> None:
        more = Path(self.labelled).expanduser() if self.labelled else None
        _leave(ctx, labelled.train(self.name, more), self.name)


@dataclass(frozen=True, kw_only=True)
class Grade(Stage):
    """`graded/graded.jsonl`: a sample of documents, each with the grade that a grader gave it (afm 3.10).

    The grader is a model behind an OpenAI-compatible server (`url` and `model`; its key, if it wants one, from the
    environment variable PIPPIN_GRADER_KEY), or a model of ours (`judge`), or, without either, rules that know nothing
    of content. What a server will be asked is said before it is asked. A killed stage goes on with what has no grade.

    Attributes:
        documents: the stage whose `documents/` are sampled.
        n: documents to grade; ten of each of two grades are the least that a classifier learns from.
        kinds, languages: only documents of these; none: of all.
        model, url: of the server.
        judge: stage of a model of ours.
        examples: worked examples in the prompt, 0 to 5; weak models need them.
        workers: questions to the server at the same time.
        timeout_s: of one question.
    """

    documents: Stage
    n: int = 2_000
    kinds: tuple[str, ...] = ("web",)
    languages: tuple[str, ...] = ()
    model: str = ""
    url: str = field(default="", metadata={"how": True})
    judge: Stage | None = None
    examples: int = 5
    workers: int = field(default=4, metadata={"how": True})
    timeout_s: float = field(default=60.0, metadata={"how": True})

    def __post_init__(self) -> None:
        if self.n < 20:
            raise UserError(f"n: value {self.n}: too few to learn from; give 20 or more")
        if self.workers < 1:
            raise UserError(f"workers: value {self.workers}: must be at least 1")
        if bool(self.model) != bool(self.url):
            raise UserError(
                f"model, url: {self.model!r}, {self.url!r}: a server needs both; without one leave both out"
            )
        if self.model and self.judge is not None:
            raise UserError("model, judge: both are given; let one of them grade")

    def cost(self) -> Cost:
        seconds = self.n * (0.001 if not self.model and self.judge is None else 2 / self.workers)
        return Cost(bytes=self.n * 4_000, other_s=1 + seconds)

    def run(self, ctx: Context) -> None:
        grader = self._grader(ctx)
        texts = grade.sample(ctx.artifact(self.documents, "documents"), self.n, self.kinds, self.languages)
        if not texts:
            raise UserError(f"kinds, languages: {self.kinds}, {self.languages}: no document is of these")
        asked = grade.estimate(texts, grader)
        if asked.requests:
            ctx.say(
                f"{grader.name}: at most {asked.requests:,} requests, about {asked.input_tokens:,} tokens in and "
                f"{asked.output_tokens:,} out"
            )
        with ctx.track(len(texts), "grade") as bar:
            workers = 1 if self.judge is not None else self.workers
            rows = grade.grade(texts, grader, ctx.out("graded") / GRADED, workers, bar.advance)
        counts = {name: sum(row.grade == k for row in rows) for k, name in enumerate(GRADES)}
        failed = grade.failed(rows)
        ctx.result(documents=len(rows), failed=sum(failed.values()), grades=counts, reasons=dict(failed))
        ctx.result(grader=grader.name)
        ctx.say(f"graded by {grader.name}: " + ", ".join(f"{count} of grade {name}" for name, count in counts.items()))

    def _grader(self, ctx: Context) -> Grader:
        if self.judge is not None:
            return ModelGrader(ctx.label(self.judge), ask_own(ctx.artifact(self.judge, "model")), self.examples)
        if self.model:
            endpoint = Endpoint(self.url, self.model, os.environ.get(KEY, ""), self.timeout_s)
            return ModelGrader(self.model, ask_endpoint(endpoint), self.examples)
        return RuleGrader()


@dataclass(frozen=True, kw_only=True)
class TrainQuality(Stage):
    """`classifier/quality.safetensors`, which learns the grades of a sample, and how well it agrees, by grade."""

    version: ClassVar[int] = 2

    grade: Grade

    def cost(self) -> Cost:
        return Cost(bytes=2_000_000, other_s=1 + self.grade.n / 100)

    def run(self, ctx: Context) -> None:
        rows = grade.read(ctx.artifact(self.grade, "graded") / GRADED)
        _leave(ctx, grade.train(sorted(rows, key=lambda row: row.id)), "quality")


def ask_own(directory: Path) -> Callable[[Sequence[Message]], str]:
    """A model of ours as the `complete` of a `ModelGrader`.

    Raises:
        UserError: no model; when asked: the conversation is longer than the model's max_seq_len.
    """
    from pippin.interop.load import load_model  # torch, which the other graders do without

    model, tokenizer = load_model(directory), Tokenizer.load(directory)

    def complete(messages: Sequence[Message]) -> str:
        prompt = render(tokenizer, messages, add_generation_prompt=True).ids
        return tokenizer.decode(generate(model, tokenizer, [prompt], max_tokens=16)[0])

    return complete


def _leave(ctx: Context, classifier: Classifier, name: str) -> None:
    classifier.save(ctx.out("classifier") / f"{name}.safetensors")
    report: dict[str, Any] = classifier.report
    files.write_json(ctx.out("report") / f"{name}.json", report)
    ctx.result(**{key: report[key] for key in ("texts", "accuracy", "majority", "log_loss", "prior_log_loss", "ece")})
    for row in report.get("by_grade", ()):
        if row["texts"]:
            ctx.say(f"grade {row['grade']}: {row['texts']} texts, the classifier says {row['expected']:.2f} on average")
    if "within_one" in report:
        ctx.result(within_one=report["within_one"], rank_correlation=report["rank_correlation"])
