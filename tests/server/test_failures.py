"""What goes wrong here, as the sender hears of it (PS3.4 B.2.3)."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.errors import DataSetError, IndexUnavailable, StoreFailed
from tomowire.server.failures import failure_of, store_failed


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "x", "/data/secret"), 0xA700),
        (OSError(errno.EDQUOT, "x"), 0xA700),
        (OSError(errno.EROFS, "x"), 0xA700),
        (OSError("without a number"), 0xA700),
        (IndexUnavailable("database is locked"), 0xA700),
        (DataSetError("cut short", offset=3), 0xC000),
        (KeyError("not foreseen"), 0x0110),
        (StoreFailed(0xA900, "as it is"), 0xA900),
    ],
)
def test_each_kind_has_its_status(error: Exception, status: int) -> None:
    failure = failure_of(error)
    assert failure.status == status
    assert failure.comment
    assert "secret" not in failure.comment


@pytest.mark.parametrize(
    ("error", "comment"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/secret"), "No space left on device"),
        (IndexUnavailable('connection to "10.0.0.1", port 5432 failed'), "the index cannot be used now"),
        (DataSetError("the last value lacks 4294967295 bytes", offset=12345678901), None),
        (DataSetError("the data set ends within a sequence", offset=12345678901), None),
        (DataSetError("w" * 80, offset=123), "w" * 50 + " (at byte 123)"),
        (DataSetError("w" * 80), "w" * 64),
    ],
)
def test_a_comment_says_what_the_status_does_not(error: Exception, comment: str | None) -> None:
    failure = failure_of(error)
    assert failure.comment == (str(error) if comment is None else comment)
    assert str(error) in str(failure)  # for our own log


def test_a_data_directory_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
    assert failure_of(missing, tmp_path).comment == "No such file or directory"
    (tmp_path / "objects").rmdir()
    failure = failure_of(missing, tmp_path)
    assert (failure.status, failure.comment) == (0xA700, "the data directory is gone")
    assert str(tmp_path) in str(failure)


@given(st.text(max_size=200))
def test_a_comment_is_a_long_string_in_the_default_repertoire(text: str) -> None:
    # LO: 64 characters, no backslash, no control characters but ESC (PS3.5 6.2); the command set has no character set.
    comment = store_failed(0xC000, text).comment
    assert len(comment) <= 64
    assert comment.isascii()
    assert comment.isprintable()
    assert "\\" not in comment
