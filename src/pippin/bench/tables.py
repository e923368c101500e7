"""Result tables from the committed results: `python -m pippin.bench.tables` rewrites README and docs/results.md.

README shows what was aimed at and what came out; docs/results.md every row.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pippin import files
from pippin.errors import UserError

WIDE = {"device"}
"""Benches of many systems with the same metrics: a table a case, a row a system, a column a metric."""
_COLUMN = 4  # systems that have a metric, for a column of it

BEGIN, END = "<!-- results: made by python -m pippin.bench.tables -->", "<!-- end of results -->"


def aims(results: list[dict[str, Any]]) -> str:
    """Every aim of every result, one line each."""
    lines = ["| bench | what | versus | reached | aim | met |", "|---|---|---|---|---|---|"]
    for result in results:
        for ratio in result["ratios"]:
            value = "not measured" if ratio["value"] is None else _number(ratio["value"])
            reason = (ratio["reason"] or "").partition("; of the time of")[0]  # the rows have the profile, too
            met = "yes" if ratio["met"] else f"**no** {reason}".strip()
            aim = f"{'at least' if ratio['direction'] == '>=' else 'at most'} {ratio['aim']:g}"
            what = f"{ratio['case']}: {ratio['metric']}"
            lines.append(f"| {result['bench']} | {what} | {ratio['versus']} | {value} | {aim} | {met} |")
    return "\n".join(lines)


def rows(result: dict[str, Any]) -> str:
    """One result as Markdown, row by row."""
    machine = result["machine"]
    lines = [
        f"## {result['bench']}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, {result['date'][:10]}: median, with "
        "the range over repeats or seeds.",
        "",
    ]
    listed = result["rows"]
    if result["bench"] in WIDE:
        tables, listed = _wide(listed)
        lines += tables
    lines += [
        "| case | system | metric | value | range |",
        "|---|---|---|---|---|",
    ]
    for row in listed:
        value = "not measured" if row["value"] is None else f"{_number(row['value'])} {row['unit'].removeprefix('1')}"
        spread = "" if row["low"] is None else f"{_number(row['low'])} to {_number(row['high'])}"
        lines.append(f"| {row['case']} | {row['system']} | {row['metric']} | {value.strip()} | {spread} |")
    return "\n".join(lines)


def _wide(rows: list[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """A table for each case, and the rows that are in none."""
    lines, left = [], []
    for case in dict.fromkeys(row["case"] for row in rows):
        found = [row for row in rows if row["case"] == case]
        counts = Counter(row["metric"] for row in found if row["value"] is not None)
        columns = [metric for metric, count in counts.items() if count >= _COLUMN]
        cells = {(row["system"], row["metric"]): _cell(row) for row in found if row["metric"] in columns}
        left += [row for row in found if row["metric"] not in columns]
        if columns:
            units = {row["metric"]: row["unit"] for row in found}
            heads = [f"{metric} [{units[metric]}]".removesuffix(" [1]") for metric in columns]
            lines += [f"| {case} | {' | '.join(heads)} |", "|---" * (1 + len(columns)) + "|"]
            for system in dict.fromkeys(system for system, _ in cells):
                lines.append(f"| {system} | {' | '.join(cells.get((system, metric), '') for metric in columns)} |")
            lines.append("")
    return lines, left


def _cell(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "not measured"
    low, value, high = (
        "" if row[key] is None else f"{row[key] / 1e6:,.0f} M" if row[key] >= 1e6 else f"{row[key]:.3g}"
        for key in ("low", "value", "high")
    )
    return f"{value} ({low} to {high})" if low else value


def _number(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def rewrite(page: Path, text: str) -> None:
    """Put `text` between the two marks of `page`.

    Raises:
        UserError: the marks are missing.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page}: lacks the marks {BEGIN} and {END}")
    files.write_text(page, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    found = [files.read_json(path) for path in sorted(Path("benchmarks/results").glob("*.json"))]
    rewrite(Path("README.md"), aims(found))
    rewrite(Path("docs/results.md"), "\n\n".join(rows(result) for result in found))
