"""The page in a real browser: table, graph, plan, totals, export, and the palettizer run with what was exported."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.inspect.browser import Browser, find
from tests.running import command

from pippin.compress.allocate import choose_bits
from pippin.compress.packed import save_packed
from pippin.compress.palettize import palettize
from pippin.compress.size import projection_bytes
from pippin.files import read_json, write_json
from pippin.inspect.page import render
from pippin.inspect.profile import current_plan, totals
from pippin.interop.hf import save_hf
from pippin.interop.load import load_model
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

pytestmark = pytest.mark.skipif(find() is None, reason="no Chromium here")
ROW = "#table tbody tr[data-index='{}']"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a model, its page and its numbers. Its name is not a kind one."""
    place = tmp_path_factory.mktemp("inspect") / "<script>alert(1)<:script>&amp;"
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=384, d_model=128, n_layers=2, n_heads=2, n_kv_heads=1, d_head=64, d_ff=288, max_seq_len=64
    )
    save_hf(Transformer(config), place / "model")
    done = command("inspect", place, "--html", place / "page.html", "--json", place / "profile.json",
                   "--prompt-tokens", "16", "--rounds", "2")  # fmt: skip
    assert done.code == 0, done
    assert str(place / "page.html") in done.out
    return place


@pytest.fixture(scope="module")
def profile(place: Path) -> dict[str, Any]:
    return dict(read_json(place / "profile.json"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, place: Path) -> Iterator[Browser]:
    """The page, fresh; whatever goes wrong on it fails the test."""
    browser.open(place / "page.html")
    yield browser
    browser.js("0")
    assert browser.errors == []


def texts(page: Browser, column: str) -> list[str]:
    number = page.js(f"[...document.querySelectorAll('#table thead th')].findIndex(h => h.dataset.key === '{column}')")
    return list(
        page.js(
            "[...document.querySelectorAll('#table tbody tr')].filter(r => !r.hidden)"
            f".map(r => r.children[{number}].textContent)"
        )
    )


def shown_totals(page: Browser) -> dict[str, float]:
    return {
        key: json.loads(value) for key, value in page.js("({...document.getElementById('totals').dataset})").items()
    }


def expect_totals(page: Browser, profile: dict[str, Any], plan: dict[str, int]) -> None:
    """The page says exactly what Python says: bytes as whole numbers, the rest to rounding of the last place."""
    shown, right = shown_totals(page), totals(profile, plan)
    assert (shown["tensorBytes"], shown["fileBytes"]) == (right["tensor_bytes"], right["file_bytes"])
    assert shown["bitsPerWeight"] == right["bits_per_weight"]
    assert shown["tokensPerS"] == pytest.approx(right["tokens_per_s"], rel=1e-9)
    assert shown["loss"] == pytest.approx(right["loss"], rel=1e-9, abs=1e-12)


def exported(page: Browser) -> dict[str, int]:
    page.click("#export")
    plan = json.loads(page.downloaded("bitplan.json"))
    assert isinstance(plan, dict)
    return plan


def index_of(profile: dict[str, Any], name: str) -> int:
    return [op["name"] for op in profile["operations"]].index(name)


def test_the_table_has_every_operation_and_sorts(page: Browser, profile: dict[str, Any]) -> None:
    names = [op["name"] for op in profile["operations"]]
    assert texts(page, "name") == names
    for column, values in [
        ("flops", [op["flops"]["token"] for op in profile["operations"]]),
        ("parameters", [op["parameters"] for op in profile["operations"]]),
        ("ms", [op["ms"]["token"]["median"] for op in profile["operations"]]),
    ]:
        page.click(f"th[data-key={column}] button")
        order = sorted(range(len(names)), key=lambda i: (-values[i], i))
        assert texts(page, "name") == [names[i] for i in order]
        assert page.js(f"document.querySelector('th[data-key={column}]').ariaSort") == "descending"
        page.click(f"th[data-key={column}] button")
        order.sort(key=lambda i: (values[i], i))
        assert texts(page, "name") == [names[i] for i in order]
    page.click("th[data-key=order] button")
    assert texts(page, "name") == names


def test_search_narrows_and_sets_all_that_is_shown(page: Browser, profile: dict[str, Any]) -> None:
    page.click("#preset-4")
    page.fill("#search", "FFN down")
    assert texts(page, "name") == ["blocks.0.ffn.down", "blocks.1.ffn.down"]
    assert page.js("document.getElementById('shown').textContent").startswith("2 of ")
    page.click("#shown-2")
    page.fill("#search", "")
    assert len(texts(page, "name")) == len(profile["operations"])
    plan = {name: 2 if name.endswith("ffn.down") else 4 for name in current_plan(profile)}
    expect_totals(page, profile, plan)
    assert exported(page) == plan


def test_table_and_graph_share_the_selection(page: Browser, profile: dict[str, Any]) -> None:
    nodes = "document.querySelectorAll('#graph .node')"
    assert page.js(f"{nodes}.length") == len(profile["operations"])
    selected = "[...document.querySelectorAll('[aria-current]')].map(e => e.dataset.index)"
    up, down = (index_of(profile, f"blocks.1.ffn.{name}") for name in ("up", "down"))
    page.click(f"{ROW.format(up)} th")
    assert page.js(selected) == [str(up), str(up)]
    assert page.js("document.querySelector('#graph .selected').dataset.index") == str(up)
    assert page.js("document.querySelector('#detail h3').textContent") == "blocks.1.ffn.up"
    page.click(f"#graph .node[data-index='{down}']")
    assert page.js(selected) == [str(down), str(down)]
    assert page.js(f'document.querySelector("{ROW.format(down)}").ariaCurrent') == "true"


def test_keys_move_and_set_bits(page: Browser, profile: dict[str, Any]) -> None:
    page.click("#preset-4")
    gate = index_of(profile, "blocks.0.ffn.gate")
    page.click(f"{ROW.format(gate)} th")
    page.js(f'document.querySelector("{ROW.format(gate)}").focus()')
    page.key("ArrowDown")
    assert page.js("document.activeElement.dataset.index") == str(gate + 1)
    page.key("2")
    plan = {name: 2 if name == "blocks.0.ffn.up" else 4 for name in current_plan(profile)}
    expect_totals(page, profile, plan)
    page.js(f"document.querySelector(\"#graph .node[data-index='{gate + 1}']\").focus()")
    page.key("ArrowRight")
    assert page.js("document.activeElement.getAttribute('aria-label')").startswith("blocks.1.ffn.up, 4 bits")
    assert page.js("document.querySelectorAll('#table tbody tr[tabindex=\"0\"]').length") == 1
    assert page.js("document.querySelectorAll('#graph .node[tabindex=\"0\"]').length") == 1


def test_a_changed_layer_changes_the_totals_and_undo_takes_it_back(page: Browser, profile: dict[str, Any]) -> None:
    now = current_plan(profile)
    expect_totals(page, profile, now)
    assert page.js("document.getElementById('export').disabled"), "a float model is no plan for the palettizer"
    page.click("#preset-4")
    four = dict.fromkeys(now, 4)
    expect_totals(page, profile, four)
    page.click(f"{ROW.format(index_of(profile, 'blocks.0.attention.q'))} button[data-bits='2']")
    changed = {**four, "blocks.0.attention.q": 2}
    expect_totals(page, profile, changed)
    address = page.js("location.hash")
    page.click("#undo")
    expect_totals(page, profile, four)
    page.click("#redo")
    expect_totals(page, profile, changed)
    page.key("z", control=True)
    page.key("z", control=True)
    expect_totals(page, profile, now)
    page.js(f"void (location.hash = {json.dumps(address)})")
    page.wait("document.getElementById('totals').dataset.loss !== '0'")
    expect_totals(page, profile, changed)


def test_a_shared_address_opens_with_its_plan(browser: Browser, place: Path, profile: dict[str, Any]) -> None:
    names = list(current_plan(profile))
    browser.open(place / "page.html", "#plan=" + "2b4c" + "4" * (len(names) - 4))
    expect_totals(browser, profile, {name: 2 if i < 2 else 4 for i, name in enumerate(names)})
    assert browser.js("document.querySelectorAll('#table tr.pinned').length") == 2
    for wrong in ("2", "x" * len(names), "9" * len(names)):
        browser.open(place / "page.html", f"#plan={wrong}")
        expect_totals(browser, profile, current_plan(profile))
        assert "not one of this model" in browser.js("document.getElementById('said').textContent")
    assert browser.errors == []


def test_the_slider_takes_the_best_plan(page: Browser, profile: dict[str, Any]) -> None:
    names = list(current_plan(profile))
    options = [op["options"] for op in profile["operations"] if op["kind"] == "projection"]
    weights = sum(op["weights"] for op in profile["operations"] if op["kind"] == "projection")
    every = [
        (8 * sum(o[b]["bytes"] for o, b in zip(options, bits, strict=True)) / weights,
         sum(o[b]["rise"] for o, b in zip(options, bits, strict=True)))
        for bits in itertools.product("24", repeat=len(options))
    ]  # fmt: skip
    rises = {n: {b: o[str(b)]["rise"] for b in (2, 4)} for n, o in zip(names, options, strict=True)}
    shapes = {op["name"]: tuple(map(int, op["shape"].split(" × "))) for op in profile["operations"] if "weights" in op}
    low, high = (float(page.js(f"document.getElementById('budget').{end}")) for end in ("min", "max"))
    assert (low, high) == pytest.approx((min(every)[0], max(every)[0]))
    for budget in (low, 2.7, 3.3, 3.5, 3.7, high):
        page.fill("#budget", repr(budget))
        plan = exported(page)
        expect_totals(page, profile, plan)
        found = totals(profile, plan)
        assert found["bits_per_weight"] <= budget + 1e-9
        assert found["loss"] == pytest.approx(min(loss for bpw, loss in every if bpw <= budget + 1e-9), rel=1e-12)
        ours = choose_bits(rises, shapes, budget + 1e-9)
        assert found["loss"] == pytest.approx(totals(profile, ours)["loss"], rel=1e-12)
    page.click("#undo")
    expect_totals(page, profile, choose_bits(rises, shapes, 3.7))


def test_the_slider_leaves_pinned_bits_alone(page: Browser, profile: dict[str, Any]) -> None:
    page.click("#preset-4")
    rises = {op["name"]: op["options"]["2"]["rise"] for op in profile["operations"] if "options" in op}
    worst, first = max(rises, key=rises.__getitem__), min(rises, key=rises.__getitem__)
    page.click(f"{ROW.format(index_of(profile, worst))} button[data-bits='2']")
    page.click(f"{ROW.format(index_of(profile, first))} button[data-bits='4']")
    page.fill("#budget", "3.2")
    plan = exported(page)
    assert (plan[worst], plan[first]) == (2, 4)
    page.click("#unpin")
    page.fill("#budget", "4.2")
    assert exported(page)[worst] == 4


def test_the_plot_takes_a_click(page: Browser, profile: dict[str, Any]) -> None:
    page.click("#pareto .chart")
    bits = shown_totals(page)["bitsPerWeight"]
    assert 2.2 < bits < 4.3
    assert page.js("document.getElementById('pareto-now') !== null")


def test_modes_and_energy(page: Browser, profile: dict[str, Any]) -> None:
    energy = "document.querySelector('#totals [data-key=energy] dd').textContent"
    before, flops = page.js(energy), texts(page, "flops")
    page.click("#mode-prompt")
    assert page.js(energy) != before and texts(page, "flops") != flops
    page.click("#mode-token")
    assert (page.js(energy), texts(page, "flops")) == (before, flops)
    for key in profile["energy"]:
        page.fill(f"#energy-{key}", "0")
    assert page.js(energy).startswith("0")


def test_what_was_exported_is_what_the_palettizer_makes(
    page: Browser, profile: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    page.fill("#budget", "3.5")
    page.click(f"{ROW.format(index_of(profile, 'blocks.1.attention.o'))} button[data-bits='2']")
    plan, predicted = exported(page), shown_totals(page)
    model = load_model(place / "model")
    palettize(model, plan)
    save_packed(model, tmp_path)
    real = (tmp_path / "model.safetensors").stat().st_size
    assert abs(predicted["fileBytes"] - real) < 0.01 * real
    shapes = {name: (linear.out_features, linear.in_features) for name, linear in model.linears()}
    assert predicted["bitsPerWeight"] == pytest.approx(
        8 * sum(projection_bytes(*shapes[name], bits) for name, bits in plan.items())
        / sum(out * width for out, width in shapes.values())
    )  # fmt: skip
    write_json(tmp_path / "bitplan.json", plan)
    assert read_json(tmp_path / "bitplan.json") == {name: linear.bits for name, linear in model.linears()}


def test_names_stay_text_and_nothing_else_runs(browser: Browser, profile: dict[str, Any], tmp_path: Path) -> None:
    evil = "</script><script>globalThis.hacked = 1</script><img src=x onerror='globalThis.hacked = 2'>\u2028\x07"
    hostile = json.loads(json.dumps(profile))
    hostile["model"] = hostile["machine"]["cpu"] = hostile["loss"]["unit"] = evil
    hostile["config"][evil] = evil
    for op in hostile["operations"]:
        op["shape"] += evil
    hostile["operations"][3]["name"] += evil
    hostile["loss"]["source"] = "measured"
    (tmp_path / "page.html").write_text(render(hostile), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    browser.click(f"{ROW.format(3)} th")
    assert "<script>" in browser.js("document.querySelector('#detail h3').textContent")
    assert browser.js("document.querySelector('h1').textContent").startswith("</script><script>")
    assert browser.js("typeof globalThis.hacked") == "undefined"
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert browser.js("document.querySelectorAll('script').length") == 2
    assert browser.errors == []
    # The policy is in force: what a page of ours never does is refused.
    assert browser.js("fetch('data:text/plain,x').then(() => 'loaded', () => 'refused')") == "refused"
    markup = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set'; } catch { return 'refused'; } })()"
    assert browser.js(markup) == "refused"


def test_a_packed_model_without_measured_losses(browser: Browser, place: Path, tmp_path: Path) -> None:
    model = load_model(place / "model")
    plan = {name: 2 if i % 3 else 4 for i, (name, _) in enumerate(model.linears())}
    palettize(model, plan)
    save_packed(model, tmp_path / "model")
    page, numbers = tmp_path / "page.html", tmp_path / "profile.json"
    done = command("inspect", tmp_path, "--html", page, "--json", numbers, "--prompt-tokens", "4", "--rounds", "1")
    assert done.code == 0, done
    browser.open(page)
    assert exported(browser) == plan
    assert browser.js("document.getElementById('budget').disabled")
    assert browser.js("document.querySelectorAll('#table [data-bits=\"0\"]').length") == 0
    shown = shown_totals(browser)
    assert shown["fileBytes"] == (tmp_path / "model" / "model.safetensors").stat().st_size
    browser.click("#preset-2")
    right = totals(read_json(numbers), dict.fromkeys(plan, 2))
    assert (shown_totals(browser)["fileBytes"], right["loss"]) == (right["file_bytes"], None)
    assert browser.errors == []
