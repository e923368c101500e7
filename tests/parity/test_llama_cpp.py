"""llama.cpp computes every architecture that is exported as Pippin does, and tokenizes alike.

Slow, and skipped without llama.cpp: install llama-cpp-python beside Pippin, or name a Python that has it in
PIPPIN_LLAMA_PYTHON (`pippin bench export` and `pippin bench compress` make such an environment in runs/peers).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.interop.models import BASE, CONFIGS, dense_dir, packed_dir, tokenizer_dir
from tests.interop.test_gguf import byte_level

import pippin.bench
from pippin.bench.export import random_texts
from pippin.data.tokenizer import Tokenizer
from pippin.interop.gguf import export_gguf, write_gguf
from pippin.interop.gguf_vocabulary import _GPT4, _QWEN
from pippin.interop.load import load_model
from pippin.interop.stored import StoredModel

pytestmark = pytest.mark.slow
SCRIPT = Path(pippin.bench.__file__).parent / "peers" / "llama_run.py"
PROMPT = torch.randint(8, 384, (30,), generator=torch.Generator().manual_seed(4)).tolist()


def llama(folder: Path, **request: Any) -> dict[str, Any]:
    """What `bench/peers/llama_run.py` answers."""
    python = os.environ.get("PIPPIN_LLAMA_PYTHON") or (sys.executable if find_spec("llama_cpp") else None)
    if python is None:
        pytest.skip("no llama.cpp: llama_cpp is not installed and PIPPIN_LLAMA_PYTHON is not set")
    request = {"files": [], "texts": [], "prompts": [], "context": 64, "new_tokens": 10} | request
    (folder / "request.json").write_text(json.dumps(request))
    command = [python, str(SCRIPT), str(folder / "request.json"), str(folder / "answer.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


@pytest.mark.parametrize("kind", CONFIGS)
def test_llama_cpp_computes_the_same(kind: str, tmp_path: Path) -> None:
    stored = StoredModel(dense_dir(tmp_path / "model", CONFIGS[kind]))
    write_gguf(tmp_path / "m.gguf", stored.config, stored.dense, None, "f32")
    (run,) = llama(tmp_path, files=[str(tmp_path / "m.gguf")], prompts=[PROMPT])["runs"]
    with torch.no_grad():
        logits = load_model(tmp_path / "model", torch.float32)(torch.tensor([PROMPT + run["ids"]]))[0].numpy()
    theirs = np.load(run["logits"], allow_pickle=False)
    # Its cache is float16; logits are of size 10.
    assert np.abs(logits[len(PROMPT) - 1 : -1] - theirs).max() < 0.05
    assert np.abs(theirs).max() > 1


def test_a_packed_model_and_its_tokenizer(tmp_path: Path) -> None:
    tokenizer = tokenizer_dir(tmp_path / "tokenizer")
    export_gguf(StoredModel(packed_dir(tmp_path / "model", tokenizer=tokenizer)), tmp_path / "m.gguf")
    texts = random_texts(3000)
    answer = llama(tmp_path, files=[str(tmp_path / "m.gguf")], texts=texts)
    ours = Tokenizer.load(tokenizer)
    for text, ids, decoded in zip(texts, answer["ids"], answer["text"], strict=True):
        if "\u2581" not in text:  # which llama.cpp cannot tell from a space
            assert (ids, decoded) == (ours.encode(text), text)


@pytest.mark.parametrize(("expression", "ignore_merges"), [(_QWEN, False), (_GPT4, True), (_GPT4, False)])
def test_another_makers_tokenizer(expression: str, ignore_merges: bool, tmp_path: Path) -> None:
    import tokenizers

    directory = byte_level(tmp_path / "tokenizer", expression, ignore_merges)
    backend = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    backend.encode_special_tokens = True
    export_gguf(StoredModel(dense_dir(tmp_path / "model", BASE, directory)), tmp_path / "m.gguf")
    texts = random_texts(3000)
    answer = llama(tmp_path, files=[str(tmp_path / "m.gguf")], texts=texts)
    pairs = zip(answer["ids"], texts, strict=True)
    other = [text for ids, text in pairs if ids != backend.encode(text, add_special_tokens=False).ids]
    assert other == []
