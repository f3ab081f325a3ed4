"""A storage SCP by hand: what it answers to each object, or how it ends the association, is the test's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from support.raw_peer import RELEASE_RP, RawPeer, Unexpected, command_pdu
from tomowire.wire.messages import CStoreRQ, CStoreRSP

Ending = Callable[[RawPeer], Awaitable[None]]


class StorePeer:
    """Plays every association for `raw_acceptor`. `answer` is given the UID of each object and gives the status to answer, or what
    ends the association; that is done, and nothing more is read.
    """

    def __init__(self, answer: Callable[[str], int | Ending], *, window: tuple[int, int] | None = None) -> None:
        self.answer = answer
        self.window = window
        self.asked: Counter[str] = Counter()
        self.associations = 0

    @property
    def requests(self) -> int:
        return self.asked.total()

    async def __call__(self, peer: RawPeer) -> None:
        self.associations += 1
        await peer.accept(window=self.window)
        while True:
            try:
                message = await peer.read_message()
            except Unexpected:
                await self.release(peer)
                return
            assert isinstance(message.command, CStoreRQ)
            uid = message.command.affected_sop_instance_uid
            self.asked[uid] += 1
            answer = self.answer(uid)
            if not isinstance(answer, int):
                await answer(peer)
                return
            response = CStoreRSP(message_id_being_responded_to=message.command.message_id, status=answer)
            await peer.send(command_pdu(message.context_id, response))

    async def release(self, peer: RawPeer) -> None:
        await peer.send(RELEASE_RP)


async def close(peer: RawPeer) -> None:
    peer.close()
