"""The archive as a whole, in a process of its own: what it imports, and where."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

import tomowire
from support.files import write_file
from support.subprocesses import python_environment
from tomowire.server.app import Archive, Settings
from tomowire.server.lull import Lull
from tomowire.testing.samples import sample_object

_IMPORTS = """
import asyncio, sys, threading
from pathlib import Path
from tomowire.server import app
from tomowire.server.app import Archive, Settings
from tomowire.server.find import load_queries
from tomowire.server.lull import Lull

imported = []

def hook(event, arguments):
    if event == "import" and arguments[0].startswith(("pydicom", "sqlalchemy")):
        imported.append(threading.current_thread() is threading.main_thread())

async def main():
    sys.addaudithook(hook)
    app.Lull = lambda: Lull(soonest=0)
    async with Archive(Settings(Path(sys.argv[1]), port=0)):
        assert imported == [], "the port is open before"
        assert "tomowire.services.move_scp" not in sys.modules
        [loading] = [task for task in asyncio.all_tasks() if task.get_name() == "when it is quiet"]
        await loading
        assert True not in imported
        assert {"tomowire.services.move_scp", "tomowire.services.get_scp"} <= sys.modules.keys()
    from tomowire.server.index.text import decode
    before = len(imported)
    assert decode(b"M\\xfcller", "ISO_IR 100") == "M\u00fcller"
    assert decode(b"\\x1b$B;3ED", "\\\\ISO 2022 IR 87") == "\u5c71\u7530"
    load_queries("sqlite")
    assert imported and imported[before:] == []

asyncio.run(main())
"""


def test_character_sets_and_queries_are_imported_in_a_thread_and_before_they_are_needed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _IMPORTS, str(tmp_path)], env=python_environment(), check=True, timeout=60)


# What an archive has no use for as long as it only stores: packages, and parts of tomowire.
NOT_FOR_STORING = {
    "alembic",
    "argon2",
    "fastapi",
    "getpass",
    "mako",
    "numpy",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "pydicom",
    "random",
    "rich",
    "sqlalchemy",
    "starlette",
    "tomllib",
    "tomowire.aio.tls",
    "tomowire.server.audit.drafting",
    "tomowire.server.audit.messages",
    "tomowire.server.audit.specific",
    "tomowire.server.audit.syslog",
    "tomowire.server.audit.telling",
    "tomowire.server.backup",
    "tomowire.server.check",
    "tomowire.server.config",
    "tomowire.server.index.administration",
    "tomowire.server.index.keys",
    "tomowire.server.index.postgres_backend",
    "tomowire.server.index.schema",
    "tomowire.server.index.select",
    "tomowire.server.jobs.claims",
    "tomowire.server.jobs.deleting",
    "tomowire.server.jobs.querying",
    "tomowire.server.jobs.reindexing",
    "tomowire.server.jobs.retrieving",
    "tomowire.server.jobs.sending",
    "tomowire.server.jobs.table",
    "tomowire.server.logins",
    "tomowire.server.passwords",
    "tomowire.server.retrieve",
    "tomowire.server.users",
    "tomowire.services.peer",
    "tomowire.services.sending",
    "tomowire.services.transcoding",
    "tomowire.web",
    "uvicorn",
    "xml",
}
_STORING = """
import asyncio, sys
from pathlib import Path
from tomowire.server import app
from tomowire.server.app import Archive, Settings
from tomowire.server.lull import Lull

app.Lull, app.LONGEST = lambda: Lull(soonest=3600, longest=3600), 3600

def tell(*what):
    print(*what, *sys.modules, flush=True)

async def main():
    async with Archive(Settings(Path(sys.argv[1]), port=0)) as archive:
        tell(archive.port)
        await asyncio.to_thread(sys.stdin.read)
        tell()

asyncio.run(main())
"""


async def test_an_archive_that_only_stores_imports_nothing_that_others_need(tmp_path: Path) -> None:
    """Neither before its port is open nor with the first object: what is imported then, everybody waits for."""
    file = write_file(tmp_path, data=sample_object("1.2.1"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _STORING,
        str(tmp_path / "data"),
        env=python_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    port, *at_first = (await process.stdout.readline()).decode().split()
    async with tomowire.Peer(f"TOMOWIRE@127.0.0.1:{port}") as peer, aclosing(peer.send(file.path)) as sending:
        assert [sent.status async for sent in sending] == [0]
    process.stdin.close()
    with_an_object = (await process.stdout.readline()).decode().split()
    await process.wait()
    assert NOT_FOR_STORING.intersection(at_first) == set()
    assert NOT_FOR_STORING.intersection(with_an_object) == set()
    assert len(at_first) > 200 < len(with_an_object), "it was asked"


async def test_what_takes_long_waits_until_nobody_is_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lull = Lull(soonest=0, longest=3600)
    lull.began()  # somebody who is there before the archive has started
    monkeypatch.setattr("tomowire.server.app.Lull", lambda: lull)
    async with Archive(Settings(tmp_path, port=0)) as archive:
        [loading] = [task for task in asyncio.all_tasks() if task.get_name() == "when it is quiet"]
        address = f"TOMOWIRE@127.0.0.1:{archive.port}"
        async with tomowire.associate(address, [tomowire.verification()]) as association:
            await tomowire.CEchoScu(association).echo()
            lull.ended()
            coming = asyncio.create_task(lull.come())
            await asyncio.wait([coming], timeout=0.1)
            assert not coming.done(), "this one is there still"
        await asyncio.wait_for(asyncio.gather(coming, loading), 60)
        assert archive.audit.waiting == 0, "it is written down by then"
