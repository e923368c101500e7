"""Two tools that really run: Python in the sandbox, and search in a local corpus. Both answer with text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pippin.data.synthesis.tools import Parameter, Tool
from pippin.data.synthesis.tools_search import Index, Passage
from pippin.safety.sandbox import Limits, Sandbox

PYTHON_LIMITS = Limits(seconds=5, memory=256 << 20, output=64 << 10)
LONGEST_OUTPUT = 2_000  # characters of what a program prints that the model gets to see
LONGEST_PASSAGE = 600  # characters of a passage


def _text(name: str, description: str) -> dict[str, Parameter]:
    return {name: Parameter({"type": "string", "description": description}, lambda draw: "")}


def _nothing(draw: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {}


PYTHON = Tool(
    "python", "real", "Runs a Python program with the standard library and returns what it prints.",
    _text("code", "the program"), (), ("python", "program"), (), _nothing, "",
)  # fmt: skip
SEARCH = Tool(
    "search", "real", "Looks for words in the local documents and returns the best passages.",
    _text("query", "words to look for"), (), ("search", "look"), (), _nothing, "",
)  # fmt: skip


class PythonTool:
    """Runs programs of a model, each in a sandbox of its own.

    Raises:
        UserError: isolation is not to be had here (`safety.sandbox`); nothing is run then.
    """

    def __init__(self) -> None:
        self._sandbox = Sandbox(PYTHON_LIMITS)

    def run(self, code: str) -> str:
        """What the program printed; where it failed, that and the last line of the error; cut to 2,000 characters."""
        outcome = self._sandbox.run({"main.py": code})
        printed = outcome.stdout.rstrip("\n")
        if outcome.status == "ok":
            return printed[:LONGEST_OUTPUT]
        lines = outcome.stderr.strip().splitlines()
        reason = lines[-1] if outcome.status == "error" and lines else f"ended: {outcome.status}"
        return f"{printed[:LONGEST_OUTPUT]}\n{reason[:200]}".lstrip("\n")


class SearchTool:
    """Looks things up in passages with BM25."""

    def __init__(self, passages: Sequence[Passage], k: int = 3) -> None:
        self._passages, self._k = list(passages), k
        self._index = Index([f"{passage.name} {passage.text}" for passage in self._passages])

    def run(self, query: str) -> str:
        """The best passages as JSON, [{"name", "text"}], each cut to 600 characters."""
        hits = [self._passages[found.number] for found in self._index.search(query, self._k)]
        return json.dumps([{"name": hit.name, "text": hit.text[:LONGEST_PASSAGE]} for hit in hits], ensure_ascii=False)
