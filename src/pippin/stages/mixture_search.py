"""Mixture weights of fine-tuning by the search of the report (afm 6.2): what the trials show, and what is kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pippin import files
from pippin.data.autoscale_project import read_mixture
from pippin.data.mixture_search import BASE, HARMLESS, Finding, candidate, decide, trials
from pippin.evaluate.text_table import text_table
from pippin.pipeline import Context, Stage
from pippin.stages.mix import MIXTURE
from pippin.stages.sft import Sft

MIXTURE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class MixtureSearch(Stage):
    """The changes of weights that help beyond noise, and the components that are not missed (`data.mixture_search`).

    Artifacts: `mixture/mixture.json`, a candidate that has yet to be tried as a whole; `report/`.

    Args:
        scores: for the base and each trial, by name, a `Benchmark` a seed.
        weights, delta: that the trials were made of.
    """

    scores: dict[str, Stage]
    names: tuple[str, ...]
    weights: dict[str, float]
    delta: float

    def run(self, ctx: Context) -> None:
        found: dict[str, list[float]] = {}
        for name, stage in zip(self.names, self.scores.values(), strict=True):
            found.setdefault(name, []).append(ctx.record(stage)["results"]["score"])
        made = trials(self.weights, self.delta)
        findings, error = decide(made, found)
        weights = candidate(self.weights, made, findings)
        files.write_json(
            ctx.out("mixture") / MIXTURE,
            {"format_version": MIXTURE_VERSION, "weights": weights, "method": f"weights +- {self.delta:g} (afm 6.2)"},
        )
        text = _table(found, findings, error)
        text += f"\nto be tried: {_told(weights)}\n"
        files.write_text(ctx.out("report") / "summary.txt", text)
        kept = {name: finding._asdict() for name, finding in findings.items()}
        files.write_json(ctx.out("report") / "summary.json", {"scores": found, "error": error, "trials": kept})
        ctx.say(text)
        ctx.result(scores=found, error=error, trials=kept, weights=weights)


def _table(scores: Mapping[str, Sequence[float]], findings: Mapping[str, Finding], error: float) -> str:
    rows = [[BASE, f"{statistics.fmean(scores[BASE]):.4f}", _range(scores[BASE]), "", ""]]
    for name, (effect, verdict) in findings.items():
        rows.append([name, f"{statistics.fmean(scores[name]):.4f}", _range(scores[name]), f"{effect:+.4f}", verdict])
    title = f"Score by mixture; a difference from the base has a standard error of {error:.4f}"
    return text_table(title, ["mixture", "mean", "range over seeds", "effect", ""], rows)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.4f} to {max(values):.4f}"


def _told(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items())


@dataclass(frozen=True, kw_only=True)
class SftMixed(Sft):
    """Fine-tuning whose mixture is that of a mix stage; `mixture` only names the sources beforehand."""

    mix: Stage

    def run(self, ctx: Context) -> None:
        weights = read_mixture(ctx.artifact(self.mix, "mixture") / MIXTURE)
        Sft.run(replace(self, mixture=weights), ctx)


@dataclass(frozen=True, kw_only=True)
class MixtureChoice(Stage):
    """The candidate beside the base on seeds that the search has not seen: `mixture/mixture.json`, `report/`.

    The candidate was chosen because it looked good on its seeds; only other ones can say that it is. It is taken if
    its mean is no more than a standard error (of the difference, from the search) below the base's.

    Args:
        search: where the candidate comes from.
        base, candidate: a `Benchmark` a seed each, of the same seeds.
    """

    search: MixtureSearch
    base: tuple[Stage, ...]
    candidate: tuple[Stage, ...]

    def run(self, ctx: Context) -> None:
        seen = ctx.record(self.search)["results"]
        scores = {
            name: [ctx.record(stage)["results"]["score"] for stage in stages]
            for name, stages in ((BASE, self.base), ("candidate", self.candidate))
        }
        # The noise of a run is the search's, which has more runs; these are other numbers of them.
        error = seen["error"] * (len(seen["scores"][BASE]) / len(self.base)) ** 0.5
        gain = statistics.fmean(scores["candidate"]) - statistics.fmean(scores[BASE])
        taken = gain >= -HARMLESS * error
        weights = seen["weights"] if taken else self.search.weights
        facts = {"method": "weights tried up and down (afm 6.2), then on other seeds", "taken": taken, "gain": gain}
        value = {"format_version": MIXTURE_VERSION, "weights": weights}
        files.write_json(ctx.out("mixture") / MIXTURE, value | facts)
        rows = [[name, f"{statistics.fmean(row):.4f}", _range(row), str(len(row))] for name, row in scores.items()]
        title = f"On other seeds; a difference has a standard error of {error:.4f}"
        text = text_table(title, ["mixture", "mean", "range", "seeds"], rows)
        text += f"\n{'taken' if taken else 'not taken'}: {gain:+.4f}; the mixture is {_told(weights)}\n"
        files.write_text(ctx.out("report") / "summary.txt", text)
        ctx.say(text)
        ctx.result(scores=scores, gain=gain, error=error, taken=taken, weights=weights)
