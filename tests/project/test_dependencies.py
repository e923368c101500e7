"""pyproject.toml, constraints.txt and what is installed say the same, and nothing more is asked for than is used."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pinned(repository: Path) -> dict[str, str]:
    """Package name -> version in constraints.txt, which holds names and versions only."""
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
            name, version = line.split("==")
            assert name not in pins, name
            pins[name] = version
    return pins


def requirements(project: dict[str, Any]) -> list[Requirement]:
    extras = [r for name, rs in project["optional-dependencies"].items() if name != "all" for r in rs]
    return [Requirement(r) for r in project["dependencies"] + extras]


def closure(project: dict[str, Any]) -> set[str]:
    """Every package that installing all extras brings in on this machine."""
    todo, seen = requirements(project), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name not in seen and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
            seen.add(name)
            todo += [Requirement(r) for r in metadata.distribution(name).requires or []]
    return seen


def test_every_dependency_is_pinned_and_satisfies_its_range(project: dict[str, Any], pinned: dict[str, str]) -> None:
    for requirement in requirements(project):
        version = pinned[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} against the pin {version}"


def test_constraints_are_the_closure_of_all_extras(project: dict[str, Any], pinned: dict[str, str]) -> None:
    assert pinned.keys() == closure(project)


def test_installed_versions_are_the_pinned_ones(pinned: dict[str, str]) -> None:
    assert {name: Version(metadata.version(name)).public for name in pinned} == pinned


def test_base_stays_free_of_torch(project: dict[str, Any]) -> None:
    base = {canonicalize_name(Requirement(r).name) for r in project["dependencies"]}
    assert base == {"numpy", "pydantic", "rich", "safetensors", "tokenizers", "typer"}


def test_all_is_every_extra(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    assert Requirement(everything).extras == extras.keys() - {"all"}
    assert all(extras.values()), "an extra is empty"


def imported(folder: Path) -> set[str]:
    """Third-party packages that the sources under a folder import."""
    used: set[str] = set()
    for path in folder.rglob("*.py"):
        if path.parent.name == "peers" or path.name.startswith("make_"):  # they run in environments of their own
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used.add(str(node.module).split(".")[0])
    return {canonicalize_name(name) for name in used - sys.stdlib_module_names - {"pippin", "tests", "__future__"}}


def test_imports_are_declared_and_declarations_are_imported(project: dict[str, Any], repository: Path) -> None:
    extras = project["optional-dependencies"]
    at_run_time = project["dependencies"] + [r for name in extras.keys() - {"all", "test"} for r in extras[name]]
    declared = {canonicalize_name(Requirement(r).name) for r in at_run_time}
    for_tests = declared | {canonicalize_name(Requirement(r).name) for r in extras["test"]}
    used = imported(repository / "src")
    # vLLM brings a torch of its own, so it is nobody's extra: who has it can use it.
    assert used - declared == {"vllm"}, "imported but not declared"
    assert declared - used == set(), "declared but never imported"
    assert imported(repository / "tests") - for_tests == set(), "imported by tests but not declared"
