"""The mixture of fine-tuning by ablation (afm 6.2): every weight up and down, scored by exact match on held-out tasks.

    pippin run sft_mixture

The chain up to the start is the quickstart's own. Every run begins there and has the same steps; only weights and seeds
differ. Few seeds leave much noise; the table says how much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pippin.data.mixture_search import BASE, trials
from pippin.errors import UserError
from pippin.pipeline import Stage
from pippin.recipes import chain as recipe_chain
from pippin.recipes.quickstart import PARAMS as QUICKSTART
from pippin.recipes.quickstart import quickstart
from pippin.recipes.summaries import BASE as CHAIN
from pippin.stages.benchmark import Benchmark
from pippin.stages.mixture_search import MixtureChoice, MixtureSearch, SftMixed
from pippin.stages.sft import Sft
from pippin.training.loop import TrainSpec

UP_TO = CHAIN[: CHAIN.index("sft")]


@dataclass(frozen=True)
class Params:
    """Numbers of the recipe; `base` are the quickstart's, with the mixture to begin from.

    Attributes:
        delta: that each weight is changed by.
        seeds: runs of each mixture; `fresh_seeds` more for the base and the candidate.
        per_task: held-out exercises of each of `tasks` (all, if there are none).
        train: the numbers of every run; the rate is constant, as in the report's SFT (afm 6.3).
    """

    base: recipe_chain.Params = field(default_factory=lambda: QUICKSTART)
    delta: float = 0.05
    seeds: int = 2
    fresh_seeds: int = 3
    tasks: tuple[str, ...] = ()
    per_task: int = 25
    train: TrainSpec = field(
        default_factory=lambda: TrainSpec(
            steps=600, batch_size=8, seq_len=192, lr=0.003, warmup_steps=5, schedule="constant", weight_decay=1e-5
        )
    )


PARAMS = Params()


def sft_mixture(p: Params = PARAMS) -> dict[str, Stage]:
    """Stages of the recipe: `sft-<mixture>-<seed>`, `score-<mixture>-<seed>`, `search`, `choice`."""
    if p.seeds < 2 or p.fresh_seeds < 1:
        raise UserError(f"seeds={p.seeds}, fresh_seeds={p.fresh_seeds}: at least 2 and 1, else noise cannot be told")
    made = quickstart(p.base)
    sft, curate = made["sft"], made["curate"]
    assert isinstance(sft, Sft)
    stages = {name: made[name] for name in UP_TO}
    common: dict[str, Any] = {
        "tokens": sft.tokens, "train": p.train, "model": sft.model, "start": sft.start, "heldout_sources": ("chat",),
    }  # fmt: skip

    def scored(label: str, stage: Sft) -> Benchmark:
        stages[f"sft-{label}"] = stage
        score = Benchmark(model=stage, instruct=curate, tasks=p.tasks, per_task=p.per_task)
        stages[f"score-{label}"] = score
        return score

    mixtures = {BASE: sft.mixture} | {trial.name: trial.weights for trial in trials(sft.mixture, p.delta)}
    scores: dict[str, Stage] = {}
    names = []
    for name, weights in mixtures.items():
        for seed in range(p.seeds):
            label = f"{name.replace(' ', '')}-{seed}"
            scores[label] = scored(label, Sft(mixture=weights, seed=seed, **common))
            names.append(name)
    search = stages["search"] = MixtureSearch(
        scores=scores, names=tuple(names), weights=sft.mixture, delta=p.delta
    )  # fmt: skip
    fresh = range(p.seeds, p.seeds + p.fresh_seeds)
    base = tuple(scored(f"{BASE}-{seed}", Sft(mixture=sft.mixture, seed=seed, **common)) for seed in fresh)
    tried = tuple(
        scored(f"candidate-{seed}", SftMixed(mixture=sft.mixture, mix=search, seed=seed, **common)) for seed in fresh
    )
    return stages | {"choice": MixtureChoice(search=search, base=base, candidate=tried)}
