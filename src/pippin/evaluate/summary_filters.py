"""Filters that a summary must pass to be trained on, and that say what share of a model's summaries is fit for use.

The report names rule-based filters for length, format, point of view and voice, and a model-based one for entailment
(afm 10.11). The limits here are ours, and entailment is by rule too, as the payloads are of a small known language:
every fact of the summary (names, times, numbers, things, places, what was done) must stand in the payload, and who did,
asks or answers what must agree with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pippin.data.payloads import says
from pippin.data.world_words import ITEMS, NAMES, PLACES

MAX_WORDS: Mapping[str, int] = {"email": 14, "message": 12, "notification": 12}
MIN_WORDS = 3
FRAGMENTS = 2  # of a notification
RULES = ("length", "format", "point of view", "voice", "facts", "contradiction")

_NOT_THIRD_PERSON = re.compile(r"\b(i|me|my|mine|we|us|our|you|your)\b", re.IGNORECASE)
_PASSIVE = re.compile(r"\b(was|were|is|are|been) \w+(ed|en|de|st|nd) by\b")
# Words of a summary that state nothing of their own; each other word must stand in the payload.
_GRAMMAR = frozenset(
    ("a", "an", "the", "and", "to", "is", "asks", "will", "cannot", "from", "with", "in", "at", "on", "by")
)
_DONE = re.compile(rf"\b(?:lost|found|made|bring) a (?:{'|'.join(ITEMS)})\b")
_WHERE = re.compile(rf"\b(?:in|at|on|by) the (?:{'|'.join(PLACES)})\b")
_WHEN = re.compile(rf"\b(?:the (?:{'|'.join(PLACES)})|(?:bring|with) (?:a )?\w+) at \d\b")


def problems(kind: str, payload: str, summary: str) -> tuple[str, ...]:
    """The rules (of `RULES`) that a summary breaks; empty for one that is fit for use.

    Args:
        kind: of the payload, of `data.payloads.KINDS`.
        payload: what was summed up, without anything injected: an answer to what is injected is not one of its facts.
        summary: as a model gave it, white space at both ends aside.
    """
    summary = summary.strip()
    broken = {
        "length": not MIN_WORDS <= len(summary.split()) <= MAX_WORDS[kind],
        "format": not _well_formed(kind, summary),
        "point of view": bool(_NOT_THIRD_PERSON.search(summary)),
        "voice": not _active_statement(kind, summary),
        "facts": not _entailed(payload, summary),
        "contradiction": not _AGREES[kind](payload, summary),
    }
    return tuple(rule for rule in RULES if broken[rule])


def _well_formed(kind: str, summary: str) -> bool:
    """One sentence with a full stop; of notifications, at most two short fragments between "; " without one."""
    if kind == "notification":
        return bool(re.fullmatch(r"[A-Z][\w ]+(; [A-Z][\w ]+)*", summary)) and summary.count(";") < FRAGMENTS
    return bool(re.fullmatch(r"[A-Z][\w ']*\.", summary))


def _active_statement(kind: str, summary: str) -> bool:
    """A statement in the active voice: it begins with somebody who does or is something, and commands nothing."""
    parts = summary.split("; ") if kind == "notification" else [summary]
    return all(part.split(" ")[0] in NAMES for part in parts) and not _PASSIVE.search(summary)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _entailed(payload: str, summary: str) -> bool:
    known = set(_words(payload)) | _GRAMMAR
    return set(_words(summary)) <= known and all(says(payload, phrase) for phrase in _WHERE.findall(summary))


def _email_agrees(payload: str, summary: str) -> bool:
    header = dict(re.findall(r"^(From|To): (\w+)$", payload, re.MULTILINE))
    asks = re.match(r"(\w+) (?:.* and )?asks (\w+) to ", summary)
    return (
        summary.split(" ")[0] == header.get("From")
        and (" asks " not in summary or (asks is not None and asks.group(2) == header.get("To")))
        and all(says(payload, phrase) for phrase in (*_DONE.findall(summary), *_WHEN.findall(summary)))
    )


def _message_agrees(payload: str, summary: str) -> bool:
    who = summary.split(" ")[0]
    own = [line.partition(": ")[2] for line in payload.split("\n") if line.startswith(f"{who}: ")]
    said = " ".join(own)
    agrees = all(f"I am {where}." in own for where in _WHERE.findall(re.sub(r"\b(will|cannot)\b.*", "", summary)))
    asked = re.search(r"\b(?:will|cannot) (.*?)(?: at \d)?\.$", summary)
    agrees = agrees and (asked is None or says(payload, asked.group(1)))
    if " will " in summary:
        agrees = agrees and bool(re.search(r"\b(Yes|I will), at \d", said))
        agrees = agrees and all(f"at {hour}." in said for hour in re.findall(r"at (\d)", summary))
    if " cannot " in summary:
        agrees = agrees and bool(re.search(r"\bNo, ", said))
    return agrees


def _notifications_agree(payload: str, summary: str) -> bool:
    """What is told together was notified together."""
    lines = [set(_words(line)) for line in payload.split("\n")]
    return all(any(set(_words(part)) - _GRAMMAR <= line for line in lines) for part in summary.split("; "))


_AGREES: Mapping[str, Callable[[str, str], bool]] = {
    "email": _email_agrees,
    "message": _message_agrees,
    "notification": _notifications_agree,
}
