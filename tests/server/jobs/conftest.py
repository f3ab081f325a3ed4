"""Databases with tables for jobs, on both backends; archives that work on jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tomowire.server.index.backend import IndexBackend
from tomowire.server.records import Records


@pytest.fixture
def records(backend: IndexBackend) -> Iterator[Records]:
    backend.open_writer().close()
    with closing(Records(backend.engine)) as records:
        yield records
