"""Talking to a model in a terminal: find it, load it, print the answer as it comes with its speed."""

from __future__ import annotations

import importlib.util
import io
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from pippin.data.chat import render
from pippin.data.tokenizer import Tokenizer
from pippin.device.engine import Adapter, Engine, Mode, Model
from pippin.device.library import is_built
from pippin.errors import UserError
from pippin.generate import Generator, stream_reply
from pippin.interop.directory import is_packed, locate
from pippin.interop.lora import adapter_rank, base_signature

EngineChoice = Literal["auto", "native", "torch"]


def open_chat(
    path: Path, adapter: Path | None, engine: EngineChoice = "auto", mode: Mode = "fast", threads: int = 0
) -> tuple[Generator, Tokenizer, int | None]:
    """The model, its tokenizer, and the adapter slot to use (None for none).

    A packed model runs on the native engine, which needs no torch; a dense one, or one with `engine="torch"`, on torch.
    Where the engine was not built and torch is installed, "auto" says so and takes torch.

    Raises:
        UserError: no model, no tokenizer, a damaged file, an adapter of another base, or what runs it is not installed.
    """
    model_dir, own_adapter = locate(path)
    adapter = adapter or own_adapter
    if adapter is not None and not (adapter / "adapter_config.json").is_file() and (adapter / "adapter").is_dir():
        adapter = adapter / "adapter"
    packed = is_packed(model_dir)
    if engine == "native" and not packed:
        raise UserError(f"engine: value 'native': {model_dir} is not packed; compress it first, or use engine=torch")
    if packed and engine == "auto" and not is_built() and importlib.util.find_spec("torch") is not None:
        print("note: the native engine was not built; torch answers, more slowly", file=sys.stderr)
        engine = "torch"
    if packed and engine != "torch":
        native = Engine(Model(model_dir), mode=mode, threads=threads, max_sequences=1)
        slot = None if adapter is None else native.add_adapter(Adapter(native.model, adapter))
        return native, Tokenizer.load(model_dir), slot
    return _open_torch(model_dir, adapter)


def _open_torch(model_dir: Path, adapter: Path | None) -> tuple[Generator, Tokenizer, int | None]:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise UserError(
            f"{model_dir}: needs torch, since it is not packed or engine=torch was asked for; "
            "pip install 'pippin[train]'"
        ) from None
    from pippin.interop.load import load_model
    from pippin.interop.peft import load_adapter

    model, tokenizer = load_model(model_dir), Tokenizer.load(model_dir)
    if adapter is None:
        return model, tokenizer, None
    for _, linear in model.linears():
        linear.add_adapters(1, adapter_rank(adapter))
    load_adapter(model, 0, adapter, base_signature(model_dir))
    return model, tokenizer, 0


def talk(
    path: Path,
    adapter: Path | None,
    prompt: str | None,
    temperature: float,
    max_tokens: int,
    seed: int,
    engine: EngineChoice = "auto",
    mode: Mode = "fast",
    threads: int = 0,
) -> None:
    """Answer `prompt`, or every line that is typed until the input ends. `/new` forgets the conversation."""
    model, tokenizer, slot = open_chat(path, adapter, engine, mode, threads)
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
        pieces = stream_reply(
            model, tokenizer, messages, max_tokens=min(max_tokens, room), temperature=temperature, seed=seed, slot=slot
        )
        text = _show_live(pieces, console) if interactive and console.is_terminal else _show(pieces)
        if prompt is not None:
            return
        messages.append({"role": "assistant", "content": text})


def _show(pieces: Iterable[str]) -> str:
    text = ""
    for piece in pieces:
        text += piece
        sys.stdout.write(printable(piece))
        sys.stdout.flush()
    sys.stdout.write("\n")
    return text


def _show_live(pieces: Iterable[str], console: Console) -> str:
    """The answer as it grows, with its speed below; time to the first token and tokens/s after it."""
    start = time.perf_counter()
    first, count, text = 0.0, 0, ""
    with Live(console=console, refresh_per_second=10, vertical_overflow="visible") as live:
        for piece in pieces:
            count, text = count + 1, text + piece
            now = time.perf_counter()
            first = first or now
            speed = f"{(count - 1) / (now - first):.0f} tokens/s, " if count > 1 else ""
            live.update(Group(Text(printable(text)), Text(f"{speed}first token {1e3 * (first - start):.0f} ms", "dim")))
    return text


def printable(text: str) -> str:
    """`text` without control characters: a model must not be able to steer the terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _fit(model: Generator, tokenizer: Tokenizer, messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], int]:
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
