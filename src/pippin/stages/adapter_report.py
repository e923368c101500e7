"""What an adapter gained on the conversations that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pippin import files
from pippin.data import instruct
from pippin.data.tokenizer import Tokenizer
from pippin.evaluate import exact_match
from pippin.evaluate.text_table import text_table
from pippin.interop.load import load_model
from pippin.interop.lora import adapter_rank, base_signature
from pippin.interop.peft import load_adapter
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.adapter import Adapter
from pippin.stages.chats import SOURCE, Chats

SHORT_ANSWER_TOKENS = 32  # longer answers are seldom right to the letter: bits per byte say more of them
MAX_GRADED = 200


@dataclass(frozen=True, kw_only=True)
class AdapterReport(Stage):
    """Held-out bits per byte of the answers without and with the adapter, and exact match where answers are short.

    `control` is the same adapter trained on answers dealt out at random: what it gains is form, not content.
    """

    chats: Chats
    adapter: Adapter
    control: Adapter | None = None

    def run(self, ctx: Context) -> None:
        trained = ctx.record(self.adapter)["results"]
        bits = {"no adapter": trained["before"][f"bpb_{SOURCE}"]}
        if "initial" in trained:
            bits["adapter at its start"] = trained["initial"][f"bpb_{SOURCE}"]
        bits["adapter"] = trained[f"bpb_{SOURCE}"]
        stages = {"no adapter": None, "adapter at its start": self.adapter.initial, "adapter": self.adapter}
        if self.control is not None:
            stages["adapter on shuffled answers"] = self.control
            bits["adapter on shuffled answers"] = ctx.record(self.control)["results"][f"bpb_{SOURCE}"]
        grades = self._exact(ctx, {name: stages[name] for name in bits})
        rows = [[name, f"{value:.3f}", *([_told(grades[name])] if grades else [])] for name, value in bits.items()]
        columns = ["held-out answers", "bits per byte", *(["exact match"] if grades else [])]
        results: dict[str, Any] = {"bits_per_byte": bits, "exact_match": grades}
        files.write_json(ctx.out("report") / "results.json", results)
        where = ctx.directory(self.adapter)
        text = text_table("What the adapter gained (bits: less is better)", columns, rows)
        size = sum(path.stat().st_size for path in ctx.artifact(self.adapter, "adapter").glob("*.safetensors"))
        text += f"\nAdapter: {where / 'adapter'} ({size / 1e6:.2f} MB)\nNext:    pippin chat {where}\n"
        files.write_text(ctx.out("report") / "summary.txt", text)
        ctx.result(**results)

    def _exact(self, ctx: Context, systems: dict[str, Stage | None]) -> dict[str, dict[str, float]]:
        """Exact match of each system on held-out conversations with a short last answer; empty if there are none."""
        directory = ctx.artifact(self.adapter.start, "model")
        tokenizer = Tokenizer.load(directory)
        records = [
            record
            for record in instruct.read(ctx.artifact(self.chats, "instruct"), "heldout")
            if len(tokenizer.encode(record["messages"][-1]["content"])) <= SHORT_ANSWER_TOKENS
        ][:MAX_GRADED]
        if not records:
            return {}
        model = load_model(directory)
        paths = {name: ctx.artifact(stage, "adapter") for name, stage in systems.items() if stage is not None}
        for _, linear in model.linears():
            linear.add_adapters(len(paths), max(adapter_rank(path) for path in paths.values()))
        signature = base_signature(directory)
        slots = {}
        for slot, (name, path) in enumerate(paths.items()):
            load_adapter(model, slot, path, signature)
            slots[name] = slot
        found = {}
        with ctx.track(len(records) * len(systems), "exact match") as bar:
            for name in systems:
                answers = exact_match.chat_answers(
                    model, tokenizer, records, slot=slots.get(name), progress=bar.advance
                )
                found[name] = exact_match.grade(records, answers).overall.as_dict()
        return found

    def cost(self) -> Cost:
        return Cost(other_s=10)


def _told(grade: dict[str, float]) -> str:
    return f"{grade['share']:.1%} ({grade['correct']:.0f} of {grade['total']:.0f})"
