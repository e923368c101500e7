"""The floors of the house: imports run downwards, in no circles, and no file outgrows its one job."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

# From the ground up. A room is a module or a package directly under pippin; a new one must be given its floor here.
FLOORS = [
    {"errors", "files", "config", "pipeline", "progress", "board", "team"},
    {"model"},
    {"data", "safety", "training", "compress", "interop"},
    {"device"},
    {"generate", "torch_sampler", "vllm_backend", "rollout", "writer"},
    {"evaluate"},
    {"stages"},
    {"recipes", "bench"},
    {"inspect"},
    {"chat", "cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
LONGEST = 500
PLAIN = ("pippin.errors", "pippin.files", "pippin.config", "pippin.pipeline", "pippin.model.config", "pippin.cli")

SOURCE = Path(__file__).resolve().parents[2] / "src" / "pippin"
MODULES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def imports_of(tree: ast.AST, module: str, modules: dict[str, Path] | set[str]) -> set[str]:
    """The modules of the project that `tree` names in any import statement, wherever it stands."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute in this project"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules else str(node.module))
    return {name for name in found if name == "pippin" or name.startswith("pippin.")} - {module}


def room(module: str) -> str:
    return module.split(".")[1]


def upward(graph: dict[str, set[str]]) -> list[str]:
    """The imports of `graph` that run from a lower floor to a higher one."""
    return [
        f"{module} imports {target}"
        for module, targets in graph.items()
        for target in targets
        if module != "pippin" and target != "pippin" and FLOOR[room(target)] > FLOOR[room(module)]
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, or an empty list."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for target in sorted(graph.get(module, ())):
            if found := visit(target, [*path, module]):
                return found
        finished.add(module)
        return []

    for module in sorted(graph):
        if found := visit(module, []):
            return found
    return []


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
    return {name: imports_of(tree, name, MODULES) for name, tree in trees.items()}


def test_every_room_has_a_floor() -> None:
    rooms = {room(module) for module in MODULES if module != "pippin"}
    assert rooms <= FLOOR.keys(), f"give {sorted(rooms - FLOOR.keys())} a floor"


def test_imports_never_run_up(graph: dict[str, set[str]]) -> None:
    assert upward(graph) == []


def test_imports_have_no_circles(graph: dict[str, set[str]]) -> None:
    assert circle(graph) == []


def test_imported_modules_exist(graph: dict[str, set[str]]) -> None:
    missing = [f"{module} imports {t}" for module, targets in graph.items() for t in targets if t not in MODULES]
    assert missing == []


def test_the_checks_see_what_they_are_for() -> None:
    tree = ast.parse("def f():\n    from pippin.stages import sft\n    import pippin.model.rope\n    import json\n")
    assert imports_of(tree, "pippin.model.linear", {"pippin.stages.sft"}) == {"pippin.stages.sft", "pippin.model.rope"}
    assert upward({"pippin.model.linear": {"pippin.stages.sft", "pippin.files"}})
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_ground_floor_does_not_import_torch_at_the_top() -> None:
    for module in PLAIN:
        top = ast.parse(MODULES[module].read_text(encoding="utf-8")).body
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
        assert not {n for n in names if n.split(".")[0] == "torch"}, module


def test_packages_say_nothing_in_their_init() -> None:
    texts = {str(p): p.read_text(encoding="utf-8") for p in SOURCE.rglob("__init__.py") if p.parent != SOURCE}
    assert [path for path, text in texts.items() if text.strip()] == []


def test_files_are_short(repository: Path) -> None:
    long = {
        str(path.relative_to(repository)): lines
        for folder in ("src", "tests")
        for path in (repository / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert long == {}
