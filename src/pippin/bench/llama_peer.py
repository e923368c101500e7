"""llama.cpp's quantised types for a model of ours: its own quantiser, in an environment of its own.

The environment is made once with pip (it compiles llama.cpp, some minutes); `peers/llama_quantise.py` runs in it.
Files go back and forth: safetensors of float weights in, safetensors of what they became out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from pippin.files import atomic_path
from pippin.model.transformer import Transformer

PACKAGES = ("numpy", "safetensors", "gguf==0.19.0", "llama-cpp-python==0.3.36")
_EMBEDDING = "token_embd.weight"
_GGUF_NAMES = {
    "attention.q": "attn_q", "attention.k": "attn_k", "attention.v": "attn_v", "attention.o": "attn_output",
    "ffn.gate": "ffn_gate", "ffn.up": "ffn_up", "ffn.down": "ffn_down", "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm", "attention.q_norm": "attn_q_norm", "attention.k_norm": "attn_k_norm",
}  # fmt: skip


class NotInstalledError(Exception):
    """The peer cannot be had here; the message says why."""


class Quantised(NamedTuple):
    """What a type made of a model.

    `bits` are of the projections, `file_bits` of all tensors; `types` counts the tensor types that were really used.
    """

    system: str
    bits: float
    file_bits: float
    types: str
    weights: dict[str, Tensor]
    embedding: Tensor


def environment(directory: Path) -> Path:
    """The interpreter of the peer's environment, made if it is not there.

    Raises:
        NotInstalledError: pip cannot install the packages.
    """
    python = directory / "bin" / "python"
    if not (directory / "READY").exists():
        venv.create(directory, with_pip=True)
        command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *PACKAGES]
        print("installing llama.cpp for comparison (once; some minutes)", file=sys.stderr)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "rror" in line]
            raise NotInstalledError(f"cannot be installed: {lines[-1] if lines else 'pip failed'}")
        (directory / "READY").touch()
    return python


def gguf_name(name: str) -> str:
    """The name in a GGUF file of one of `Transformer`'s parameters."""
    if name in ("embed.weight", "norm.weight"):
        return {"embed.weight": _EMBEDDING, "norm.weight": "output_norm.weight"}[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{_GGUF_NAMES[rest.removesuffix('.weight')]}.weight"


def quantise(
    model: Transformer, importance: Mapping[str, Tensor], types: Sequence[str], directory: Path
) -> list[Quantised]:
    """Quantise `model` to each type, without and with ("+im") the importance of the inputs, and give the values back.

    Raises:
        NotInstalledError: the peer cannot be installed.
    """
    python = environment(directory / "environment")
    given = directory / "given.safetensors"
    tensors = {gguf_name(name): parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    tensors |= {f"importance.{gguf_name(f'{name}.weight')}": value.contiguous() for name, value in importance.items()}
    c = model.config
    settings = {
        "context_length": c.max_seq_len, "embedding_length": c.d_model, "block_count": c.n_layers,
        "feed_forward_length": c.d_ff, "head_count": c.n_heads, "head_count_kv": c.n_kv_heads, "d_head": c.d_head,
        "rope_base": c.rope_base, "norm_eps": c.norm_eps, "vocab_size": c.vocab_size, "types": list(types),
    }  # fmt: skip
    with atomic_path(given) as temporary:
        save_file(tensors, temporary, metadata={"settings": json.dumps(settings)})
    script = Path(__file__).parent / "peers" / "llama_quantise.py"
    done = subprocess.run([python, script, given, directory], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalledError(f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    found = []
    for report in json.loads((directory / "report.json").read_text(encoding="utf-8")):
        values = load_file(directory / report["file"])
        weights = {name: values[gguf_name(f"{name}.weight")] for name, _ in model.linears()}
        found.append(
            Quantised(
                report["system"], report["bits"], report["file_bits"], report["types"], weights, values[_EMBEDDING]
            )
        )
    return found
