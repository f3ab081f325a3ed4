"""One index, wherever it is kept: what is promised of both places."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from support.objects import Sample, chunks_of, stream
from tomowire.errors import UsageError
from tomowire.server.archive import ArchiveStorage
from tomowire.server.index.backend import IndexBackend, backend_for


async def test_an_object_is_stored_and_known(index_url: str | None, tmp_path: Path) -> None:
    sample = Sample()
    async with ArchiveStorage(tmp_path, index_url=index_url) as storage:
        stored = await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
    async with ArchiveStorage(tmp_path, index_url=index_url) as storage:
        again = await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
    assert (stored.is_new, again.is_new) == (True, False)
    assert again.path == stored.path


def test_the_schema_is_made_when_it_is_needed(empty_postgres_url: str, tmp_path: Path) -> None:
    backend = backend_for(empty_postgres_url, tmp_path)
    assert backend.is_empty()
    with closing(backend.open_writer()) as writer:
        assert len(writer.archive_id) == 32
    assert not backend.is_empty()


def test_its_name_has_no_password(backend: IndexBackend) -> None:
    assert "of-the-tests" not in backend.name
    assert "of-the-tests" not in repr(backend)


@pytest.mark.parametrize(
    "url", ["mysql://root:secret@host/db", "host=/tmp password=secret", "postgresql://[::1:secret@"]
)
def test_a_url_that_is_none_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        backend_for(url, tmp_path)
    assert "secret" not in str(error.value)
