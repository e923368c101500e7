"""README's result tables, made from the committed results: `python -m pippin.bench.tables` rewrites them in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pippin import files
from pippin.errors import UserError

BEGIN, END = "<!-- results: made by python -m pippin.bench.tables -->", "<!-- end of results -->"


def markdown(result: dict[str, Any]) -> str:
    """One result as Markdown: what was measured, then what was aimed at."""
    machine = result["machine"]
    lines = [
        f"**{result['bench']}** on {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, "
        f"{result['date'][:10]}: median, with the range over repeats or seeds",
        "",
        "| case | system | metric | value | range |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        value = "not measured" if row["value"] is None else f"{_number(row['value'])} {row['unit']}"
        spread = "" if row["low"] is None else f"{_number(row['low'])} to {_number(row['high'])}"
        lines.append(f"| {row['case']} | {row['system']} | {row['metric']} | {value} | {spread} |")
    lines += ["", "| aim | versus | reached | aim | met |", "|---|---|---|---|---|"]
    for ratio in result["ratios"]:
        value = "not measured" if ratio["value"] is None else _number(ratio["value"])
        met = "yes" if ratio["met"] else f"**no** {ratio['reason']}".strip()
        aim = f"{'at least' if ratio['direction'] == '>=' else 'at most'} {ratio['aim']:g}"
        lines.append(f"| {ratio['case']}: {ratio['metric']} | {ratio['versus']} | {value} | {aim} | {met} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def rewrite(readme: Path, results: Path) -> None:
    """Put the tables of all `results/*.json` between the two marks of `readme`.

    Raises:
        UserError: the marks are missing.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme}: lacks the marks {BEGIN} and {END}")
    tables = [markdown(files.read_json(path)) for path in sorted(results.glob("*.json"))]
    files.write_text(readme, before + "\n\n".join([BEGIN, *tables, END]) + after)


if __name__ == "__main__":
    rewrite(Path("README.md"), Path("benchmarks/results"))
