"""Synthetic mathematics (afm 5.4-5.6): questions out of questions, solutions to them, and what of both is kept.

1. Seeds are rephrased and turned round (MetaMath), made deeper and broader (WizardLM), by a model or by rule.
2. Equal questions go, and evolved ones that are near to an earlier one; a judge drops those without sense or solution.
3. The model solves each N times. The ground truth decides which solutions are right, where there is one; else a judge
   does, the majority of answers where its votes are equal.
4. Difficulty is the share of wrong solutions. Evolved questions that are too easy go, and all that no sample solved.

The report gives neither N nor the threshold nor any prompt; all numbers here are ours. Near questions are found by
n-grams, where the report uses embeddings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pippin.data.mixture import derive
from pippin.data.synthesis import maths_prompts as asks
from pippin.data.synthesis.distinct import Near, duplicates
from pippin.data.synthesis.maths_prompts import Unusable, read_question, read_solution, read_verdict
from pippin.data.synthesis.maths_questions import Origin, Question, by_rule, maskable, plain_answer
from pippin.data.writer import Writer
from pippin.errors import UserError

Check = Callable[[dict[str, Any], str], tuple[bool, str | None]]
"""Verifier and response to whether it is right, and the final answer that was found in it."""

VERDICT_TOKENS = 256
LONGEST_FINAL = 200  # characters of a final answer
EVOLVED: tuple[Origin, ...] = ("deeper", "broader")


@dataclass(frozen=True)
class Plan:
    """How much is made of each seed, and what is kept.

    Attributes:
        rephrased, reversed, broader: questions of each seed.
        deeper: how often it is made harder; each time begins from the last.
        samples: solutions that the model writes to each question (N).
        answers: the most right solutions that are kept of a question.
        easiest: evolved questions with a smaller share of wrong samples go.
        similarity: Jaccard similarity of n-grams from which evolved and rephrased questions count as repeated.
        question_tokens, answer_tokens: the most that the model writes.
        temperature: of questions and solutions; judges are greedy.
        seed: of all draws.
    """

    rephrased: int = 1
    reversed: int = 1
    deeper: int = 1
    broader: int = 1
    samples: int = 4
    answers: int = 2
    easiest: float = 0.2
    similarity: float = 0.7
    question_tokens: int = 256
    answer_tokens: int = 512
    temperature: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rephrased", "reversed", "deeper", "broader"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: value {getattr(self, name)}: must be at least 0")
        for name in ("samples", "answers", "question_tokens", "answer_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: value {getattr(self, name)}: must be at least 1")
        if not 0 <= self.easiest < 1:
            raise UserError(f"easiest: value {self.easiest}: must be at least 0 and below 1")
        if not 0 < self.similarity <= 1:
            raise UserError(f"similarity: value {self.similarity}: must be above 0 and at most 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature: value {self.temperature}: must be at least 0 and finite")

    def calls(self, seeds: int, unknown: int = 0) -> int:
        """The most calls that a model will get, if everything it writes is usable.

        Args:
            seeds: number of seeds.
            unknown: how many of them have no ground truth.
        """
        made = seeds * (self.rephrased + self.reversed + self.deeper + self.broader)
        doubtful = seeds * (self.deeper + self.broader) + unknown * self.rephrased
        return made + doubtful + self.samples * (seeds + made + doubtful + unknown)


class Answered(NamedTuple):
    """A question with its right solutions; `wrong` is the share of samples that were not, None where none were made."""

    question: Question
    solutions: list[str]
    wrong: float | None


def evolve(seeds: Sequence[Question], plan: Plan, writer: Writer | None) -> tuple[list[Question], Counter[str]]:
    """The seeds and their descendants without repetitions, and how many were dropped for which reason.

    Args:
        writer: None: by rule alone.
    """
    made, dropped = list(seeds), Counter[str]()
    origins: tuple[Origin, ...] = ("rephrased", "reversed", "broader", "deeper")
    for origin in origins:
        parents = list(seeds)
        for number in range(getattr(plan, origin)):
            children = (
                [by_rule(parent, origin, number, plan.seed) for parent in parents]
                if writer is None
                else _by_model(parents, origin, number, plan, writer, dropped)
            )
            found = [child for child in children if child is not None]
            if writer is None:
                dropped[f"{origin}: no rule for it"] += len(children) - len(found)
            made += found
            if origin == "deeper":
                parents = found
    firsts = duplicates(
        [question.text for question in made],
        [_near(question, writer is None) for question in made],
        [question.root for question in made],
        plan.similarity,
    )
    kept = []
    for question, first in zip(made, firsts, strict=True):
        if first is None:
            kept.append(question)
        else:
            dropped[f"{question.origin}: repeats another"] += 1
    return kept, +dropped


def _near(question: Question, ruled: bool) -> Near:
    """What is near counts as repeated; but a reversal is near its seed, and so is one more condition on a long one."""
    if question.origin in ("seed", "reversed") or (ruled and question.problem is None):
        return "no"
    return "strangers" if question.origin == "deeper" else "all"


def _by_model(
    parents: Sequence[Question], origin: Origin, number: int, plan: Plan, writer: Writer, dropped: Counter[str]
) -> list[Question | None]:
    hidden: list[str] = []
    if origin == "reversed":
        able = [parent for parent in parents if maskable(parent)]
        dropped["reversed: no number to ask for"] += len(parents) - len(able)
        parents = able
        hidden = [
            numbers[derive(plan.seed, parent.id, number) % len(numbers)]
            for parent, numbers in ((parent, maskable(parent)) for parent in parents)
        ]
        asked = [
            asks.ask_reversed(parent.text, str(plain_answer(parent)), x)
            for parent, x in zip(parents, hidden, strict=True)
        ]
    else:
        ask = {"rephrased": asks.ask_rephrased, "deeper": asks.ask_deeper, "broader": asks.ask_broader}[origin]
        asked = [ask(parent.text) for parent in parents]
    texts = writer.write(
        asked, max_tokens=plan.question_tokens, temperature=plan.temperature, seed=derive(plan.seed, origin, number)
    )
    children: list[Question | None] = []
    for place, (parent, (text,)) in enumerate(zip(parents, texts, strict=True)):
        try:
            question = read_question(text)
            answer = None
            if origin == "rephrased":
                answer = _checked_rephrasing(question, parent)
            elif origin == "reversed":
                answer = _checked_reversal(question, str(plain_answer(parent)), hidden[place])
        except Unusable as error:
            dropped[f"{origin}: {error}"] += 1
            children.append(None)
        else:
            children.append(parent.child(origin, number, question, answer))
    return children


def _numbers(text: str) -> set[str]:
    return {number.replace(",", "") for number in asks.NUMBER.findall(text)}


def _checked_rephrasing(question: str, parent: Question) -> str | None:
    """The parent's answer, if the question has all of its numbers."""
    if _numbers(parent.text) - _numbers(question):
        raise Unusable("a number is missing")
    return parent.answer


def _checked_reversal(question: str, given: str, hidden: str) -> str:
    """The hidden number, if the question gives the answer and not that number."""
    numbers = _numbers(question)
    if given not in numbers:
        raise Unusable("the answer is not given")
    if hidden in numbers and hidden != given:
        raise Unusable("the number is not hidden")
    return hidden


def sound(questions: Sequence[Question], writer: Writer) -> tuple[list[Question], int]:
    """The questions without those made ones that have no ground truth and that the judge finds wanting; how many."""
    doubtful = [question for question in questions if question.answer is None and question.origin != "seed"]
    said = writer.write([asks.ask_sound(q.text) for q in doubtful], max_tokens=VERDICT_TOKENS, temperature=0.0)
    refused = {q.id for q, (text,) in zip(doubtful, said, strict=True) if not read_verdict(text)}
    return [question for question in questions if question.id not in refused], len(refused)


class _Sample(NamedTuple):
    """A solution, the final answer in it, whether the ground truth has that answer."""

    solution: str
    final: str
    right: bool


def solve(
    questions: Sequence[Question], plan: Plan, writer: Writer, check: Check
) -> tuple[list[Answered], Counter[str]]:
    """The questions with the right ones of N solutions each, and how many were dropped for which reason."""
    texts = writer.write(
        [asks.ask_solved(question.text, question.kind) for question in questions],
        n=plan.samples, max_tokens=plan.answer_tokens, temperature=plan.temperature, seed=derive(plan.seed, "solve"),
    )  # fmt: skip
    dropped = Counter[str]()
    samples = [_read(question, texts_, check, dropped) for question, texts_ in zip(questions, texts, strict=True)]
    unknown = [(q, found) for q, found in zip(questions, samples, strict=True) if q.answer is None]
    judged = iter(_judged(unknown, writer))
    answered = []
    for question, found in zip(questions, samples, strict=True):
        if question.answer is None:
            verdicts = next(judged)
            chosen = choose([(sample.final, yes) for sample, yes in zip(found, verdicts, strict=True)])
            if chosen is None:
                dropped[f"{question.origin}: no answer that the judge accepts"] += 1
                continue
            question = replace(question, answer=chosen)
            found = [sample._replace(right=sample.final == chosen) for sample in found]
            solutions = [s.solution for s, yes in zip(found, verdicts, strict=True) if s.right and yes]
        else:
            solutions = [sample.solution for sample in found if sample.right]
        wrong = 1 - sum(sample.right for sample in found) / plan.samples
        if not solutions:
            dropped[f"{question.origin}: no right answer"] += 1
        elif question.origin in EVOLVED and wrong < plan.easiest:
            dropped[f"{question.origin}: too easy"] += 1
        else:
            answered.append(Answered(question, list(dict.fromkeys(solutions))[: plan.answers], wrong))
    return answered, dropped


def _read(question: Question, texts: Sequence[str], check: Check, dropped: Counter[str]) -> list[_Sample]:
    """The samples that can be read and come to a final answer."""
    # Where nobody knows the answer any will do: what counts is the final answer that is found.
    verifier = {"kind": question.kind, "answer": question.answer or "0"}
    found: list[_Sample] = []
    for text in texts:
        try:
            solution = read_solution(text)
        except Unusable as error:
            dropped[f"solution: {error}"] += 1
            continue
        right, final = check(verifier, solution)
        if final is None or len(final) > LONGEST_FINAL:
            dropped["solution: no final answer"] += 1
            continue
        if question.answer is None:  # equal values in other forms are one answer, in the form of the first
            finals = dict.fromkeys(sample.final for sample in found)
            final = next((f for f in finals if check({"kind": question.kind, "answer": f}, solution)[0]), final)
        found.append(_Sample(solution, final, right))
    return found


def _judged(asked: Sequence[tuple[Question, Sequence[_Sample]]], writer: Writer) -> list[list[bool]]:
    """Whether the judge accepts each sample of each question."""
    conversations = [asks.ask_right(question.text, s.solution) for question, samples in asked for s in samples]
    said = iter(writer.write(conversations, max_tokens=VERDICT_TOKENS, temperature=0.0))
    return [[read_verdict(next(said)[0]) for _ in samples] for _, samples in asked]


def choose(votes: Sequence[tuple[str, bool]]) -> str | None:
    """The final answer with most of the judge's votes; of equals the one with most samples; None where that is equal.

    Args:
        votes: final answer of each sample, and whether the judge accepts it. An answer needs one vote at least.
    """
    accepted = Counter(final for final, yes in votes if yes)
    often = Counter(final for final, _ in votes)
    ranked = sorted(accepted, key=lambda final: (accepted[final], often[final]), reverse=True)
    if not ranked:
        return None
    rank = [(accepted[final], often[final]) for final in ranked[:2]]
    return None if len(rank) == 2 and rank[0] == rank[1] else ranked[0]


def by_rules(questions: Sequence[Question]) -> tuple[list[Answered], Counter[str]]:
    """The questions whose answer is known, with the solution of a template where there is one."""
    known = [question for question in questions if question.answer is not None]
    dropped = Counter({"no answer is known": len(questions) - len(known)})
    return [Answered(q, [q.solution] if q.solution else [], None) for q in known], +dropped


def prompt_row(answered: Answered) -> dict[str, Any]:
    """A line of prompts (`data.prompts`), with origin, difficulty and the steps of a template beside its fields."""
    question = answered.question
    return {
        "id": question.id,
        "split": question.split,
        "messages": [{"role": "user", "content": question.text}],
        "verifier": {"kind": question.kind, "answer": question.answer},
        "source": question.source,
        "origin": question.origin,
        "difficulty": answered.wrong,
        "steps": len(question.problem.steps) if question.problem is not None else None,
    }


def conversation_rows(answered: Answered) -> list[dict[str, Any]]:
    """Lines of conversations (`data.conversations`), one a solution; of held-out questions none."""
    question = answered.question
    if question.split == "heldout":
        return []
    return [
        {
            "id": f"{question.id}#{number}",
            "messages": [{"role": "user", "content": question.text}, {"role": "assistant", "content": solution}],
            "source": question.source,
            "origin": question.origin,
        }
        for number, solution in enumerate(answered.solutions)
    ]


def summary(questions: Sequence[Question], answered: Sequence[Answered], dropped: Mapping[str, int]) -> dict[str, Any]:
    """Different questions and kept ones by origin, the mean difficulty of what was kept, why the rest was dropped."""
    kept = Counter(each.question.origin for each in answered)
    wrong: dict[str, list[float]] = {}
    for each in answered:
        if each.wrong is not None:
            wrong.setdefault(each.question.origin, []).append(each.wrong)
    return {
        "questions": dict(sorted(Counter(question.origin for question in questions).items())),
        "kept": dict(sorted(kept.items())),
        "difficulty": {origin: sum(values) / len(values) for origin, values in sorted(wrong.items())},
        "dropped": dict(sorted(dropped.items())),
    }
