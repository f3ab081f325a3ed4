"""What the tests of the documentation share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.doc_site import DOCS, build_site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the pages, built once."""
    at = tmp_path_factory.mktemp("site")
    done = build_site(DOCS, at)
    assert done.returncode == 0, done.stderr
    return at
