"""The pages on configuration: their files can be loaded, and what they say of a reload is what happens."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from support.doc_blocks import all_blocks
from support.requirements import REPOSITORY
from tomowire.server.config import check, load
from tomowire.server.config.problems import dotted
from tomowire.server.config.reading import read_file
from tomowire.server.config.schema import place_at, place_of, sections
from tomowire.server.settings import Settings

EXAMPLES = [each for each in all_blocks("toml") if each.page.name == "configure.md"]


def test_the_guide_has_a_whole_file() -> None:
    (block,) = EXAMPLES
    named = {name for name in (str(path[0]) for path, _ in sections()) if f"[{name}" in block.text}
    assert named == {"dicom", "storage", "index", "nodes", "callers", "http", "quota", "audit", "logs"}


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.place)
def test_the_files_in_the_guide_can_be_used(block: Any, tmp_path: Path) -> None:
    file = tmp_path / "tomowire.toml"
    file.write_text(block.text)
    found = check(load(file))
    # The certificates are not there, nor has the folder to be.
    assert [str(each) for each in found if "cannot be read" not in each.text and "written to" not in each.text] == []
    assert len(load(file).settings.nodes) == 2


@pytest.mark.parametrize("file", sorted((REPOSITORY / "deploy").glob("*.toml")), ids=lambda file: file.name)
def test_the_files_to_begin_with_have_no_mistakes(file: Path) -> None:
    assert [str(each) for each in check(load(file)) if not each.is_warning] == []


def test_the_page_has_every_key_with_what_it_does() -> None:
    page = (REPOSITORY / "docs" / "reference" / "configuration.md").read_text()
    for path, section in sections():
        title = dotted(tuple(each for each in path if each != 0))
        assert f"## `[[{title}]]`" in page or f"## `[{title}]`" in page
        for key, field in section.model_fields.items():
            if place_of(field.annotation, field).section is None:
                assert field.description, key
                assert f"| `{key}` |" in page


def test_what_the_page_says_of_a_reload_is_what_is_compared() -> None:
    from tomowire.server.changes import _NOT_TAKEN, _TAKEN

    assert {each.name for each in fields(Settings)} >= {*_TAKEN, *_NOT_TAKEN}
    taken = {*_TAKEN.values(), "knownDestinations", "logs.level"}
    for path, section in sections():
        for key, field in section.model_fields.items():
            extra: Any = field.json_schema_extra
            if extra is None:
                continue
            names = [str(each) for each in (*path, key) if each not in (0, "NAME")]
            prefixes = {".".join(names[:length]) for length in range(1, len(names) + 1)}
            assert extra["reload"] == bool(prefixes & taken), names


def test_examples_are_what_the_keys_hold(tmp_path: Path) -> None:
    for path, section in sections():
        for key, field in section.model_fields.items():
            place = place_at((*path, key))
            assert place is not None
            if place.section is None and field.examples and field.examples[0] is not None:
                given = field.examples[0]
                for each in given if isinstance(given, list | tuple) else [given]:
                    kind = place.kind or place_of(place.element).kind
                    assert kind is not None
                    kind.read(each)
    assert read_file(REPOSITORY / "deploy" / "tomowire.toml").tree
