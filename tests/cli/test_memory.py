"""`--memory` of the commands that listen, and sizes as people write them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import click
import pytest

from support.programs import run_tomowire, serving
from support.raw_peer import RawPeer, associate_rq
from tomowire.cli.sizes import Size
from tomowire.wire.pdu import AAssociateAC, AAssociateRJ


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4194304", 4 << 20),
        ("64k", 64 << 10),
        ("512M", 512 << 20),
        ("512 MiB", 512 << 20),
        ("1.5G", 3 << 29),
        ("2GB", 2 << 30),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1e9", "12 parsecs", "1,5G", "0x10", "10%", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size"):
        Size().convert(text, None, None)


@pytest.mark.parametrize("command", ["listen", "serve"])
def test_too_little_is_a_usage_error(command: str, tmp_path: Path) -> None:
    folder = ("-o" if command == "listen" else "--data-dir", tmp_path / "data")
    done = run_tomowire(command, *folder, "--memory", "1M")
    assert done.returncode == 2
    assert "1M is too little: 4M is the least" in done.stderr


@pytest.mark.parametrize("command", ["listen", "serve"])
async def test_with_little_memory_fewer_callers_are_let_in(command: str, tmp_path: Path) -> None:
    """4 MiB are enough for four: for each two blocks of 256 KiB, and as much again for data sets."""
    folder = ("-o" if command == "listen" else "--data-dir", tmp_path / "data")
    with serving(command, *folder, "--memory", "4M") as program:
        async with AsyncExitStack() as stack:
            answers = []
            for _ in range(5):
                peer = await stack.enter_async_context(await RawPeer.connect(program.port))
                await peer.send(associate_rq(called="TOMOWIRE"))
                answers.append(await peer.read_pdu())
        assert [type(each) for each in answers] == [AAssociateAC] * 4 + [AAssociateRJ]
        assert (answers[4].source, answers[4].reason) == (3, 2)  # type: ignore[union-attr]
