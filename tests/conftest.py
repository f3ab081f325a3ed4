"""Fixtures for every test. The work behind them is in `support/`."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from support import standstill
from support.foreign_sockets import close_what_is_left
from support.leaks import Resources, leaks_since, open_descriptors
from support.network import free_port as any_free_port
from support.patient_loop import PatientLoop
from support.requirements import missing, shared_data_directory, system_program
from support.syntax_trees import parse_without_interruption

if TYPE_CHECKING:
    from support.postgres import Cluster
    from tomowire.server.index.backend import IndexBackend

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has it so for what it starts in the background, and the programs under test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

parse_without_interruption()

# A busy machine must not make a property test fail: how long an example takes is not what these tests are about.
settings.register_profile("tomowire", deadline=None)
settings.load_profile("tomowire")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(standstill)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A module with `ON_EVERY_LOOP = True` has its tests run on uvloop too, where it is installed."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": PatientLoop}
    wanted = isinstance(item, pytest.Function) and getattr(item.module, "ON_EVERY_LOOP", False)
    if wanted and importlib.util.find_spec("uvloop") is not None:
        factories["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return factories


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real DICOM objects, with `MANIFEST.tsv` in it."""
    return shared_data_directory()


@pytest.fixture
def free_port() -> int:
    """A TCP port on the loopback address. For a second one: `support.network.free_port()`."""
    return any_free_port()


@pytest.fixture(scope="session")
def dcmtk() -> Callable[[str], Path]:
    """`dcmtk("storescu")` is the path of DCMTK's tool, never of pynetdicom's one of the same name."""
    return lambda tool: system_program(tool, package="dcmtk")


@pytest.fixture(scope="session")
def orthanc() -> Path:
    """The path of Orthanc's executable."""
    return system_program("Orthanc", package="orthanc")


@pytest.fixture(scope="session")
def pynetdicom() -> ModuleType:
    """The module, imported when the first test asks for it."""
    try:
        module = importlib.import_module("pynetdicom")
    except ImportError:
        missing("pynetdicom is not installed")
    close_what_is_left(module)
    return module


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server of this process' own."""
    from support.postgres import cluster

    with cluster() as started:
        yield started


@pytest.fixture
def postgres_url(postgres: Cluster) -> Iterator[str]:
    """A PostgreSQL database with an index in which there is nothing."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def empty_postgres_url(postgres: Cluster) -> Iterator[str]:
    """A PostgreSQL database without tables."""
    name = postgres.create(empty=True)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def index_url(request: pytest.FixtureRequest) -> str | None:
    """Where an index is to be: both places, one after the other. None is a file in the data directory."""
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def each_index(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs with the index of its data directories in both places: see `support.places`. Gives the dialect."""
    from support.places import databases

    with databases(None if request.param == "sqlite" else request.getfixturevalue("postgres")):
        yield request.param


@pytest.fixture
def backend(index_url: str | None, tmp_path: Path) -> IndexBackend:
    """The index of an archive in `tmp_path`, in both places, one after the other."""
    from tomowire.server.index.backend import backend_for

    return backend_for(index_url, tmp_path)


def uses_postgres(request: pytest.FixtureRequest) -> bool:
    """Whether the test is going to ask for a database."""
    callspec = getattr(request.node, "callspec", None)
    return "postgres" in request.fixturenames or (
        callspec is not None and "postgresql" in (callspec.params.get("index_url"), callspec.params.get("each_index"))
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long goes first: begun last, it would be waited for alone."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What tests and modules are made of is not looked at each time `leaves_nothing` collects: that took nearly all the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every asynchronous test has `no_leaks`; and what any test leaves to the garbage collector fails it, not a later one.

    A socket or transport that is collected open warns, and a warning is an error here. Collecting takes too long to do it after
    each test: only after those that end with a descriptor that was not open before.
    """
    if uses_postgres(request):  # started within the test, it would count as left behind by it
        request.getfixturevalue("postgres")
    before = open_descriptors()
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("no_leaks")
    yield
    if open_descriptors() - before:
        gc.collect()


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fails the test if it leaves asyncio tasks, timers, threads or file descriptors behind.

    It is set up before the fixtures of a test that open things: what is set up first is torn down last, and sees what they left.
    """
    before = Resources.now()
    yield
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        # It opens and closes descriptors of its own between the steps of a test.
        before = replace(before, descriptors=open_descriptors())
    if left := await leaks_since(before):
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)
