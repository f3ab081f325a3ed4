"""The Storage SCP whose handler gets the whole data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tomowire.errors import MemoryShort
from tomowire.services.storage_scp import Storage
from tomowire.services.store_request import BufferedStoreRequest, raise_as_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tomowire.services.handler import Outcome
    from tomowire.services.store_request import StoreRequest


class BufferedStorage(Storage):
    """As `Storage`, with a handler that is called when the data set is there whole: `request.content`, `await request.dataset()`.

    The data sets of all objects that are coming or being handled are held in the memory of their server (`listen(memory=...)`); on
    an association without a server, as for C-GET, all that are received by this service share 512 MiB. An object for which there is
    no memory fails with A700H, and its handler is not called.
    """

    def __init__(self, keep: Callable[[BufferedStoreRequest], Awaitable[Outcome]], **options: Any) -> None:
        super().__init__(keep, **options)  # type: ignore[arg-type]  # it is called by nobody else

    async def _perform(self, request: StoreRequest) -> Any:
        connection = request.association.connection
        with request.memory.hold(lambda: connection.last_heard) as held:
            try:
                async for chunk in request.data:
                    await held.write(chunk.buffers, chunk.nbytes)
                content = held.whole()
            except MemoryShort as error:
                raise_as_failure(error)
                raise
            request.data.close()  # the memory that it was received into
            return await self._call(BufferedStoreRequest(request, content, held), request.data)
