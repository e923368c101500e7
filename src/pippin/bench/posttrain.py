"""Post-training algorithms beside each other on tasks with exact verifiers, several seeds, from the same start.

The recipe is `posttrain`: a model of 650,000 parameters, fine-tuned on demonstrations of which half are bad, on sums,
sorting and forms. What is compared, on the same held-out prompts: rejection sampling, DPO, IPO, RLOO, MDLOO and the
committee's student after each round; MDLOO beside the plain use of samples again, at two step sizes; a policy that is
rewarded by the reward model; the labels of the reward model. Seeds change the text's order, weights and samples.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pippin.bench.posttrain_labels import compare_labels
from pippin.bench.result import Result
from pippin.data.prompts import Prompt, write_prompts
from pippin.pipeline import Graph, Stage, read_metrics
from pippin.progress import Screen
from pippin.recipes import posttrain as recipe
from pippin.recipes.posttrain import posttrain
from pippin.stages.policies import ComparePolicies
from pippin.stages.prompts import Prompts
from pippin.stages.reinforce import Reinforce
from pippin.stages.responses import Responses
from pippin.training.loop import TrainSpec

CASE = "sums, sorting, forms"
AGAIN = "again, step size"
COLLAPSED = 0.5  # of the start's share of solved prompts
NONE = 1e-3  # stands for a share of 0 in a ratio
SMOOTHED = 5  # iterations that a reward is averaged over


@dataclass(frozen=True)
class Params:
    """How many seeds, where runs are kept (finished stages are reused), and the recipe's numbers.

    `step_sizes` are learning rates at which samples are used `epochs` times, with MDLOO's rein and without one, for
    `iterations`.
    """

    seeds: int = 3
    runs: str = "runs"
    step_sizes: tuple[float, ...] = (0.001, 0.003)
    epochs: int = 4
    iterations: int = 10
    recipe: recipe.Params = field(default_factory=lambda: recipe.PARAMS)


def run(p: Params = Params(), quick: bool = False) -> Result:
    """Run what is not done, and compare; about 20 minutes of one core a seed.

    Args:
        quick: everything is cut to the least that runs, one seed, one round: the claims will fail.
    """
    if quick:
        path = Path(p.runs) / "posttrain-quick.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_prompts(path, easy_prompts(200))
        small = cut(replace(p.recipe, data=str(path)))
        p = replace(p, seeds=1, step_sizes=p.step_sizes[:1], iterations=1, epochs=2, recipe=small)
    result = Result("posttrain")
    found: list[dict[str, dict[str, float]]] = []
    curves: list[dict[str, list[float]]] = []
    for seed in range(p.seeds):
        graph = Graph(arms(p, seed), Path(p.runs), "posttrain")
        graph.run(["compare-all"], Screen())
        found.append(figures(graph))
        curves.append({name: rewards(graph, name) for name in ("rloo-1", "mdloo-1")})
    for name in found[0]:
        for metric, unit in METRICS.items():
            values = [seed[name][metric] for seed in found if metric in seed[name]]
            if values:
                result.row(CASE, name, metric, statistics.median(values), unit, min(values), max(values))
    _claims(result, p, found, curves)
    compare_labels(result, Path(p.runs), p.recipe, p.seeds, quick)
    return result


METRICS = {
    "solved, most likely response": "1",
    "solved, sampled response": "1",
    "KL to the fine-tuned model": "nats",
    "tokens of a response": "tokens",
    "samples used": "samples",
    "time of its own stages": "s",
}


def arms(p: Params, seed: int) -> dict[str, Stage]:
    """The recipe's stages and those that it is compared with, from the same fine-tuned model."""
    stages = posttrain(replace(p.recipe, seed=seed))
    del stages["compare"]
    mdloo, sft, prompts = stages["mdloo-1"], stages["sft"], stages["prompts"]
    assert isinstance(mdloo, Reinforce)
    assert isinstance(prompts, Prompts)
    # As many samples, each used once: a step for each iteration, with all of its responses.
    iterations = mdloo.train.steps // mdloo.steps_together
    once = replace(mdloo.train, lr=2 * mdloo.train.lr, batch_size=mdloo.train.batch_size * mdloo.minibatches)
    stages["rloo-1"] = replace(mdloo, kind="rloo", minibatches=1, epochs=1, train=_long(once, iterations))
    stages["mdloo-1, rewarded by the reward model"] = replace(mdloo, reward=stages["reward-1"])
    for lr in p.step_sizes:
        steps = p.iterations * mdloo.minibatches * p.epochs
        train = _long(replace(mdloo.train, lr=lr), steps)
        for kind in ("mdloo", "rloo"):
            stages[f"{kind} {AGAIN} {lr:g}"] = replace(mdloo, kind=kind, epochs=p.epochs, train=train)
    judged = {name: stage for name, stage in stages.items() if name.startswith(("rloo", "mdloo")) and "-" in name}
    judged |= {name: stage for name, stage in stages.items() if AGAIN in name}
    for number in range(1, p.recipe.rounds + 1):
        judged |= {f"{name}-{number}": stages[f"{name}-{number}"] for name in (*p.recipe.round.methods, "student")}
    stages["compare-all"] = ComparePolicies(
        prompts=prompts, reference=sft, members={"sft": sft, **judged}, max_tokens=mdloo.max_tokens, seed=seed
    )
    return stages


def _long(train: TrainSpec, steps: int) -> TrainSpec:
    """So many steps, with one look at the end and no checkpoint before."""
    return replace(train, steps=steps, checkpoint_every=steps, eval_every=steps)


def figures(graph: Graph) -> dict[str, dict[str, float]]:
    """What a seed's models reached, by name and metric."""
    compare = graph.stages["compare-all"]
    assert isinstance(compare, ComparePolicies)
    judged = graph.record(compare)["results"]["policies"]
    found: dict[str, dict[str, float]] = {}
    for name, stage in compare.members.items():
        values = (
            judged[name]["greedy"]["share"], judged[name]["sampled"]["share"], judged[name]["kl"],
            judged[name]["tokens"],
        )  # fmt: skip
        found[name] = dict(zip(METRICS, values, strict=False))
        if name != "sft":
            found[name] |= dict(zip(list(METRICS)[4:], _spent(graph, name, stage), strict=True))
    return found


def _spent(graph: Graph, name: str, stage: Stage) -> tuple[float, float]:
    """Samples that a method drew for itself, and seconds; a student's are those of all of its round."""
    method, _, number = name.rpartition("-")
    if isinstance(stage, Reinforce):
        own = [graph.label(stage)]
    elif method == "student":
        own = [each for each in graph.stages if each.endswith(f"-{number}") and not each.startswith(("rloo", "round"))]
    elif method == "rs":
        own = [f"rs-responses-{number}", f"rs-picked-{number}", name]
    else:
        own = [f"responses-{number}", f"preferences-{number}", name]
    records = {each: graph.record(graph.stages[each]) for each in own}
    samples = sum(
        record["results"].get("samples", 0)
        for each, record in records.items()
        if isinstance(graph.stages[each], Responses | Reinforce)
    )
    return float(samples), sum(record["seconds"] for record in records.values())


def rewards(graph: Graph, name: str) -> list[float]:
    """The mean reward of each iteration, averaged over the last few."""
    entries = read_metrics(graph.directory(graph.stages[name]) / "metrics.jsonl")
    plain = [entry["reward"] for entry in entries if "reward" in entry]
    return [statistics.fmean(plain[max(0, i + 1 - SMOOTHED) : i + 1]) for i in range(len(plain))]


def _claims(
    result: Result, p: Params, found: Sequence[dict[str, dict[str, float]]], curves: Sequence[dict[str, list[float]]]
) -> None:
    greedy, sampled = list(METRICS)[:2]
    for metric in (greedy, sampled):
        worst = min(seed["mdloo-1"][metric] / max(seed["rloo-1"][metric], NONE) for seed in found)
        result.ratio(CASE, f"{metric}, as many samples, worst seed", "rloo-1", worst, ">=", 1.0)
    needed = []
    for curve in curves:
        reached = [i + 1 for i, reward in enumerate(curve["mdloo-1"]) if reward >= curve["rloo-1"][-1]]
        needed.append(reached[0] / len(curve["rloo-1"]) if reached else float("inf"))
    inside = [share for share in needed if share <= 1]
    metric = "samples until RLOO's final training reward, of RLOO's, where it is reached"
    if inside:
        result.row(CASE, "mdloo-1", metric, statistics.median(inside), "1", min(inside), max(inside))
    metric = "seeds that reach its final training reward with at most its samples"
    result.ratio(CASE, metric, "rloo-1", len(inside) / len(needed), ">=", 1.0)
    for lr in p.step_sizes:
        kept = {
            kind: [seed[f"{kind} {AGAIN} {lr:g}"][sampled] / max(seed["sft"][sampled], NONE) for seed in found]
            for kind in ("mdloo", "rloo")
        }
        case = f"samples used {p.epochs} times, step size {lr:g}"
        result.ratio(case, "solved by MDLOO, worst seed", "the start", min(kept["mdloo"]), ">=", COLLAPSED)
        result.ratio(case, "solved without a rein, best seed", "the start", max(kept["rloo"]), "<=", COLLAPSED)
    for number in range(1, p.recipe.rounds + 1):
        for metric in (greedy, sampled):
            worst = min(
                seed[f"student-{number}"][metric]
                / max(NONE, *(seed[f"{method}-{number}"][metric] for method in p.recipe.round.methods))
                for seed in found
            )
            case = f"committee, round {number}"
            result.ratio(case, f"{metric}, worst seed", "the best member of its round", worst, ">=", 1.0)


def easy_prompts(n: int) -> list[Prompt]:
    """Prompts that chance solves about every third time, for a model that has learnt nothing."""
    given = {"letter": "e", "let_relation": "less than", "let_frequency": 2}
    verifier = {"kind": "ifeval", "instruction_id_list": ["keywords:letter_frequency"], "kwargs": [given]}
    return [
        {
            "id": str(number),
            "split": "heldout" if number % 10 == 0 else "train",
            "messages": [{"role": "user", "content": f"Write number {number} without it."}],
            "verifier": verifier,
            "source": "easy",
        }
        for number in range(n)
    ]


def cut(p: recipe.Params) -> recipe.Params:
    """The least that runs through every stage."""

    def short(train: TrainSpec, steps: int = 2) -> TrainSpec:
        return replace(_long(train, steps), batch_size=8, warmup_steps=0)

    r = p.round
    round = replace(
        r, reward=short(r.reward), rs=short(r.rs), preference=short(r.preference), student=short(r.student),
        mdloo=short(r.mdloo, r.minibatches * r.epochs), prompts=150, samples=2,
    )  # fmt: skip
    corpus = replace(p.corpus, world_tasks=200, instruct_world=100)
    return replace(
        p, rounds=1, demonstrations=100, corpus=corpus, pretrain=short(p.pretrain),
        sft=short(p.sft), round=round,
    )  # fmt: skip
