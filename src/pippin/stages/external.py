"""Models and adapters that no stage of the graph made: checked, and linked in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pippin import files
from pippin.data.tokenizer import Tokenizer
from pippin.interop.load import load_model, locate
from pippin.interop.lora import adapter_rank, base_signature
from pippin.interop.peft import load_adapter
from pippin.pipeline import Context, Stage, digest_tree


@dataclass(frozen=True, kw_only=True)
class ExternalModel(Stage):
    """A model directory, dense or packed, as `model/`; its tokenizer must be in it.

    The files are linked, not copied: keep the directory. A change in it is another stage, as its digest is in the id.

    Args:
        directory: of the model, or the run directory of the stage that made it.
    """

    directory: str

    def _source(self) -> Path:
        return locate(Path(self.directory).expanduser())[0]

    def inputs(self) -> Mapping[str, str]:
        return {"model": digest_tree(self._source())}

    def run(self, ctx: Context) -> None:
        model = load_model(self._source())
        Tokenizer.load(self._source())
        link_tree(self._source(), ctx.out("model"))
        ctx.result(parameters=model.config.n_params().total)


@dataclass(frozen=True, kw_only=True)
class ExternalAdapter(Stage):
    """An adapter directory (PEFT layout) of the model of `base`, as `adapter/`. One of another base is refused."""

    base: Stage
    directory: str

    def _source(self) -> Path:
        path = Path(self.directory).expanduser()
        return path / "adapter" if (path / "adapter").is_dir() else path

    def inputs(self) -> Mapping[str, str]:
        return {"adapter": digest_tree(self._source())}

    def run(self, ctx: Context) -> None:
        base, source = ctx.artifact(self.base, "model"), self._source()
        model, rank = load_model(base), adapter_rank(source)
        for _, linear in model.linears():
            linear.add_adapters(1, rank)
        info = load_adapter(model, 0, source, base_signature(base))
        if info.note:
            ctx.say(info.note)
        link_tree(source, ctx.out("adapter"))
        ctx.result(rank=info.rank, alpha=info.alpha)


def link_tree(source: Path, directory: Path) -> None:
    """Make `directory` hold a link to each file of `source`; hidden files and folders are left out."""
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            with files.atomic_path(directory / file.name) as temporary:
                os.symlink(file.resolve(), temporary)
