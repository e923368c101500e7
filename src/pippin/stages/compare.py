"""Models side by side: held-out bits per byte of training runs, as a table and, over a setting, a picture."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal

from pippin import files
from pippin.errors import UserError
from pippin.evaluate.curves import best, picture
from pippin.evaluate.text_table import text_table
from pippin.pipeline import Context, Stage
from pippin.stages.training import TrainingStage

Figures = dict[str, dict[float, list[float]]]  # system -> setting -> bits per byte for each seed


@dataclass(frozen=True, kw_only=True)
class Compare(Stage):
    """Mean and spread over seeds of what training stages reached, from their results; nothing is computed anew.

    The figure of a run is the mean of its held-out bits per byte over its sources. Artifact `report/`: `summary.txt`,
    `summary.json` and, with more than one setting, `curves.svg`.

    Args:
        runs: training stages that are scored on the same held-out sources.
        systems: of each run; those with the same system and setting differ in their seed.
        settings: of each run: its learning rate or batch size; all 0 where nothing is varied.
        over: what the settings are.
        title: of the table.
    """

    runs: tuple[Stage, ...]
    systems: tuple[str, ...]
    settings: tuple[float, ...]
    over: Literal["", "learning rate", "batch size"] = ""
    title: str = "Held-out bits per byte (less is better)"

    def __post_init__(self) -> None:
        if not self.runs or not len(self.runs) == len(self.systems) == len(self.settings):
            raise ValueError("a system and a setting for each run")
        sources = {run.heldout_sources or tuple(run.mixture) for run in self.runs if isinstance(run, TrainingStage)}
        if len(sources) != 1 or not all(isinstance(run, TrainingStage) for run in self.runs):
            raise UserError(f"heldout_sources: the runs are scored on different ones: {sorted(sources)}")

    def run(self, ctx: Context) -> None:
        sources = next((r.heldout_sources or tuple(r.mixture)) for r in self.runs if isinstance(r, TrainingStage))
        found: Figures = {}
        for stage, system, setting in zip(self.runs, self.systems, self.settings, strict=True):
            results = ctx.record(stage)["results"]
            bits = statistics.fmean(results[f"bpb_{source}"] for source in sources)
            found.setdefault(system, {}).setdefault(setting, []).append(bits)
        varied = len(set(self.settings)) > 1
        rows = [
            [system, *([f"{setting:g}"] if varied else []), f"{statistics.fmean(bits):.4f}",
             f"{min(bits):.4f} to {max(bits):.4f}", str(len(bits))]
            for system, curve in found.items()
            for setting, bits in curve.items()
        ]  # fmt: skip
        columns = ["system", *([self.over] if varied else []), "mean", "range", "seeds"]
        report = ctx.out("report")
        text = text_table(self.title, columns, rows)
        if varied:
            text += "".join(f"best {self.over} of {system}: {best(curve):g}\n" for system, curve in found.items())
            drawn = picture(self.title, self.over, "held-out bits per byte", found)
            files.write_text(report / "curves.svg", drawn)
            text += f"picture: {report / 'curves.svg'}\n"
        files.write_text(report / "summary.txt", text)
        # JSON has no keys but strings.
        kept = {system: {f"{setting:g}": bits for setting, bits in curve.items()} for system, curve in found.items()}
        files.write_json(report / "summary.json", {"sources": sources, "bits_per_byte": kept})
        ctx.result(bits_per_byte=kept)
