"""What `pip install tomowire` promises: the dependencies that are declared are those that are imported, and importing is cheap."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from support.requirements import REPOSITORY

SOURCE = REPOSITORY / "src" / "tomowire"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

# What the library and the quick commands must not pay for when they start.
HEAVY = {"alembic", "numpy", "pydantic", "pydicom", "rich", "sqlalchemy"}

# What the library uses where it is installed, and does without where it is not.
OPTIONAL = {"imagecodecs", "numpy", "uvloop"}


def plain(name: str) -> str:
    """Names of distributions are compared so."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {plain(re.split(r"[^A-Za-z0-9_.-]", requirement)[0]) for requirement in requirements}


def third_party_imports(directory: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(directory.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            for module in modules:
                top = module.partition(".")[0]
                if top != "tomowire" and top not in sys.stdlib_module_names:
                    yield path.relative_to(SOURCE), top


def test_every_import_is_declared_and_the_library_needs_no_extra() -> None:
    distributions = packages_distributions()
    always = names(PROJECT["dependencies"])
    with_extras = always.union(*(names(EXTRAS[extra]) for extra in EXTRAS if extra not in {"all", "dev"}))
    undeclared = [
        f"{path} imports {module}"
        for path, module in third_party_imports(SOURCE)
        if not {plain(name) for name in distributions.get(module, [module])}
        & (with_extras if path.parts[0] in {"server", "testing", "web"} or module in OPTIONAL else always)
    ]
    assert undeclared == []


def test_all_means_every_extra_but_the_developers() -> None:
    (everything,) = EXTRAS["all"]
    assert set(re.findall(r"\w+", everything)) - {"tomowire"} == EXTRAS.keys() - {"all", "dev", "docs", "testing"}


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


@pytest.mark.parametrize("layer", ["wire", "protocol", "aio", "services"])
def test_importing_the_library_loads_nothing_heavy(layer: str) -> None:
    modules = [
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in (SOURCE / layer).rglob("[!_]*.py")
    ]
    program = (
        f"import importlib, json, sys; [*map(importlib.import_module, {modules!r})]; print(json.dumps([*sys.modules]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(SOURCE.parent)}, stdout=subprocess.PIPE, check=True
    )
    assert HEAVY & set(json.loads(answer.stdout)) == set()
