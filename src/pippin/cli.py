"""The `pippin` command. Verbs: run, show, chat, export, inspect, eval, bench."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from pippin import __version__
from pippin.config import override
from pippin.errors import Stopped, UserError
from pippin.inspect.recipe import describe, duration, estimate_s, print_description, print_parameters
from pippin.pipeline import Graph, Stage
from pippin.progress import Screen

if TYPE_CHECKING:
    from pippin.training.processes import Team

app = typer.Typer(
    help="Grow a small language model from raw documents to a low-bit chat model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
SHIPPED = (
    "quickstart", "small", "on_device_3b", "server", "compress", "adapter", "summaries", "draft", "ablation",
    "sweep", "long_context", "curate", "classifiers", "autoscale", "synthesize", "sft_mixture", "metareward",
    "posttrain",
)  # fmt: skip
BENCHES = (
    "train", "loader", "learning", "mup", "checkpoint", "compress", "compress_3b", "export", "device",
    "device_quality", "distill", "ablation", "baseline", "long_context", "autoscale", "rollout", "posttrain",
    "data", "data_classify", "data_decontaminate", "data_dedup", "data_extract", "data_rules",
)  # fmt: skip
# What comes with an extra and may be missing when a recipe is loaded.
EXTRAS = {
    "torch": "pippin[train]", "sentencepiece": "pippin[train] or pippin[data]", "daft": "pippin[data]",
    "fastwarc": "pippin[data]", "pyarrow": "pippin[data]", "resiliparse": "pippin[data]", "xxhash": "pippin[data]",
    "langdetect": "pippin[eval]", "math_verify": "pippin[eval]", "nltk": "pippin[eval]",
}  # fmt: skip
Runs = Annotated[Path, typer.Option("--runs", help="Directory of the runs.", envvar="PIPPIN_RUNS")]


def _version(show: bool) -> None:
    if show:
        print(f"pippin {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help=f"A shipped recipe ({', '.join(SHIPPED)}) or a path to your own file.")],
    what: Annotated[
        list[str] | None, typer.Argument(help="Stages to reach (all, if none), and path=value overrides.")
    ] = None,
    runs: Runs = Path("runs"),
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile the training steps (worth it for long runs).")
    ] = False,
    parallel: Annotated[
        str | None,
        typer.Option("--parallel", help='Under torchrun: how training is spread, such as "fsdp=2 tensor=2".'),
    ] = None,
) -> None:
    """Run a recipe: what is done is skipped, what was cut short is resumed."""
    if parallel is None and "WORLD_SIZE" not in os.environ:
        _run(recipe, what or [], runs, compile, None)  # alone, and without torch where the recipe needs none
        return
    _needs_torch("--parallel")
    from pippin.training.processes import join

    team = join(parallel)
    with team.ending():
        _run(recipe, what or [], runs, compile, team)


def _run(recipe: str, what: list[str], runs: Path, compile: bool, team: Team | None) -> None:
    graph, _ = _graph(recipe, what, runs)
    targets = [item for item in what if "=" not in item]
    screen = Screen(quiet=team is not None and not team.main)
    if team is not None and not team.main:
        graph.run(targets, screen, compile, team)
        return
    pending = [name for name in graph.order(targets) if not graph.done(graph.stages[name])]
    if not pending:
        screen.console.print(f"Nothing to do: all {len(graph.order(targets))} stages are done.", soft_wrap=True)
    else:
        _print_estimate(graph, pending, screen.console)
    graph.run(targets, screen, compile, team)
    _epilogue(graph, graph.order(targets), screen.console)


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="A recipe, a stage's run directory, or the name of a model preset.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="path=value overrides.")] = None,
    runs: Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    devices: Annotated[
        int | None, typer.Option("--devices", help="Plan the recipe's training on so many accelerators.", min=1)
    ] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="Of each of them, such as 80GB (the chip's).")] = None,
    parallel: Annotated[
        str | None, typer.Option("--parallel", help='How it is spread, such as "fsdp=64 tensor=2" (the fastest).')
    ] = None,
    chip: Annotated[str, typer.Option("--chip", help="a100, h100, h200, tpu-v4 or tpu-v5p.")] = "h100",
) -> None:
    """Show a recipe's stages, settings, cost and artifacts; its plan at scale; or what one run directory holds."""
    from pippin.model.config import PRESETS

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if (Path(what) / "stage.json").exists():
        from pippin.files import read_json

        record = read_json(Path(what) / "stage.json")
        print(json.dumps(record, indent=1, ensure_ascii=False))
    elif what in PRESETS:
        count = PRESETS[what].n_params()
        if as_json:
            print(json.dumps({"preset": what, "parameters": count.total, "embedding": count.embedding}, indent=1))
        else:
            print_parameters(what, PRESETS[what], console)
    else:
        graph, params = _graph(what, overrides or [], runs)
        if devices is not None:
            _show_scale(graph, devices, memory, parallel, chip, as_json, console)
            return
        description = describe(graph, params)
        if as_json:
            print(json.dumps(description, indent=1, ensure_ascii=False))
        else:
            print_description(what, graph, description, console)


def _show_scale(
    graph: Graph, devices: int, memory: str | None, parallel: str | None, chip: str, as_json: bool, console: Console
) -> None:
    from pippin.inspect import scale

    limit = None if memory is None else scale.parse_bytes(memory)
    found, refused = scale.at_scale(graph, devices, scale.chip_named(chip), limit, parallel)
    if as_json:
        print(json.dumps(scale.describe_scale(found, refused), indent=1))
    else:
        scale.print_scale(graph.recipe, found, refused, console)


@app.command()
def chat(
    model: Annotated[Path, typer.Argument(help="A model directory, or the run directory of a stage that made one.")],
    adapter: Annotated[Path | None, typer.Option("--adapter", help="An adapter directory (PEFT layout).")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Answer this one prompt and end.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0.0)] = 0.0,
    max_tokens: Annotated[int, typer.Option(help="The longest answer.", min=1)] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    engine: Annotated[
        Literal["auto", "native", "torch"],
        typer.Option("--engine", help="auto: the native engine for packed models, torch for dense ones."),
    ] = "auto",
    mode: Annotated[
        Literal["fast", "exact"], typer.Option(help="Of the native engine: int8 activations, or exact in float32.")
    ] = "fast",
    threads: Annotated[int, typer.Option(help="Of the native engine; 0 is one for each core.", min=0)] = 0,
) -> None:
    """Talk to a model: dense or palettized, with its recovery adapter or your own."""
    from pippin.chat import talk

    talk(model, adapter, prompt, temperature, max_tokens, seed, engine, mode, threads)


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(help="A model directory, or the run directory of a stage that made a model or an adapter.")
    ],
    to: Annotated[str, typer.Option("--to", help="hf, gguf, coreml or peft.")],
    out: Annotated[Path, typer.Option("--out", help="The file or directory to write.")],
    kind: Annotated[
        str | None, typer.Option("--type", help="Of the weights: float32 ... (hf), f16, q8_0 ... (gguf).")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="An adapter directory (peft); NAME=DIRECTORY for each function (coreml)."),
    ] = None,
    context: Annotated[int | None, typer.Option("--context", help="Tokens that the cache holds (coreml).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a model or an adapter in a format that other tools open."""
    from pippin.interop.export import Request
    from pippin.interop.export import export as write

    request = Request(model, to, out, kind, tuple(adapter or ()), context, overwrite)
    for line in write(request, Screen()):
        print(line)


@app.command(name="inspect")
def inspect_(
    what: Annotated[
        Path, typer.Argument(help="A model, a run directory, a corpus, or a directory of checkpoints or one step.")
    ],
    document: Annotated[
        str | None, typer.Argument(help="Of a corpus: a document's id, the start of one, its address or location.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page to this file; without it, a browser shows it.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(help="Tokens of the measured prompt (128, or what the model takes).")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of measurement; a time is the median over them.")] = 7,
    verify: Annotated[
        bool, typer.Option("--verify", help="Of checkpoints: compare every file with its digest.")
    ] = False,
    diff: Annotated[
        Path | None, typer.Option("--diff", help="Of checkpoints: compare the tensors with this step's.")
    ] = None,
    merge: Annotated[
        Path | None, typer.Option("--merge", help="Of checkpoints: write the model as a Hugging Face directory.")
    ] = None,
    step: Annotated[int | None, typer.Option("--step", help="Of a training run: the documents of this step.")] = None,
    row: Annotated[int | None, typer.Option("--row", help="Of a step: one row of its batch, with its text.")] = None,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="Of a corpus: name=value, the yield with another limit.")
    ] = None,
) -> None:
    """A model as one page, the steps and tensors of checkpoints, what a corpus kept and why, or a step's documents."""
    if step is not None or row is not None:
        if step is None:
            raise UserError(f"--row {row}: of which step? give --step too")
        _needs_torch("inspect")
        from pippin.inspect.step import show_step

        show_step(what, step, row, as_json)
        return
    if document is not None or rule or next(what.glob("documents/*/*.parquet"), None):
        if importlib.util.find_spec("pyarrow") is None:
            raise UserError("inspect: pyarrow is not installed here; install Pippin with its extra: pippin[data]")
        from pippin.inspect.corpus import show_corpus, show_document

        if document is not None:
            show_document(what, document, as_json)
        else:
            show_corpus(what, rule or [], html, as_json)
        return
    _needs_torch("inspect")
    from pippin.inspect.checkpoint import inspect_checkpoint, steps_of
    from pippin.inspect.show import show_model

    if verify or diff or merge or steps_of(what):
        if html is not None:
            raise UserError(f"--html {html}: the page is of a model; of a checkpoint there is --json")
        inspect_checkpoint(what, verify, diff, merge, as_json)
    else:
        show_model(what, html, as_json, prompt_tokens, rounds)


@app.command(name="eval")
def eval_(
    grade: Annotated[
        Literal["gsm8k", "math", "ifeval", "code", "tools"], typer.Option("--grade", help="What the answers are to.")
    ],
    responses: Annotated[Path, typer.Option("--responses", help="Rows with the benchmark's fields and the answers.")],
    out: Annotated[Path | None, typer.Option("--json", help="Write the verdicts to this file.")] = None,
) -> None:
    """Grade answers of any model: mathematics, instructions, code in the sandbox, tool calls."""
    from pippin.evaluate.verify.responses import grade_file

    grade_file(grade, responses, out)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(BENCHES)}.")],
    settings: Annotated[list[str] | None, typer.Argument(help="path=value settings of the bench.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the result to this file or folder.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A short trial: shows that it runs, measures little.")] = False,
) -> None:
    """Measure, with the peers in the same run."""
    if name not in BENCHES:
        raise UserError(f"bench {name!r}: there is no such bench; choose from {', '.join(BENCHES)}")
    _needs_torch("bench")
    module = importlib.import_module(f"pippin.bench.{name}")
    result = module.run(override(module.Params(), settings or []), quick)
    result.show(Console(highlight=False))
    if out is not None:
        print(f"written: {result.write(out)}")


def _needs_torch(verb: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"{verb}: PyTorch is not installed here; install Pippin with its extra: pippin[train]")


def load_recipe(name: str) -> tuple[Callable[..., dict[str, Stage]], Any]:
    """The recipe function and its default Params, from a shipped name or a path to a Python file.

    Raises:
        UserError: no such recipe, or the file does not define one.
    """
    if name in SHIPPED:
        function = getattr(importlib.import_module(f"pippin.recipes.{name}"), name)
    elif name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{path}: no such recipe file")
        if os.environ.get("RANK", "0") == "0":  # one of several processes says it
            print(f"note: {path} is a program and runs with your rights", file=sys.stderr)
        spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)  # never the name of another module
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:
            raise UserError(f"{error.filename}:{error.lineno}: {error.msg}; mend the recipe") from None
        function = getattr(module, path.stem, None)
        if not callable(function):
            raise UserError(f"{path}: defines no function {path.stem}(params) -> dict of stages")
    else:
        import difflib

        close = difflib.get_close_matches(name, SHIPPED, n=1)
        hint = (
            f"did you mean {close[0]}?"
            if close
            else f"shipped are {', '.join(SHIPPED)}; or give a path that ends in .py"
        )
        raise UserError(f"recipe {name!r}: not known; {hint}")
    default = next(iter(inspect.signature(function).parameters.values())).default
    if default is inspect.Parameter.empty:
        raise UserError(f"recipe {name!r}: its first parameter needs a default Params")
    return function, default


def _graph(recipe: str, what: list[str], runs: Path) -> tuple[Graph, Any]:
    function, params = load_recipe(recipe)
    params = override(params, [item for item in what if "=" in item])
    return Graph(function(params), runs, Path(recipe).stem), params


def _print_estimate(graph: Graph, pending: list[str], console: Console) -> None:
    seconds = sum(estimate_s(c.flops, c.other_s) for c in (graph.stages[n].cost() for n in pending))
    tokens = sum(graph.stages[n].cost().tokens for n in pending)
    console.print(
        f"{len(pending)} of {len(graph.stages)} stages to do, {tokens:,} tokens of training; "
        f"about {duration(seconds)} here (estimated). Stop at any time; the same command goes on.",
        soft_wrap=True,
    )


def _epilogue(graph: Graph, order: list[str], console: Console) -> None:
    """The table, the samples and the next command, when the recipe has an evaluation that is done."""
    for name in order:
        stage = graph.stages[name]
        summary = graph.directory(stage) / "report" / "summary.txt"
        if summary.exists():
            print(summary.read_text(encoding="utf-8").rstrip())


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2, never a traceback."""
    try:
        app(standalone_mode=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        name = str(error.name).partition(".")[0]
        print(f"error: {name} is not installed here; install Pippin with its extra: {EXTRAS[name]}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stop:
        print(f"{stop}; the same command goes on from here", file=sys.stderr)
        raise SystemExit(128 + 15) from None  # as of a process that SIGTERM ended
    except typer.Exit as leave:
        raise SystemExit(leave.exit_code) from None
    except (typer.Abort, KeyboardInterrupt):
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            print(f"error: {error.format_message()}", file=sys.stderr)
            raise SystemExit(2) from None
        raise


if __name__ == "__main__":
    main()
