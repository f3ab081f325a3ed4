"""What a test needs from outside the repository: foreign programs and the shared collection of real objects.

On a developer's machine a missing one skips the tests that need it. In CI it fails them: there a skip would hide that
something is no longer tested.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Only the system's own directories: in a virtual environment pynetdicom puts a `storescu` of its own on the PATH.
SYSTEM_DIRECTORIES = (Path("/usr/bin"), Path("/usr/sbin"), Path("/usr/local/bin"), Path("/opt/homebrew/bin"))


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing(what: str) -> NoReturn:
    """Skip the test that asks for what is not there, or fail it in CI."""
    if in_ci():
        pytest.fail(f"{what}; in CI that is a failure", pytrace=False)
    pytest.skip(what)


def system_program(name: str, package: str) -> Path:
    """The path of a program that came with the Debian package `package`."""
    for directory in SYSTEM_DIRECTORIES:
        program = directory / name
        if os.access(program, os.X_OK):
            return program
    missing(f"{name} is not installed (apt-get install {package})")


def shared_data_directory() -> Path:
    """The folder of real objects: `$TOMOWIRE_SHARED_DATA`, or `shared/data` beside the repository."""
    chosen = os.environ.get("TOMOWIRE_SHARED_DATA")
    directory = Path(chosen) if chosen else REPOSITORY.parent / "shared" / "data"
    if (directory / "MANIFEST.tsv").is_file():
        return directory
    missing(f"no real objects at {directory} (set TOMOWIRE_SHARED_DATA)")
