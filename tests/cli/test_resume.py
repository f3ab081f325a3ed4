"""`tomowire send --resume`: what a peer has taken is not sent again, whatever ended the run before."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from support.programs import start, tomowire
from support.receiver import Receiver, write_samples
from tomowire import StoreRequest


async def test_resume_leaves_out_what_was_taken_before(receiver: Receiver, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "a", 10)
    refused = {sample.uid for sample in samples[::3]}
    receiver.on_object = lambda request: 0xA700 if request.sop_instance_uid in refused else None
    arguments = ("send", receiver.peer, tmp_path / "a", "--resume", tmp_path / "done", "--json", "--retries", "0")
    assert (await tomowire(*arguments, "--dry-run")).code == 0
    assert not (tmp_path / "done").exists()
    first = await tomowire(*arguments)
    assert (first.code, first.json["stored"], first.json["failed"]) == (1, 6, 4)
    receiver.on_object = lambda request: None
    before = (tmp_path / "done").read_bytes()
    assert len((await tomowire(*arguments, "--dry-run")).json["would_send"]) == 4
    assert (tmp_path / "done").read_bytes() == before
    second = await tomowire(*arguments)
    assert (second.code, second.json["stored"], second.json["resumed"]) == (0, 4, 6)
    assert receiver.received.keys() == {sample.uid for sample in samples}
    outcomes = [row["outcome"] for row in second.json["objects"]]
    assert (outcomes.count("resumed"), outcomes.count("stored")) == (6, 4)
    third = await tomowire(*arguments)
    assert (third.code, third.json["stored"], third.json["resumed"]) == (0, 0, 10)
    assert len(receiver.times) == 10 + 4


async def test_resume_after_being_killed_half_way(receiver: Receiver, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "a", 400)
    half_way = asyncio.Event()

    async def stop_half_way(_: StoreRequest) -> None:
        if len(receiver.times) > 200:
            half_way.set()
            await asyncio.sleep(3600)

    receiver.on_object = stop_half_way
    done = tmp_path / "done"
    arguments = ["send", receiver.peer, tmp_path / "a", "--resume", done, "--json"]
    program = await asyncio.to_thread(start, arguments)
    async with asyncio.timeout(30):
        await half_way.wait()
        while len(done.read_bytes().splitlines()) < 100:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    await asyncio.to_thread(program.end, signal.SIGKILL)
    recorded = [json.loads(line)[3] for line in done.read_text().splitlines()]
    assert set(recorded) <= receiver.received.keys()
    with done.open("ab") as file:
        file.write(b'["ANY@127')  # as a kill in the middle of a write would leave it
    receiver.on_object = lambda request: None
    sent_before = len(receiver.times)
    again = await tomowire(*arguments)
    assert again.code == 0
    assert again.json["resumed"] == len(recorded) >= 100
    assert len(receiver.times) - sent_before == 400 - len(recorded)
    assert receiver.received.keys() == {sample.uid for sample in samples}
    assert (await tomowire(*arguments)).json["resumed"] == 400


async def test_a_foreign_file_is_not_taken_for_a_resume_file(receiver: Receiver, tmp_path: Path) -> None:
    write_samples(tmp_path / "a", 1)
    mistaken = tmp_path / "a" / "0001.dcm"
    before = mistaken.read_bytes()
    done = await tomowire("send", receiver.peer, tmp_path / "a", "--resume", mistaken)
    assert done.code == 2
    assert "is not a file that --resume has written" in done.stderr
    assert mistaken.read_bytes() == before
    assert receiver.times == []
