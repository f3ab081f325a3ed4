"""How much memory a receiver really takes, as the system sees it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from support.files import sparse_file
from support.network import LOOPBACK
from support.raw_peer import CT
from support.requirements import REPOSITORY
from tomowire.aio.connect import associate
from tomowire.services.storage import CStoreScu, storage
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN

MB = 1 << 20
SENDERS = 50
SIZE = 8 * MB
MEMORY = 64 * MB

RECEIVER = """
import asyncio, json, resource, sys
from tomowire import listen
from tomowire.services.buffered import BufferedStorage

largest = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

async def keep(request):
    await asyncio.sleep(0.02)
    return 0 if len(request.content) == int(sys.argv[1]) else 0xC000

async def main():
    before = largest()
    async with listen(port=0, services=[BufferedStorage(keep)], memory=int(sys.argv[2]), memory_wait=600) as server:
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps({"added": largest() - before}))

asyncio.run(main())
"""


@pytest.mark.usefixtures("no_leaks")
async def test_fifty_senders_of_large_objects_take_no_more_than_the_memory_of_the_server(tmp_path: Path) -> None:
    """Together they send six times as much. All are taken: they wait for each other."""
    receiver = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RECEIVER,
        str(SIZE),
        str(MEMORY),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(REPOSITORY / "src")},
    )
    assert receiver.stdout is not None
    try:
        port = int(await receiver.stdout.readline())
        statuses = await asyncio.gather(*(send(tmp_path, number, port) for number in range(SENDERS)))
        output, _ = await receiver.communicate(b"")  # the end of its input ends it
    except BaseException:
        receiver.kill()
        await receiver.wait()
        raise
    result = json.loads(output)
    assert set(statuses) == {0}
    assert result["added"] < MEMORY


async def send(folder: Path, number: int, port: int) -> int:
    file = sparse_file(folder, number, SIZE)
    contexts = [storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN])]
    async with associate(f"ANY@{LOOPBACK}:{port}", contexts, association_timeout=60) as association:
        return (await CStoreScu(association).send(file, timeout=60)).status
