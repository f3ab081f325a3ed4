"""The package's own names: all there, and none paid for before it is asked for."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import tomowire


def test_every_name_is_there() -> None:
    assert set(tomowire.__all__) <= set(dir(tomowire))
    assert all(getattr(tomowire, name) is not None for name in tomowire.__all__)


def test_each_name_comes_from_where_it_is_defined() -> None:
    from tomowire import Peer, send_files
    from tomowire.services import peer, sending

    assert (Peer, send_files) == (peer.Peer, sending.send_files)


def test_parts_are_there_without_being_imported_by_name() -> None:
    code = "import tomowire; print(tomowire.errors.UsageError.__name__, tomowire.uids.VERIFICATION)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "UsageError 1.2.840.10008.1.1\n"


def test_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pear'"):
        _ = tomowire.Pear  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        from tomowire import Pear  # type: ignore[attr-defined]  # noqa: F401


def test_importing_the_package_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys, tomowire; print([name for name in ('asyncio', 'click', 'pydicom', 'rich') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_exception_is_drawn_in_the_tree() -> None:
    """In the order of its branches: who is drawn further to the right derives from the one above that is drawn less far."""
    from tomowire import errors

    drawn: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"[ │├└─]{4,}(\w+)", line)
        if found:
            while path and path[-1][0] >= found.start(1):
                path.pop()
            drawn[found[1]] = path[-1][1] if path else "Exception"
            path.append((found.start(1), found[1]))
    defined = {name: each for name, each in vars(errors).items() if isinstance(each, type)}
    assert drawn == {name: each.__bases__[0].__name__ for name, each in defined.items()}
    assert tomowire.SubOperationFailed is errors.SubOperationFailed
