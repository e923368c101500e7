"""Talking to a model in a terminal: find it, load it, print the answer as it comes with its speed."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from pippin.data.chat import render
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.generate import stream_reply
from pippin.interop.load import load_model, locate
from pippin.interop.lora import adapter_rank, base_signature
from pippin.interop.peft import load_adapter
from pippin.model.transformer import Transformer

SLOT = 0


def open_chat(path: Path, adapter: Path | None) -> tuple[Transformer, Tokenizer, int | None]:
    """The model, its tokenizer, and the adapter slot to use (None for none).

    Raises:
        UserError: no model, no tokenizer, a damaged file, or an adapter of another base.
    """
    model_dir, own_adapter = locate(path)
    adapter = adapter or own_adapter
    model, tokenizer = load_model(model_dir), Tokenizer.load(model_dir)
    if adapter is None:
        return model, tokenizer, None
    if not (adapter / "adapter_config.json").is_file() and (adapter / "adapter").is_dir():
        adapter = adapter / "adapter"
    for _, linear in model.linears():
        linear.add_adapters(1, adapter_rank(adapter))
    load_adapter(model, SLOT, adapter, base_signature(model_dir))
    return model, tokenizer, SLOT


def talk(path: Path, adapter: Path | None, prompt: str | None, temperature: float, max_tokens: int, seed: int) -> None:
    """Answer `prompt`, or every line that is typed until the input ends. `/new` forgets the conversation."""
    model, tokenizer, slot = open_chat(path, adapter)
    console = Console(highlight=False)
    interactive = prompt is None and sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is typed or piped in need not be UTF-8
    if interactive:
        size = f"{model.config.n_params().total / 1e6:.1f}M parameters"
        console.print(f"[dim]{escape(str(path))}: {size}; an empty line ends, /new starts over")
    messages: list[dict[str, str]] = []
    while True:
        if prompt is None:
            if interactive:
                console.print("[bold cyan]you[/]    ", end="")
            line = sys.stdin.readline()
            if not line or (interactive and not line.strip()):
                return
            if line.strip() == "/new":
                messages = []
                continue
        messages.append({"role": "user", "content": (prompt if prompt is not None else line).rstrip("\n")})
        messages, room = _fit(model, tokenizer, messages)
        if interactive:
            console.print("[bold green]pippin[/] ", end="")
        start, count, text = time.perf_counter(), 0, ""
        pieces = stream_reply(
            model, tokenizer, messages, max_tokens=min(max_tokens, room), temperature=temperature, seed=seed, slot=slot
        )
        for piece in pieces:
            count, text = count + 1, text + piece
            sys.stdout.write(printable(piece))
            sys.stdout.flush()
        sys.stdout.write("\n")
        if interactive:
            console.print(f"[dim]{count / (time.perf_counter() - start):.0f} pieces/s")
        if prompt is not None:
            return
        messages.append({"role": "assistant", "content": text})


def printable(text: str) -> str:
    """`text` without control characters: a model must not be able to steer the terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _fit(model: Transformer, tokenizer: Tokenizer, messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], int]:
    """The latest messages that leave room for an answer, oldest turns dropped first, and that room in tokens."""
    while True:
        used = len(render(tokenizer, messages, add_generation_prompt=True).ids) + 1
        room = model.config.max_seq_len - used
        if room >= min(16, model.config.max_seq_len // 2):
            return messages, room
        if len(messages) <= 1:
            raise UserError(
                f"prompt: its {used} tokens leave no room in the model's {model.config.max_seq_len}; shorten it"
            )
        messages = messages[2:]
