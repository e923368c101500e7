"""Exact match on instructions with one right answer, and the baselines that a fine-tuned model has to beat.

Every system, baselines included, is a function from records to one answer a record; `grade` judges them all alike:
right means equal to `record["answer"]` after stripping white space at both ends. The baselines:

- majority: the most frequent answer of the task in the training split;
- nearest: the answer of the training item of the same task whose prompt is most similar (cosine over character
  trigrams, rare ones weighing more), which is what a model that only memorised could do;
- few-shot: the base model before fine-tuning, shown examples of the task. Two forms: the chat template, which a base
  model has hardly seen, and plain "Q: ... A: ..." text. `stronger_few_shot` runs both and keeps the one that scores
  better on the very records that are reported, a choice in the baseline's favour.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pippin.data.chat import render
from pippin.data.records import Instruction, fraction_of
from pippin.evaluate.verify.prompts import check_exact
from pippin.generate import Tokenizer, generate_many
from pippin.model.transformer import Transformer

Form = Literal["chat", "plain"]
Progress = Callable[[int], None]
SPARE_TOKENS = 8  # what a model may say beyond the longest right answer of a task; whoever says more is wrong anyway


@dataclass(frozen=True)
class Proportion:
    """`correct` of `total`, with its 95 % Wilson interval."""

    correct: int
    total: int

    @property
    def share(self) -> float:
        """correct / total; 0 where nothing was asked."""
        return self.correct / self.total if self.total else 0.0

    def as_dict(self) -> dict[str, float]:
        """correct, total, share, low and high, ready for JSON."""
        low, high = wilson(self.correct, self.total)
        return {"correct": self.correct, "total": self.total, "share": self.share, "low": low, "high": high}


def wilson(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval for a proportion (z 1.96: 95 %); (0, 1) where nothing was asked.

    It stays inside 0..1 and has a width also at 0 and 1 (Wilson 1927).

    Raises:
        ValueError: correct is not in 0..total.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"correct {correct}: must be in 0..{total}")
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclass(frozen=True)
class Grade:
    """Exact match over all records and by task (in order of name)."""

    overall: Proportion
    by_task: dict[str, Proportion]


def with_answer(records: Sequence[Instruction]) -> list[Instruction]:
    """The records that have an exact expected answer: those that can be graded."""
    return [record for record in records if record["answer"] is not None]


def first_of_each(records: Sequence[Instruction], n: int) -> list[Instruction]:
    """The first n records of each task, by task."""
    by_task = itertools.groupby(sorted(records, key=lambda r: r["task"]), key=lambda r: r["task"])
    return [record for _, group in by_task for record in itertools.islice(group, n)]


def is_right(record: Instruction, answer: str) -> bool:
    """Whether the answer is the expected text, white space at both ends aside."""
    return record["answer"] is not None and check_exact(record["answer"], answer).correct


def grade(records: Sequence[Instruction], answers: Sequence[str]) -> Grade:
    """Judge one answer a record.

    Raises:
        ValueError: another number of answers than of records, or a record without an expected answer.
    """
    if len(answers) != len(records) or len(with_answer(records)) != len(records):
        raise ValueError(f"{len(records)} records, {len(answers)} answers: one each, and each record needs an answer")
    correct: Counter[str] = Counter()
    total = Counter(record["task"] for record in records)
    for record, answer in zip(records, answers, strict=True):
        correct[record["task"]] += is_right(record, answer)
    by_task = {task: Proportion(correct[task], total[task]) for task in sorted(total)}
    return Grade(Proportion(correct.total(), total.total()), by_task)


def prompt(record: Instruction) -> list[dict[str, str]]:
    """The conversation up to its last assistant message: what a model is given."""
    messages = record["messages"]
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=len(messages))
    return [{"role": message["role"], "content": message["content"]} for message in messages[:last]]


def majority_answers(train: Sequence[Instruction], records: Sequence[Instruction]) -> list[str]:
    """For each record the most frequent answer of its task in `train` (the first of equals); "" for a new task."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in train:
        if record["answer"] is not None:
            counts[record["task"]][record["answer"].strip()] += 1
    return [counts[record["task"]].most_common(1)[0][0] if counts[record["task"]] else "" for record in records]


def nearest_answers(train: Sequence[Instruction], records: Sequence[Instruction]) -> list[str]:
    """For each record the answer of the most similar training prompt of its task; "" for a new task."""
    by_task: dict[str, list[Instruction]] = defaultdict(list)
    for record in with_answer(train):
        by_task[record["task"]].append(record)
    indices = {task: _TrigramIndex([_text(record) for record in items]) for task, items in by_task.items()}
    answers = []
    for record in records:
        items = by_task[record["task"]]
        nearest = items[indices[record["task"]].nearest(_text(record))]["answer"] if items else ""
        answers.append(nearest or "")
    return answers


def _text(record: Instruction) -> str:
    return "\n".join(message["content"] for message in prompt(record))


class _TrigramIndex:
    """Texts as sets of character trigrams, by an inverted index."""

    def __init__(self, texts: Sequence[str]) -> None:
        sets = [_trigrams(text) for text in texts]
        document = np.repeat(np.arange(len(sets)), [len(s) for s in sets])
        self.trigrams, code, frequency = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
        self.documents = document[np.argsort(code, kind="stable")]  # of each trigram in turn
        self.starts = np.append(0, np.cumsum(frequency))
        self.weight = np.log(1 + len(texts) / frequency) ** 2
        self.norm = np.sqrt(np.bincount(document, weights=self.weight[code], minlength=len(texts)))

    def nearest(self, text: str) -> int:
        """The most similar text's place; the first of equals."""
        wanted = _trigrams(text)
        rows = np.searchsorted(self.trigrams, wanted)
        rows = rows[self.trigrams[np.minimum(rows, len(self.trigrams) - 1)] == wanted]
        if not len(rows):
            return 0
        hits = np.concatenate([self.documents[self.starts[row] : self.starts[row + 1]] for row in rows])
        weights = np.repeat(self.weight[rows], self.starts[rows + 1] - self.starts[rows])
        return int(np.argmax(np.bincount(hits, weights=weights, minlength=len(self.norm)) / self.norm))


def _trigrams(text: str) -> npt.NDArray[np.int64]:
    """The distinct trigrams of the text between spaces, three code points of 21 bits in an integer each."""
    points = np.frombuffer(f"  {text} ".encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    return np.unique(points[:-2] << 42 | points[1:-1] << 21 | points[2:])


def chat_answers(
    model: Transformer,
    tokenizer: Tokenizer,
    records: Sequence[Instruction],
    *,
    batch_size: int = 32,
    slot: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """The model's greedy reply to each record's prompt in the chat template.

    A prompt that leaves no room for an answer in the model's max_seq_len is answered with "".

    Args:
        slot: adapter slot; None: no adapter.
        progress: called with the number of records finished since the last call.
    """
    prompts = [render(tokenizer, prompt(record), add_generation_prompt=True).ids for record in records]
    return _complete(model, tokenizer, records, prompts, batch_size, slot, progress)


def few_shot_answers(
    model: Transformer,
    tokenizer: Tokenizer,
    train: Sequence[Instruction],
    records: Sequence[Instruction],
    form: Form,
    *,
    shots: int = 4,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> list[str]:
    """The greedy answers of a base model that sees `shots` examples of the same task from `train` first.

    The examples of a task are the same for all its records, drawn by a hash of their ids; where they do not all fit
    in the model's max_seq_len the last ones are left out. The plain form is `<eos>` and "Q: question\nA: answer",
    separated by empty lines; what follows the answer is cut off (at the line's end, where the examples' answers have
    one line, else at the next "Q:").
    """
    examples: dict[str, list[Instruction]] = defaultdict(list)
    for record in sorted(with_answer(train), key=lambda record: fraction_of("shots/" + record["id"])):
        if len(examples[record["task"]]) < shots:
            examples[record["task"]].append(record)
    room = _room(tokenizer, records)
    prompts = []
    for record in records:
        shown = list(examples[record["task"]])
        ids = _few_shot_prompt(tokenizer, shown, record, form)
        while shown and len(ids) + room[record["task"]] > model.config.max_seq_len:
            shown.pop()
            ids = _few_shot_prompt(tokenizer, shown, record, form)
        prompts.append(ids)
    answers = _complete(model, tokenizer, records, prompts, batch_size, None, progress)
    if form == "chat":
        return answers
    one_line = {task: all("\n" not in (e["answer"] or "").strip() for e in shown) for task, shown in examples.items()}
    ends = ["\n" if one_line.get(record["task"], True) else "\nQ:" for record in records]
    return [answer.strip().split(end)[0] for answer, end in zip(answers, ends, strict=True)]


@dataclass(frozen=True)
class FewShot:
    """The better of the two forms by overall exact match, and what each of them scored."""

    form: Form
    answers: list[str]
    grades: dict[Form, Grade]


def stronger_few_shot(
    model: Transformer,
    tokenizer: Tokenizer,
    train: Sequence[Instruction],
    records: Sequence[Instruction],
    *,
    shots: int = 4,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> FewShot:
    """`few_shot_answers` in both forms (`progress` counts each record twice); plain where they are equal."""
    forms: tuple[Form, Form] = ("plain", "chat")
    answers = {
        form: few_shot_answers(
            model, tokenizer, train, records, form, shots=shots, batch_size=batch_size, progress=progress
        )
        for form in forms
    }
    grades = {form: grade(records, answers[form]) for form in forms}
    best = max(forms, key=lambda form: grades[form].overall.correct)
    return FewShot(best, answers[best], grades)


def _few_shot_prompt(tokenizer: Tokenizer, shown: Sequence[Instruction], record: Instruction, form: Form) -> list[int]:
    if form == "chat":
        messages: list[dict[str, str]] = []
        for example in shown:
            messages += [*prompt(example), {"role": "assistant", "content": example["answer"] or ""}]
        return render(tokenizer, [*messages, *prompt(record)], add_generation_prompt=True).ids
    turns = [f"Q: {_text(example)}\nA: {(example['answer'] or '').strip()}" for example in shown]
    return [tokenizer.special["<eos>"], *tokenizer.encode("\n\n".join([*turns, f"Q: {_text(record)}\nA:"]))]


def _room(tokenizer: Tokenizer, records: Sequence[Instruction]) -> dict[str, int]:
    """Tokens to generate, by task."""
    longest: dict[str, int] = defaultdict(int)
    for record in records:
        longest[record["task"]] = max(longest[record["task"]], len(tokenizer.encode(record["answer"] or "")))
    return {task: length + SPARE_TOKENS for task, length in longest.items()}


def _complete(
    model: Transformer,
    tokenizer: Tokenizer,
    records: Sequence[Instruction],
    prompts: Sequence[list[int]],
    batch_size: int,
    slot: int | None,
    progress: Progress | None,
) -> list[str]:
    """Greedy continuations as text, task by task: short answers do not wait for long ones."""
    answers = [""] * len(records)
    room = _room(tokenizer, records)
    for task, max_tokens in room.items():
        rows = [row for row, record in enumerate(records) if record["task"] == task]
        fitting = [row for row in rows if len(prompts[row]) + max_tokens <= model.config.max_seq_len]
        if progress is not None:
            progress(len(rows) - len(fitting))
        ids = generate_many(
            model, tokenizer, [prompts[row] for row in fitting], batch_size=batch_size, max_tokens=max_tokens,
            slots_B=None if slot is None else [slot] * len(fitting), progress=progress,
        )  # fmt: skip
        for row, row_ids in zip(fitting, ids, strict=True):
            answers[row] = tokenizer.decode(row_ids)
    return answers
