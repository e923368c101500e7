"""The one form of a bench's result: rows, ratios against aims, and where and when they were measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pippin import files

FORMAT_VERSION = 1
_MARKETING = re.compile(r"\b\d+th gen\b|\((?:r|tm)\)|\b(?:processor|cpu|with|\d+-core)\b|@.*", re.IGNORECASE)


def cpu_name() -> str:
    """The processor's name as the system gives it, such as "AMD EPYC 9B14"."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        found = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if found.stdout.strip():
            return found.stdout.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware_tag(accelerator: str | None = None) -> str:
    """A short name of this kind of machine for file names: processor family and usable cores, such as "epyc-2c".

    Args:
        accelerator: the name of the accelerator that the bench ran on, such as torch.cuda.get_device_name(); it is put
            in front: "h200-epyc-16c".
    """
    words = re.findall(r"[a-z0-9]+", _MARKETING.sub(" ", cpu_name()).lower())
    vendors = {"amd", "intel", "genuine", "authentic"}
    family = [word for word in words if word not in vendors][:2] or words[:1] or ["cpu"]
    tag = "-".join([*family, f"{cores()}c"])
    if accelerator is None:
        return tag
    chip = [w for w in re.findall(r"[a-z0-9]+", accelerator.lower()) if w not in {"nvidia", "amd", "intel", "geforce"}]
    return "-".join([*chip[:1], tag])


def _commit() -> str | None:
    """The commit of the checkout that this file is in, with "+" if the tree has changes; None outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    return None if head is None else head + ("+" if git("status", "--porcelain") else "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class Result:
    """Rows and ratios of one run of a bench.

    Args:
        bench: the bench's name; the file is `<bench>.<hardware>.json`.
        accelerator: as in `hardware_tag`; None for a bench on the processor.
    """

    def __init__(self, bench: str, accelerator: str | None = None) -> None:
        self.bench = bench
        self.hardware = hardware_tag(accelerator)
        self.machine = {
            "cpu": cpu_name(),
            "cores": cores(),
            "accelerator": accelerator,
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "torch": _version("torch"),
        }
        self.rows: list[dict[str, Any]] = []
        self.ratios: list[dict[str, Any]] = []

    def row(
        self,
        case: str,
        system: str,
        metric: str,
        value: float | None,
        unit: str,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        """Add a measured value; `low` and `high` bound it over repeats. A value of None means not measured."""
        self.rows.append(
            {
                "case": case,
                "system": system,
                "metric": metric,
                "value": value,
                "unit": unit,
                "low": low,
                "high": high,
            }
        )

    def ratio(
        self,
        case: str,
        metric: str,
        versus: str,
        value: float | None,
        direction: Literal[">=", "<="],
        aim: float,
        reason: str = "",
    ) -> bool:
        """Add a figure that an aim is stated for, and return whether the aim is met.

        Raises:
            ValueError: the value is None (not measured) and no reason is given.
        """
        if value is None and not reason:
            raise ValueError(f"{case}: an aim that was not measured needs a reason")
        met = value is not None and (value >= aim if direction == ">=" else value <= aim)
        self.ratios.append(
            {
                "case": case,
                "metric": metric,
                "versus": versus,
                "value": value,
                "direction": direction,
                "aim": aim,
                "met": met,
                "reason": reason,
            }
        )
        return met

    def as_dict(self) -> dict[str, Any]:
        """The result in the form that is written."""
        return {
            "bench": self.bench,
            "format_version": FORMAT_VERSION,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "hardware": self.hardware,
            "machine": self.machine,
            "rows": self.rows,
            "ratios": self.ratios,
        }

    def show(self, console: Console) -> None:
        """Print the rows, then the aims with what was reached."""
        rows = Table("case", "system", "metric", "value", "low", "high", "unit", box=None, pad_edge=False)
        for row in self.rows:
            numbers = ("" if row[key] is None else f"{row[key]:,.4g}" for key in ("value", "low", "high"))
            rows.add_row(*(escape(row[key]) for key in ("case", "system", "metric")), *numbers, escape(row["unit"]))
        console.print(rows)
        aims = Table("case", "metric", "versus", "value", "aim", "met", box=None, pad_edge=False)
        for ratio in self.ratios:
            value = "not measured" if ratio["value"] is None else f"{ratio['value']:.4g}"
            met = "yes" if ratio["met"] else f"no {ratio['reason']}".strip()
            names = (escape(ratio[key]) for key in ("case", "metric", "versus"))
            aims.add_row(*names, value, f"{ratio['direction']} {ratio['aim']:g}", escape(met))
        console.print(aims)

    def write(self, path: str | Path) -> Path:
        """Write the result to `path`; a directory gets `<bench>.<hardware>.json` inside. Returns the file's path."""
        path = Path(path)
        if path.is_dir():
            path = path / f"{self.bench}.{self.hardware}.json"
        files.write_json(path, self.as_dict())
        return path
