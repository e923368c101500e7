"""What the documents tell a reader to type works, and what they point at exists."""

from __future__ import annotations

import glob
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# In this order, in one folder: the others find the runs of the first.
DOCUMENTS = ["docs/quickstart.md", "docs/export.md", "docs/device.md", "README.md"]
# The same chain with the smallest numbers that still go through every stage. So little of the standard library may
# hold nothing out, so it is trained on and not looked at.
TINY = [
    *(f"{name}.warmup_steps=0 {name}.steps=2 {name}.batch_size=2" for name in (
        "core", "prune", "distill", "continued", "lengthen", "sft", "summary", "recover"
    )),
    "shape.d_model=32 shape.n_layers=2 shape.n_heads=2 shape.n_kv_heads=1 shape.d_head=16",
    "shape.d_ff=96 shape.student_d_ff=64",
    "corpus.world_documents=300 corpus.world_tasks=300 corpus.stdlib_bytes=100000 corpus.heldout_per_task=5",
    "corpus.instruct_world=300 corpus.instruct_python=50",
    "feedback=none",  # a model of two steps says nothing right, so that there is nothing to prefer
    """heldout_sources='["stories", "tasks"]' mixtures.sft='{"chat": 1}' mixtures.summary='{"chat-summary": 1}'""",
]  # fmt: skip


def blocks(text: str, language: str) -> list[str]:
    """The contents of a Markdown text's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def behind_make(line: str) -> str:
    """The command that a make target ends with."""
    # The flags of the make that runs this test are not for this one.
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    arguments = ["make", "-n", *line.split()[1:]]
    plan = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    return plan.stdout.strip().splitlines()[-1].removeprefix(".venv/bin/")


def translated(line: str, texts: Path) -> str | None:
    """What the test runs for a documented line; None for `make test`, which is what runs this test."""
    if line == "make test":
        return None
    if line == "make quickstart":
        line = behind_make(line)
        assert line == "pippin run quickstart"
    line = line.replace("/path/to/texts", str(texts))
    if line.startswith(("pippin run quickstart", "pippin show quickstart")):
        return " ".join([line, *TINY])
    if line.startswith("pippin chat "):
        return f"{line} --max-tokens 4"
    assert line.startswith("pippin "), f"this test does not know how to try {line!r}"
    return line


def words(command: str, folder: Path) -> list[str]:
    """The arguments that a shell in `folder` makes of a command: quotes and `*`."""
    found: list[str] = []
    for word in shlex.split(command):
        found += sorted(glob.glob(word, root_dir=folder)) or [word]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder to type commands in, with a folder of texts."""
    place = tmp_path_factory.mktemp("reader")
    (place / "texts").mkdir()
    for house in range(8):
        lines = [f"On day {day} the keeper of house {house} wrote {day * house} letters.\n" for day in range(60)]
        (place / "texts" / f"letters-{house}.txt").write_text("".join(lines))
    return place


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_runs(
    document: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pippin.cli import main

    lines = commands((ROOT / document).read_text(encoding="utf-8"))
    assert lines
    monkeypatch.chdir(place)
    for line in lines:
        if command := translated(line, place / "texts"):
            # In this process: a dozen of new ones would spend most of their time on importing torch.
            monkeypatch.setattr(sys, "argv", words(command, place))
            try:
                main()
                status = 0
            except SystemExit as leave:
                status = leave.code if isinstance(leave.code, int) else 1
            out, err = capsys.readouterr()
            assert status == 0, f"{line}\n{out[-2000:]}\n{err[-2000:]}"
            assert out.strip(), f"{line} printed nothing"


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(place: Path) -> None:
    (code,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    assert (place / "runs").is_dir(), "the test of the commands runs first"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "What is 3 plus 4?" in done.stdout


def test_quickstart_page_tells_every_stage() -> None:
    from pippin.cli import load_recipe

    function, params = load_recipe("quickstart")
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `([\w-]+)` \|", page, flags=re.MULTILINE)
    assert told == list(function(params))


@pytest.mark.parametrize("document", [str(p.relative_to(ROOT)) for f in (".", "docs") for p in (ROOT / f).glob("*.md")])
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    assert [t for t in targets if t and not (path.parent / t).exists()] == []
    named = re.findall(r"`((?:src|tests|docs|benchmarks|\.github|\.ci)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_changelog_knows_this_version_or_is_unreleased() -> None:
    import pippin

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{pippin.__version__}]" in text or "## [Unreleased]" in text
