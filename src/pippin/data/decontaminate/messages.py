"""Decontamination of conversations against evaluation prompts (afm 6.1, S1): by n-grams, and prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pippin.data.decontaminate.benchmarks import Benchmark, items
from pippin.data.decontaminate.index import Index, Mode, build
from pippin.data.decontaminate.scan import COMMON, decide, scan, total
from pippin.data.words import normalise


def contaminated(
    conversations: Sequence[Sequence[str]],
    benchmarks: Sequence[Benchmark],
    directory: Path,
    mode: Mode,
    common: int = COMMON,
) -> dict[int, str]:
    """The conversations that share text with a benchmark, by place, each with the benchmark and what they share.

    A message collides by an n-gram that counts in `mode` and is in all messages fewer than `common` times; n-grams do
    not run from one message into the next. Beside that (ours) a message whose words are all the words of an item
    collides in every mode: n-grams find no item of fewer than four words, and mode "small" none of numbers alone.

    Args:
        conversations: the texts of their messages.
        directory: where the index is kept; built if it is not there.

    Raises:
        UserError: what `index.build` refuses.
    """
    if not directory.exists():
        build(benchmarks, directory)
    index = Index(directory)
    texts = [text for conversation in conversations for text in conversation]
    owner = [place for place, conversation in enumerate(conversations) for _ in conversation]
    hits = scan(index, texts)
    counts = total(index, [hits])
    ids = [str(place) for place in range(len(texts))]
    decisions, _ = decide(index, ids, [""] * len(texts), texts.__getitem__, hits, counts, mode, common)
    found: dict[int, str] = {}
    for row, evidence in zip(decisions["id"].to_pylist(), decisions["evidence"].to_pylist(), strict=True):
        found.setdefault(owner[int(row)], evidence)
    whole = {normalise(text): benchmark.name for benchmark in benchmarks for _, text in items(benchmark)}
    whole.pop("", None)
    for place, text in zip(owner, texts, strict=True):
        words = normalise(text)
        if place not in found and words in whole:
            found[place] = f"{whole[words]}: {words} (all of it)"
    return found
