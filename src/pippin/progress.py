"""What a person sees while stages run: progress bars on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Track:
    """One progress bar. `advance(n, loss=...)` moves it and shows the latest values beside it."""

    def __init__(self, console: Console, total: int, description: str, initial: int) -> None:
        self._progress = Progress(
            TextColumn("  [bold]{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(escape(description), total=total, completed=initial, shown="")

    def advance(self, n: int = 1, **shown: float) -> None:
        self._progress.update(self._task, advance=n)
        if shown:
            self._progress.update(self._task, shown="  ".join(f"{k} {v:.4g}" for k, v in shown.items()))

    def __enter__(self) -> Track:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


@dataclass
class StageReport:
    """Filled by the pipeline while a stage runs; its scalar results are shown on the stage's line."""

    results: Mapping[str, Any] = field(default_factory=dict)


class Screen:
    """The console of a run. `quiet` shows nothing but errors (tests)."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)

    def track(self, total: int, description: str, initial: int = 0) -> Track:
        return Track(self.console, total, description, initial)

    def detail(self, text: str) -> None:
        """A line that matters on a terminal only: elsewhere a stage keeps to its one line, and the log has it."""
        if self.console.is_terminal:
            self.console.print(f"  [dim]{escape(text)}")

    def skipped(self, name: str, directory: Path) -> None:
        if self.console.is_terminal:
            self.console.print(f"[green]✓[/] [dim]{escape(name)} is done ({escape(str(directory))})")

    @contextmanager
    def stage(self, name: str, number: int, total: int) -> Iterator[StageReport]:
        """Announce a stage on a terminal; print its one line when it ends."""
        if self.console.is_terminal:
            self.console.print(f"[cyan]▸[/] {escape(name)} [dim]({number} of {total})")
        report, start = StageReport(), time.perf_counter()
        yield report
        shown = "  ".join(
            f"{k} {v:,}" if isinstance(v, int) else f"{k} {v:.4g}"
            for k, v in report.results.items()
            if isinstance(v, (int, float)) and not isinstance(v, bool)
        )
        seconds = time.perf_counter() - start
        self.console.print(f"[green]✓[/] {escape(name):<14} {seconds:6.1f} s  {escape(shown)}", soft_wrap=True)
