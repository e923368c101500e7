"""Synthetic tool use as a stage: conversations whose calls are known, some in a model's words, and their prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pippin import files
from pippin.data.chat import plain
from pippin.data.mixture import derive
from pippin.data.prompts import Prompt, write_prompts
from pippin.data.records import Split, split_of
from pippin.data.synthesis import tools_examples, tools_steps
from pippin.data.synthesis.tools_examples import Example
from pippin.data.synthesis.tools_list import BY_NAME, FAMILIES
from pippin.data.synthesis.tools_notes import make_inns, notes_of
from pippin.data.synthesis.tools_real import PythonTool, SearchTool
from pippin.data.synthesis.tools_reword import objection, request, reworded
from pippin.data.synthesis.tools_search import read_texts
from pippin.errors import UserError
from pippin.evaluate.verify.tools import check_tools
from pippin.pipeline import Context, Cost, digest_tree
from pippin.stages.writing import WritingStage

KINDS = (*tools_examples.KINDS, "multi_step", "python", "search")
REAL = ("python", "search")
CONVERSATIONS = "tools.jsonl"
PROMPTS = "prompts.jsonl"
INNS = 100
UNSEEN = ("clock", "notes")


@dataclass(frozen=True, kw_only=True)
class SynthesizeTools(WritingStage):
    """Conversations with tool calls (afm 5.7-5.9): single, multiple, parallel, several steps, look-alikes, intent.

    Templates make them; the calls are known, and every one is checked by our verifier before it is written. With a
    writer the first message of those whose arguments all stand in it is put in other words, and the first wording in
    which the known calls still hold is taken (`data.synthesis.tools_reword`). Programs of the kinds `python` and
    `search` run in the sandbox, and what is searched is a corpus of invented notes, among other texts where given.

    Artifacts: `conversations/tools.jsonl` (OpenAI's form, with `tools`; of the train side), `prompts/prompts.jsonl` (a
    prompt for each turn with known calls, verifier "tools"; for each number that results lead to, verifier "gsm8k"),
    `report/tools.json`.

    Args:
        kinds: of `KINDS`.
        per_kind: conversations of each; those that come twice are left out.
        wordings: samples of the writer for a request.
        temperature, max_tokens: of the writer.
        corpus: a folder of texts, or the `documents/` of a curated corpus, that the search tool also finds.
        unseen: families of `tools_list` whose tools are called on the held-out side alone.
        sandboxes: that run at the same time.
    """

    kinds: tuple[str, ...] = KINDS
    per_kind: int = 200
    wordings: int = 2
    temperature: float = 0.8
    max_tokens: int = 256
    corpus: str = ""
    unseen: tuple[str, ...] = UNSEEN
    sandboxes: int = field(default=2, metadata={"how": True})
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f"kinds: value {kind!r}: must be one of {', '.join(KINDS)}")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise UserError(f"kinds: value {self.kinds}: give at least one, and none twice")
        for family in self.unseen:
            if family not in FAMILIES:
                raise UserError(f"unseen: value {family!r}: must be one of {', '.join(FAMILIES)}")
        for name in ("per_kind", "wordings", "max_tokens", "sandboxes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: value {getattr(self, name)}: must be at least 1")
        if not 0 <= self.temperature <= 5:
            raise UserError(f"temperature: value {self.temperature}: must lie between 0 and 5")

    def inputs(self) -> Mapping[str, str]:
        return {"corpus": digest_tree(Path(self.corpus).expanduser())} if self.corpus else {}

    @property
    def calls(self) -> int:
        """The most samples that the writer is asked for."""
        worded = [kind for kind in self.kinds if kind in tools_examples.REWORDED]
        return 0 if self.offline else len(worded) * self.per_kind * self.wordings

    def cost(self) -> Cost:
        real = sum(kind in REAL for kind in self.kinds) * self.per_kind
        total = len(self.kinds) * self.per_kind
        return Cost(
            bytes=4_000 * total, other_s=1 + 0.001 * total + 0.1 * real / self.sandboxes + self.seconds(self.calls)
        )

    def run(self, ctx: Context) -> None:
        made: list[tuple[str, Split, Example]] = []
        counts: dict[str, Counter[str]] = {}
        for kind in self.kinds:
            counts[kind] = Counter()
            with ctx.track(self.per_kind, kind) as bar:
                made += self._made(kind, self._maker(kind), counts[kind], bar.advance)
        if not self.offline:
            made = self._worded(ctx, made, counts)
        for name, _, example in made:
            _check(name, example)
        if not made:
            raise UserError(f"{ctx.name}: nothing is left: what the tools returned never held the known answers")
        rows = [_conversation(name, example) for name, split, example in made if split == "train"]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files.write_text(ctx.out("conversations") / CONVERSATIONS, "".join(lines))
        prompts = [prompt for each in made for prompt in prompts_of(*each, self.unseen)]
        write_prompts(ctx.out("prompts") / PROMPTS, prompts)
        sides = Counter(prompt["split"] for prompt in prompts)
        found = {"conversations": len(rows), "prompts": len(prompts), "heldout_prompts": sides["heldout"]}
        files.write_json(ctx.out("report") / "tools.json", found | {"kinds": counts})
        ctx.result(**found, kinds={kind: dict(each) for kind, each in counts.items()})
        ctx.say(", ".join(f"{kind} {each['kept']}" for kind, each in counts.items()))

    def _maker(self, kind: str) -> Callable[[int], Example | None]:
        """What makes the examples of a kind from their number. Opens the sandbox where the kind runs programs."""
        if kind == "multi_step":
            return lambda index: tools_steps.multi_step(self.seed, index)
        if kind not in REAL:
            return lambda index: tools_examples.example(kind, self.seed, index)
        try:
            python = PythonTool()
        except UserError as error:
            raise UserError(f"kinds: {kind!r} runs programs: {error}; or leave python and search out") from None
        if kind == "python":
            return lambda index: tools_steps.with_python(self.seed, index, python)
        inns = make_inns(self.seed, INNS)
        passages = notes_of(inns)
        if self.corpus:
            passages += read_texts(Path(self.corpus).expanduser())
        search = SearchTool(passages)
        return lambda index: tools_steps.with_search(self.seed, index, inns, search, python)

    def _made(
        self, kind: str, make: Callable[[int], Example | None], count: Counter[str], advance: Callable[[int], None]
    ) -> Iterator[tuple[str, Split, Example]]:
        seen: set[tuple[str, ...]] = set()
        with ThreadPoolExecutor(self.sandboxes if kind in REAL else 1) as pool:
            for index, found in enumerate(pool.map(make, range(self.per_kind))):
                advance(1)
                if found is None:
                    count["answer not found"] += 1
                    continue
                key = (found.text, *sorted(tool.name for tool in found.offered))
                if key in seen:
                    count["repeated"] += 1
                    continue
                seen.add(key)
                count["kept"] += 1
                # The same question is on the same side, whatever else is on offer.
                split = "heldout" if _calls(found, self.unseen) else split_of(f"tools/{found.text}")
                yield f"tools/{kind}:{self.seed}:{index}", split, found

    def _worded(
        self, ctx: Context, made: list[tuple[str, Split, Example]], counts: dict[str, Counter[str]]
    ) -> list[tuple[str, Split, Example]]:
        """The examples with the first wording of each that holds; the template's where none does."""
        asked = [example for _, _, example in made if example.asked]
        with ctx.track(len(asked) * self.wordings, "words") as bar:
            writer = self.opened(ctx, len(asked) * self.wordings, bar.advance)
            texts = writer.write(
                [request(example) for example in asked], n=self.wordings, max_tokens=self.max_tokens,
                temperature=self.temperature, seed=derive(self.seed, 1),
            )  # fmt: skip
        options = iter(texts)
        found = []
        taken = {example.text for _, _, example in made}  # the same text must not come on both sides
        for name, split, example in made:
            if example.asked:
                example = _first_that_holds(example, next(options), taken, counts[example.kind])
            found.append((name, split, example))
        ctx.result(writer=writer.name, calls=writer.before + writer.calls)
        return found


def _first_that_holds(example: Example, texts: list[str], taken: set[str], count: Counter[str]) -> Example:
    for text in map(reworded, texts):
        reason = objection(example, text) or ("another request's" if text in taken else "")
        if not reason:
            count["reworded"] += 1
            taken.add(text)
            return example.reworded(text)
        count[f"wording: {reason}"] += 1
    return example


def _functions(example: Example) -> list[dict[str, Any]]:
    return [tool.function() for tool in example.offered]


def _tools(example: Example) -> list[dict[str, Any]]:
    return [{"type": "function", "function": function} for function in _functions(example)]


def _conversation(name: str, example: Example) -> dict[str, Any]:
    return {
        "id": name, "task": example.kind, "source": "tools", "tools": _tools(example),
        "messages": list(example.messages),
    }  # fmt: skip


def _calls(example: Example, families: tuple[str, ...]) -> bool:
    """Whether a tool of these families is called."""
    called = {name for _, calls in example.truths for call in calls for name in call}
    return any(BY_NAME[name].family in families for name in called)


def prompts_of(name: str, split: Split, example: Example, unseen: tuple[str, ...]) -> list[Prompt]:
    """A prompt for each turn whose calls are known, and for the number at the end; functions come first.

    The source is "tools/<kind>", with "/unseen" behind it where tools of these families are called.
    """
    source = f"tools/{example.kind}" + ("/unseen" if _calls(example, unseen) else "")
    found: list[Prompt] = []
    asked = [(at, {"kind": "tools", "function": _functions(example), "ground_truth": t}) for at, t in example.truths]
    if example.answer:
        asked.append((len(example.messages) - 1, {"kind": "gsm8k", "answer": example.answer}))
    for at, verifier in asked:
        found.append(
            {
                "id": f"{name}:{at}", "split": split, "messages": plain(example.messages[:at], _tools(example)),
                "verifier": verifier, "source": source,
            }
        )  # fmt: skip
    return found


def _check(name: str, example: Example) -> None:
    """Our verifier takes every turn that it will judge: a fault here is one of the generator."""
    for at, expected in example.truths:
        turn = example.messages[at]
        response = {"tool_calls": turn["tool_calls"]} if "tool_calls" in turn else turn["content"]
        verdict = check_tools(_functions(example), expected, response)
        if not verdict.correct:
            raise ValueError(f"{name}: message {at}: {verdict.detail}")
