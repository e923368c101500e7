"""Labels on disk are the labels that the teacher gives while it trains a student, for any batch layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.running import graph
from tests.tiny import PARAMS

from pippin import files
from pippin.data.loader import IGNORE, Loader
from pippin.data.packing import TokenSet
from pippin.errors import UserError
from pippin.interop.hf import load_hf
from pippin.interop.load import load_model
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.stages.distill import Distill
from pippin.stages.labels import Labels
from pippin.training.teacher import most_likely


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The tiny chain with a student taught from labels, in float32 so that no two tokens are equally likely."""
    import shutil

    runs = tmp_path_factory.mktemp("labels") / "runs"
    shutil.copytree(finished, runs)
    stages = dict(graph(runs).stages)
    online = stages["distill"]
    assert isinstance(online, Distill)
    online = replace(online, train=replace(online.train, compute="float32"))
    labels = Labels(
        tokens=online.tokens,
        teacher=online.teacher,
        teacher_model=online.teacher_model,
        sources=tuple(online.mixture),
        seq_len=online.train.seq_len,
        batch_size=5,
        compute="float32",
    )
    stages |= {"online": online, "labels": labels, "read": replace(online, labels=labels)}
    made = Graph(stages, runs)
    made.run(["online", "read"], Screen(quiet=True))
    return made


def test_a_student_taught_from_disk_is_the_one_taught_online(made: Graph) -> None:
    online, read = (load_hf(made.directory(made.stages[name]) / "model").state_dict() for name in ("online", "read"))
    assert online.keys() == read.keys()
    for name, tensor in online.items():
        torch.testing.assert_close(read[name], tensor, rtol=1e-5, atol=1e-7)


def test_labels_are_the_teachers_in_every_batch_layout(made: Graph) -> None:
    """Another batch size, mixture, seed and a second epoch; ties apart, which float32 has none of."""
    stage = made.stages["labels"]
    assert isinstance(stage, Labels)
    tokens = made.artifact(stage.tokens, "tokens")
    labels = made.directory(stage) / "labels"
    teacher = load_model(made.artifact(stage.teacher, "model"), torch.float32)
    mixture = {source: 1.0 + 2 * number for number, source in enumerate(stage.sources)}
    loader = Loader(tokens, mixture, "train", stage.seq_len, 3, seed=7, labels=labels)
    n_rows = sum(TokenSet(tokens).open(source, "train").n_tokens for source in mixture) // stage.seq_len
    for step in (0, 1, n_rows // 3 + 2):
        batch = loader.batch(step)
        assert batch.labels is not None
        learnt = batch.targets != IGNORE
        assert torch.equal(batch.labels != IGNORE, learnt)
        assert torch.equal(batch.labels[learnt], most_likely(teacher, batch)[learnt])
        part = loader.rows(step, 1, 3)
        assert part.labels is not None
        assert torch.equal(part.labels, batch.labels[1:])


def test_two_bytes_a_token(made: Graph) -> None:
    stage = made.stages["labels"]
    record = made.record(stage)["results"]
    size = sum(path.stat().st_size for path in (made.directory(stage) / "labels").glob("*.tokens*.npy"))
    assert record["bytes_per_token"] == 2
    assert record["tokens"] * 2 <= size <= record["tokens"] * 2 + 128 * len(stage.sources)


def test_the_teacher_is_not_loaded(made: Graph, tmp_path: Path) -> None:
    read = made.stages["read"]
    assert isinstance(read, Distill)
    assert read.cost().flops < replace(read, labels=None).cost().flops


def test_labels_of_something_else_are_refused(made: Graph) -> None:
    read = made.stages["read"]
    assert isinstance(read, Distill)
    labels = read.labels
    assert labels is not None
    with pytest.raises(UserError, match="the labels are of rows of"):
        replace(read, train=replace(read.train, seq_len=read.train.seq_len // 2))
    with pytest.raises(UserError, match="no labels"):
        replace(read, labels=replace(labels, sources=labels.sources[:1]))
    with pytest.raises(UserError, match="another teacher"):
        replace(read, teacher=made.stages["distill"])
    with pytest.raises(UserError, match="seq_len"):
        replace(labels, seq_len=PARAMS.core.seq_len * 100)


def test_labels_of_other_documents_are_refused(made: Graph, tmp_path: Path) -> None:
    """A directory of labels whose documents end elsewhere, as if the tokens had been made again."""
    import shutil

    stage = made.stages["labels"]
    assert isinstance(stage, Labels)
    moved = tmp_path / "labels"
    shutil.copytree(made.directory(stage) / "labels", moved)
    source = stage.sources[0]
    path = moved / f"{source}.train.starts.npy"
    starts = np.load(path)
    starts[1] += 1
    np.save(path, starts)
    tokens = made.artifact(stage.tokens, "tokens")
    with pytest.raises(UserError, match=f"labels of source {source}: not of these tokens"):
        Loader(tokens, dict.fromkeys(stage.sources, 1.0), "train", stage.seq_len, 2, 0, labels=moved).batch(0)
    assert files.read_json(moved / "index.json")["format_version"]
