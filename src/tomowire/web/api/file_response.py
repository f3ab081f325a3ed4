"""A file as an answer: streamed, whole or a part of it (RFC 9110 14), if it is the version that is wanted (RFC 9110 13)."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tomowire.aio.threads import finished
from tomowire.web.problems import Problem

T = TypeVar("T")

_BLOCK: Final = 256 * 1024
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


async def file_response(path: Path, request: Request, *, etag: str) -> Response:
    """The file is open from now on: it may be deleted meanwhile.

    Raises `Problem` when it, the version that is wanted or the range is not there.
    """
    if not _names(request.headers.get("if-match", "*"), etag):
        raise Problem(412, f"the file is another version than the one in 'If-Match': {etag}")
    if _names(request.headers.get("if-none-match", "").replace("W/", ""), etag):
        return Response(None, 304, {"ETag": etag})
    try:
        descriptor = await finished(_in_thread(partial(os.open, path, os.O_RDONLY | os.O_CLOEXEC)))
    except FileNotFoundError:
        raise Problem(404, "the object has just been deleted, or its file is lost: 'tomowire db check' tells") from None
    try:
        size = os.fstat(descriptor).st_size
        part = _part(request, size, etag)
    except BaseException:
        os.close(descriptor)
        raise
    return FileResponse(descriptor, part, size, etag, f"{path.stem}.dcm")


class FileResponse(Response):
    """Sends `part` of an open file, and closes it whatever happens."""

    def __init__(self, descriptor: int, part: range | None, size: int, etag: str, name: str) -> None:
        shown = part if part is not None else range(size)
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(len(shown)),
            "ETag": etag,
        }
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        super().__init__(None, 200 if part is None else 206, headers, "application/dicom")
        self._descriptor = descriptor
        self._shown = shown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope.get("is_head"):  # nothing of it is sent, and need not be read
                await send({"type": "http.response.body", "body": b""})
                return
            async with aclosing(self._blocks()) as blocks:
                async for block in blocks:
                    if gone.done():  # nobody would say so: what is sent to nobody is passed over
                        return
                    await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            os.close(self._descriptor)

    async def _blocks(self) -> AsyncGenerator[bytes, None]:
        at, end = self._shown.start, self._shown.stop
        while at < end:
            block = await finished(_in_thread(partial(os.pread, self._descriptor, min(_BLOCK, end - at), at)))
            if not block:
                raise OSError("the file has become shorter")
            at += len(block)
            yield block


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    return asyncio.get_running_loop().run_in_executor(None, work)


def _names(given: str, etag: str) -> bool:
    """RFC 9110 13.1.1: any version, or a list of those that are meant."""
    return given.strip() == "*" or etag in (each.strip() for each in given.split(","))


def _part(request: Request, size: int, etag: str) -> range | None:
    """The part that is wanted; None for all of it, as for HEAD and what is not understood (RFC 9110 14.2)."""
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", "").lower())
    if match is None or request.scope.get("is_head") or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if not (first or last) or (first and last and int(last) < int(first)):
        return None
    start = int(first) if first else max(0, size - int(last))
    part = range(start, min(int(last), size - 1) + 1 if first and last else size)
    if not part:
        raise Problem(416, f"the file has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return part
