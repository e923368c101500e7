"""Train the tokenizer on curated text, then turn documents and conversations into packed token files."""

from __future__ import annotations

import itertools
import random
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

from pippin.data import instruct
from pippin.data.chat import render
from pippin.data.corpus.documents import read_documents, sources_in
from pippin.data.ingest.registry import check_stage
from pippin.data.ingest.source import Source
from pippin.data.long_questions import LongQuestions, problems
from pippin.data.packing import TokenWriter
from pippin.data.records import Document, Instruction, Split, fraction_of
from pippin.data.tokenizer import Tokenizer, train_tokenizer
from pippin.errors import UserError
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.curate import Curate

BATCH_CHARS = 2_000_000
SPLITS: tuple[Split, Split] = ("train", "heldout")
OWN_SOURCE = ("describe", "docstring", "summary")  # instruction tasks that mixtures weigh one by one


@dataclass(frozen=True, kw_only=True)
class TrainTokenizer(Stage):
    """SentencePiece BPE: split digits, byte fallback, no normalisation (afm 3.19-3.21), on the training split only.

    About `sample_bytes` of text are read, each source in proportion to its size, and a tenth as much of conversations.
    Which documents follows from their ids alone, not from their order or files. With `or_fewer`, text that is not
    enough for `vocab_size` pieces gets fewer.
    """

    version: ClassVar[int] = 3

    curate: Curate
    vocab_size: int
    sample_bytes: int = 4_000_000
    or_fewer: bool = field(default=False, metadata={"later": True})

    def run(self, ctx: Context) -> None:
        directory = ctx.artifact(self.curate, "documents")
        size = sum(len(document["text"]) for document in _training_text(directory))
        share = self.sample_bytes / max(1, size)
        texts = (d["text"] for d in _training_text(directory) if fraction_of(f"tokenizer/{d['id']}") < share)
        spoken = _spoken(ctx.artifact(self.curate, "instruct"), self.sample_bytes // 10)
        sample = itertools.chain(texts, spoken)
        tokenizer = train_tokenizer(sample, ctx.out("tokenizer"), self.vocab_size, self.or_fewer)
        ctx.result(vocab_size=tokenizer.vocab_size)

    def cost(self) -> Cost:
        return Cost(bytes=60 * self.vocab_size, other_s=1 + self.sample_bytes / 1e6)


def _training_text(directory: Path) -> Iterator[Document]:
    for source in sources_in(directory):
        yield from read_documents(directory, source, "train")


def _spoken(directory: Path, chars: int) -> Iterator[str]:
    """Messages of training conversations: in them a word often comes first, without the space before it."""
    if not any(directory.glob("*.train.jsonl")):
        return
    for record in instruct.read(directory, "train"):
        for message in record["messages"]:
            if chars <= 0:
                return
            chars -= len(message["content"])
            yield message["content"]


class TokenStage(Stage):
    """A stage that leaves `tokens/`."""

    @abstractmethod
    def tokenizer_dir(self, ctx: Context) -> Path:
        """Where the tokenizer is that made them."""

    def check_mixture(self, phase: str, names: Iterable[str]) -> None:
        """Raise UserError where a source is not for this stage of pre-training; only a corpus of ours knows."""


@dataclass(frozen=True, kw_only=True)
class Tokenize(TokenStage):
    """Encode every document and conversation into `tokens/` (see `data.packing`).

    Documents keep their source and id. Instructions become the sources `chat` (all exercises) and `chat-<task>` for
    describe, docstring and summary, with a loss mask on the assistant's part; their bytes are those of the answers.
    `shuffle_answers` deals the training answers of each task out at random: a control that must not learn.
    `questions` adds sources of long rows with questions about documents in them, by name.
    """

    version: ClassVar[int] = 2

    curate: Curate
    tokenizer: TrainTokenizer
    shuffle_answers: bool = False
    questions: Mapping[str, LongQuestions] | None = field(default=None, metadata={"later": True})

    def tokenizer_dir(self, ctx: Context) -> Path:
        return ctx.artifact(self.tokenizer, "tokenizer")

    def check_mixture(self, phase: str, names: Iterable[str]) -> None:
        sources = self.curate.dedup.measure.extract.ingest.sources
        check_stage(phase, names, [one for one in sources if isinstance(one, Source)])

    def run(self, ctx: Context) -> None:
        tokenizer = Tokenizer.load(ctx.artifact(self.tokenizer, "tokenizer"))
        documents, conversations = ctx.artifact(self.curate, "documents"), ctx.artifact(self.curate, "instruct")
        counts: dict[str, int] = defaultdict(int)
        sources = sources_in(documents)
        corpus = ctx.record(self.curate)["id"]
        with TokenWriter(ctx.out("tokens"), tokenizer.vocab_size, tokenizer.eos_id, corpus=corpus) as writer:
            with ctx.track(len(sources) * len(SPLITS)) as bar:
                for source in sources:
                    for split in SPLITS:
                        for batch in batches(read_documents(documents, source, split)):
                            encoded = tokenizer.encode_batch([document["text"] for document in batch])
                            for document, ids in zip(batch, encoded, strict=True):
                                n_bytes = len(document["text"].encode())
                                writer.add(source, split, ids, n_bytes, document=document["id"])
                                counts[source] += len(ids) + 1
                        bar.advance()
            for split in SPLITS:
                records = list(instruct.read(conversations, split)) if any(conversations.iterdir()) else []
                if self.shuffle_answers and split == "train":
                    records = deal_answers(records)
                for record in records:
                    source = f"chat-{record['task']}" if record["task"] in OWN_SOURCE else "chat"
                    rendered = render(tokenizer, record["messages"], conversation_id=record["id"])
                    learnt = sum(len(m["content"].encode()) for m in record["messages"] if m["role"] == "assistant")
                    writer.add(source, split, rendered.ids, learnt, rendered.loss_mask, document=record["id"])
                    counts[source] += len(rendered.ids) + 1
            for name, made in (self.questions or {}).items():
                for split in SPLITS:
                    for row in made.rows(split, filler(documents, made.fillers, split), tokenizer.encode):
                        text = tokenizer.decode(row.ids)
                        if wrong := problems(text):
                            raise ValueError(f"{name}: a row with a wrong question: {wrong}")
                        writer.add(name, split, row.ids, len(text.encode()), row.loss_mask)
                        counts[name] += len(row.ids) + 1
        ctx.result(tokens=sum(counts.values()), tokens_by_source=dict(counts))

    def cost(self) -> Cost:
        size = self.curate.cost().bytes
        return Cost(bytes=size, other_s=1 + size / 2e6)


def filler(directory: Path, sources: Sequence[str], split: Split) -> Iterator[str]:
    """The documents of some sources in turn, over and over.

    Raises:
        UserError: a source has no document on this side.
    """
    while True:
        given = 0
        for texts in zip(*(read_documents(directory, source, split) for source in sources), strict=False):
            yield from (document["text"] for document in texts)
            given += 1
        if not given:
            raise UserError(f"fillers: one of {', '.join(sources)} has no {split} document; name others")


def batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """The documents in lists with some megabytes of text."""
    batch: list[Document] = []
    chars = 0
    for document in documents:
        batch.append(document)
        chars += len(document["text"])
        if chars > BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def deal_answers(records: list[Instruction]) -> list[Instruction]:
    """The records with the answers of each task permuted among them."""
    by_task: dict[str, list[Instruction]] = defaultdict(list)
    for record in records:
        by_task[record["task"]].append(record)
    dealt = []
    for task, items in sorted(by_task.items()):
        answers = [item["messages"][-1] for item in items]
        random.Random(f"deal/{task}").shuffle(answers)
        for item, answer in zip(items, answers, strict=True):
            dealt.append(cast(Instruction, {**item, "messages": [*item["messages"][:-1], answer]}))
    return dealt
