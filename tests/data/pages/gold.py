"""Gold text of the labelled pages: a plain walk over a page's tree and its hand-written label (rules in README.md).

    python -m tests.data.pages.gold PAGE   # the gold text of one page

Only the standard library, and no tokenizer of it: `html.parser` changes between Python versions, gold must not.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def _names(text: str) -> set[str]:
    return set(text.split())


VOID = _names("area base basefont br col embed frame hr img input isindex link meta param source track wbr")
RAW = {"script", "style", "title", "textarea", "xmp"}
PRE = {"pre", "textarea", "xmp"}
HIDDEN = {"script", "style", "template", "object", "iframe"}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
TABLE = {"table", "tbody", "thead", "tfoot", "tr", "td", "th", "caption"}
BLOCK = (
    HEADINGS
    | TABLE
    | _names(
        "address article aside blockquote body center dd details dialog dir div dl dt fieldset figcaption figure footer"
        " form frameset header hgroup hr html li main menu nav noframes ol p pre section summary ul xmp"
    )
)
BREAKS = BLOCK - {"td", "th"}
# What an opening tag closes, and the elements that the search for it does not leave.
ROWS = {"tbody", "thead", "tfoot", "tr", "td", "th", "caption"}
CLOSES: dict[str, tuple[set[str], set[str]]] = {
    "li": ({"li"}, {"ul", "ol", "menu", "dir"}),
    "dt": ({"dt", "dd"}, {"dl"}),
    "dd": ({"dt", "dd"}, {"dl"}),
    "td": ({"td", "th"}, {"tr", "table"}),
    "th": ({"td", "th"}, {"tr", "table"}),
    "tr": ({"tr"}, {"table"}),
    "tbody": (ROWS, {"table"}),
    "thead": (ROWS, {"table"}),
    "tfoot": (ROWS, {"table"}),
    "option": ({"option"}, {"select"}),
    "a": ({"a"}, BLOCK),
}
PARAGRAPH = ({"p"}, {"td", "th", "table", "caption", "object", "button", "body"})
TOKEN = re.compile(r"<!--.*?-->|<[!?][^>]*>|<(/?)([A-Za-z][^\s/>]*)((?:[^>\"']|\"[^\"]*\"|'[^']*')*)>", re.DOTALL)
ATTRIBUTE = re.compile(r"([^\s=/\"'>]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+)))?")


@dataclass
class Node:
    """An element, or text (tag `#text`); `[start, end)` are its places in document order."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ""
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    start: int = 0
    end: int = 0


def parse(source: str) -> Node:
    """The tree of a page. End tags may be missing, as HTML allows; one without a beginning is left out."""
    root = Node("#document")
    stack = [root]

    def add(node: Node) -> None:
        node.parent = stack[-1]
        stack[-1].children.append(node)

    def close(tags: set[str], stops: set[str]) -> None:
        for depth in range(len(stack) - 1, 0, -1):
            if stack[depth].tag in tags:
                del stack[depth:]
                return
            if stack[depth].tag in stops:
                return

    place = 0
    while (token := TOKEN.search(source, place)) is not None:
        if token.start() > place:
            add(Node("#text", text=html.unescape(source[place : token.start()])))
        place = token.end()
        if token[2] is None:
            continue
        tag = token[2].lower()
        if token[1]:
            if tag in HEADINGS:
                close(HEADINGS, TABLE)
            elif tag not in {"html", "body"}:
                close({tag}, {"table"} if tag in TABLE else TABLE if tag in BLOCK else BLOCK)
            continue
        if tag in BLOCK:
            close({"head"}, {"body"})
        if tag in CLOSES:
            close(*CLOSES[tag])
        if tag in BLOCK and tag not in ROWS:
            close(*PARAGRAPH)
        pairs = ATTRIBUTE.findall(token[3])
        attributes = {name.lower(): html.unescape(a or b or c) for name, a, b, c in reversed(pairs)}
        node = Node(tag, attributes)
        add(node)
        if tag in RAW:
            end = re.compile(f"</{tag}\\s*>", re.IGNORECASE).search(source, place)
            inside = source[place : end.start() if end else len(source)]
            text = inside if tag in {"script", "style"} else html.unescape(inside)
            node.children.append(Node("#text", text=text, parent=node))
            place = end.end() if end else len(source)
        elif tag not in VOID and not token[3].rstrip().endswith("/"):
            stack.append(node)
    if place < len(source):
        add(Node("#text", text=html.unescape(source[place:])))
    number(root)
    return root


def number(root: Node) -> None:
    """Write every node's places, without recursion."""
    order = 0
    work = [(root, False)]
    while work:
        node, done = work.pop()
        if done:
            node.end = order
            continue
        node.start = order
        order += 1
        work.append((node, True))
        work.extend((child, False) for child in reversed(node.children))


def nodes(root: Node) -> list[Node]:
    """All elements below `root` in document order."""
    found = []
    work = [root]
    while work:
        node = work.pop()
        if node.tag != "#text":
            found.append(node)
            work.extend(reversed(node.children))
    return found


PART = re.compile(r"#[\w-]+|\.[\w-]+|\{[^}]*\}")
STEP = re.compile(rf"([\w-]+)?((?:{PART.pattern})*)$")


def words(node: Node) -> str:
    """All text in a node, white space collapsed."""
    return " ".join("".join(text.text for text in texts(node)).split())


def texts(root: Node) -> list[Node]:
    """All text nodes of `root` in document order, those that a browser never shows left out."""
    if root.tag == "#text":
        return [root]
    return [] if root.tag in HIDDEN else [text for child in root.children for text in texts(child)]


def fits(node: Node, step: str) -> bool:
    """Whether an element is what one step names: `tag#id.class{words it begins with}`."""
    match = STEP.match(step)
    if match is None:
        raise ValueError(f"{step!r} is not a selector")
    if match[1] not in {None, node.tag}:
        return False
    holds = {
        "#": lambda part: node.attributes.get("id") == part[1:],
        ".": lambda part: part[1:] in node.attributes.get("class", "").split(),
        "{": lambda part: words(node).startswith(part[1:-1]),
    }
    return all(holds[part[0]](part) for part in PART.findall(match[2]))


def select(root: Node, selector: str) -> list[Node]:
    """Elements that a selector names: steps with ` ` (inside) or ` > ` (child) between; ` @2` takes the third only."""
    selector, _, index = selector.partition(" @")
    steps = re.findall(r"(?:\{[^}]*\}|[^\s{])+", selector)
    found = [node for node in nodes(root) if fits(node, steps[-1]) and _above(node.parent, steps[:-1])]
    return found[int(index) : int(index) + 1 or None] if index else found


def _above(node: Node | None, steps: list[str]) -> bool:
    if not steps:
        return True
    child = steps[-1] == ">"
    steps = steps[:-1] if child else steps
    while node is not None:
        if fits(node, steps[-1]) and _above(node.parent, steps[:-1]):
            return True
        node = None if child else node.parent
    return False


def spans(root: Node, selectors: list[str]) -> list[tuple[int, int]]:
    """The places that selectors cover; `A .. B` is from the beginning of A to the beginning of B (or the end)."""
    found = []
    for selector in selectors:
        first, dots, last = selector.partition(" ..")
        begins = select(root, first.strip())
        if dots:
            ends = select(root, last.strip()) if last.strip() else []
            if not begins or (last.strip() and not ends):
                raise ValueError(f"{selector!r} names nothing")
            found.append((begins[0].start, ends[0].start if ends else root.end))
        else:
            if not begins:
                raise ValueError(f"{selector!r} names nothing")
            found += [(node.start, node.end) for node in begins]
    return found


@dataclass(frozen=True)
class Block:
    """A piece of gold text: a heading, a paragraph, a table row ...; `verbatim` if its lines must stay as they are."""

    text: str
    verbatim: bool


def blocks(source: str, label: dict[str, Any]) -> list[Block]:
    """The gold text of a page, in blocks. ValueError: a selector names nothing."""
    root = parse(source)
    content = covered(root, label["content"])
    for place in covered(root, label.get("drop", [])):
        content.discard(place)
    code = {start for start, _ in spans(root, label.get("code", []))}
    rows = {start for start, _ in spans(root, label.get("lines", []))}
    block = {start for start, _ in spans(root, label.get("blocks", []))}
    plain: set[int] = set()
    found: list[Block] = []
    line: list[str] = []

    def flush(mode: str) -> None:
        text = "".join(line).replace("\xad", "").replace("\u200b", "")
        line.clear()
        if mode:
            kept = re.split(r"\r\n|\r|\n", text)
            kept = [(row.strip(" ") if mode == "lines" else row).replace("\xa0", " ").rstrip() for row in kept]
            text = "\n".join(kept).strip("\n")
        else:
            text = re.sub(r" +", " ", text.replace("\xa0", " "))
            text = re.sub(r" ?\t[ \t]*", "\t", text).strip()
        if text.strip():
            found.append(Block(text, bool(mode)))

    def edge(mode: str) -> None:
        if not mode:
            flush("")
        elif "".join(line).rstrip(" ")[-1:] not in {"", "\n"}:
            line.append("\n")

    def walk(node: Node, mode: str) -> None:
        if node.tag == "#text":
            if node.start in content:
                line.append(node.text if mode == "code" else re.sub(r"[ \t\r\n\f]+", " ", node.text))
            return
        if node.tag in HIDDEN:
            return
        if node.tag == "br" and mode:
            line.append("\n")
        elif node.tag == "br":
            flush("")
        begins = "code" if node.tag in PRE or node.start in code else "lines" if node.start in rows else ""
        if begins and not mode:
            flush("")
            for child in node.children:
                walk(child, begins)
            flush(begins)
            return
        cell = node.tag in {"td", "th"} and not mode
        if cell:  # one paragraph in a cell does not break the row
            inside = [each for each in nodes(node)[1:] if each.tag in BLOCK]
            plain.update(each.start for each in inside if len(inside) == 1 and each.tag in {"p", "div"})
        apart = not cell and node.start not in plain and (node.tag in BREAKS or node.start in block)
        if cell:
            line.append("\t")
        elif apart:
            edge(mode)
        for child in node.children:
            walk(child, mode)
        if cell:
            line.append("\t")
        elif apart:
            edge(mode)

    walk(root, "")
    flush("")
    return found


def covered(root: Node, selectors: list[str]) -> set[int]:
    """All places that selectors cover."""
    return {place for start, end in spans(root, selectors) for place in range(start, end)}


def gold(source: str, label: dict[str, Any]) -> str:
    """The gold text of a page: its blocks with an empty line between."""
    return "\n\n".join(block.text for block in blocks(source, label)) + "\n"


def manifest() -> list[dict[str, Any]]:
    """What is known of every page."""
    found: list[dict[str, Any]] = json.loads((HERE / "MANIFEST.json").read_text(encoding="utf-8"))["pages"]
    return found


def page(entry: dict[str, Any]) -> str:
    """The text of a page, decoded as its entry says."""
    return gzip.decompress((HERE / "html" / f"{entry['id']}.html.gz").read_bytes()).decode(entry["encoding"])


def label(entry: dict[str, Any]) -> dict[str, Any]:
    """The hand-written label of a page."""
    found: dict[str, Any] = json.loads((HERE / "labels" / f"{entry['id']}.json").read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    for each in manifest():
        if each["id"] in sys.argv[1:]:
            sys.stdout.write(gold(page(each), label(each)))
