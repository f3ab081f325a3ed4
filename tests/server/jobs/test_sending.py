"""Send-to jobs: what becomes of each object, and of the job."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.filled import fill
from support.network import LOOPBACK
from support.objects import Sample
from support.receiver import Receiver
from tomowire import Storage, listen
from tomowire.server.app import Archive
from tomowire.server.jobs.model import JobState
from tomowire.server.nodes import Node
from tomowire.server.settings import Settings


async def test_a_study_is_sent(tmp_path: Path) -> None:
    samples = [Sample(number, number % 3) for number in range(1, 101)]
    await fill(tmp_path, samples)
    receiver = Receiver()
    async with listen(LOOPBACK, 0, services=[Storage(receiver.keep)]) as server:
        receiver.server = server
        node = Node("DEST", LOOPBACK, server.port)
        async with Archive(Settings(tmp_path, port=0, nodes=(node,))) as archive:
            ended = asyncio.get_running_loop().create_future()
            archive.jobs.on_end = ended.set_result
            job = await archive.jobs.send("STUDY", [samples[0].study_uid], "DEST", by="me")
            assert job.progress.total == 100
            job = await asyncio.wait_for(ended, 20)
    assert job.state == JobState.DONE, job
    assert job.progress.done == 100
    assert job.progress.bytes_done == job.progress.bytes_total == sum(len(sample.data_set) for sample in samples)
    assert receiver.received == {sample.uid: sample.data_set for sample in samples}
