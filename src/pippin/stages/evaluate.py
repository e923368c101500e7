"""The last stage: measure what the others made, compare with honest baselines, and draw the report."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pippin import __version__, files
from pippin.compress.allocate import choose_bits
from pippin.compress.size import model_size
from pippin.data import instruct
from pippin.data.loader import EvalReader
from pippin.data.packing import TokenSet
from pippin.data.records import Instruction
from pippin.data.tokenizer import Tokenizer
from pippin.data.world_tasks import LENGTH_TASKS
from pippin.evaluate import exact_match, page
from pippin.evaluate.bits_per_byte import ngram_bits_per_byte, train_ngram
from pippin.evaluate.summary import summary_text
from pippin.interop.load import load_model
from pippin.interop.peft import load_adapter
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage, read_metrics
from pippin.stages.adapter import SLOT, Adapter
from pippin.stages.compress import SENSITIVITY, Compress
from pippin.stages.policies import ComparePolicies
from pippin.stages.pretrain import Pretrain
from pippin.stages.sft import Sft
from pippin.stages.tokenize import Tokenize
from pippin.stages.training import FULL_LOOK_TOKENS, TrainingStage

SAMPLE_TASKS = ("read", "summary", "form")
RECORDS_PER_TASK = 25
STYLES = {"add": "GSM8K-style", "form": "IFEval-style"}  # what held-out prompts of a task are judged like
BUDGETS = 24  # points of the curve of bits against loss


@dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    """Held-out bits per byte beside a Kneser-Ney 5-gram, exact match beside three baselines, samples, the page.

    Args:
        teacher, base, chat, compressed: models to compare; `base` is `chat` before fine-tuning.
        recovered: the recovery adapter on `compressed`; `control`: the same adapter trained alike on `chat`.
        adapter: the task adapter.
        trail: the training stages in order, for the tables and curves.
        heldout_sources: texts for bits per byte.
        policies, style: models of a committee's round on held-out prompts, and on prompts in the style of benchmarks.
    """

    tokens: Tokenize
    teacher: Pretrain
    base: TrainingStage
    chat: Sft
    compressed: Compress
    recovered: Adapter
    control: Adapter
    adapter: Adapter
    trail: tuple[Stage, ...]
    heldout_sources: tuple[str, ...]
    policies: ComparePolicies | None = field(default=None, metadata={"later": True})
    style: ComparePolicies | None = field(default=None, metadata={"later": True})

    def run(self, ctx: Context) -> None:
        ngram = self._ngram(ctx)
        grades, samples, lengths = self._exact_match(ctx)
        recovery = self._recovery(ctx)
        results: dict[str, Any] = {
            "header": {
                "recipe": ctx.recipe,
                "date": datetime.date.today().isoformat(),
                "machine": _machine(ctx.record(self.teacher)["environment"]),
                "total_s": sum(row["seconds"] for row in self._times(ctx)),
                "version": __version__,
            },
            "texts": {source: f"held-out {source}" for source in self.heldout_sources},
            "stages": [*self._stage_rows(ctx), ngram],
            "curves": [
                self._curve(ctx, stage) for stage in self.trail if (ctx.directory(stage) / "metrics.jsonl").exists()
            ],
            "sizes": self._sizes(ctx),
            "sizes_unit": f"bits per byte, mean of {', '.join(self.heldout_sources)}",
            "bits": self._bits(ctx),
            "recovery": recovery,
            "exact_match": grades,
            "committee": self._committee(ctx),
            "samples": samples,
            "times": [{"stage": row["stage"], "seconds": row["seconds"]} for row in self._times(ctx)],
            "curation": self._curation(ctx),
            "next": [
                {"command": f"pippin chat {ctx.directory(self.recovered)}", "what": "talk to the low-bit model"},
                {
                    "command": f"pippin chat {ctx.directory(self.adapter)}",
                    "what": "the same model before compression, with the summary adapter",
                },
            ],
            "notes": [
                "Bits per byte of the distilled student before `continued` look worse than they are: it has learnt the "
                "teacher's first choice at weight 0.9, not probabilities.",
                f"The few-shot baseline saw 4 examples a task, in the better of two prompt forms ({grades['form']}).",
                "Lengths never seen in training: "
                + "; ".join(f"{task} {p['correct']} of {p['total']}" for task, p in lengths.items())
                + ".",
            ],
        }
        out = ctx.out("report")
        files.write_json(out / "results.json", results)
        files.write_text(out / "report.html", page.render(results))
        report = ctx.dir / "report" / "report.html"
        files.write_text(out / "summary.txt", summary_text(results, report))
        ctx.result(
            exact_match=grades["overall"]["sft"]["share"],
            recovered_share=recovery["share"],
            recovery=recovery,
            ngram={source: ngram["bits_per_byte"][source] for source in self.heldout_sources},
            systems={name: p["share"] for name, p in grades["overall"].items()},
        )

    def _ngram(self, ctx: Context) -> dict[str, Any]:
        """A row for the 5-gram, trained on every training token of the sources that the teacher learnt from."""
        tokens = TokenSet(ctx.artifact(self.tokens, "tokens"))
        start = time.perf_counter()
        model = train_ngram([tokens.open(source, "train") for source in self.teacher.mixture])
        bits = {}
        for source in self.heldout_sources:
            reader = EvalReader(
                ctx.artifact(self.tokens, "tokens"), source, "heldout", self.teacher.train.seq_len, 16, FULL_LOOK_TOKENS
            )
            stream = tokens.open(source, "heldout")
            bits[source] = ngram_bits_per_byte(model, stream, reader.n_documents).bits_per_byte
        return {
            "name": "Kneser-Ney 5-gram",
            "bits_per_byte": bits,
            "time_s": time.perf_counter() - start,
            "baseline": True,
        }

    def _stage_rows(self, ctx: Context) -> list[dict[str, Any]]:
        rows = []
        for stage in self.trail:
            record = ctx.record(stage)
            found = record["results"]
            base = ctx.record(stage.start)["results"] if isinstance(stage, Adapter) else found
            rows.append(
                {
                    "name": ctx.label(stage),
                    "parameters": base["parameters"],
                    "bits_per_weight": base.get("bits_per_weight", 32.0),
                    "bits_whole_file": self._whole_file_bits(ctx, stage),
                    "bits_per_byte": {s: found[f"bpb_{s}"] for s in self.heldout_sources if f"bpb_{s}" in found},
                    "time_s": record["seconds"],
                }
            )
        return rows

    def _whole_file_bits(self, ctx: Context, stage: Stage) -> float:
        """Bits of everything, embedding and adapter included, for one parameter of the base."""
        if isinstance(stage, Adapter):
            base, rank = stage.start, stage.rank
        else:
            base, rank = stage, 0
        return model_size(load_model(ctx.artifact(base, "model")), adapter_rank=rank).bits_per_parameter

    def _curve(self, ctx: Context, stage: Stage) -> dict[str, Any]:
        entries = read_metrics(ctx.directory(stage) / "metrics.jsonl")
        heldout: dict[str, list[list[float]]] = {}
        for entry in entries:
            for key, value in entry.items():
                if key.startswith("loss_"):
                    heldout.setdefault(key.removeprefix("loss_"), []).append([entry["step"] + 1, value])
        train = [[entry["step"] + 1, entry["loss"]] for entry in entries if "loss" in entry]
        unit = "KL to the float model, nats per token" if stage is self.compressed else "nats per token"
        return {"stage": ctx.label(stage), "train": train, "heldout": heldout, "unit": unit}

    def _sizes(self, ctx: Context) -> list[dict[str, Any]]:
        rows = []
        for stage, kind in (
            (self.teacher, "float"),
            (self.chat, "float"),
            (self.compressed, "compressed"),
            (self.recovered, "recovered"),
            (self.control, "control"),
        ):
            found = ctx.record(stage)["results"]
            size = _weights_bytes(ctx.artifact(stage.start, "model")) if isinstance(stage, Adapter) else 0
            size += _weights_bytes(ctx.artifact(stage, "adapter" if isinstance(stage, Adapter) else "model"))
            bits = sum(found[f"bpb_{source}"] for source in self.heldout_sources) / len(self.heldout_sources)
            rows.append({"name": ctx.label(stage), "mb": size / 1e6, "bits_per_byte": bits, "kind": kind})
        return rows

    def _recovery(self, ctx: Context) -> dict[str, Any]:
        """Mean bits per byte over the texts and the chat answers; the share that the recovery adapter won back."""
        sources = (*self.heldout_sources, "chat")

        def mean(found: dict[str, float]) -> float:
            return sum(found[f"bpb_{source}"] for source in sources) / len(sources)

        recovered, control = ctx.record(self.recovered)["results"], ctx.record(self.control)["results"]
        compressed = mean(recovered["before"])
        floor = mean(control)
        lost = compressed - floor
        return {
            "float": mean(control["before"]),
            "float_adapter": floor,
            "compressed": compressed,
            "compressed_adapter": mean(recovered),
            "unit": f"bits per byte, mean of {', '.join(sources)}",
            "share": (compressed - mean(recovered)) / lost if lost > 0 else None,
        }

    def _bits(self, ctx: Context) -> dict[str, Any]:
        """Expected rise of the loss against bits per weight, from the sensitivities of the compress stage."""
        directory = ctx.artifact(self.compressed, "model")
        if not (directory / SENSITIVITY).exists():
            return {}
        stored = files.read_json(directory / SENSITIVITY)
        rises = {name: {int(b): rise for b, rise in options.items()} for name, options in stored["rises"].items()}
        model = load_model(directory)
        shapes = {name: (linear.out_features, linear.in_features) for name, linear in model.linears()}

        def point(plan: dict[str, int]) -> list[float]:
            return [model_size(model, plan).bits_per_weight, sum(rises[name][bits] for name, bits in plan.items())]

        lowest, highest = (point(dict.fromkeys(shapes, bits))[0] for bits in (2, 4))
        targets = [lowest + (highest - lowest) * i / BUDGETS for i in range(BUDGETS + 1)]
        curve = [point(choose_bits(rises, shapes, target + 1e-9)) for target in targets]
        return {
            "curve": curve,
            "chosen": point({name: linear.bits for name, linear in model.linears()}),
            "unit": stored["unit"],
        }

    def _exact_match(self, ctx: Context) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
        """Grades of all systems on held-out exercises, three samples, and the lengths that training never saw."""
        directory = ctx.artifact(self.tokens.curate, "instruct")
        train = exact_match.with_answer(list(instruct.read(directory, "train")))
        held = exact_match.with_answer(list(instruct.read(directory, "heldout")))
        records = exact_match.first_of_each([r for r in held if r["task"] not in LENGTH_TASKS], RECORDS_PER_TASK)
        longer = exact_match.first_of_each([r for r in held if r["task"] in LENGTH_TASKS], RECORDS_PER_TASK)
        chat = load_model(ctx.artifact(self.chat, "model"))
        recovered = self._with_adapter(ctx, self.recovered)
        tokenizer = Tokenizer.load(ctx.artifact(self.chat, "model"))
        with ctx.track(5 * len(records) + len(longer)) as bar:
            answers = {"sft": exact_match.chat_answers(chat, tokenizer, records, progress=bar.advance)}
            answers["compressed"] = exact_match.chat_answers(recovered, tokenizer, records, progress=bar.advance)
            answers["compressed + adapter"] = exact_match.chat_answers(
                recovered, tokenizer, records, slot=SLOT, progress=bar.advance
            )
            base = load_model(ctx.artifact(self.base, "model"))
            shots = exact_match.stronger_few_shot(base, tokenizer, train, records, progress=bar.advance)
            answers["few-shot base"] = shots.answers
            answers["majority answer"] = exact_match.majority_answers(train, records)
            answers["nearest training item"] = exact_match.nearest_answers(train, records)
            unseen = exact_match.grade(longer, exact_match.chat_answers(chat, tokenizer, longer, progress=bar.advance))
        grades = {name: exact_match.grade(records, given) for name, given in answers.items()}
        tasks = sorted({record["task"] for record in records})
        samples = []
        for task in SAMPLE_TASKS:
            for record, answer in zip(records, answers["compressed + adapter"], strict=True):
                if record["task"] == task:  # the first of the task, whether right or wrong
                    samples.append(_sample(record, answer, ctx.label(self.recovered)))
                    break
        return (
            {
                "tasks": {t: {name: g.by_task[t].as_dict() for name, g in grades.items()} for t in tasks},
                "overall": {name: g.overall.as_dict() for name, g in grades.items()},
                "baselines": ["few-shot base", "majority answer", "nearest training item"],
                "form": shots.form,
            },
            samples,
            {task: p.as_dict() for task, p in unseen.by_task.items()},
        )

    def _committee(self, ctx: Context) -> dict[str, Any]:
        """What each algorithm of the round did: shares of held-out prompts solved, KL, seconds of its training."""
        if self.policies is None:
            return {}
        judged = ctx.record(self.policies)["results"]["policies"]
        styled = {} if self.style is None else ctx.record(self.style)["results"]["policies"]
        return {
            "models": [
                {"name": name, "seconds": ctx.record(stage)["seconds"]}
                | {key: judged[name][key] for key in ("greedy", "sampled", "kl", "tokens")}
                for name, stage in self.policies.members.items()
            ],
            "style": {
                name: {STYLES[source]: each["greedy"] for source, each in found["by_source"].items()}
                for name, found in styled.items()
            },
        }

    def _with_adapter(self, ctx: Context, stage: Adapter) -> Transformer:
        model = load_model(ctx.artifact(stage.start, "model"))
        for _, linear in model.linears():
            linear.add_adapters(1, stage.rank)
        load_adapter(model, SLOT, ctx.artifact(stage, "adapter"))
        return model

    def _times(self, ctx: Context) -> list[dict[str, Any]]:
        """Every stage of the chain with its seconds and its share."""
        stages = [self.tokens.curate, self.tokens.tokenizer, self.tokens, *self.trail, self.adapter]
        seconds = {ctx.label(stage): ctx.record(stage)["seconds"] for stage in stages}
        return [{"stage": name, "seconds": s} for name, s in seconds.items()]

    def _curation(self, ctx: Context) -> list[dict[str, Any]]:
        summary = ctx.record(self.tokens.curate)["results"]["documents_by_source"]
        return [
            {"source": source, "kept": sum(part["documents"].values()), "dropped": part["dropped"]}
            for source, part in summary.items()
        ]

    def cost(self) -> Cost:
        return Cost(other_s=15)


def _machine(environment: dict[str, Any]) -> str:
    e = environment
    return f"{e['machine']}, {e['cores']} cores, Python {e['python']}, torch {e['torch']}"


def _weights_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def _sample(record: Instruction, answer: str, system: str) -> dict[str, Any]:
    return {
        "task": record["task"],
        "prompt": record["messages"][-2]["content"],
        "answer": answer.strip(),
        "expected": record["answer"],
        "right": exact_match.is_right(record, answer),
        "system": system,
    }
