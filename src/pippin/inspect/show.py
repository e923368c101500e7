"""What `pippin inspect` does: profile, write, and open the user's browser."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path

from rich.console import Console

from pippin.files import write_json, write_text
from pippin.inspect.page import render
from pippin.inspect.profile import inspect_model


def show_model(model: Path, html: Path | None, as_json: Path | None, prompt_tokens: int | None, rounds: int) -> None:
    """Profile a model and show its page.

    Args:
        model: a model directory, or a run directory that holds one.
        html: where the page goes; None: a temporary file that is opened in the browser, unless only numbers are asked.
        as_json: where the profile goes.
        prompt_tokens, rounds: as in `inspect_model`.
    Raises:
        UserError: what `inspect_model` raises; then nothing is written.
    """
    console = Console(highlight=False, stderr=True)
    with console.status("opening the model") as status:

        def tell(what: str, done: int, total: int) -> None:
            status.update(f"{what}: {done} of {total}")

        profile = inspect_model(model, prompt_tokens, rounds, tell)
    if as_json is not None:
        write_json(as_json, profile)
        print(f"written: {as_json}")
    if html is not None:
        write_text(html, render(profile))
        print(f"written: {html}")
    elif as_json is None:
        file = Path(tempfile.mkdtemp(prefix="pippin-")) / "inspect.html"
        write_text(file, render(profile))
        print(f"written: {file}")
        webbrowser.open(file.as_uri())
