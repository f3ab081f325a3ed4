"""Whatever a configuration holds: settings come of it, or the declared error, which can be printed; and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tomowire.errors import ConfigurationInvalid
from tomowire.server.config import Problem, as_toml, check, load, load_settings, settings_from, shown, shown_settings
from tomowire.server.config.environment import read_environment
from tomowire.server.config.positions import json_lines, toml_lines
from tomowire.server.config.reading import read_text
from tomowire.server.config.schema import sections
from tomowire.server.settings import Settings

few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

WORDS = sorted({str(part) for path, section in sections() for part in (*path, *section.model_fields)})

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 70000),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "A", "127.0.0.1", "::", "10.0.0.0/8", "1 GB", "5 min", "\0", "\ud800", "a\nb", "~x/y", "keep", "echo"]
    ),
    st.sampled_from(
        ["DNS:a", "sha256:00", "postgresql://h/d", "postgresql://[", "1e400 d", "9" * 30 + " TB", "\x7f\x9b"]
    ),
)
names = st.one_of(st.sampled_from(WORDS), st.text(max_size=8), st.just("\ud800"))
trees = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(names, below, max_size=4), max_leaves=12
)
roots = st.dictionaries(names, trees, max_size=5)


def section_tree() -> st.SearchStrategy[dict[str, Any]]:
    """Trees of the right shape with the wrong values: what goes deeper than a tree at random."""
    shapes: dict[str, Any] = {}
    for path, section in sections():
        keys = st.dictionaries(st.sampled_from(sorted(section.model_fields)), scalars | st.lists(scalars, max_size=3))
        if path[-1] == "NAME":
            shapes[str(path[0])] = st.dictionaries(names, keys, max_size=2)
        elif path[-1] == 0:
            shapes[str(path[0])] = st.lists(keys, max_size=2)
        elif len(path) == 1:
            shapes[str(path[0])] = keys
    return st.fixed_dictionaries({}, optional=shapes)


def outcome(problems: tuple[Problem, ...]) -> None:
    """Every problem says something that can be printed on any terminal, and says it as JSON too."""
    assert problems
    for each in problems:
        str(each).encode("utf-8")
        assert str(each).isprintable()
        assert each.text
        json.dumps(each.as_json())


@settings(max_examples=60)
@given(roots | section_tree())
def test_any_tree(tree: dict[str, Any]) -> None:
    try:
        found = settings_from(tree, "somewhere", Path("/folder"))
    except ConfigurationInvalid as invalid:
        outcome(invalid.problems)
    else:
        assert isinstance(found, Settings)
        json.dumps(shown_settings(found))
        assert settings_from(shown_settings(found), "shown") == found


@few
@given(tree=roots | section_tree(), is_json=st.booleans())
def test_any_file(tree: dict[str, Any], is_json: bool, tmp_path: Path) -> None:
    file = tmp_path / ("a.json" if is_json else "a.toml")
    try:
        file.write_text(json.dumps(tree) if is_json else as_toml(plain(tree)))
    except UnicodeEncodeError:
        return
    try:
        found = load(file)
    except ConfigurationInvalid as invalid:
        outcome(invalid.problems)
        assert {each.origin.source for each in invalid.problems if each.origin} == {str(file)}
    else:
        json.dumps(shown(found.configuration))
        for problem in check(found):
            outcome((problem,))


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(data: bytes, is_json: bool) -> None:
    try:
        read_text(data, "somewhere", is_json=is_json)
    except ConfigurationInvalid as invalid:
        outcome(invalid.problems)


@given(st.text(alphabet="ab.=[]{}\"'\\\n #,:1", max_size=60))
def test_any_text_that_looks_like_one(text: str) -> None:
    toml_lines(text)
    json_lines(text)
    for is_json in (True, False):
        try:
            read_text(text.encode(), "somewhere", is_json=is_json)
        except ConfigurationInvalid as invalid:
            outcome(invalid.problems)


@given(
    st.dictionaries(
        st.lists(names, min_size=1, max_size=4).map(lambda parts: "TOMOWIRE_" + "__".join(parts).upper()),
        st.text(max_size=20) | st.sampled_from(["1", "yes", "[", "[1, 2]", "{a = 1}", "a,b", "9" * 5000]),
        max_size=4,
    )
)
def test_any_environment(environment: dict[str, str]) -> None:
    _, problems = read_environment(environment)
    if problems:
        outcome(tuple(problems))
    try:
        assert isinstance(load_settings(None, environment), Settings)
    except ConfigurationInvalid as invalid:
        outcome(invalid.problems)


@few
@given(section_tree())
def test_lines_are_those_of_the_keys(tree: dict[str, Any]) -> None:
    """What is written with one key on a line is found on that line."""
    text = json.dumps(tree, indent=1)
    lines, twice = json_lines(text)
    assert not twice
    rows = text.split("\n")
    for path, line in lines.items():
        if path and isinstance(path[-1], str):
            assert rows[line - 1].lstrip().startswith(json.dumps(path[-1]))


def plain(tree: Any) -> Any:
    """What TOML has a form for, and no empty sections in lists."""
    if isinstance(tree, dict):
        return {name: plain(each) for name, each in tree.items() if each is not None and not isinstance(each, list)}
    return tree if isinstance(tree, str | bool | int) else 1


@few
@given(section_tree())
def test_what_is_written_as_toml_is_read_so(tree: dict[str, Any]) -> None:
    import tomllib

    tree = plain(tree)
    try:
        text = as_toml(tree)
        text.encode()
    except UnicodeEncodeError:
        return
    read = tomllib.loads(text)
    assert read == tree
    found = toml_lines(text)
    for section, keys in tree.items():
        for key in keys if isinstance(keys, dict) else ():
            assert (section, key) in found


@pytest.mark.parametrize(
    "text", ['"' * 100_000, "'''" + "a" * 900_000, "a = [" * 3, "[[a]]\n" * 20_000, "a.b.c = 1\n" * 1000]
)
def test_large_texts_are_not_slow(text: str) -> None:
    with pytest.raises(ConfigurationInvalid):
        load_text(text)


def load_text(text: str) -> Settings:
    layer = read_text(text.encode(), "somewhere", is_json=False)
    return settings_from(dict(layer.tree), "somewhere")
