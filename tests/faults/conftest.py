"""An archive as a real process, deep in a folder where nothing but the archive's own may change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from support.archives import RunningArchive
from support.programs import run_tomowire, serving
from support.raw_peer import RawPeer, associate_rq, command_pdu, echo_rq
from support.trees import tree_of
from tomowire.wire.messages import CEchoRSP

# Deep enough that a path which climbs some way up is still seen.
DEPTH = 12


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArchive]:
    """At the end: it still ran, it wrote nothing outside its directory, and `db check` finds nothing."""
    root = tmp_path_factory.mktemp("outside")
    folder = root
    for level in range(DEPTH):
        folder /= f"level{level}"
    folder.mkdir(parents=True)
    data_dir = folder / "data"
    before = tree_of(root, without=data_dir)
    with serving("serve", "--data-dir", data_dir, "--any-sop-class", cwd=folder) as program:
        yield RunningArchive(program, data_dir)
        assert program.process.poll() is None
        assert program.end() == 0
    assert tree_of(root, without=data_dir) == before
    done = run_tomowire("db", "check", "--data-dir", data_dir)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in program.stderr.text


@pytest.fixture
async def witness(victim: RunningArchive) -> AsyncIterator[None]:
    """An association that is there before a test, and works after it."""
    async with await RawPeer.connect(victim.port) as peer:
        await peer.associate(associate_rq(called="TOMOWIRE"))
        yield
        await peer.send(command_pdu(1, echo_rq(7)))
        response = (await peer.read_message()).command
        assert isinstance(response, CEchoRSP)
        assert (response.status, response.message_id_being_responded_to) == (0, 7)
        await peer.release()
