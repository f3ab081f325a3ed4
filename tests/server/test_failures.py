"""What goes wrong here, as the sender hears of it (PS3.4 B.2.3)."""

from __future__ import annotations

import errno

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


@given(st.text(max_size=200))
def test_a_comment_is_a_long_string_in_the_default_repertoire(text: str) -> None:
    # LO: 64 characters, no backslash, no control characters but ESC (PS3.5 6.2); the command set has no character set.
    comment = store_failed(0xC000, text).comment
    assert len(comment) <= 64
    assert comment.isascii()
    assert comment.isprintable()
    assert "\\" not in comment
