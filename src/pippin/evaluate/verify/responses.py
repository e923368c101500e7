"""`pippin eval`: the verdicts on a file of responses, by the verifiers of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pippin.data.rows import read_rows
from pippin.errors import UserError
from pippin.evaluate.verify.ifeval import check_ifeval
from pippin.evaluate.verify.maths import MathChecker, check_gsm8k
from pippin.evaluate.verify.tools import check_tools
from pippin.evaluate.verify.verdict import Verdict
from pippin.files import write_json

Grade = Literal["gsm8k", "math", "ifeval", "code", "tools"]
Row = Mapping[str, Any]
_KINDS: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}


def _field(row: Row, name: str, *kinds: type) -> Any:
    if name not in row:
        raise UserError(f"{name}: missing; the fields are in docs/verify.md")
    if not isinstance(row[name], kinds):
        expected = " or ".join(_KINDS[kind] for kind in kinds)
        raise UserError(f"{name}: {str(row[name])[:60]!r} is {type(row[name]).__name__}; expected {expected}")
    return row[name]


def _objects(row: Row, name: str) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = _field(row, name, list)
    for value in values:
        if not isinstance(value, dict):
            raise UserError(f"{name}: {str(value)[:60]!r} is no object")
    return values


def _gsm8k(row: Row) -> Verdict:
    return check_gsm8k(_field(row, "answer", str), _field(row, "response", str))


def _ifeval(row: Row) -> Verdict:
    names = _field(row, "instruction_id_list", list)
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"instruction_id_list: {name!r} is no text")
    return check_ifeval(names, _objects(row, "kwargs"), _field(row, "response", str))


def _tools(row: Row) -> Verdict:
    functions = [row["function"]] if isinstance(row.get("function"), dict) else _objects(row, "function")
    for function in functions:
        _field(function, "name", str)
        _field(_field(function, "parameters", dict), "properties", dict)
    truth = _objects(row, "ground_truth") if row.get("ground_truth") is not None else None
    for expected in truth or []:
        for name, options in expected.items():
            if len(expected) != 1 or not isinstance(options, dict):
                raise UserError(f"ground_truth: {name}: expected one {{name: {{argument: [values]}}}} for each call")
            for argument in options:
                _field(options, argument, list)
        if not expected:
            raise UserError("ground_truth: an empty object; expected {name: {argument: [values]}}")
    if "response" not in row:
        _field(row, "response", str)
    return check_tools(functions, truth, row["response"])


def grader(grade: Grade, stack: ExitStack) -> Callable[[Row], Verdict]:
    """What gives the verdict on one row, whose fields are in docs/verify.md; what it holds open closes with the stack.

    It raises UserError with the field that cannot be graded.

    Raises:
        UserError: a missing dependency.
    """
    if grade == "math":
        checker = stack.enter_context(MathChecker())

        def maths(row: Row) -> Verdict:
            reference = _field(row, "answer" if "answer" in row else "solution", str)
            return checker.check(reference, _field(row, "response", str))

        return maths
    if grade == "code":
        from pippin.evaluate.verify import code
        from pippin.safety.sandbox import Sandbox

        sandbox = Sandbox()
        return lambda row: code.check(row, _field(row, "completion", str), sandbox)
    return {"gsm8k": _gsm8k, "ifeval": _ifeval, "tools": _tools}[grade]


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The objects of a file of responses with their numbers from 1."""
    for number, row in read_rows(path, "responses"):
        if not isinstance(row, dict):
            problem = str(row) if isinstance(row, ValueError) else f"a {type(row).__name__}; an object is expected"
            raise UserError(f"{path}:{number}: {problem}")
        yield number, row


def verdicts(grade: Grade, path: Path) -> Iterator[Verdict]:
    """The verdict on each response of a file, in its order (see `data.rows`). Fields: docs/verify.md.

    Raises:
        UserError: the file, the line and the field that cannot be graded, or a missing dependency.
    """
    with ExitStack() as stack:
        judge = grader(grade, stack)
        for number, row in _rows(path):
            try:
                yield judge(row)
            except UserError as error:
                raise UserError(f"{path}:{number}: {error}") from None


def as_item(index: int, verdict: Verdict) -> dict[str, Any]:
    """The JSON form of one verdict."""
    item = {
        "index": index,
        "correct": verdict.correct,
        "extracted": verdict.extracted,
        "detail": verdict.detail,
    }
    if verdict.strict is not None and verdict.loose is not None:
        item |= {"strict": list(verdict.strict), "loose": list(verdict.loose)}
    return item


def grade_file(grade: Grade, path: Path, out: Path | None) -> None:
    """Grade a file of responses, print the accuracy, and write {"items": [...], "accuracy"} if a file is named.

    Raises:
        UserError: as `verdicts`, or the file holds no response. Nothing is written then.
    """
    found = list(verdicts(grade, path))
    if not found:
        raise UserError(f"{path}: holds no response")
    right = sum(verdict.correct for verdict in found)
    print(f"{grade}: {right} of {len(found)} correct, accuracy {right / len(found):.4f}")
    if grade == "ifeval":
        _print_ifeval(found)
    if out is not None:
        items = [as_item(index, verdict) for index, verdict in enumerate(found)]
        write_json(out, {"items": items, "accuracy": right / len(found)})
        print(f"written: {out}")


def _print_ifeval(found: list[Verdict]) -> None:
    """The four numbers of the paper: by prompt and by instruction, strict and loose."""
    from pippin.evaluate.verify.sentences import parameters_in_use

    for name in ("strict", "loose"):
        lists: list[tuple[bool, ...]] = [getattr(verdict, name) for verdict in found]
        flat = [passed for verdict in lists for passed in verdict]
        prompts = sum(all(verdict) for verdict in lists) / len(lists)
        print(f"{name}: prompts {prompts:.4f}, instructions {sum(flat) / max(1, len(flat)):.4f}")
    if parameters_in_use() == "own":
        print("note: without NLTK's punkt_tab sentences are counted with our own abbreviations (docs/verify.md)")
