"""The site that `scripts/docs` builds is whole, and works without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

import tomowire
from support.doc_site import DOCS, build_site
from support.requirements import REPOSITORY
from tomowire.cli.main import main

_LOADED = re.compile(r"""(?:src=|<link[^>]*href=|url\(|@import\s+)["']?(https?:)?//""")


def test_no_link_is_broken_and_every_page_can_be_reached(site: Path) -> None:
    """Sphinx fails on either (`--fail-on-warning`), and on a reference that it cannot resolve."""
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert {path for path in pages if not (site / path).is_file()} == set()


_BROKEN = {
    "[a](nowhere.md)": "nowhere",
    "[a](#nothing)": "'nothing'",
    "```{eval-rst}\n.. autoclass:: tomowire.Nothing\n```": "'Nothing' from module 'tomowire'",
    "<!-- made from the code: nothing -->": "nothing makes 'nothing'",
    "![a](nowhere.svg)": "nowhere.svg",
}


def test_what_is_broken_fails(tmp_path: Path) -> None:
    """A page, a heading, a name, a part and a picture that are not there, and a page that no other leads to."""
    docs = tmp_path / "docs"
    shutil.copytree(DOCS / "_tools", docs / "_tools")
    shutil.copy(DOCS / "conf.py", docs)
    (docs / "index.md").write_text("\n\n".join(["# Page", *_BROKEN]))
    (docs / "alone.md").write_text("# Alone\n")
    done = build_site(docs, tmp_path / "site")
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    for expected in (*_BROKEN.values(), "alone.md"):
        assert any(expected in line for line in warnings), f"{expected} in {warnings}"


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_links_of_pages_beside_the_site_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", (REPOSITORY / page).read_text())
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    files = [path for kind in ("html", "css") for path in site.rglob(f"*.{kind}")]
    assert len(files) > 10
    assert {
        str(path.relative_to(site)): loaded for path in files if (loaded := _LOADED.findall(path.read_text()))
    } == {}


def test_every_public_name_has_an_entry(site: Path) -> None:
    pages = "".join(path.read_text() for path in (site / "reference").glob("*.html"))
    named = set(re.findall(r'id="tomowire\.(\w+)"', pages))
    assert set(tomowire.__all__) - {"__version__"} <= named


def test_a_name_in_a_page_leads_to_its_entry(site: Path) -> None:
    page = (site / "tutorial.html").read_text()
    assert re.search(
        r'<a class="reference internal" href="reference/library\.html#tomowire\.Query"><code[^>]*>.*?Query<', page
    )


def test_every_command_has_a_page_with_its_options(site: Path) -> None:
    programs = site / "reference" / "programs"
    assert {page.stem for page in programs.glob("*.html")} == set(main.list_commands(click.Context(main)))
    assert '<section id="tomowire-db-reindex">' in (programs / "db.html").read_text()
    assert "--resume" in (programs / "send.html").read_text()


@pytest.mark.parametrize("option", ["--nothing", "--serve=8000"])
def test_an_unknown_option_is_refused_before_anything_is_installed(option: str) -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts" / "docs", option], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: docs [--serve [PORT] | --update]" in done.stderr
