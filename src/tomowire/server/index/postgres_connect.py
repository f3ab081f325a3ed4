"""PostgreSQL connections: how long they wait, and what their errors mean. This module imports psycopg."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.index.index_url import parameters_of, shown, without_password

T = TypeVar("T")

ANSWER_TIMEOUT: Final = 30.0
"""Seconds without an answer after which the server is taken for lost. Whatever holds it up for less is only waited for."""

_PARAMETERS: Final[dict[str, str | int]] = {
    "application_name": "tomowire",
    "connect_timeout": 5,
    # A peer that is gone without a word is noticed by the kernel after 25 s, whether it was asked something or not.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""What a URL may say otherwise."""

_PLAIN: Final = re.compile(r"[0-9.,]*")  # UIDs, keys

# What is wrong with a value (22), with a row (23), or with its size (54): the others do not share it.
_OF_A_VALUE: Final = ("22", "23", "54")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for ever for a server that has fallen silent, and is closed then. (A peer that takes bytes
    and does not answer is alive to the kernel; psycopg and libpq would wait.)"""

    patience: float = ANSWER_TIMEOUT

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        try:
            return super().wait(_limited(gen, self.patience), *arguments, **options)
        except _Silence:
            # SQLAlchemy, whose ping this may be, would go on to use it, and meet an error that is nobody's.
            self.close()
            raise


class _Silence(psycopg.OperationalError):
    """The server did not answer."""


def connect(url: str, *, patience: float | None = None) -> Connection:
    """A connection that commits each statement by itself, with text in UTF-8 and the times of this program.

    Raises `UsageError` for a URL that cannot be understood, `IndexUnavailable`.
    """
    parameters = _PARAMETERS | parameters_of(url) | {"client_encoding": "utf8"}
    try:
        connection = Connection.connect(make_conninfo("", **parameters), autocommit=True)
    except psycopg.ProgrammingError as error:
        raise UsageError(f"the index URL {shown(url)} cannot be understood") from error
    except psycopg.Error as error:
        # An attempt that took too long has its socket open as long as the frames live that the traceback holds.
        failed = error.with_traceback(None)
    else:
        connection.patience = ANSWER_TIMEOUT if patience is None else patience
        return connection
    raise IndexUnavailable(without_password(first_line(failed), url), is_unreachable=True) from failed


def is_lost(connection: psycopg.Connection[Any]) -> bool:
    """Whether nothing more can be asked of it."""
    return connection.closed or connection.pgconn.transaction_status in (
        TransactionStatus.ACTIVE,
        TransactionStatus.UNKNOWN,
    )


@contextmanager
def postgres_errors(*, in_doubt: bool = False) -> Iterator[None]:
    """What the database cannot do becomes `IndexUnavailable`; what is wrong with a value stays as it is."""
    try:
        yield
    except psycopg.Error as error:
        if is_of_a_value(error):
            raise
        raise IndexUnavailable(first_line(error), in_doubt=in_doubt) from error


def is_of_a_value(error: psycopg.Error) -> bool:
    """Whether `error` is the fault of what was to be stored, and not of the database."""
    if error.sqlstate is None:  # found by the driver, before anything was sent; or no answer at all
        return not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError))
    return error.sqlstate.startswith(_OF_A_VALUE)


def first_line(error: psycopg.Error) -> str:
    """What is said in one line; what may follow it are hints, and the statement."""
    return str(error).strip().partition("\n")[0]


def numbered(sql: str) -> bytes:
    """A statement with "?" for its parameters, as PostgreSQL has it: $1, $2, ..."""
    first, *others = sql.split("?")
    return (first + "".join(f"${number}{text}" for number, text in enumerate(others, start=1))).encode()


def array_of(texts: Iterable[str]) -> str:
    """A parameter for `ANY`. (psycopg would convert a list one by one.)"""
    joined = ",".join(texts := list(texts))
    if _PLAIN.fullmatch(joined) and all(texts):
        return f"{{{joined}}}"
    return "{" + ",".join('"' + text.replace("\\", r"\\").replace('"', r"\"") + '"' for text in texts) + "}"


def _limited(work: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    """`work`, given up after `seconds` in which nothing came. psycopg says from time to time that nothing did."""
    last = monotonic()
    try:
        request = next(work)
        while True:
            ready = yield request
            if ready:
                last = monotonic()
            elif monotonic() - last > seconds:
                raise _Silence(f"the server did not answer within {seconds:g} s")
            request = work.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result
