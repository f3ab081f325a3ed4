"""A storage SCP in the test's own event loop, and objects to send to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.network import LOOPBACK
from support.objects import Sample
from tomowire import Server, Status, StoreRequest


@dataclass
class Receiver:
    """A storage SCP in the test's own event loop, which does with an object what a test wants."""

    received: dict[str, bytes] = field(default_factory=dict)
    times: list[str] = field(default_factory=list)
    on_object: Callable[[StoreRequest], Any] = lambda request: None
    most_associations: int = 0
    server: Server | None = None

    @property
    def peer(self) -> str:
        assert self.server is not None
        return f"ANY@{LOOPBACK}:{self.server.port}"

    async def keep(self, request: StoreRequest) -> Status:
        assert self.server is not None
        self.most_associations = max(self.most_associations, len(self.server.associations))
        self.times.append(request.sop_instance_uid)
        answer = self.on_object(request)
        if asyncio.iscoroutine(answer):
            answer = await answer
        data_set = await request.data.read()
        if answer is None:
            self.received[request.sop_instance_uid] = data_set
        return Status(answer or 0)


def write_samples(folder: Path, count: int, *, first: int = 1, **options: Any) -> list[Sample]:
    folder.mkdir(exist_ok=True)
    samples = [Sample(number, **options) for number in range(first, first + count)]
    for sample in samples:
        (folder / f"{sample.number:04}.dcm").write_bytes(sample.header + sample.data_set)
    return samples
