"""The router of docs/how-to/route.md: what the archive says is what the sender hears."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import tomowire
from support.files import data_of, write_file
from support.network import LOOPBACK, free_port
from support.services import Keeper, serve
from tomowire import Peer, Storage, StoreRequest, listen
from tomowire.services.stream_source import BareDataSet

pytestmark = pytest.mark.usefixtures("no_leaks")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "route.md"


@pytest.fixture
def router_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the page calls `Router`, in the first of its programs."""
    monkeypatch.setattr(tomowire, "BareDataSet", BareDataSet, raising=False)
    (program, *_) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(program.replace("asyncio.run(main())\n", ""), names)
    return names["Router"]


async def route(router_class: Any, archive: Peer, paths: list[Path]) -> dict[str, int | None]:
    """Send files through a router to `archive`; the status that the sender got for each."""
    services = [Storage(router_class(archive).forward)]
    async with (
        asyncio.timeout(60),
        archive,
        listen(LOOPBACK, 0, aet="ROUTER", services=services) as router,
        Peer(f"ROUTER@{LOOPBACK}:{router.port}", aet="MODALITY") as peer,
    ):
        return {sent.sop_instance_uid: sent.status async for sent in peer.send(paths, retries=0)}


async def test_what_comes_is_forwarded_bit_by_bit(router_class: Any, tmp_path: Path) -> None:
    files = [write_file(tmp_path, number) for number in range(1, 41)]
    keeper = Keeper()
    async with serve(keeper) as server:
        archive = Peer(f"ARCHIVE@{LOOPBACK}:{server.port}", aet="ROUTER")
        statuses = await route(router_class, archive, [file.path for file in files])
    assert statuses == {file.sop_instance_uid: 0 for file in files}
    assert keeper.stored == {f"1.2.{number}": data_of(number) for number in range(1, 41)}


async def test_the_archives_answer_is_the_senders(router_class: Any, tmp_path: Path) -> None:
    files = [write_file(tmp_path, number) for number in range(1, 5)]

    async def keep(request: StoreRequest) -> int:
        return {"1.2.2": 0xA900, "1.2.3": 0xB007}.get(request.sop_instance_uid, 0)

    async with listen(LOOPBACK, 0, services=[Storage(keep)]) as server:
        archive = Peer(f"ARCHIVE@{LOOPBACK}:{server.port}")
        statuses = await route(router_class, archive, [file.path for file in files])
    assert statuses == {"1.2.1": 0, "1.2.2": 0xA900, "1.2.3": 0xB007, "1.2.4": 0}


async def test_without_the_archive_the_sender_keeps_its_objects(router_class: Any, tmp_path: Path) -> None:
    files = [write_file(tmp_path, number) for number in range(1, 5)]
    archive = Peer(f"ARCHIVE@{LOOPBACK}:{free_port()}")
    statuses = await route(router_class, archive, [file.path for file in files])
    assert statuses == {file.sop_instance_uid: 0xA700 for file in files}
