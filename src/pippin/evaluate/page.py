"""The report of a run as one HTML page: no script, no external resource, everything that it shows escaped.

`render(results)` is a pure function of a JSON-able dict. Every key is optional, a section without data is left out,
null stands for a number that does not exist, unknown keys are ignored. Text sets, tasks and systems are listed in the
order of their dicts.

    header      {"recipe", "date", "commit", "machine": str, "total_s": number, "version": str, "note": str}
    texts       {key: description}; what bits per byte are measured on, such as {"a": "held-out stories"}
    stages      [{"name": str, "parameters": int, "bits_per_weight": number, "bits_whole_file": number,
                  "bits_per_byte": {key of texts: number}, "time_s": number, "baseline": bool}]
                the last is true for what was not grown here, such as the 5-gram; such rows stand below a line
    curves      [{"stage": str, "unit": str, "train": [[step, loss]], "heldout": {series: [[step, loss]]}}]
                one chart a stage; all values of a chart in its unit ("nats per token" unless said otherwise)
    sizes       [{"name": str, "mb": number, "bits_per_byte": number, "kind": str}]; mb: of the whole file, in 10^6
                bytes; kind: "float" | "compressed" | "recovered" (compressed with its adapter) | "control"
    sizes_unit  str: what their bits per byte are of; the first of texts, if it is missing
    bits        {"curve": [[bits, rise]], "chosen": [bits, rise], "unit": str}: for budgets of bits per weight, the
                rise of the loss that the best plan of 2 and 4 bits is expected to cost, and the model's own plan
    recovery    {"float_adapter", "compressed", "compressed_adapter": number, "unit": str}
                bits per byte of the float model with the same adapter, of the compressed model alone, and of the
                compressed model with its recovery adapter; unit: "bits per byte on (a)" unless said otherwise
    exact_match {"tasks": {task: {system: proportion}}, "overall": {system: proportion}, "baselines": [system],
                 "note": str}
                proportion: {"correct", "total", "share", "low", "high"} (`exact_match.Proportion.as_dict`); the first
                system of `overall` is ours; baselines: all the others, if it is missing
    committee   {"models": [{"name": str, "seconds": number, "greedy": proportion, "sampled": proportion, "kl": number,
                 "tokens": number}], "style": {model: {style: proportion}}}
                one round after fine-tuning: the share of held-out prompts solved by the most likely response and by
                samples, and KL to the fine-tuned model in nats per response
    samples     [{"task", "prompt", "answer", "expected": str or null, "right": bool or null, "system": str}]
    times       [{"stage": str, "seconds": number}]; where it is missing, the stages' own times
    curation    [{"source": str, "kept": int, "dropped": {reason: int}}], in documents
    next        [{"command": str, "what": str}]
    notes       [str]: what a reader has to know to read the numbers right
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pippin.evaluate import charts, frame
from pippin.evaluate.markup import (
    MISSING,
    THIN,
    Child,
    Markup,
    compact,
    count,
    decimals,
    duration,
    element,
    is_number,
    join,
    percent,
    table,
    three_digits,
)

Results = Mapping[str, Any]
_KINDS = {"float": 0, "compressed": 1, "recovered": 2, "control": 3}


def render(results: Results) -> str:
    """The whole page. See the module's docstring for `results`."""
    sections = [
        _stages(results), _curves(results), _sizes(results), _bits(results), _recovery(results), _exact_match(results),
        _committee(results), _samples(results), _times(results), _curation(results), _notes(results),
    ]  # fmt: skip
    present = [section for section in sections if section is not None]
    links = [element("a", title, href=f"#{name}") for name, title, _ in present]
    parts = [
        _header(results),
        element("nav", *links, aria_label="Sections") if links else None,
        element("main", *(element("section", element("h2", t), body, id=name) for name, t, body in present)),
        _next(results),
        _footer(results),
    ]
    title = str(_part(results, "header").get("recipe", "A run"))
    return frame.page(title, frame.source("pippin.evaluate", "report.css"), *parts)


Section = tuple[str, str, Markup]  # id, title, content


def _part(of: Results, key: str) -> dict[str, Any]:
    value = of.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


def _rows(of: Results, key: str) -> list[dict[str, Any]]:
    value = of.get(key)
    return [dict(row) for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def _p(*children: Child, class_: str | None = None) -> Markup:
    return element("p", *children, class_=class_)


def _texts(results: Results) -> dict[str, str]:
    """Key -> description of the texts that bits per byte are measured on."""
    texts = _part(results, "texts")
    for stage in _rows(results, "stages"):
        for key in _part(stage, "bits_per_byte"):
            texts.setdefault(key, "")
    return texts


# The top


def _header(results: Results) -> Markup:
    header = _part(results, "header")
    facts = [(name, header[name]) for name in ("date", "machine", "commit") if header.get(name)]
    return element(
        "header",
        frame.brand("run report"),
        element("h1", header.get("recipe") or "A run"),
        _p(header["note"], class_="lead") if header.get("note") else None,
        element("dl", *(element("div", element("dt", k), element("dd", v)) for k, v in facts), class_="facts"),
        _tiles(results),
    )


def _tiles(results: Results) -> Markup | None:
    """The few numbers to remember, each with what it is to be compared with."""
    tiles: list[tuple[str, str, str]] = []
    texts = _texts(results)
    first = next(iter(texts), None)
    measured: list[tuple[float, bool, str]] = []
    for stage in _rows(results, "stages"):
        value = _part(stage, "bits_per_byte").get(first or "")
        if is_number(value):
            measured.append((value, bool(stage.get("baseline")), str(stage.get("name"))))
    ours = min((m for m in measured if not m[1]), default=None)
    theirs = min((m for m in measured if m[1]), default=None)
    if ours:
        versus = f"; {theirs[2]}: {decimals(theirs[0], 3)}" if theirs else ""
        tiles.append((decimals(ours[0], 3), "bits per byte", f"{ours[2]}, on ({first}){versus}"))
    overall = [(name, p) for name, p in _part(results, "exact_match").get("overall", {}).items()]
    if overall:
        names = _part(results, "exact_match").get("baselines") or [name for name, _ in overall[1:]]
        best = max(
            (item for item in overall if item[0] in names), key=lambda item: item[1].get("share") or 0, default=None
        )
        versus = f"; best baseline ({best[0]}): {percent(best[1].get('share'))}" if best else ""
        tiles.append((percent(overall[0][1].get("share")), "exact match", f"{overall[0][0]}{versus}"))
    sized = [s for s in _rows(results, "sizes") if is_number(s.get("mb"))]
    small = [s for s in sized if s.get("kind") == "recovered"] or [s for s in sized if s.get("kind") == "compressed"]
    if small:
        smallest = min(small, key=lambda s: s["mb"])
        largest = max((s["mb"] for s in sized if s.get("kind") == "float"), default=smallest["mb"])
        ratio = f", {decimals(largest / smallest['mb'], 1)} times smaller than the largest" if smallest["mb"] else ""
        tiles.append((three_digits(smallest["mb"]), "MB on disk", f"{smallest.get('name')}{ratio}"))
    total = _part(results, "header").get("total_s")
    if is_number(total):
        tiles.append((duration(total), "", "from raw documents to this page"))
    if not tiles:
        return None
    made = [
        element("div", _p(element("b", value), f" {unit}", class_="big"), _p(what, class_="small"), class_="tile")
        for value, unit, what in tiles
    ]
    return element("div", *made, class_="tiles")


# Sections: each returns (id, title, content), or None where there is nothing to show


def _stages(results: Results) -> Section | None:
    stages, texts = _rows(results, "stages"), _texts(results)
    if not stages:
        return None
    bits_per_byte = (f"bits per byte ({key})" for key in texts)
    head = ["stage", "parameters", "bits per weight", "whole file", *bits_per_byte, "time"]

    def row(stage: dict[str, Any]) -> list[Child]:
        bits = _part(stage, "bits_per_byte")
        return [
            str(stage.get("name", MISSING)),
            compact(stage.get("parameters")),
            decimals(stage.get("bits_per_weight"), 2),
            decimals(stage.get("bits_whole_file"), 2),
            *(decimals(bits.get(key), 3) for key in texts),
            duration(stage.get("time_s")),
        ]

    grown = [row(stage) for stage in stages if not stage.get("baseline")]
    baselines = [row(stage) for stage in stages if stage.get("baseline")]
    described = [f"({key}) {what}" for key, what in texts.items() if what]
    return (
        "stages",
        "Stage by stage",
        join(
            [
                _p(
                    "Bits per byte: how many bits the model needs for each byte of text that it has not seen. "
                    "Lower is better. Bits per weight are those of the projections with their tables and scales; the "
                    "whole file has the embedding, the norms and the adapter too, per parameter of the model. ",
                    "; ".join(described) + "." if described else None,
                    class_="lead",
                ),
                table(head, [*grown, *baselines], class_=f"numbers ruled{len(baselines)}"),
            ]
        ),
    )


def _curves(results: Results) -> Section | None:
    curves = _rows(results, "curves")
    names = list(dict.fromkeys(name for curve in curves for name in _part(curve, "heldout")))
    figures = []
    for curve in curves:
        stage, unit = str(curve.get("stage", "")), str(curve.get("unit") or "nats per token")
        heldout = [(names.index(name) + 1, pairs) for name, pairs in _part(curve, "heldout").items()]
        chart = charts.loss_chart(f"Loss of {stage} by step, in {unit}", unit, curve.get("train"), heldout)
        if chart is not None:
            figures.append(element("figure", element("figcaption", stage), chart))
    if not figures:
        return None
    legend: list[tuple[str, int | None, str]] = [
        ("training, each log line", None, "raw"),
        ("training, smoothed", None, "smooth"),
    ]
    legend += [(name, number, f"mark s{number % 6}") for number, name in enumerate(names, 1)]
    return (
        "loss",
        "Loss",
        join([_legend(legend), element("div", *figures, class_="figures")]),
    )


def _legend(entries: Sequence[tuple[str, int | None, str]]) -> Markup:
    items = [element("li", charts.swatch(shape, style), name) for name, shape, style in entries]
    return element("ul", *items, class_="legend")


def _sizes(results: Results) -> Section | None:
    sizes = _rows(results, "sizes")
    dots = [
        charts.Dot(str(s.get("name", "")), s.get("mb", 0), s.get("bits_per_byte", 0), _KINDS.get(s.get("kind", ""), 0))
        for s in sizes
    ]
    unit = str(results.get("sizes_unit") or f"bits per byte ({next(iter(_texts(results)), 'a')})")
    title = "Size of each model's file against bits per byte"
    chart = charts.scatter(title, "whole file, MB (logarithmic)", unit, dots)
    if chart is None:
        return None
    head = ["model", "MB", "bits per byte"]
    rows = [[str(s.get("name", "")), three_digits(s.get("mb")), decimals(s.get("bits_per_byte"), 3)] for s in sizes]
    words = _p("Down and to the left is better. A file holds everything that is needed to run: weights, tables, ",
               "scales, embedding and adapter.", class_="lead")  # fmt: skip
    body = [element("figure", chart), element("div", table(head, rows, class_="numbers"), class_="beside")]
    return "size", "Size against loss", join([words, element("div", *body, class_="figures")])


def _bits(results: Results) -> Section | None:
    part = _part(results, "bits")
    unit = str(part.get("unit") or "loss")
    title = "Bits per weight against the expected rise of the loss"
    chart = charts.trade_off(
        title, "bits per weight, tables and scales included", unit, part.get("curve"), part.get("chosen")
    )
    if chart is None:
        return None
    words = [
        _p("Each projection was tried at 2 and at 4 bits by itself, and what that costs was measured."),
        _p("The curve is the best plan for each size, if such costs add up. What tuning and the recovery adapter win "
           "back afterwards is not in it."),
    ]  # fmt: skip
    body = [element("figure", chart), element("div", *words, class_="said")]
    return "bits", "Bits against loss", element("div", *body, class_="figures")


def _recovery(results: Results) -> Section | None:
    recovery = _part(results, "recovery")
    before, damaged, after = (recovery.get(key) for key in ("float_adapter", "compressed", "compressed_adapter"))
    if not (is_number(before) and is_number(damaged) and is_number(after)):
        return None
    unit = str(recovery.get("unit") or "bits per byte on (a)")
    lost = damaged - before
    names = ["float model + adapter", "compressed, without adapter", "compressed + recovery adapter"]
    chart = charts.waterfall(f"Lost and won back, {unit}", unit, before, damaged, after, names)
    if lost > 0:
        share = (damaged - after) / lost
        said = [
            _p(element("b", percent(share)), class_="huge"),
            _p(
                f"of what compression lost was won back: {decimals(damaged - after, 3)} of {decimals(lost, 3)} {unit}. "
                "The float model was given the same adapter and the same training, so that only compression differs.",
            ),
        ]
    else:
        said = [_p("The compressed model is no worse than the float model, so that there was nothing to win back.")]
    body = [element("div", *said, class_="said"), element("figure", chart)]
    return "recovery", "What the recovery adapter won back", element("div", *body, class_="figures")


def _exact_match(results: Results) -> Section | None:
    part = _part(results, "exact_match")
    tasks = {"all tasks": _part(part, "overall"), **_part(part, "tasks")}
    tasks = {task: scores for task, scores in tasks.items() if isinstance(scores, Mapping) and scores}
    if not tasks:
        return None
    systems = list(dict.fromkeys(system for scores in tasks.values() for system in scores))
    cards = []
    for task, scores in tasks.items():
        total = max((p.get("total") or 0 for p in scores.values()), default=0)
        lines: list[Child] = []
        for system, p in scores.items():
            number = systems.index(system)
            lines += [
                element("dt", system),
                element("dd", charts.bar(p.get("share"), f"e{min(number, 4)}", p.get("low"), p.get("high"))),
                element("dd", percent(p.get("share")), class_="num"),
            ]
        title = element("h3", task, element("span", f"n = {count(total)}", class_="n"))
        cards.append(element("div", title, element("dl", *lines, class_="bars"), class_="card"))
    words = _p(
        "An answer counts only if it is the expected text, character by character. The thin line is the 95",
        f"{THIN}% Wilson interval. ",
        str(part["note"]) if part.get("note") else None,
        class_="lead",
    )
    return "answers", "Exact match", join([words, element("div", *cards, class_="cards")])


def _committee(results: Results) -> Section | None:
    part = _part(results, "committee")
    models = _rows(part, "models")
    if not models:
        return None

    def row(model: dict[str, Any]) -> list[Child]:
        found = (_part(model, key) for key in ("greedy", "sampled"))
        shares = (f"{percent(p.get('share'))} ({percent(p.get('low'))} to {percent(p.get('high'))})" for p in found)
        return [
            str(model.get("name")), *shares, decimals(model.get("kl"), 2), decimals(model.get("tokens"), 1),
            duration(model.get("seconds")),
        ]  # fmt: skip

    head = ["model", "solved, most likely response", "solved, samples", "KL, nats", "tokens", "training"]
    styles = [
        _p(
            f"{name}: "
            + ", ".join(f"{style} {percent(p.get('share'))} of {p.get('total')}" for style, p in own.items())
        )
        for name, own in _part(part, "style").items()
    ]
    words = _p(
        "After fine-tuning every algorithm trained a model on the same exercises, the best response to each was "
        "picked, and the student learnt from the picks. Shares are of held-out exercises, with their 95",
        f"{THIN}% Wilson intervals: what lies within them is no difference. KL is to the fine-tuned model, for a "
        "response. The chain goes on from the fine-tuned model.",
        class_="lead",
    )
    return (
        "committee",
        "One round of the committee",
        join([words, table(head, [row(model) for model in models], class_="numbers"), *styles]),
    )


def _samples(results: Results) -> Section | None:
    cards = []
    for sample in _rows(results, "samples"):
        answer, expected, right = sample.get("answer"), sample.get("expected"), sample.get("right")
        if right is None and expected is not None:
            right = str(answer).strip() == str(expected).strip()
        verdict = None
        if right is not None:
            mark = "\N{CHECK MARK} right" if right else "\N{MULTIPLICATION SIGN} wrong"
            verdict = element("span", mark, class_="right" if right else "wrong")
        system = f", {sample['system']}" if sample.get("system") else ""
        lines = [("prompt", sample.get("prompt")), ("answer", answer), ("expected", expected)]
        said = [
            element("div", element("dt", name), element("dd", str(value) or "(nothing)"))
            for name, value in lines
            if value is not None
        ]
        title = element("h3", f"{sample.get('task') or ''}{system}", verdict)
        cards.append(element("div", title, element("dl", *said, class_="talk"), class_="card"))
    if not cards:
        return None
    return "samples", "Sample answers", element("div", *cards, class_="cards wide")


def _times(results: Results) -> Section | None:
    times = [(str(t.get("stage", "")), t.get("seconds")) for t in _rows(results, "times")]
    if not times:
        times = [(str(s.get("name", "")), s.get("time_s")) for s in _rows(results, "stages")]
    spent = [(stage, s) for stage, s in times if is_number(s) and s > 0]
    if not spent:
        return None
    total = sum(s for _, s in spent)
    items = [
        element(
            "li",
            element("svg", element("rect", width=14, height=14, rx=2, class_=f"bar t{number % 8}"), viewBox="0 0 14 14",
                    class_="swatch square", aria_hidden="true"),
            element("span", stage, class_="name"),
            element("span", duration(s), class_="num"),
            element("span", percent(s / total), class_="num dim"),
        )
        for number, (stage, s) in enumerate(spent)
    ]  # fmt: skip
    bar = charts.stacked([s for _, s in spent], f"Share of each stage in {duration(total)}")
    return "time", "Where the time went", join([bar, element("ol", *items, class_="shares")])


def _curation(results: Results) -> Section | None:
    sources = [s for s in _rows(results, "curation") if is_number(s.get("kept"))]
    if not sources:
        return None
    reasons: dict[str, float] = {}
    rows: list[list[Child]] = []
    for source in sources:
        dropped = {reason: n for reason, n in _part(source, "dropped").items() if is_number(n)}
        for reason, n in dropped.items():
            reasons[reason] = reasons.get(reason, 0) + n
        gone = sum(dropped.values())
        share = source["kept"] / (source["kept"] + gone) if source["kept"] + gone else None
        rows.append(
            [str(source.get("source", "")), count(source["kept"]), count(gone), charts.bar(share, "e0"), percent(share)]
        )
    all_gone = sum(reasons.values())
    why: list[list[Child]] = []
    for reason, n in sorted(reasons.items(), key=lambda item: -item[1]):
        share = n / all_gone if all_gone else None
        why.append([reason, count(n), charts.bar(share, "e1"), percent(share)])
    tables = [table(["source", "kept", "dropped", "", "kept"], rows, class_="numbers wide-bars")]
    if why:
        tables.append(table(["dropped because", "documents", "", "share"], why, class_="numbers wide-bars"))
    parts = [element("div", each) for each in tables]
    kept = sum(s["kept"] for s in sources)
    words = _p(
        f"{count(kept)} of {count(kept + all_gone)} documents were kept. Nothing is dropped without a reason that is ",
        "counted here.",
        class_="lead",
    )
    return "curation", "What curation kept", join([words, element("div", *parts, class_="figures")])


def _notes(results: Results) -> Section | None:
    notes = results.get("notes")
    if not isinstance(notes, list | tuple) or not notes:
        return None
    return "notes", "How to read this", element("ul", *(element("li", str(note)) for note in notes), class_="notes")


# The end


def _next(results: Results) -> Markup | None:
    steps = _rows(results, "next")
    if not steps:
        return None
    lines = []
    for step in steps:
        command = element("pre", element("code", str(step.get("command", ""))))
        lines.append(element("li", _p(str(step["what"])) if step.get("what") else None, command))
    return element("section", element("h2", "What to type next"), element("ul", *lines, class_="next"), id="next")


def _footer(results: Results) -> Markup:
    version = _part(results, "header").get("version")
    made = f"Made by Pippin {version}" if version else "Made by Pippin"
    return element("footer", _p(made, ". This page is one file without scripts; the numbers behind it lie beside it."))
