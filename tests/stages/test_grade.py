"""The stages of classifiers: shipped labels to weights; a sample graded by rules or a server, learnt, and resumed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pippin.data.classify.linear import Classifier
from pippin.data.corpus.schema import DOCUMENTS
from pippin.data.endpoint import NoAnswer
from pippin.data.tokenizer import train_tokenizer
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Graph, Stage
from pippin.progress import Screen
from pippin.recipes.classifiers import classifiers
from pippin.stages import grade
from pippin.stages.grade import Grade, TrainClassifier, TrainQuality

WORDS = [
    "river",
    "engine",
    "bread",
    "cell",
    "planet",
    "bridge",
    "song",
    "glacier",
    "copper",
    "harbour",
    "wheat",
    "rope",
]


@dataclass(frozen=True)
class Documents(Stage):
    """Documents from shop talk to prose, as the extract stage leaves them."""

    n: int = 150

    def run(self, ctx: Context) -> None:
        rng, rows = random.Random(0), []
        for i in range(self.n):
            sentences = [
                f"The {rng.choice(WORDS)} is older than the {rng.choice(WORDS)} because of its {rng.choice(WORDS)}."
                for _ in range(8)
            ]
            talk = [f"{rng.choice(WORDS)} SALE Buy now >>> {rng.choice(WORDS)} $$$" for _ in range(8)]
            good = i % 9
            text = " ".join(sentences[:good]) + "\n" + "\n".join(talk[good:])
            rows.append(dict.fromkeys(DOCUMENTS.names, "") | {"id": f"{i:032x}", "kind": "web", "text": text})
        pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS), ctx.out("documents") / "00000.parquet")


def run(stages: dict[str, Stage], runs: Path) -> Graph:
    graph = Graph(stages, runs)
    graph.run((), Screen(quiet=True))
    return graph


def test_the_recipe_trains_both_and_twice_the_same(tmp_path: Path) -> None:
    whole = run(classifiers(), tmp_path / "a")
    again = run({"math": classifiers()["math"]}, tmp_path / "b")
    for name in ("safety", "math"):
        path = whole.directory(whole.stages[name]) / "classifier" / f"{name}.safetensors"
        found = Classifier.load(path)
        assert whole.record(whole.stages[name])["results"]["accuracy"] == found.report["accuracy"]
        assert found.report["accuracy"] > found.report["majority"]
    second = again.directory(again.stages["math"]) / "classifier" / "math.safetensors"
    assert path.read_bytes() == second.read_bytes()


def test_a_sample_is_graded_by_rules_and_learnt(tmp_path: Path) -> None:
    documents = Documents()
    graded = Grade(documents=documents, n=120)
    graph = run({"documents": documents, "grade": graded, "quality": TrainQuality(grade=graded)}, tmp_path)
    results = graph.record(graph.stages["grade"])["results"]
    assert (results["documents"], results["failed"], results["grader"]) == (120, 0, "rules 1")
    quality = graph.directory(graph.stages["quality"])
    classifier = Classifier.load(quality / "classifier" / "quality.safetensors")
    assert classifier.report["within_one"] > 0.8
    assert classifier.report["rank_correlation"] > 0.6
    prose, talk = "The cell is older than the rope because of its wheat. " * 5, "rope SALE Buy now >>> cell $$$ " * 5
    assert classifier.scores([prose])[0] > classifier.scores([talk])[0]
    log = (quality / "log").read_text()
    assert "the classifier says" in log


def test_a_server_grades_and_what_it_costs_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(fails: Callable[[int], bool]) -> Callable[..., str]:
        def call(self: grade.Endpoint, messages: list[dict[str, str]], max_tokens: int) -> str:
            asked.append(self.key)
            if fails(len(asked)):
                raise NoAnswer("no answer in time")
            return f"Grade: {min(4, messages[-1]['content'].count('older') // 2)}"

        return call

    monkeypatch.setenv(grade.KEY, "secret")
    documents = Documents()
    graded = Grade(documents=documents, n=100, model="judge-1", url="http://localhost:1/v1", workers=2)
    stages: dict[str, Stage] = {"documents": documents, "grade": graded}
    monkeypatch.setattr(grade.Endpoint, "ask", answer(lambda n: n > 40))
    with pytest.raises(UserError, match=r"60 of 100 documents got no grade \(no answer in time: 60\)"):
        run(stages, tmp_path)
    monkeypatch.setattr(grade.Endpoint, "ask", answer(lambda n: n == 120))
    graph = run(stages, tmp_path)
    assert len(asked) == 160, "what was graded is not asked again"
    assert set(asked) == {"secret"}
    folder = graph.directory(graded)
    results = graph.record(graded)["results"]
    assert results["failed"] == 1 and results["reasons"] == {"no answer in time": 1}
    assert "at most 100 requests, about" in (folder / "log").read_text().splitlines()[0]
    assert not [path for path in folder.rglob("*") if path.is_file() and "secret" in path.read_text(errors="replace")]


def test_the_address_of_a_server_is_no_part_of_the_id(tmp_path: Path) -> None:
    one, two = (Grade(documents=Documents(), model="m", url=url) for url in ("http://a/v1", "http://b/v1"))
    assert Graph({"d": one.documents, "g": one}, tmp_path).id(one) == Graph(
        {"d": two.documents, "g": two}, tmp_path
    ).id(two)


def test_a_model_of_ours_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Grade: 3 of the harbour, 1 2 3 4 5 6 7 8 9 0 the rope and the bridge."] * 50
    tokenizer = train_tokenizer(texts, tmp_path, 320, or_fewer=True)
    shape = {"d_model": 32, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "d_head": 32, "d_ff": 32}
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=256, **shape), torch.float32)
    monkeypatch.setattr("pippin.interop.load.load_model", lambda directory: model)
    ask = grade.ask_own(tmp_path)
    answers = {ask([{"role": "user", "content": text}]) for text in ("harbour", "harbour")}
    assert len(answers) == 1, "greedy"
    with pytest.raises(UserError, match="max_seq_len"):
        ask([{"role": "user", "content": "harbour " * 400}])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n": 3}, "n: value 3"),
        ({"workers": 0}, "workers"),
        ({"model": "m"}, "needs both"),
        ({"url": "http://x/v1"}, "needs both"),
        ({"model": "m", "url": "http://x/v1", "judge": Documents()}, "both are given"),
    ],
)
def test_bad_settings_are_one_line(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        Grade(documents=Documents(), **settings)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_no_such_classifier_and_no_such_documents(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such classifier; choose from safety, math"):
        TrainClassifier(name="taste")
    documents = Documents(n=20)
    stages: dict[str, Stage] = {"documents": documents, "grade": Grade(documents=documents, kinds=("code",))}
    with pytest.raises(UserError, match="no document is of these"):
        run(stages, tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        run({"math": TrainClassifier(name="math", labelled=str(tmp_path / "absent"))}, tmp_path)
    own = tmp_path / "own.tsv"
    own.write_text(json.dumps({"text": "x"}) + "\n")
    with pytest.raises(UserError, match="own.tsv:1"):
        run({"math": TrainClassifier(name="math", labelled=str(own))}, tmp_path)
