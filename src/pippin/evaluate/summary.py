"""The end of a run in the terminal: a table, three answers, and what to type next."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 110


def summary_text(results: Mapping[str, Any], report: Path) -> str:
    """Plain text of `results` (the dict of `evaluate.page`), about 40 lines of at most 110 columns."""
    out = Console(file=io.StringIO(), width=WIDTH, highlight=False, color_system=None)
    texts = list(results["texts"])
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for column in ("parameters", "bits/weight", "bits, whole file", *(f"bpb {text}" for text in texts), "seconds"):
        table.add_column(column, justify="right")
    for row in results["stages"]:
        table.add_row(
            escape(row["name"]),
            f"{row['parameters']:,}" if "parameters" in row else "",
            f"{row['bits_per_weight']:.2f}" if "bits_per_weight" in row else "",
            f"{row['bits_whole_file']:.2f}" if "bits_whole_file" in row else "",
            *(f"{row['bits_per_byte'][t]:.3f}" if t in row["bits_per_byte"] else "" for t in texts),
            f"{row['time_s']:.1f}",
        )
    out.print("\nHeld-out bits per byte after every stage (less is better)")
    out.print(table)
    recovery = results["recovery"]
    if recovery["share"] is not None:
        out.print(
            f"\nRecovery adapter: compressed {recovery['compressed']:.3f} -> {recovery['compressed_adapter']:.3f}; "
            f"the float model with the same adapter {recovery['float_adapter']:.3f}: "
            f"{recovery['share']:.0%} of the gap won back"
        )
    out.print("\nExact match on held-out exercises")
    for name, p in results["exact_match"]["overall"].items():
        out.print(f"  {escape(name):<24} {p['share']:6.1%}  ({p['correct']} of {p['total']})")
    committee = results.get("committee") or {}
    if committee:
        out.print("\nOne round of the committee: held-out prompts solved by the most likely response, by samples; KL")
    for row in committee.get("models", ()):
        out.print(
            f"  {escape(row['name']):<24} {row['greedy']['share']:6.1%}  {row['sampled']['share']:6.1%}  "
            f"{row['kl']:6.2f} nats"
        )
    for name, styles in committee.get("style", {}).items():
        told = ", ".join(f"{style} {p['share']:.1%} of {p['total']}" for style, p in styles.items())
        out.print(f"  {escape(name)}: {escape(told)}")
    out.print("\nThree answers of the low-bit model (the first held-out item of three tasks)")
    for sample in results["samples"]:
        out.print(
            textwrap.indent(textwrap.fill(escape(sample["prompt"]), WIDTH - 8), "    ").replace("    ", "  Q ", 1)
        )
        mark = "right" if sample["right"] else f"expected: {sample['expected']}"
        out.print(f"  A {escape(sample['answer'])}  ({escape(mark)})")
    total = sum(row["seconds"] for row in results["times"]) or 1.0
    shares = ", ".join(f"{row['stage']} {row['seconds'] / total:.0%}" for row in results["times"])
    out.print(f"\nTime {total:.0f} s: {escape(shares)}")
    out.print(f"Report: {escape(str(report))}", soft_wrap=True)
    for step in results["next"][:1]:
        out.print(f"Next:   {escape(step['command'])}", soft_wrap=True)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()
