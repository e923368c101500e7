"""Where real text comes from: the interpreter's own library, installed packages, a user's folder.

Each reader yields `SourceFile`s in an order that depends on their paths alone; `documents` cuts one into documents.
A file that cannot be read is yielded too, with the problem, so that the audit names it.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.metadata
import json
import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pippin import files
from pippin.data.records import Document, Split, fraction_of, split_of
from pippin.errors import UserError

MAX_CHARS = 8_000
TEXT_ENDINGS = (
    ".txt", ".md", ".rst", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".java", ".js", ".ts", ".go", ".rs",
    ".rb", ".sh", ".tex", ".org",
)  # fmt: skip
ROW_ENDINGS = (".jsonl", ".parquet")
_PACKAGE_ENDINGS = (".py", ".pyi", ".md", ".rst")
# Tests, generated tables, copies of other projects, and what the build of the interpreter wrote (paths of a machine).
_SKIPPED = {
    "test", "tests", "idlelib", "lib2to3", "turtledemo", "encodings", "ensurepip", "pydoc_data", "site-packages",
    "dist-packages", "lib-dynload", "__pycache__", "__phello__", "_vendor", "vendor", "vendored", "third_party",
}  # fmt: skip
_BUILD_FILES = re.compile(r"config-|_sysconfigdata|__hello__")


class SourceFile(NamedTuple):
    """One file or row.

    Attributes:
        source: "python", "packages" or "folder".
        path: where it is, relative to the source; a row ends in ":<number>".
        split: its side; None where the documents cut from it are split one by one.
        licence: as far as it is known.
        text: None when it could not be read; then `problem` says why.
    """

    source: str
    path: str
    split: Split | None
    licence: str
    text: str | None
    problem: str = ""

    @property
    def is_python(self) -> bool:
        return self.path.endswith((".py", ".pyi"))


def decode(data: bytes, start: int = 0) -> tuple[str | None, str]:
    """UTF-8 text with plain newlines and no byte order mark, or None and the problem; `start` is the file offset."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), ""
    except UnicodeDecodeError as error:
        return None, f"not UTF-8: byte {start + error.start}"


# --- the standard library and installed packages ---------------------------------------------------------------------


def _shuffled(loaders: dict[str, Callable[[], bytes]]) -> Iterator[tuple[str, bytes]]:
    for path in sorted(loaders, key=lambda path: (fraction_of(f"order/{path}"), path)):
        yield path, loaders[path]()


def stdlib_files() -> dict[str, Path]:
    """The Python sources of the running interpreter by relative path, without tests and generated tables."""
    root = Path(sysconfig.get_path("stdlib"))
    found = {}
    for folder_name, folders, names in os.walk(root):
        # Pruned while walking: site-packages may hold far more files than the library.
        folders[:] = [name for name in folders if name not in _SKIPPED and not _BUILD_FILES.match(name)]
        for name in names:
            if name.endswith(".py") and not _BUILD_FILES.match(name):
                path = Path(folder_name, name)
                found[path.relative_to(root).as_posix()] = path
    return dict(sorted(found.items()))


def _topics() -> dict[str, str]:
    """The language reference that the interpreter carries for `help()`: English prose by topic."""
    path = Path(sysconfig.get_path("stdlib")) / "pydoc_data" / "topics.py"
    if not path.exists():  # some distributions leave it out
        return {}
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign):
            return dict(ast.literal_eval(node.value))
    return {}


def stdlib(max_bytes: int) -> Iterator[SourceFile]:
    """Sources and language reference of the running interpreter (PSF licence), until `max_bytes` are reached.

    All files of one top-level module or package are on one side of the split.
    """
    loaders: dict[str, Callable[[], bytes]] = {path: file.read_bytes for path, file in stdlib_files().items()}
    for topic, text in _topics().items():
        loaders[f"pydoc_data/{topic}.txt"] = text.encode
    n_bytes = 0
    for path, data in _shuffled(loaders):
        if n_bytes >= max_bytes:
            return
        n_bytes += len(data)
        unit = "python/" + path.split("/")[0].removesuffix(".py")
        yield SourceFile("python", path, split_of(unit), "PSF-2.0", *decode(data))


def distribution(name: str) -> importlib.metadata.Distribution:
    """An installed distribution that lists its files.

    Raises:
        UserError: it is not installed, or has no list of files.
    """
    try:
        found = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        there = {str(d.metadata["Name"]) for d in importlib.metadata.distributions()}
        close = difflib.get_close_matches(name, sorted(there), 1)
        hint = f"did you mean {close[0]!r}? Or install it" if close else "install it"
        raise UserError(f"packages: {name!r}: is not installed here; {hint}, or leave it out") from None
    if not found.files:
        raise UserError(f"packages: {name!r}: its installation does not list its files; install it again from a wheel")
    return found


def licence_of(package: importlib.metadata.Distribution) -> str:
    """The licence as the metadata state it: the expression, a short licence line, or the classifiers."""
    metadata = package.metadata
    line = (metadata["License-Expression"] or metadata["License"] or "").strip()
    if line and "\n" not in line and len(line) <= 200:
        return line
    classifiers = [c.split(" :: ")[-1] for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    return ", ".join(classifiers) or line.partition("\n")[0].strip()[:200] or "not stated"


def _wanted(package: importlib.metadata.Distribution) -> Iterator[importlib.metadata.PackagePath]:
    for file in package.files or []:
        if file.parts[0] != ".." and not _SKIPPED & set(file.parts) and file.name.endswith(_PACKAGE_ENDINGS):
            yield file


def packages(names: Sequence[str], max_bytes: int) -> Iterator[SourceFile]:
    """Sources and notes (.py .pyi .md .rst) of installed distributions, mixed, until `max_bytes` are reached.

    All files of one module or folder directly below the top-level package are on one side of the split.

    Raises:
        UserError: a distribution is not installed.
    """
    loaders: dict[str, Callable[[], bytes]] = {}
    licences: dict[str, str] = {}
    for name in sorted(set(names)):
        package = distribution(name)
        for file in _wanted(package):
            loaders[file.as_posix()] = Path(str(file.locate())).read_bytes
            licences[file.as_posix()] = licence_of(package)
    n_bytes = 0
    for path, data in _shuffled(loaders):
        if n_bytes >= max_bytes:
            return
        n_bytes += len(data)
        unit = "packages/" + "/".join(path.split("/")[:2]).partition(".")[0]
        yield SourceFile("packages", path, split_of(unit), licences[path], *decode(data))


def stdlib_digest() -> str:
    """Digest of all that `stdlib` may read."""
    total = hashlib.sha256()
    for path, file in stdlib_files().items():
        total.update(f"{path}\0{files.digest(file)}\n".encode())
    for topic, text in _topics().items():
        total.update(f"{topic}\0{text}\n".encode())
    return total.hexdigest()


def package_digest(name: str) -> str:
    """Digest of all that `packages` may read of a distribution, from the digests in its RECORD where it has them.

    Raises:
        UserError: it is not installed.
    """
    lines = [
        f"{file.as_posix()}\0{file.hash.value if file.hash else files.digest(Path(str(file.locate())))}\n"
        for file in _wanted(distribution(name))
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


# --- a user's own texts ----------------------------------------------------------------------------------------------


def folder(path: str | Path) -> Iterator[SourceFile]:
    """A user's texts: a file or a folder of text files, .jsonl (field "text") and .parquet (column "text").

    A text file or a row is held out by the hash of its name; if that holds out nothing, the one with the smallest
    hash is. A single text file is split by its documents.

    Raises:
        UserError: missing, nothing to read in it, no "text" in the first row, or a damaged Parquet file.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"folder: {str(path)!r}: no such file or folder; give the path of your texts")
    found = {root.name: root}
    if root.is_dir():
        relative = {p.relative_to(root): p for p in root.rglob("*") if p.is_file()}
        found = {r.as_posix(): relative[r] for r in sorted(relative) if not any(x.startswith(".") for x in r.parts)}
    known = [name for name in found if name.lower().endswith(TEXT_ENDINGS + ROW_ENDINGS)]
    if not known:
        endings = ", ".join(sorted({Path(name).suffix or "none" for name in found})) or "it is empty"
        raise UserError(
            f"folder: {str(path)!r}: nothing to read (endings there: {endings}); "
            f"readable are {' '.join(TEXT_ENDINGS + ROW_ENDINGS)}"
        )
    single = len(known) == 1 and not known[0].lower().endswith(ROW_ENDINGS)
    forced = None if single else _forced(found, known)
    for name, file in found.items():
        if name not in known:
            yield SourceFile("folder", name, "train", "the user's", None, f"ending not read: {file.suffix or 'none'}")
            continue
        for where, text, problem in _read(name, file):
            side: Split = "heldout" if where == forced else split_of(f"folder/{where}")
            yield SourceFile("folder", where, None if single else side, "the user's", text, problem)


def _forced(found: dict[str, Path], known: list[str]) -> str | None:
    """The unit to hold out where chance holds out none (few units)."""
    best, n = "", 0
    for name in known:
        for where, _, problem in _read(name, found[name]):
            if problem:
                continue
            if split_of(f"folder/{where}") == "heldout":
                return None
            n += 1
            best = min(best or where, where, key=lambda unit: fraction_of(f"split/folder/{unit}"))
    return best if n > 1 else None


def _read(name: str, file: Path) -> Iterator[tuple[str, str | None, str]]:
    ending = file.suffix.lower()
    if ending == ".jsonl":
        yield from _read_jsonl(name, file)
    elif ending == ".parquet":
        yield from _read_parquet(name, file)
    else:
        yield name, *decode(file.read_bytes())


def _read_jsonl(name: str, file: Path) -> Iterator[tuple[str, str | None, str]]:
    offset = 0
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{name}:{number}"
            text, problem = decode(line.rstrip(b"\r\n"), offset)
            offset += len(line)
            if text is None or not text.strip():
                yield where, None, problem or "empty line"
                continue
            try:
                row = json.loads(text)
            except ValueError:
                yield where, None, "not JSON"
                continue
            value = row.get("text") if isinstance(row, dict) else None
            if not isinstance(value, str) and number == 1:
                there = ", ".join(row) if isinstance(row, dict) else f"a {type(row).__name__}"
                raise UserError(f"folder: {file}:1: no text in a field 'text'; there is: {there}; rename the field")
            yield (where, value, "") if isinstance(value, str) else (where, None, "no text in a field 'text'")


def _read_parquet(name: str, file: Path) -> Iterator[tuple[str, str | None, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(file)
        columns = table.schema_arrow.names
        kind = table.schema_arrow.field("text").type if "text" in columns else None
        if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            there = ", ".join(f"{f.name} ({f.type})" for f in table.schema_arrow)
            raise UserError(f"folder: {file}: no column 'text' of strings; there is: {there}; rename the column")
        for batch in table.iter_batches(batch_size=1024, columns=["text"]):
            for value in batch.column(0).cast(pa.large_binary()):
                number += 1
                data = value.as_py()
                yield f"{name}:{number}", *(decode(data) if data is not None else (None, "no text (null)"))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"folder: {file}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


# --- cutting ---------------------------------------------------------------------------------------------------------

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_TOP_LEVEL = re.compile(r"@|def |class |async def ")
_METHOD = re.compile(r"    (?:@|def |class |async def )")
_HEADING = re.compile(r"#{1,3} ")
_LICENCE = re.compile(r"licen[sc]e|copyright", re.IGNORECASE)


def documents(file: SourceFile, max_chars: int = MAX_CHARS) -> list[Document]:
    """The documents of a file: cut where a top-level definition (Python) or a section or paragraph begins.

    Pieces are as long as `max_chars` allows; a definition that is longer is cut between methods, at empty lines, at
    lines, at last anywhere. A Python document begins with its path in a comment, so that a small model can tell
    modules apart; a licence text at the top of a file is left out (the licence is in `meta`).
    """
    if file.text is None:
        raise ValueError(f"{file.path}: {file.problem}")
    lines = _LINE.findall(file.text)
    skipped = _licence_lines(lines) if file.is_python else 0
    header = f"# {file.path}\n" if file.is_python else ""
    room = max_chars - len(header)
    found: list[Document] = []
    line = 1 + skipped
    for piece in _cut("".join(lines[skipped:]), room, _python_levels() if file.is_python else _text_levels()):
        body = piece.strip("\n")
        first = line + len(piece) - len(piece.lstrip("\n"))
        line += piece.count("\n")
        if body.strip():
            where = f"{file.source}/{file.path}:{first}"
            found.append(
                {
                    "id": where,
                    "source": file.source,
                    "text": header + body.rstrip(),
                    "split": file.split or split_of(where),
                    "meta": {"licence": file.licence},
                }
            )
    if file.split is None and len(found) > 1 and all(document["split"] == "train" for document in found):
        min(found, key=lambda document: fraction_of("split/" + document["id"]))["split"] = "heldout"
    return found


def _licence_lines(lines: list[str]) -> int:
    """Lines of the comment at the top, if it is about a licence."""
    n = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    return n if _LICENCE.search("".join(lines[:n])) else 0


Level = Callable[[str, str], bool]  # (line before, line) -> a piece may begin here


def _python_levels() -> list[Level]:
    return [
        lambda before, line: bool(_TOP_LEVEL.match(line)) and not before.startswith("@"),
        lambda before, line: bool(_METHOD.match(line)) and not before.startswith("    @"),
        *_text_levels()[1:],
    ]


def _text_levels() -> list[Level]:
    return [
        lambda before, line: bool(_HEADING.match(line)),
        lambda before, line: not before.strip() and bool(line.strip()),
        lambda before, line: True,
    ]


def _cut(text: str, room: int, levels: Sequence[Level]) -> list[str]:
    """Cut into pieces of at most `room` characters that together are the text, at the first level that can."""
    if len(text) <= room:
        return [text] if text else []
    if not levels:
        return [text[i : i + room] for i in range(0, len(text), room)]
    blocks: list[list[str]] = []
    before = ""
    for line in _LINE.findall(text):
        if not blocks or levels[0](before, line):
            blocks.append([])
        blocks[-1].append(line)
        before = line
    pieces: list[str] = []
    for block in _joined(blocks):
        if pieces and len(pieces[-1]) + len(block) <= room:
            pieces[-1] += block
        else:
            pieces += _cut(block, room, levels[1:])
    return pieces


def _joined(blocks: Iterable[list[str]]) -> Iterator[str]:
    return ("".join(block) for block in blocks)
