"""Fixtures for every test. The work behind them is in `support/`."""

from __future__ import annotations

import importlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from support.leaks import Resources, leaks_since
from support.network import free_port as any_free_port
from support.requirements import missing, shared_data_directory, system_program

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has it so for what it starts in the background, and the programs under test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine must not make a property test fail: how long an example takes is not what these tests are about.
settings.register_profile("tomowire", deadline=None)
settings.load_profile("tomowire")


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
        return importlib.import_module("pynetdicom")
    except ImportError:
        missing("pynetdicom is not installed")


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fails the test if it leaves asyncio tasks, timers, threads or file descriptors behind.

    Name it before the fixtures that open things: what is set up first is torn down last, and looks at what they left.
    """
    before = Resources.now()
    yield
    left = await leaks_since(before)
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)
