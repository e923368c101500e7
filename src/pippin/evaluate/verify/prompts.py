"""Verdicts on answers to prompts that carry their verifier (`data.prompts`): what rewards and evaluation share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from pippin.data.prompts import Prompt
from pippin.errors import UserError
from pippin.evaluate.verify.responses import Row, grader
from pippin.evaluate.verify.verdict import Verdict


def check_exact(answer: str, response: str) -> Verdict:
    """Whether a response is the answer, white space at both ends aside."""
    said, expected = response.strip(), answer.strip()
    return Verdict(said == expected, said, "equal" if said == expected else f"expected {expected[:60]!r}")


class Verifier:
    """The verdicts of prompts' verifiers. A context manager: it keeps the child that reads mathematics until its end.

    Not for several threads at once.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._graders: dict[str, Callable[[Row], Verdict]] = {}

    def __enter__(self) -> Verifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._graders.clear()
        self._stack.close()

    def check(self, prompt: Prompt, response: str) -> Verdict:
        """The verdict on one response to a prompt.

        Raises:
            UserError: the prompt has no verifier, one of its fields cannot be used, or a dependency is missing.
        """
        verifier = prompt["verifier"]
        if verifier is None:
            raise UserError(f"prompt {prompt['id']}: has no verifier; give one, or let a grader judge")
        try:
            return self._check(verifier, response)
        except UserError as error:
            raise UserError(f"prompt {prompt['id']}: verifier: {error}") from None

    def _check(self, verifier: dict[str, Any], response: str) -> Verdict:
        kind = verifier["kind"]
        if kind == "exact":
            return check_exact(verifier["answer"], response)
        if kind not in self._graders:
            self._graders[kind] = grader(kind, self._stack)
        return self._graders[kind](verifier | {"response": response, "completion": response})
