"""What the log says of a failure in somebody else's code: enough to find it, and nothing of a patient."""

from __future__ import annotations

import errno
import logging
from typing import Any

import pytest

from support.network import LOOPBACK
from tomowire.aio.connect import associate
from tomowire.aio.failing import describe_failure, log_failure
from tomowire.aio.listen import listen
from tomowire.errors import OperationFailed, UsageError
from tomowire.services.verification import CEchoScu, Verification, verification

PATIENT = "Doe^Jane"


def deepest(value: Any) -> None:
    raise KeyError(value)


def between(value: Any) -> None:
    deepest(value)


def caught(*, raised_from: bool = False) -> BaseException:
    try:
        try:
            between(PATIENT)
        except KeyError as error:
            if not raised_from:
                raise
            raise ValueError(PATIENT) from error
    except Exception as error:
        return error
    raise AssertionError


def test_it_says_where_it_was_raised_and_who_called_that() -> None:
    told = describe_failure(caught())
    assert told.startswith(f"KeyError at {__file__}:")
    assert [each.rpartition(" in ")[2] for each in told.split(", ")] == ["deepest", "between", "caught"]


def test_it_says_what_it_was_raised_from() -> None:
    first, second = describe_failure(caught(raised_from=True)).split("; raised from ")
    assert first.startswith("ValueError at ")
    assert first.endswith(" in caught")
    assert second.startswith("KeyError at ")


def test_what_was_not_meant_to_be_told_is_not() -> None:
    error = ValueError()
    error.__context__, error.__suppress_context__ = KeyError(), True
    assert describe_failure(error) == "ValueError"


@pytest.mark.parametrize("raised_from", [False, True])
def test_the_text_of_an_exception_is_not_in_it(raised_from: bool) -> None:
    assert PATIENT not in describe_failure(caught(raised_from=raised_from))


def test_what_the_system_says_is_in_it_but_not_the_name_of_the_file() -> None:
    error = OSError(errno.ENOSPC, "what anybody may have put here", f"/images/{PATIENT}.dcm")
    assert describe_failure(error) == "OSError (No space left on device)"


def test_an_error_of_ours_says_what_it_says() -> None:
    assert describe_failure(UsageError("the state does not allow it")) == "UsageError: the state does not allow it"


def test_an_error_of_ours_that_a_handler_raised_is_not_told_by_way_of_another() -> None:
    error = UsageError("that is no status")
    error.__cause__ = OperationFailed(0, PATIENT)
    assert describe_failure(error) == "UsageError: that is no status; raised from OperationFailed"


def test_a_group_is_told_part_by_part() -> None:
    group = ExceptionGroup(PATIENT, [KeyError(PATIENT), ValueError(PATIENT), OSError(errno.EIO, PATIENT), TypeError()])
    assert (
        describe_failure(group)
        == "ExceptionGroup, of KeyError | ValueError | OSError (Input/output error) | and 1 more"
    )


def test_a_chain_without_end_is_not_followed_to_its_end() -> None:
    error = ValueError()
    error.__cause__ = KeyError()
    error.__cause__.__cause__ = error
    assert describe_failure(error).count("raised from") == 3


def test_in_full_it_is_there_for_who_asks(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tomowire.listen")
    log_failure(logger, "keeping", caught())
    assert PATIENT not in caplog.text
    with caplog.at_level(logging.DEBUG, "tomowire.listen"):
        log_failure(logger, "keeping", caught())
    assert f"KeyError: '{PATIENT}'" in caplog.text


async def test_frames_of_the_library_are_left_out_but_the_one_that_raised_it(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that uses the library wrongly is told where it does so."""

    class Wrong(Verification):
        async def handle(self, request: Any) -> None:
            await associate_wrongly()

    async def associate_wrongly() -> None:
        async with associate(5, []):  # type: ignore[arg-type]
            pass

    async with (
        listen(LOOPBACK, 0, services=[Wrong()]) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association,
    ):
        assert (await CEchoScu(association).echo()).is_failure
    (told,) = [each.getMessage() for each in caplog.records if "the handler of CEchoRQ failed" in each.getMessage()]
    assert "UsageError: a peer is AET@host:port or a PeerAddress, and not a int at " in told
    assert "in associate_wrongly" in told
    assert told.endswith("in handle")
    assert "dispatcher.py" not in told
