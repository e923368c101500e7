"""BM25 over a small corpus in memory: what the search tool of synthetic conversations looks things up with.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with Lucene's idf, which is
never negative: ln(1 + (N - n + 0.5) / (n + 0.5)). Words are those of `data.words.normalise`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pippin.data.words import normalise
from pippin.errors import UserError

ENDINGS = (".txt", ".md", ".rst")
LONGEST = 1_000_000  # bytes of a file that is read
MOST = 20_000  # texts; the index is in memory


class Passage(NamedTuple):
    """A text that can be found, and its name."""

    name: str
    text: str


class Found(NamedTuple):
    """A hit: the passage's number in the corpus, and its score."""

    number: int
    score: float


class Index:
    """An inverted index of texts.

    Args:
        texts: the corpus, in order.
        k1, b: of BM25: how soon repeated words saturate, and how much long texts are held back (Lucene's defaults).

    Raises:
        UserError: no text has a word.
    """

    def __init__(self, texts: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        postings: dict[str, list[tuple[int, int]]] = {}
        lengths = np.zeros(len(texts))
        for number, text in enumerate(texts):
            words = normalise(text).split()
            lengths[number] = len(words)
            for word, count in Counter(words).items():
                postings.setdefault(word, []).append((number, count))
        if not postings:
            raise UserError("search: the corpus has no words; give a folder of texts")
        self.size = len(texts)
        self._held_back = k1 * (1 - b + b * lengths / lengths.mean())
        self._k1 = k1
        self._postings = {word: np.array(found, np.int64).T for word, found in postings.items()}

    def search(self, query: str, k: int = 3) -> list[Found]:
        """The best `k` texts that hold a word of the query, best first, equal scores in the corpus' order."""
        scores = np.zeros(self.size)
        for word in normalise(query).split():
            if word not in self._postings:
                continue
            numbers, counts = self._postings[word]
            idf = np.log1p((self.size - len(numbers) + 0.5) / (len(numbers) + 0.5))
            scores[numbers] += idf * counts * (self._k1 + 1) / (counts + self._held_back[numbers])
        order = np.lexsort((np.arange(self.size), -scores))[:k]
        return [Found(int(number), float(scores[number])) for number in order if scores[number] > 0]


def read_texts(folder: str | Path) -> list[Passage]:
    """The texts of a folder: training documents of a curated corpus (a `documents/` directory), or files.

    Files are .txt, .md and .rst, also below the folder, by their names; hidden ones are left out. At most 20,000 texts
    are read, the first ones.

    Raises:
        UserError: no such folder, none in it, a damaged one, or a file that is no UTF-8.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with texts ({', '.join(ENDINGS)})")
    found = list(islice(_documents(folder) if any(folder.glob("*/*.parquet")) else _files(folder), MOST))
    if not found:
        raise UserError(f"{folder}: has no texts ({', '.join(ENDINGS)})")
    return found


def _files(folder: Path) -> Iterator[Passage]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix.lower() not in ENDINGS or not path.is_file() or any(part[0] == "." for part in name.parts):
            continue
        with open(path, "rb") as file:
            data = file.read(LONGEST)
        try:
            yield Passage(name.as_posix(), data.decode("utf-8", "ignore" if len(data) == LONGEST else "strict"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: byte {error.start + 1}: not UTF-8; save the file as UTF-8") from None


def _documents(directory: Path) -> Iterator[Passage]:
    from pippin.data.corpus.documents import read_documents, sources_in  # pyarrow, which files do without

    for source in sources_in(directory):
        for document in read_documents(directory, source, "train"):
            yield Passage(document["id"], document["text"])
