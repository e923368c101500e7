"""Questions that say the same twice: equal ones, and near ones by the n-grams of their words.

The report removes evolved questions by the similarity of embeddings (afm 5.5). This is the cheaper form for where no
embedding model is at hand: ours, with numbers and signs as words, as "2 + 3" and "2 - 3" are not the same question.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

THRESHOLD = 0.7  # Jaccard similarity of two texts' n-grams from which the later one goes
SHINGLE = 3  # words in an n-gram

Near = Literal["no", "strangers", "all"]
_Gram = tuple[str, ...]


def duplicates(
    texts: Sequence[str],
    near: Sequence[Near] | None = None,
    kin: Sequence[str] | None = None,
    threshold: float = THRESHOLD,
) -> list[int | None]:
    """For each text the number of an earlier one, itself no duplicate, that it repeats; None: it is new.

    Args:
        near: which earlier ones each text is also compared with by n-grams: none (then only for equality), those of
            other kin, or all. Default: all.
        kin: of each text.
        threshold: of the similarity, above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} must be above 0 and at most 1")
    words = [tuple(re.findall(r"\w+|[^\w\s]", text.lower())) for text in texts]
    grams = [{each[i : i + SHINGLE] for i in range(max(1, len(each) - SHINGLE + 1))} for each in words]
    often = Counter(gram for each in grams for gram in each)
    found: list[int | None] = []
    equal: dict[_Gram, int] = {}
    by_gram: dict[_Gram, list[int]] = {}
    for number, each in enumerate(grams):
        # Two sets this similar share one of the rarest n-grams of either (prefix filter, Chaudhuri et al. 2006).
        rarest = sorted(each, key=lambda gram: (often[gram], gram))[: len(each) - math.ceil(threshold * len(each)) + 1]
        first = equal.get(words[number])
        if first is None and (near is None or near[number] != "no"):
            others = {other for gram in rarest for other in by_gram.get(gram, ())}
            if near is not None and kin is not None and near[number] == "strangers":
                others = {other for other in others if kin[other] != kin[number]}
            alike = (other for other in sorted(others) if _jaccard(each, grams[other]) >= threshold)
            first = next(alike, None)
        found.append(first)
        if first is None:
            equal[words[number]] = number
            for gram in rarest:
                by_gram.setdefault(gram, []).append(number)
    return found


def _jaccard(one: set[_Gram], other: set[_Gram]) -> float:
    return len(one & other) / len(one | other)
