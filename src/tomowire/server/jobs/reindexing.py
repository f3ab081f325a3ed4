"""Reindexing while the archive runs: the files of studies are read again, and their rows mended in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.server.jobs.work import JobFailed

if TYPE_CHECKING:
    from tomowire.server.jobs.parts import Parts
    from tomowire.server.jobs.work import Work


class Reindexing:
    """`await Reindexing(parts).run(work)`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, work: Work) -> None:
        raise JobFailed("not there yet")
