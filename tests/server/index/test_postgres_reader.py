"""What is PostgreSQL's own about reading: its connections, its moments in time, and the function that compares date-times."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.objects import Sample
from tomowire.errors import IndexUnavailable
from tomowire.server.index.backend import backend_for
from tomowire.server.index.moments import date_time_ends, date_time_within
from tomowire.server.index.postgres_connect import connect
from tomowire.server.index.postgres_reader import PostgresReader
from tomowire.server.index.reader import Row, Statement
from tomowire.server.index.readers import IndexReaders
from tomowire.server.index.rows import NewRow

NUMBERS = Statement("SELECT generate_series(1, 1000)", {})
ONE = Statement("SELECT 1", {})
NAMES = Statement("SELECT sop_instance_uid FROM instances ORDER BY instance_key", {})


@pytest.fixture
def postgres_url(emptied_postgres_url: str) -> str:
    """These tests leave nothing but objects in a database."""
    return emptied_postgres_url


@pytest.fixture
def reader(postgres_url: str) -> Iterator[PostgresReader]:
    with PostgresReader(connect(postgres_url)) as opened:
        yield opened


@pytest.fixture
async def readers(no_leaks: None, postgres_url: str) -> AsyncIterator[IndexReaders]:
    readers = IndexReaders(backend_for(postgres_url, "/nowhere"))
    yield readers
    await readers.close()


def store(url: str, *numbers: int) -> None:
    with closing(backend_for(url, "/nowhere").open_writer()) as writer:
        writer.insert(1, [NewRow(Sample(number).record, 0, 300, 1000, b"", 0, "M") for number in numbers])


def end_all_others(url: str) -> None:
    """As a restart of the server does, or an administrator."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_a_connection_that_was_closed_meanwhile_is_not_used(readers: IndexReaders, postgres_url: str) -> None:
    assert [each async for each in readers.stream(ONE, list)] == [[(1,)]]
    end_all_others(postgres_url)
    assert [each async for each in readers.stream(ONE, list)] == [[(1,)]]


async def test_one_that_is_lost_in_the_middle_is_told_and_replaced(readers: IndexReaders, postgres_url: str) -> None:
    async with aclosing(readers.stream(NUMBERS, list[Row])) as found:
        assert await anext(found) == [(1,)]
        end_all_others(postgres_url)
        with pytest.raises(IndexUnavailable):
            await anext(found)
    assert [each async for each in readers.stream(ONE, list)] == [[(1,)]]


async def test_all_rows_are_of_one_moment(readers: IndexReaders, postgres_url: str) -> None:
    store(postgres_url, *range(1, 101))
    async with aclosing(readers.stream(NAMES, list[Row])) as found:
        first = await anext(found)
        store(postgres_url, 101)
        with psycopg.connect(postgres_url) as connection:
            connection.execute("DELETE FROM instances WHERE sop_instance_uid = %s", (Sample(50).uid,))
        rows = [*first, *[row async for batch in found for row in batch]]
    assert [uid for (uid,) in rows] == [Sample(number).uid for number in range(1, 101)]
    assert len(await readers.ask(lambda reader: reader.rows(NAMES))) == 100


def test_readers_cannot_write(reader: PostgresReader) -> None:
    with pytest.raises(IndexUnavailable, match="read-only"):
        reader.rows(Statement("DELETE FROM instances RETURNING 1", {}))


def test_who_interrupts_nothing_does_not_hit_the_next_question(postgres_url: str) -> None:
    """The word to end it comes over another connection, at any time."""
    with PostgresReader(connect(postgres_url)) as reader:
        assert reader.is_usable
        reader.interrupt()
        assert not reader.is_usable


def test_the_server_ends_what_nobody_waits_for(reader: PostgresReader) -> None:
    """A machine that died holds no state of the database for ever."""
    limits = reader.rows(
        Statement(
            "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')", {}
        )
    )
    assert limits == [("11min", "11min")]


def test_a_plan_is_made_for_what_is_asked(reader: PostgresReader) -> None:
    """psycopg would have a statement prepared that was asked five times; its plan would be one for any letters."""
    for _ in range(10):
        reader.rows(Statement("SELECT %(number)s::int", {"number": 1}))
    assert reader.rows(Statement("SELECT count(*) FROM pg_prepared_statements", {})) == [(0,)]


# The function of migration 0003 gives the answers of `moments.date_time_within`.

offsets = st.sampled_from(
    ["", "+0000", "-0000", "+0130", "-1200", "+1400", "+1459", "+1500", "-0060", "+01", "0100", "+0100 "]
)
digits = st.text("0123456789", max_size=14)
moments = st.one_of(
    st.datetimes().map(lambda moment: moment.strftime("%Y%m%d%H%M%S.%f").rjust(21, "0")),
    st.builds(
        "{:04}{:02}{:02}{:02}{:02}{:02}".format,
        st.sampled_from([0, 1, 4, 1900, 2000, 2023, 2024, 9998, 9999]),
        st.integers(0, 13),
        st.sampled_from([0, 1, 15, 28, 29, 30, 31, 32]),
        st.sampled_from([0, 12, 23, 24]),
        st.sampled_from([0, 30, 59, 60]),
        st.sampled_from([0, 30, 59, 60, 99]),
    ),
)
cut = st.builds(
    lambda text, length: text[:length], moments, st.sampled_from([0, 3, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 21])
)
stored_texts = st.one_of(st.builds("{}{}".format, cut, offsets), st.text("0123456789.+-: \n٣", max_size=12))


def both_ends(first: str, last: str) -> str:
    return f"{first}-{last}"


keys = st.one_of(
    st.builds("{}{}".format, cut, offsets),
    st.builds(both_ends, st.builds("{}{}".format, cut, offsets), st.builds("{}{}".format, cut, offsets)),
).filter(lambda key: date_time_ends(key) is not None)


def test_date_times_are_compared_as_python_does(reader: PostgresReader) -> None:
    asked = Statement(
        "SELECT tomowire_date_time_within(%(stored)s, %(zone)s, %(a)s, %(b)s, %(c)s, %(d)s)",
        {},
    )

    @settings(max_examples=200, deadline=None)
    @given(stored_texts, offsets, keys)
    def check(stored: str, zone: str, key: str) -> None:
        ends = date_time_ends(key)
        assert ends is not None
        numbers = (*ends[0], *ends[1])
        parameters = {"stored": stored, "zone": zone} | dict(zip("abcd", numbers, strict=True))
        ((found,),) = reader.rows(Statement(asked.sql, parameters))
        assert bool(found) == date_time_within(stored, zone, *numbers)

    check()
