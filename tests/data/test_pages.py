"""The labelled web pages: complete, unchanged, split as stated, and their gold texts come out of the script."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections import Counter
from typing import Any

import pytest
from tests.data.pages import gold as pages

STATED = json.loads((pages.HERE / "MANIFEST.json").read_text(encoding="utf-8"))
ENTRIES: list[dict[str, Any]] = STATED["pages"]
KEYS = {"content", "drop", "code", "lines", "blocks", "notes"}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def golds() -> dict[str, str]:
    return {entry["id"]: pages.gold(pages.page(entry), pages.label(entry)) for entry in ENTRIES}


def test_the_manifest_is_complete() -> None:
    ids = [entry["id"] for entry in ENTRIES]
    assert len(ids) >= 60 and ids == sorted(set(ids))
    assert {path.name for path in (pages.HERE / "html").iterdir()} == {f"{name}.html.gz" for name in ids}
    assert {path.name for path in (pages.HERE / "labels").iterdir()} == {f"{name}.json" for name in ids}
    fields = set(ENTRIES[0])
    for entry in ENTRIES:
        assert set(entry) == fields
        assert [name for name, value in entry.items() if value in {"", None}] == []
        assert entry["read"] is True
        label = pages.label(entry)
        assert set(label) <= KEYS and label["content"]
    with tarfile.open(pages.HERE / "copyright.tar.xz") as archive:
        sizes = {member.name: member.size for member in archive}
    assert set(sizes) == {entry["package"] for entry in ENTRIES} and min(sizes.values()) > 100


def test_digests_hold(golds: dict[str, str]) -> None:
    for entry in ENTRIES:
        data = gzip.decompress((pages.HERE / "html" / f"{entry['id']}.html.gz").read_bytes())
        assert (len(data), digest(data)) == (entry["bytes"], entry["sha256"]), entry["id"]
        assert digest(golds[entry["id"]].encode()) == entry["gold_sha256"], entry["id"]


def test_the_halves_are_as_stated() -> None:
    for name, half in STATED["halves"].items():
        inside = [entry for entry in ENTRIES if entry["split"] == name]
        assert half == {"pages": len(inside), "kinds": dict(Counter(entry["kind"] for entry in inside))}
        assert len(inside) >= 30
        assert max(Counter(entry["template"] for entry in inside).values()) <= 3
    assert max(Counter(entry["package"] for entry in ENTRIES).values()) <= 3
    for entry in ENTRIES:
        odd = int(digest((STATED["salt"] + entry["id"]).encode()), 16) % 2
        assert entry["split"] == ["open", "sealed"][odd]


def test_every_selection_chooses_and_drops_something() -> None:
    for entry in ENTRIES:
        root, label = pages.parse(pages.page(entry)), pages.label(entry)
        written = {text.start for text in pages.texts(root) if text.text.strip()}
        content = pages.covered(root, label["content"]) & written
        for key in KEYS - {"notes"}:
            for selector in label.get(key, []):
                assert pages.covered(root, [selector]) & content, (entry["id"], key, selector)
        assert content - pages.covered(root, label.get("drop", []))


def test_no_gold_text_is_empty_or_unexpectedly_the_whole_page(golds: dict[str, str]) -> None:
    for entry in ENTRIES:
        assert len(golds[entry["id"]].split()) >= 20 or len(golds[entry["id"]]) > 200, entry["id"]
        root = pages.parse(pages.page(entry))
        head = pages.covered(root, ["head"]) if pages.select(root, "head") else set()
        whole = "".join(text.text for text in pages.texts(root) if text.start not in head)
        letters = sorted("".join(golds[entry["id"]].replace("\xa0", "").split()))
        everything = sorted("".join(whole.replace("\xad", "").replace("\u200b", "").split()))
        assert (letters == everything) == entry["bare"], entry["id"]


# --- the script


@pytest.mark.parametrize(
    ("source", "label", "expected"),
    [
        ("<h1>A</h1><p>b  c\n<b>d</b><p>e", {"content": ["h1", "p"]}, "A\n\nb c d\n\ne\n"),
        ("<div><nav>x</nav>y<p>z</div>", {"content": ["div"], "drop": ["div > nav"]}, "y\n\nz\n"),
        ("<div><p><nav>x</nav></div>y", {"content": ["nav .."], "drop": []}, "x\n\ny\n"),
        ("<p>a<p>b<hr>c<hr>d", {"content": ["p @1 .. hr @1"]}, "b\n\nc\n"),
        ("<p class='k l' id=i>a<p>b", {"content": ["p#i.l"]}, "a\n"),
        ("<p>see also<p>b", {"content": ["p"], "drop": ["p{see}"]}, "b\n"),
        ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>", {"content": ["ul @1", "ul > li @-1"]}, "c\n\nd\n"),
        ("<table><tr><td>a<td><p>b<tr><td><td>c</table>", {"content": ["table"]}, "a\tb\n\nc\n"),
        ("<pre>\n  a <i>b</i>  \n\n c\n</pre>", {"content": ["pre"]}, "  a b\n\n c\n"),
        ("<p>a\n  b<br>c", {"content": ["p"], "code": ["p"]}, "a\n  b\nc\n"),
        ("<p>a\n  b<br>\n&nbsp; c", {"content": ["p"], "lines": ["p"]}, "a b\n  c\n"),
        ("<p><b>a</b><b>c</b>", {"content": ["p"], "blocks": ["b"]}, "a\n\nc\n"),
        ("<p>a &lt;b&gt; <!-- <p>x --> c<script>'<p>'</script>", {"content": ["p"]}, "a <b> c\n"),
    ],
)
def test_the_script_on_small_pages(source: str, label: dict[str, Any], expected: str) -> None:
    assert pages.gold(source, label) == expected


@pytest.mark.parametrize("selector", ["h1", "p @1", "p .. h1", "h1 ..", "p .x", "p!"])
def test_a_selection_that_names_nothing_is_an_error(selector: str) -> None:
    with pytest.raises(ValueError):
        pages.gold("<p>a", {"content": [selector]})
