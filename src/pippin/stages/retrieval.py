"""Needle and multi-key retrieval of some models, at some lengths: a table and a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pippin import files
from pippin.data.long_questions import Row, problems, row
from pippin.data.tokenizer import Tokenizer
from pippin.data.world_words import Draw
from pippin.errors import UserError
from pippin.evaluate.curves import picture
from pippin.evaluate.exact_match import Proportion
from pippin.evaluate.retrieval import proportion, retrieved
from pippin.evaluate.text_table import text_table
from pippin.interop.load import load_model
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.tokenize import Tokenize, filler


@dataclass(frozen=True, kw_only=True)
class Retrieval(Stage):
    """Ask each model for a fact in held-out rows: documents and things that no training row had.

    A task is a number of facts in the row, one of which is asked for: 1 is the needle, more are multi-key retrieval.
    Artifact `report/`: `summary.txt`, `retrieval.json`, `retrieval.svg` (the first task by how far the fact is away).

    Args:
        tokens: where the curated documents and the tokenizer come from.
        models: by name; several runs of one arm are `<arm>/<seed>` and are pooled.
        lengths: of the rows, in tokens.
        tasks: name and number of facts.
        per_cell: rows of each length and task, the same for all models.
    """

    version: ClassVar[int] = 1

    tokens: Tokenize
    models: Mapping[str, Stage]
    lengths: tuple[int, ...]
    tasks: Mapping[str, int] = field(default_factory=lambda: {"needle": 1, "multi-key": 8})
    per_cell: int = 60
    fillers: tuple[str, ...] = ("stories",)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models or not self.lengths or not self.tasks or self.per_cell < 1:
            raise UserError("models, lengths, tasks, per_cell: give at least one of each")

    def run(self, ctx: Context) -> None:
        directory = self.tokens.tokenizer_dir(ctx)
        tokenizer = Tokenizer.load(directory)
        cells = {
            (task, length): self._rows(ctx, tokenizer, task, length) for task in self.tasks for length in self.lengths
        }
        found: dict[str, dict[tuple[str, int], list[bool]]] = defaultdict(lambda: defaultdict(list))
        first = next(iter(self.tasks))
        near: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        with ctx.track(len(self.models) * len(cells)) as bar:
            for name, stage in self.models.items():
                model = load_model(ctx.artifact(stage, "model"))
                arm = name.partition("/")[0]
                for cell, rows in cells.items():
                    right = retrieved(model, rows, tokenizer.eos_id)
                    found[arm][cell] += right
                    if cell[0] == first:
                        for one, its in zip(right, rows, strict=True):
                            near[arm][_bucket(its.distance)].append(one)
                    bar.advance()
        report = ctx.out("report")
        shares = {
            arm: {f"{task} {length}": proportion(right).as_dict() for (task, length), right in its.items()}
            for arm, its in found.items()
        }
        by_distance = {
            arm: {b: proportion(its[b]).as_dict() for b in sorted(its, key=_start)} for arm, its in near.items()
        }
        rows_of_table = [[arm, *(_share(its[cell]) for cell in cells)] for arm, its in found.items()]
        columns = ["model", *(f"{task} {length}" for task, length in cells)]
        text = text_table("Exact match on held-out questions, by tokens in the row", columns, rows_of_table)
        buckets = sorted({b for its in near.values() for b in its}, key=_start)
        text += text_table(
            f"The same for {first}, by how many tokens the fact is away",
            ["model", *buckets],
            [[arm, *(_share(its[b]) if b in its else "" for b in buckets)] for arm, its in near.items()],
        )
        curves = {
            arm: {float(_start(b)): [100 * proportion(its[b]).share] for b in buckets if b in its}
            for arm, its in near.items()
        }
        if len(buckets) > 1:
            drawn = picture(
                "Exact match by distance",
                "tokens between fact and answer, from",
                "exact match, %",
                curves,
                marked=False,
            )
            files.write_text(report / "retrieval.svg", drawn)
            text += f"picture: {report / 'retrieval.svg'}\n"
        files.write_text(report / "summary.txt", text)
        files.write_json(report / "retrieval.json", {"by_length": shares, "by_distance": by_distance})
        ctx.result(retrieval=shares, by_distance=by_distance)

    def _rows(self, ctx: Context, tokenizer: Tokenizer, task: str, length: int) -> list[Row]:
        """Held-out rows of a cell, each one's question checked in its text."""
        documents = filler(ctx.artifact(self.tokens.curate, "documents"), self.fillers, "heldout")
        rows = []
        for index in range(self.per_cell):
            draw = Draw("retrieval", self.seed, task, length, index)
            try:
                made = row(draw, "heldout", documents, tokenizer.encode, length, self.tasks[task], 1)
            except ValueError as error:
                raise UserError(f"{ctx.name}: {task}: {error}") from None
            if wrong := problems(tokenizer.decode(made.ids)):
                raise ValueError(f"{task} {length}: a row with a wrong question: {wrong}")
            rows.append(made)
        return rows

    def cost(self) -> Cost:
        tokens = len(self.models) * len(self.tasks) * self.per_cell * sum(self.lengths)
        return Cost(other_s=1 + tokens / 20_000)


def _bucket(distance: int) -> str:
    low = 16
    while 2 * low <= distance:
        low *= 2
    return f"{low}-{2 * low - 1}"


def _start(bucket: str) -> int:
    return int(bucket.partition("-")[0])


def _share(right: list[bool]) -> str:
    p: Proportion = proportion(right)
    return f"{100 * p.share:.0f} %"
