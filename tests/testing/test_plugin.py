"""The fixtures, in a pytest of their own: as whoever has installed tomowire meets them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.requirements import REPOSITORY
from support.subprocesses import python_environment

FIXTURES = ("faulty_peer", "faulty_sender", "archive")

PLAIN = """
import asyncio
from tomowire import AssociationLost, Peer, Status, Storage, listen
from tomowire.testing import Archive


def test_with_asyncio_run(faulty_peer):
    async def main():
        async with faulty_peer.resets() as peer, Peer(peer.address) as dicom:
            try:
                await dicom.echo()
            except AssociationLost:
                return peer.heard.connections
    assert asyncio.run(main()) == 1


def test_an_archive_in_a_thread(archive):
    async def main():
        async with Peer(archive.address) as dicom:
            return await dicom.echo()
    assert asyncio.run(main()) == 0
    assert archive.objects == {}


def test_the_other_side(faulty_sender):
    kept = []

    async def keep(request):
        kept.append(await request.data.read())
        return Status(0x0000)

    async def main():
        async with listen("127.0.0.1", 0, services=[Storage(keep)]) as server:
            return await faulty_sender.truncates(f"ANY@127.0.0.1:{server.port}")
    outcome = asyncio.run(main())
    assert (outcome.status, kept) == (None, [])
"""

WITH_PYTEST_ASYNCIO = """
import pytest
from tomowire import AssociationLost, Peer


@pytest.mark.asyncio
async def test_a_fixture_in_the_loop_of_the_test(faulty_peer, archive):
    async with faulty_peer.closes() as peer, Peer(peer.address) as dicom:
        with pytest.raises(AssociationLost):
            await dicom.echo()
    async with Peer(archive.address) as dicom:
        assert await dicom.echo() == 0
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in `folder`, where tomowire looks installed: its entry point is the one that the project declares."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (name, module), *_ = project["entry-points"]["pytest11"].items()
    installed = folder / "site" / "tomowire_of_test-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: tomowire-of-test\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    environment = python_environment()
    environment["PYTHONPATH"] += f":{installed.parent}"
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=80, check=False)


def test_the_fixtures_are_there_where_tomowire_is_installed(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(PLAIN)
    done = run_pytest(tmp_path, "-p", "no:asyncio", "-p", "no:anyio")
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_they_work_beside_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "test_asyncio.py").write_text(WITH_PYTEST_ASYNCIO)
    done = run_pytest(tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("blocked", [False, True])
def test_who_does_not_want_them_can_leave_them_out(tmp_path: Path, blocked: bool) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    done = run_pytest(tmp_path, "--fixtures", *(("-p", "no:tomowire") if blocked else ()))
    assert done.returncode == 0, done.stderr
    assert [name for name in FIXTURES if f"\n{name} -- " in done.stdout] == ([] if blocked else list(FIXTURES))


def test_what_is_not_used_is_not_imported() -> None:
    """pytest imports the plugin in every run where tomowire is installed."""
    code = (
        "import pytest, sys; before = {*sys.modules}; import tomowire.testing.plugin;"
        " print(sorted(name for name in {*sys.modules} - before if name.partition('.')[0] in"
        " ('asyncio', 'pydicom', 'tomowire')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "['tomowire', 'tomowire._version', 'tomowire.testing', 'tomowire.testing.plugin']"


def test_every_name_is_there() -> None:
    import tomowire.testing

    assert set(tomowire.testing.__all__) <= set(dir(tomowire.testing))
    assert all(getattr(tomowire.testing, name) for name in tomowire.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'FaultyPear'"):
        _ = tomowire.testing.FaultyPear
