"""What is said when a peer has a service and does not let this side use it: advice that would not help is left out."""

from __future__ import annotations

from pathlib import Path

from support.network import LOOPBACK
from support.objects import SECONDARY_CAPTURE
from support.programs import tomowire
from tomowire import Verification, listen
from tomowire.server.app import Archive
from tomowire.server.nodes import Node
from tomowire.server.rights import Right
from tomowire.server.settings import Settings
from tomowire.wire.part10 import FileMeta, encode_file_meta

WHOSE = "the peer's application refused it: its operator decides who may use it"


def compressed(folder: Path) -> Path:
    path = folder / "compressed.dcm"
    path.write_bytes(encode_file_meta(FileMeta(SECONDARY_CAPTURE, "1.2.3", "1.2.840.10008.1.2.4.90")))
    return path


async def test_who_may_not_store_query_or_retrieve_is_told_that_alone(tmp_path: Path) -> None:
    may_echo = Node("GUEST", LOOPBACK, 104, may=frozenset({Right.ECHO}))
    async with Archive(Settings(tmp_path / "data", port=0, nodes=(may_echo,))) as archive:
        peer = (f"TOMOWIRE@{LOOPBACK}:{archive.port}", "--aet", "GUEST")
        sent = await tomowire("send", *peer, compressed(tmp_path))
        asked = await tomowire("query", *peer)
        moved = await tomowire("move", *peer, "--dest", "X", "--study-uid", "1.2")
        got = await tomowire("retrieve", *peer, "--study-uid", "1.2", "--method", "move", "-o", tmp_path / "out")
        found = await tomowire("retrieve", *peer, "--patient-id", "P1", "-o", tmp_path / "out")
    for done in (sent, asked, moved, got, found):
        assert done.code == 5
        assert WHOSE in done.stderr
        assert not any(each in done.stderr for each in ("decompress", "--model", "--method get", "--method move is"))
    assert asked.stderr.endswith(f"{WHOSE}\n")
    assert "a retrieval by unique keys alone needs no C-FIND" in found.stderr, "that may be allowed all the same"


async def test_what_no_decompressing_helps_does_not_advise_it(tmp_path: Path) -> None:
    async with listen(LOOPBACK, 0, services=[Verification()]) as server:
        sent = await tomowire("send", f"ANY@{LOOPBACK}:{server.port}", compressed(tmp_path))
    assert sent.code == 5
    assert "the peer does not support this SOP class: it has to be enabled there" in sent.stderr
    assert "decompress the file" not in sent.stderr
