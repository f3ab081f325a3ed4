"""Handlers that a test can look into and hold up."""

from __future__ import annotations

import asyncio
from typing import Any

from tomowire.aio.listen import Server, listen
from tomowire.protocol.status import SUCCESS
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.services.verification import Verification


class Keeper:
    """A storage handler that remembers what came. While `gate` is cleared it holds every object, after reading it.

    With `reads` false it does not read the data set at all (while it is held up).
    """

    def __init__(self, *, reads: bool = True, status: int = SUCCESS) -> None:
        self.stored: dict[str, bytes] = {}
        self.order: list[str] = []
        self.running = 0
        self.most_running = 0
        self.ends: asyncio.Queue[BaseException | None] = asyncio.Queue()
        """How each call ended: None, or what was raised in it."""
        self.begun: asyncio.Queue[StoreRequest] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads = reads
        self.status = status

    async def keep(self, request: StoreRequest) -> int:
        self.begun.put_nowait(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if not self.reads:
                await self.gate.wait()
            data = b"".join([bytes(buffer) async for chunk in request.data for buffer in chunk.buffers])
            await self.gate.wait()
        except BaseException as error:
            self.ends.put_nowait(error)
            raise
        else:
            self.stored[request.sop_instance_uid] = data
            self.order.append(request.sop_instance_uid)
            self.ends.put_nowait(None)
            return self.status
        finally:
            self.running -= 1

    async def next_begun(self) -> StoreRequest:
        """Wait until the handler is called."""
        async with asyncio.timeout(10):
            return await self.begun.get()

    async def next_end(self) -> BaseException | None:
        """Wait until a call of the handler ends; what was raised in it."""
        async with asyncio.timeout(10):
            return await self.ends.get()


def serve(keeper: Keeper | None = None, **options: Any) -> Server:
    """An acceptor on a free port, for C-ECHO and C-STORE."""
    services = [Verification(), Storage((keeper or Keeper()).keep)]
    return listen("127.0.0.1", services=services, **{"port": 0, "artim_timeout": 2.0, "shutdown_grace": 2.0} | options)
