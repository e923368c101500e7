"""The curate stage: from the interpreter's library, packages, a user's folder and the generated world to documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pippin import files
from pippin.data import curation, instruct, sources, world
from pippin.data.records import Instruction, fraction_of
from pippin.data.world_tasks import LENGTH_TASKS, TASKS
from pippin.errors import UserError
from pippin.pipeline import Context, Cost, Stage, digest_tree


@dataclass(frozen=True)
class Curate(Stage):
    """Collect, cut, filter and deduplicate documents, and derive instructions.

    Artifacts: `documents/<source>.parquet` (id, source, split, text, licence), `instruct/<task>.<split>.jsonl`,
    `report/audit.parquet` (one row a document, with the reason if it was dropped), `report/summary.json`.

    Attributes:
        seed: of the generated world.
        world_documents: stories and fact sheets (source "stories", about 225 bytes each).
        world_tasks: songs and pages of worked exercises (source "tasks", about 245 bytes each).
        stdlib_bytes: most bytes of the running interpreter's library (source "python").
        packages, package_bytes: installed distributions and most bytes of them (source "packages").
        folder: a user's own text (source "folder"): a file or folder of text files, .jsonl or .parquet.
        max_chars: longest document from the real sources.
        instruct_world, instruct_python: most training instructions from the world and from docstrings.
        heldout_per_task: most held-out instructions of each task.
    """

    version: ClassVar[int] = 2

    seed: int = 0
    world_documents: int = 0
    world_tasks: int = 0
    stdlib_bytes: int = 0
    packages: tuple[str, ...] = ()
    package_bytes: int = 0
    folder: str = ""
    max_chars: int = sources.MAX_CHARS
    instruct_world: int = 0
    instruct_python: int = 0
    heldout_per_task: int = 100

    def __post_init__(self) -> None:
        for name in (
            "world_documents", "world_tasks", "stdlib_bytes", "package_bytes", "instruct_world", "instruct_python",
            "heldout_per_task",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise UserError(f"{name}: value {getattr(self, name)}: must not be negative; give 0 to leave it out")
        if self.max_chars < 200:
            raise UserError(f"max_chars: value {self.max_chars}: too short for a document; give 200 or more")
        if self.packages and not self.package_bytes:
            raise UserError("package_bytes: value 0: packages are named but none of their text is wanted; give bytes")

    def inputs(self) -> Mapping[str, str]:
        found = {}
        if self.stdlib_bytes:
            found["stdlib"] = sources.stdlib_digest()
        for name in self.packages:
            found[f"packages.{name}"] = sources.package_digest(name)
        if self.folder:
            found["folder"] = digest_tree(Path(self.folder).expanduser())
        return found

    def cost(self) -> Cost:
        made = 225 * self.world_documents + 245 * self.world_tasks
        real = self.stdlib_bytes + self.package_bytes
        return Cost(bytes=made + real, other_s=1 + made / 3e6 + real / 2e6)

    def run(self, ctx: Context) -> None:
        report = ctx.out("report")
        records: list[Instruction] = []
        with (
            curation.Curator(ctx.out("documents"), report / "audit.parquet") as curator,
            ctx.track(self.world_documents + self.world_tasks, "curate: world") as bar,
        ):
            for file in self._files():
                if file.text is None:
                    curator.drop(f"{file.source}/{file.path}", file.source, file.problem)
                    continue
                for document in sources.documents(file, self.max_chars):
                    curator.add(document)
                if self.instruct_python:
                    records += instruct.from_python(file)
            for make, n in ((world.story_document, self.world_documents), (world.task_document, self.world_tasks)):
                for index in range(n):
                    curator.add(make(self.seed, index), judge=False)
                    if index % 1000 == 999 or index == n - 1:
                        bar.advance(index % 1000 + 1)
            summary = curator.summary()
            self._check(summary)
        kept, contaminated = self._decontaminated(records, ctx.out("documents"))
        counts = instruct.write(ctx.out("instruct"), [*kept, *self._world_instructions()])
        bytes_kept = {source: sum(part["bytes"].values()) for source, part in summary.items()}
        files.write_json(
            report / "summary.json",
            {"documents": summary, "instructions": counts, "heldout_answers_in_training_text": contaminated},
        )
        n_documents = sum(sum(part["documents"].values()) for part in summary.values())
        ctx.result(documents=n_documents, bytes=sum(bytes_kept.values()), instructions=sum(counts.values()))
        ctx.result(documents_by_source=summary, instructions_by_task=counts)
        for source, part in summary.items():
            dropped = ", ".join(f"{n} {what}" for what, n in part["dropped"].items())
            documents = " + ".join(f"{n} {split}" for split, n in part["documents"].items())
            ctx.say(f"{source}: {documents} documents, {bytes_kept[source]:,} bytes; dropped: {dropped or 'none'}")
        ctx.say(f"{sum(counts.values())} instructions of {len({name.split('.')[0] for name in counts})} tasks")

    def _files(self) -> Iterator[sources.SourceFile]:
        if self.stdlib_bytes:
            yield from sources.stdlib(self.stdlib_bytes)
        if self.packages:
            yield from sources.packages(self.packages, self.package_bytes)
        if self.folder:
            yield from sources.folder(self.folder)

    def _check(self, summary: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
        if not summary:
            raise UserError("curate: every source is empty; set world_documents, stdlib_bytes, packages or folder")
        for source, part in summary.items():
            if "train" not in part["documents"]:
                why = ", ".join(f"{n} {what}" for what, n in part["dropped"].items()) or "all of it is held out"
                raise UserError(f"curate: source {source!r}: no training document remains ({why}); give more text")

    def _decontaminated(self, records: list[Instruction], documents: Path) -> tuple[list[Instruction], int]:
        """Docstring instructions up to the wanted numbers, without held-out answers that training text contains."""
        records.sort(key=lambda record: (fraction_of("choose/" + record["id"]), record["id"]))
        train = [record for record in records if record["split"] == "train"][: self.instruct_python]
        heldout = (record for record in records if record["split"] == "heldout")
        texts = (
            document["text"]
            for source in curation.sources_in(documents)
            if source not in ("stories", "tasks")
            for document in curation.read_documents(documents, source, "train")
        )
        clean, contaminated = instruct.decontaminate(heldout, texts)
        return train + _at_most(self.heldout_per_task, clean), len(contaminated)

    def _world_instructions(self) -> Iterator[Instruction]:
        """Conversations about the world without repeated questions."""
        if not self.instruct_world:
            return
        asked = set()
        n_tasks = len(TASKS) + len(LENGTH_TASKS)
        for split, n in (("train", self.instruct_world), ("heldout", n_tasks * self.heldout_per_task)):
            for index in range(n):
                record = world.instruction(self.seed, index, "train" if split == "train" else "heldout")
                question = record["messages"][0]["content"]
                if question not in asked:
                    asked.add(question)
                    yield record


def _at_most(n: int, records: Iterable[Instruction]) -> list[Instruction]:
    """The first `n` records of each task."""
    taken: dict[str, int] = {}
    found = []
    for record in records:
        taken[record["task"]] = taken.get(record["task"], 0) + 1
        if taken[record["task"]] <= n:
            found.append(record)
    return found
