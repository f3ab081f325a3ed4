"""DCMTK's archive, `dcmqrscp`, with objects in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.network import LOOPBACK, free_port, listening_process
from support.objects import Sample
from tomowire import Peer


def write_files(folder: Path, samples: Iterable[Sample]) -> None:
    """Each sample as a DICOM file."""
    folder.mkdir(exist_ok=True)
    for sample in samples:
        (folder / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)


@contextmanager
def dcmqrscp(program: Path, folder: Path, samples: Iterable[Sample], destination: int) -> Iterator[str]:
    """Run it until the block ends; gives its address. It knows the destination DEST, at that port."""
    port = free_port()
    (folder / "storage").mkdir()
    write_files(folder / "send", samples)
    (folder / "cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 65536\nMaxAssociations = 16\n"
        f"HostTable BEGIN\ndest = (DEST, {LOOPBACK}, {destination})\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f'AETable BEGIN\nARCHIVE "{folder / "storage"}" RW (200, 1024mb) ANY\nAETable END\n'
    )
    with listening_process([program, "-c", folder / "cfg"], port, log=folder / "log", env={"TCP_NODELAY": "1"}):
        address = f"ARCHIVE@{LOOPBACK}:{port}"
        asyncio.run(_fill(address, folder / "send"))
        yield address


async def _fill(address: str, folder: Path) -> None:
    async with Peer(address) as peer:
        failures = [str(sent.outcome) async for sent in peer.send(folder) if sent.is_failure]
    assert failures == []
