"""What makes a document worth training on: each rule gives its reason, so that nothing is dropped without one.

The thresholds are ours, set by looking at what they drop from the standard library: they
keep ordinary prose and source code and drop tables, minified and generated files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

MIN_CHARS = 60
MIN_LETTERS = 0.45  # of the characters that are not space; code has about 0.75, prose 0.95, tables of numbers 0.1
MAX_LINE_CHARS = 1_000
MAX_MEAN_LINE_CHARS = 200
MAX_REPEATED_LINES = 0.5

# Said in a comment or docstring near the top.
_GENERATED = re.compile(
    r'^\W*(#|//|/\*|\*|<!--|"""|\'\'\').*(do not edit|auto-?generated|generated (automatically|by|from))',
    re.IGNORECASE | re.MULTILINE,
)


def problem(text: str) -> str | None:
    """Why a document is to be dropped, or None to keep it."""
    for rule in _RULES:
        reason = rule(text)
        if reason:
            return reason
    return None


def _length(text: str) -> str | None:
    return "too short" if len(text.strip()) < MIN_CHARS else None


def _binary(text: str) -> str | None:
    return "control characters" if "\0" in text or "\ufffd" in text else None


def _letters(text: str) -> str | None:
    dense = "".join(text.split())
    letters = sum(map(str.isalpha, dense))
    return "mostly symbols or numbers" if letters < MIN_LETTERS * len(dense) else None


def _long_lines(text: str) -> str | None:
    lines = text.split("\n")
    if max(map(len, lines)) > MAX_LINE_CHARS and text.count(" ") < 0.1 * len(text):
        return "minified or encoded data"
    mean = len(text) / len(lines)
    return "minified or encoded data" if mean > MAX_MEAN_LINE_CHARS and text.count(" ") < 0.1 * len(text) else None


def _generated(text: str) -> str | None:
    return "generated file" if _GENERATED.search(text[:600]) else None


def _repeated(text: str) -> str | None:
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if len(line) > 3]  # brackets and the like repeat in any code
    if len(lines) < 10:
        return None
    return "repeated lines" if len(lines) - len(set(lines)) > MAX_REPEATED_LINES * len(lines) else None


_RULES: tuple[Callable[[str], str | None], ...] = (_length, _binary, _long_lines, _letters, _generated, _repeated)


def content_key(text: str) -> bytes:
    """Digest of a text without regard to case and spacing: SHA-256, so that equal keys mean equal texts."""
    return hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "surrogatepass")).digest()
