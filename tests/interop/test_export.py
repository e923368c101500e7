"""`pippin export`: other tools open what it writes, mistakes are one line, and nothing is written by halves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.interop.models import packed_dir, tokenizer_dir
from tests.project.test_torch_free import command

from pippin.errors import UserError
from pippin.interop import export as module
from pippin.interop.export import Request, export
from pippin.interop.load import load_model
from pippin.interop.lora import base_signature
from pippin.interop.peft import save_adapter
from pippin.progress import Screen

TOKENS = torch.randint(384, (2, 20), generator=torch.Generator().manual_seed(2))
QUIET = Screen(quiet=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directories as stages leave them: a packed model, and an adapter over it."""
    runs = tmp_path_factory.mktemp("runs")
    base = packed_dir(runs / "compress-0a1b2c3d" / "model", tokenizer=tokenizer_dir(runs / "tokenizer"))
    model = load_model(base)
    generator = torch.Generator().manual_seed(1)
    for _, linear in model.linears():
        linear.add_adapters(1, 2)
        a = torch.randn(2, linear.in_features, generator=generator).half().float()
        b = 0.1 * torch.randn(linear.out_features, 2, generator=generator)
        linear.load_adapter(0, a, b.half().float(), 1.5)
    save_adapter(model, 0, runs / "recover-4e5f6a7b" / "adapter", base_signature(base))
    record = {"format_version": 1, "upstream": {"start": "compress-0a1b2c3d"}}
    (runs / "recover-4e5f6a7b" / "stage.json").write_text(json.dumps(record))
    return runs


def ask(source: Path, to: str, out: Path, *adapters: str, **settings: object) -> list[str]:
    return export(Request(source, to, out, adapters=adapters, **settings), QUIET)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_transformers_and_peft_compute_the_same(dtype: str, runs: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lines = ask(runs / "compress-0a1b2c3d", "hf", tmp_path / "hf", kind=dtype)
    assert lines[0].startswith(f"written: {tmp_path / 'hf'} (")
    assert {t.dtype for t in load_file(tmp_path / "hf" / "model.safetensors").values()} == {getattr(torch, dtype)}
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").encode("a fox") != []
    ask(runs / "recover-4e5f6a7b", "peft", tmp_path / "peft")
    model = load_model(runs / "compress-0a1b2c3d" / "model", torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    largest = 1e-4 if dtype == "float32" else 0.2
    assert (theirs(TOKENS).logits - model(TOKENS)).abs().max() < largest
    from pippin.interop.peft import load_adapter

    for _, linear in model.linears():
        linear.add_adapters(1, 2)
    load_adapter(model, 0, tmp_path / "peft", base_signature(runs / "compress-0a1b2c3d" / "model"))
    adapted = model(TOKENS, slots_B=torch.zeros(2, dtype=torch.int64))
    assert (adapted - model(TOKENS)).abs().max() > 0.1
    theirs = PeftModel.from_pretrained(theirs, tmp_path / "peft").eval()
    assert (theirs(TOKENS).logits - adapted).abs().max() < largest


def test_an_adapter_is_written_bit_for_bit(runs: Path, tmp_path: Path) -> None:
    ask(runs / "compress-0a1b2c3d", "peft", tmp_path / "out", str(runs / "recover-4e5f6a7b"))
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    expected = load_file(runs / "recover-4e5f6a7b" / "adapter" / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    (runs / "recover-4e5f6a7b" / "adapter" / "pippin.json").rename(tmp_path / "ours.json")
    lines = ask(runs / "compress-0a1b2c3d", "peft", tmp_path / "foreign", str(runs / "recover-4e5f6a7b" / "adapter"))
    (tmp_path / "ours.json").rename(runs / "recover-4e5f6a7b" / "adapter" / "pippin.json")
    assert "not known whether it was trained on this base" in lines[1]
    assert not (tmp_path / "foreign" / "pippin.json").exists()


def test_the_adapter_of_the_source_is_a_function(runs: Path, tmp_path: Path) -> None:
    second = f"other={runs / 'recover-4e5f6a7b' / 'adapter'}"
    lines = ask(runs / "recover-4e5f6a7b", "coreml", tmp_path / "m.mlpackage", second, kind="float32", context=32)
    assert "functions main, recover, other" in lines[0]
    assert lines[1].startswith(
        "checked: 14 palettized, 1 int8 matrices, read back and decoded, are the model's to the last"
    )
    assert lines[2].startswith("not run: ")
    lines = ask(runs / "recover-4e5f6a7b", "gguf", tmp_path / "m.gguf")
    assert "is not part of it; export it with --to peft" in lines[-1]


@pytest.mark.parametrize(
    ("to", "settings", "message"),
    [
        ("tflite", {}, "to: value 'tflite': must be one of hf, gguf, coreml, peft"),
        ("hf", {"kind": "f16"}, "type: value 'f16': for hf it must be one of float32"),
        ("gguf", {"kind": "q4_k"}, "its llama-quantize makes others from f16"),
        ("gguf", {"context": 8}, "context: value 8: is for coreml only"),
        ("gguf", {"adapters": ("x",)}, "adapter: value 'x': no adapter"),
        ("peft", {}, "adapter: 0 of them: name one"),
        ("coreml", {}, "must end in .mlpackage"),
    ],
)
def test_a_mistake_is_one_line(to: str, settings: dict[str, object], message: str, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        export(Request(runs / "compress-0a1b2c3d", to, tmp_path / "out", **settings), QUIET)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_names_of_adapters(runs: Path, tmp_path: Path) -> None:
    adapter = str(runs / "recover-4e5f6a7b")
    for named, message in ((f"a b={adapter}", "'a b'"), (f"main={adapter}", "'main'"), (adapter, "names two adapters")):
        with pytest.raises(UserError, match=f"adapter: value .*{message}"):
            ask(runs / "recover-4e5f6a7b", "coreml", tmp_path / "m.mlpackage", named)
    with pytest.raises(UserError, match="adapters are not merged; export them with --to peft"):
        ask(runs / "compress-0a1b2c3d", "hf", tmp_path / "hf", adapter)


@pytest.mark.parametrize(("to", "name"), [("hf", "m"), ("gguf", "m.gguf"), ("coreml", "m.mlpackage")])
def test_what_is_there_stays_until_the_new_is_whole(
    to: str, name: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = runs / "compress-0a1b2c3d", tmp_path / name
    ask(source, to, out)
    with pytest.raises(UserError, match="exists already; give --overwrite"):
        ask(source, to, out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    target = {"hf": "pippin.interop.hf.write_json", "gguf": "gguf.GGUFWriter.write_tensor_data"}
    with monkeypatch.context() as broken:
        broken.setattr(target.get(to, "pippin.interop.coreml.check_package"), lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ask(source, to, out, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    ask(source, to, out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_source_is_never_replaced(runs: Path) -> None:
    for out in (runs, runs / "compress-0a1b2c3d", runs / "compress-0a1b2c3d" / "model"):
        with pytest.raises(UserError, match="holds what is exported; choose another place"):
            ask(runs / "compress-0a1b2c3d", "hf", out, overwrite=True)
    with pytest.raises(UserError, match="is a directory; give the name of a file"):
        ask(runs / "compress-0a1b2c3d", "gguf", runs / "tokenizer", overwrite=True)


def test_the_verb(runs: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pippin.cli", "export", runs / "compress-0a1b2c3d", "--to", "gguf"]
    done = subprocess.run([*line, "--out", tmp_path / "m.gguf"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("written: ")


@pytest.mark.parametrize(
    ("to", "name"), [("gguf", "m.gguf"), pytest.param("coreml", "m.mlpackage", marks=pytest.mark.slow)]
)
def test_no_torch_is_needed(to: str, name: str, runs: Path, tmp_path: Path) -> None:
    done = command("export", str(runs / "compress-0a1b2c3d"), "--to", to, "--out", str(tmp_path / name))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / name).exists()


def test_missing_packages_are_named(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"gguf: the package is not installed; pip install 'pippin\[export\]'"):
        ask(runs / "compress-0a1b2c3d", "gguf", tmp_path / "m.gguf")
    for name in ("pippin.interop.coreml", "pippin.interop.coreml_program"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(UserError, match=r"coreml: coremltools is not installed; pip install 'pippin\[export\]'"):
        ask(runs / "compress-0a1b2c3d", "coreml", tmp_path / "m.mlpackage")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hf: PyTorch is not installed here; .*pippin\[train\]"):
        ask(runs / "compress-0a1b2c3d", "hf", tmp_path / "hf")
