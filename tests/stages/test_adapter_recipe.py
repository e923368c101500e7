"""`pippin run adapter`: conversations in, an adapter and its evaluation out; what is wrong is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
from tests.running import command, directory, one_line_error, record

from pippin import files
from pippin.interop.lora import base_signature

SHORT = (
    "train.steps=3", "train.batch_size=2", "train.warmup_steps=0", "train.seq_len=64", "train.checkpoint_every=2",
    "heldout_share=0.3",
)  # fmt: skip


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short conversations, one with a long answer, one too long for a row."""
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    pairs = [(f"Say {a} {b}.", f"{b} {a}") for a in range(8) for b in range(5)]
    pairs += [("Go on.", "la " * 200)]
    lines = [
        json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]})
        for q, a in pairs
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def made(finished: Path, chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe from the tiny chain's recovery adapter, with its control."""
    runs = tmp_path_factory.mktemp("adapter") / "runs"
    start = directory(finished, "recover")
    outcome = command(
        "run", "adapter", f"model={start}", f"data={chats}", "rank=4", "control=true", *SHORT, "--runs", runs
    )
    assert outcome.code == 0, outcome
    (runs / "output").write_text(outcome.out, encoding="utf-8")
    return runs


def test_an_adapter_and_its_evaluation(finished: Path, made: Path) -> None:
    base = directory(finished, "compress") / "model"
    adapter = directory(made, "adapter") / "adapter"
    assert files.read_json(adapter / "pippin.json")["base_signature"] == base_signature(base)
    assert files.read_json(adapter / "adapter_config.json")["r"] == 4
    found = files.read_json(directory(made, "evaluate") / "report" / "results.json")
    systems = ["no adapter", "adapter at its start", "adapter", "adapter on shuffled answers"]
    assert list(found["bits_per_byte"]) == systems
    assert found["bits_per_byte"]["adapter"] != found["bits_per_byte"]["no adapter"]
    heldout = record(made, "chats")["results"]["conversations"]["heldout"]
    assert set(found["exact_match"]) == set(systems)
    assert all(0 < p["total"] <= heldout for p in found["exact_match"].values())
    output = (made / "output").read_text()
    assert "What the adapter gained" in output
    assert f"pippin chat {directory(made, 'adapter')}" in output
    assert "1 documents longer than 64 left out" in (directory(made, "adapter") / "log").read_text()


def test_nothing_big_is_copied_and_the_next_command_works(finished: Path, made: Path) -> None:
    weights = directory(made, "model") / "model" / "model.safetensors"
    assert weights.is_symlink()
    assert weights.resolve() == (directory(finished, "compress") / "model" / "model.safetensors").resolve()
    spoken = command("chat", directory(made, "adapter"), "--prompt", "Say 3 4.", "--max-tokens", "3")
    assert spoken.code == 0, spoken


def test_a_dense_directory_and_other_layouts_will_do(finished: Path, tmp_path: Path) -> None:
    model, data = directory(finished, "sft") / "model", tmp_path / "chats.parquet"
    call = '{"name": "add", "arguments": {"of": "{a}{b}"}}'
    sharegpt: list[dict[str, object]] = [
        {
            "conversations": [
                {"from": "human", "value": f"Add {a} {b}."},
                {"from": "function_call", "value": call.replace("{a}", str(a)).replace("{b}", str(b))},
                {"from": "observation", "value": str(a + b)},
                {"from": "gpt", "value": f"{a + b}"},
            ],
            "tools": '[{"name": "add"}]',
        }
        for a in range(5)
        for b in range(5)
    ]
    alpaca: list[dict[str, object]] = [{"instruction": "Say it.", "input": str(n), "output": str(n)} for n in range(20)]
    empty: dict[str, object] = dict.fromkeys([*sharegpt[0], *alpaca[0]])  # a Parquet row has every column
    pq.write_table(pa.Table.from_pylist([empty | row for row in (*sharegpt, *alpaca)]), data)
    short = [part.replace("seq_len=64", "seq_len=256") for part in SHORT]
    outcome = command(
        "run", "adapter", "adapter", f"model={model}", f"data={data}", "rank=2", *short, "--runs", tmp_path
    )
    assert outcome.code == 0, outcome
    assert "initial" not in record(tmp_path, "adapter")["results"]
    assert sum(record(tmp_path, "chats")["results"]["conversations"].values()) == 45


def test_mistakes_are_one_line(finished: Path, chats: Path, tmp_path: Path) -> None:
    recover, sft = directory(finished, "recover"), directory(finished, "sft")

    def mistake(*settings: str) -> str:
        return one_line_error(command("run", "adapter", *settings, *SHORT, "--runs", tmp_path))

    assert "model: value ''" in mistake()
    assert "data: value ''" in mistake(f"model={sft}")
    assert "no such directory" in mistake(f"model={tmp_path / 'absent'}", f"data={chats}")
    assert "no such file" in mistake(f"model={sft}", f"data={tmp_path / 'absent.jsonl'}")
    assert "trained on another base" in mistake(f"model={sft}", f"data={chats}", f"start={recover}")
    assert "the adapter to start from has rank 2; set rank=2 or more" in mistake(
        f"model={recover}", f"data={chats}", "rank=1"
    )
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    assert f"{wrong}:1: messages: the last message is of user" in mistake(f"model={sft}", f"data={wrong}")
    wrong.write_text('{"messages": [{"role": "robot", "content": "a"}]}\n')
    assert f"{wrong}:1: messages[0].role: value 'robot': must be one of system, user, assistant, tool" in mistake(
        f"model={sft}", f"data={wrong}"
    )
    model = Path(shutil.copytree(sft / "model", tmp_path / "model"))
    (model / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    assert "its chat template has no generation part" in mistake(f"model={model}", f"data={chats}")
    tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])).save(str(model / "tokenizer.json"))
    assert "chat templates of other makers are not read, and this one has no generation part" in mistake(
        f"model={model}", f"data={chats}"
    )
    assert not list(tmp_path.glob("adapter-*/adapter/*"))


def test_a_changed_model_is_another_stage(finished: Path, chats: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(directory(finished, "sft") / "model", tmp_path / "model"))
    settings = ("show", "adapter", "--json", f"model={model}", f"data={chats}", "--runs", tmp_path / "runs")
    before = json.loads(command(*settings).out)["stages"]
    (model / "generation_config.json").write_text("{}")
    after = json.loads(command(*settings).out)["stages"]
    assert [stage["name"] for stage in before] == ["model", "chats", "adapter", "evaluate"]
    assert all(a["id"] != b["id"] for a, b in zip(before, after, strict=True))
