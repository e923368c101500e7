"""Guards of conversations before they are learnt: rules, each with the evidence that it dropped something for.

The report names human ratings, model-based filters and deduplication (afm 6.1), and no rules: these and their limits
are ours. They look at what the assistant says, as that is what is learnt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pippin.data.records import Message
from pippin.data.rules import repeats
from pippin.data.words import normalise
from pippin.errors import UserError

RULES = ("no words", "short", "long", "question again", "refusal", "encoding", "repetition", "other language")
SHOWN = 80  # characters of evidence
_ECHO_WORDS = 3  # in a question that an answer may not only repeat; "Tea?" may be answered "Tea."
_REPEATED_WORDS = 20  # in an answer whose repetitions are judged
_LANGUAGE_CHARS = 40  # in a text whose language is judged
_SURE = 0.7  # confidence in both languages

# At the beginning of an answer. What a model is, it also says before it helps: a "not" must follow in the sentence.
_REFUSAL = re.compile(
    r"(?:i['’]?m sorry|sorry|i apologi[sz]e|unfortunately)?[ ,.;:–—-]*(?:but )?"
    r"(?:(?:as|being|i am|i['’]m)(?: just| only)? an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"[^.!?\n]{0,80}?\b(?:can ?not|can['’]t|not|don['’]t|won['’]t|unable|have no)\b"
    r"|i (?:can ?not|can['’]t|am (?:not able|unable) to|won['’]t|will not) "
    r"(?:help|assist|comply|answer|fulfil|provide|do (?:that|this)|engage|discuss|create|write|generate))",
    re.IGNORECASE,
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff]")
_FOREIGN = re.compile("[^\x00-\x7f]{2,}")


@dataclass(frozen=True)
class Limits:
    """What an assistant's message may be; None or False turns a rule off.

    Attributes:
        min_chars, max_chars: length, white space at both ends aside.
        echo: whether repeating the question and no more is dropped.
        refusals: whether answers that begin with a refusal are dropped; keep those that are meant as such elsewhere.
        broken: whether control and private characters, U+FFFD and UTF-8 read as Windows-1252 are dropped.
        max_repeated: share of the words that are in five words on end which came before in the answer.
        same_language: whether an answer must be in its question's language; needs the `data` extra. Off by default:
            a translation is none of its question's language.
    """

    min_chars: int | None = 1
    max_chars: int | None = 20_000
    echo: bool = True
    refusals: bool = True
    broken: bool = True
    max_repeated: float | None = 0.5
    same_language: bool = False

    def __post_init__(self) -> None:
        for name in ("min_chars", "max_chars", "max_repeated"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise UserError(f"limits.{name}: value {value}: must be at least 0")


def broken_rules(messages: Sequence[Message], limits: Limits) -> dict[str, str]:
    """The rules (of `RULES`, in that order) that a conversation breaks, each with the first evidence."""
    found: dict[str, str] = {}
    for question, answer in _answers(messages):
        for rule, evidence in _problems(question, answer, limits):
            found.setdefault(rule, " ".join(evidence.split())[:SHOWN])
    return {rule: found[rule] for rule in RULES if rule in found}


def _answers(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Every assistant's message with the user's message right before it, "" if that is not the user's."""
    nothing: Message = {"role": "", "content": ""}
    for before, message in pairwise([nothing, *messages]):
        if message["role"] == "assistant":
            yield before["content"] if before["role"] == "user" else "", message["content"].strip()


def _problems(question: str, answer: str, limits: Limits) -> Iterator[tuple[str, str]]:
    words = normalise(answer).split()
    if not words:
        yield "no words", repr(answer)
    if limits.min_chars is not None and len(answer) < limits.min_chars:
        yield "short", f"{len(answer)} characters: {answer}"
    if limits.max_chars is not None and len(answer) > limits.max_chars:
        yield "long", f"{len(answer)} characters: {answer}"
    if limits.echo and len(words) >= _ECHO_WORDS and words == normalise(question).split():
        yield "question again", answer
    if limits.refusals and (refused := _REFUSAL.match(answer)):
        yield "refusal", refused[0]
    if limits.broken and (wrong := _undecoded(answer)):
        yield "encoding", wrong
    if limits.max_repeated is not None and len(words) >= _REPEATED_WORDS:
        share = _repeated(words)
        if share > limits.max_repeated:
            yield "repetition", f"{share:.2f} of the words: {answer}"
    if limits.same_language and (told := _languages(question, answer)):
        yield "other language", told


def _undecoded(text: str) -> str:
    """The first character that no text has, by its number, or the first run of letters that are UTF-8 misread."""
    if found := _CONTROL.search(text):
        return f"U+{ord(found[0]):04X} at character {found.start() + 1}"
    for run in _FOREIGN.finditer(text):
        try:
            return f"{run[0]} for {run[0].encode('cp1252').decode('utf-8')}"
        except UnicodeError:  # what is no such misreading nearly always fails at one of the two
            continue
    return ""


def _repeated(words: Sequence[str]) -> float:
    _, ids = np.unique(np.array(words), return_inverse=True)
    return repeats.measure(ids.astype(np.int64), np.ones(len(words), np.int64))["repeated_5_grams"]


def _languages(question: str, answer: str) -> str:
    from pippin.data.rules.language import detect  # needs an extra that the other rules do without

    if min(len(question), len(answer)) < _LANGUAGE_CHARS:
        return ""
    (asked, sure), (said, surer) = detect(question), detect(answer)
    return f"{said}, asked in {asked}" if asked != said and min(sure, surer) >= _SURE else ""
