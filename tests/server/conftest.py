"""What tests of queries share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from support.postgres import Cluster


@pytest.fixture(scope="session")
def _queried_url(postgres: Cluster) -> Iterator[str]:
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def emptied_postgres_url(_queried_url: str) -> str:
    """A PostgreSQL database that many tests use one after the other: for those that leave nothing but objects in it.

    A new one takes ten times as long.
    """
    with psycopg.connect(_queried_url, autocommit=True) as connection:
        for table in ("instances", "series", "studies", "patients"):
            connection.execute(f"DELETE FROM {table}".encode())
    return _queried_url
