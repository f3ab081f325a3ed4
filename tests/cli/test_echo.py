"""`tomowire echo` as a process: several answers, and an end before all have come."""

from __future__ import annotations

import asyncio
import json
import signal

from support.network import LOOPBACK
from support.programs import start, tomowire
from support.raw_peer import RawPeer, command_pdu, raw_acceptor
from tomowire import Verification, listen
from tomowire.wire.messages import CEchoRQ, CEchoRSP


async def test_each_answer_is_a_row() -> None:
    async with listen(LOOPBACK, 0, services=[Verification()]) as server:
        done = await tomowire("echo", f"ANY@{LOOPBACK}:{server.port}", "-n", "3", "--json")
    assert done.code == 0
    assert (done.json["ok"], done.json["interrupted"], done.json["error"]) == (True, False, None)
    assert [each["status"] for each in done.json["echoes"]] == [0, 0, 0]


async def test_interrupted_before_all_have_been_answered() -> None:
    """The peer answers two and then no more."""
    reached = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        for _ in range(2):
            message = await peer.read_message()
            assert isinstance(message.command, CEchoRQ)
            answer = CEchoRSP(message_id_being_responded_to=message.command.message_id, status=0)
            await peer.send(command_pdu(message.context_id, answer))
        await peer.read_message()
        reached.set()
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        arguments = ["echo", f"ANY@{LOOPBACK}:{port}", "-n", "5", "--timeout", "60", "--json"]
        program = await asyncio.to_thread(start, arguments)
        async with asyncio.timeout(30):
            await reached.wait()
        code = await asyncio.to_thread(program.end, signal.SIGINT)
    assert code == 130
    summary = json.loads(program.stdout.text)
    assert (summary["ok"], summary["interrupted"]) == (False, True)
    assert len(summary["echoes"]) == 2
