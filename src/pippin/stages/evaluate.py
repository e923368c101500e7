"""Evaluate."""
from __future__ import annotations
from dataclasses import dataclass
from pippin.pipeline import Context, Stage


@dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    tokens: Stage
    teacher: Stage
    base: Stage
    chat: Stage
    compressed: Stage
    recovered: Stage
    control: Stage
    adapter: Stage
    trail: tuple[Stage, ...]

    def run(self, ctx: Context) -> None:
        pass
