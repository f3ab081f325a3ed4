"""Places to store in that have something wrong with them: real file systems, and the kernel's own errors."""

from __future__ import annotations

import codecs
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = 65534


@contextmanager
def tiny_disk(at: Path, size: int) -> Iterator[Path]:
    """A RAM disk of `size` bytes; skips the test where one may not be mounted."""
    at.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a RAM disk takes root")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@contextmanager
def read_only(at: Path) -> Iterator[None]:
    """Nothing below the folder `at` can be changed, by any process and any user; skips the test where one may not mount."""
    if subprocess.run(["mount", "--bind", str(at), str(at)], capture_output=True, check=False).returncode:
        pytest.skip("mounting takes root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(at)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@contextmanager
def directory_of_nobody() -> Iterator[Path]:
    """A directory of a user to whom permissions mean something, and this process acts as that user meanwhile."""
    path = Path(tempfile.mkdtemp())
    user = os.geteuid()
    try:
        if user == 0:
            os.chown(path, _NOBODY, -1)
            codecs.lookup("ascii")  # nobody may not be able to read Python, and Python remembers what it has not found
            os.seteuid(_NOBODY)
        yield path
    finally:
        os.seteuid(user)
        shutil.rmtree(path)


def ram_disk(free: int = 0) -> Path | None:
    """A RAM disk that can be written to and has `free` bytes, if there is one."""
    path = Path("/dev/shm")
    if not os.access(path, os.W_OK):
        return None
    found = os.statvfs(path)
    return path if found.f_bavail * found.f_frsize >= free else None


@contextmanager
def quick_directory() -> Iterator[Path]:
    """A directory for tests that sync thousands of times, on a RAM disk if there is one: what is synced is noted all the same."""
    path = Path(tempfile.mkdtemp(dir=ram_disk()))
    try:
        yield path
    finally:
        shutil.rmtree(path)
