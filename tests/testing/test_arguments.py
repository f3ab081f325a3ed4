"""What is wrong about an argument is said at once, and not by a peer that fails in the middle of a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydicom import Dataset

from support.raw_peer import RawPeer
from tomowire.errors import UsageError
from tomowire.testing import Archive, Behaviour, FaultyPeer, FaultySender

MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: FaultyPeer.truncates("nonsense"), "inside is one of 'association', 'pdu', 'data set', not 'nonsense'"),
    (lambda: FaultyPeer.truncates("pdu", then="explode"), "then is one of 'close', 'reset', 'silence', not 'explode'"),
    (lambda: FaultyPeer.resets(after_bytes=0), "after_bytes is a whole number of at least 1, not 0"),
    (lambda: FaultyPeer.resets(after=-1), "after is a whole number of at least 0, not -1"),
    (lambda: FaultyPeer.resets(times=-1), "times is a whole number of at least 0, not -1"),
    (lambda: FaultyPeer.resets(times="2"), "times is a whole number of at least 0, not '2'"),
    (lambda: FaultyPeer.resets(patience=0), "patience is more than 0, not 0"),
    (lambda: FaultyPeer.trickles(0), "bytes_per_second is more than 0, not 0"),
    (lambda: FaultyPeer.answers_late(-1), "seconds are at least 0, not -1"),
    (lambda: FaultyPeer.delays("1"), "seconds are at least 0, not '1'"),
    (lambda: FaultyPeer.answers(0x10000), "a status is a whole number from 0 to 65535, not 65536"),
    (lambda: FaultyPeer.rejects((1, 1)), r"its result, source and reason, not \(1, 1\)"),
    (lambda: FaultyPeer.rejects("busy"), "its result, source and reason, not 'busy'"),
    (lambda: FaultyPeer.rejects((1, 1, 256)), "reason is a whole number from 0 to 255, not 256"),
    (lambda: FaultyPeer.aborts(256, 0), "source is a whole number from 0 to 255, not 256"),
    (lambda: FaultyPeer(Behaviour), "a fault is a Behaviour, made: Behaviour"),
    (lambda: FaultySender(size=-1), "size is a whole number of at least 0, not -1"),
    (lambda: FaultySender(patience=0), "patience is more than 0, not 0"),
    (lambda: Archive("ct.dcm"), r"objects are several: \['ct.dcm'\]"),
    (lambda: Archive([3]), "the path of a DICOM file, not 3"),
    (lambda: Archive([Dataset()]), "this data set has not"),
    (lambda: Archive(destinations={"TARGET": "localhost"}), "'localhost' has no AE title"),
]


@pytest.mark.parametrize(("mistake", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_a_wrong_argument_is_told_where_it_is_given(mistake: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        mistake()


async def test_a_sender_says_it_before_it_connects() -> None:
    async with FaultyPeer.well_behaved() as peer:
        with pytest.raises(UsageError, match="inside is one of 'association', 'pdu', 'data set', 'object', not 'half'"):
            await FaultySender().truncates(peer.address, inside="half")  # type: ignore[arg-type]
        for way in (FaultySender().resets, FaultySender().closes, FaultySender().falls_silent):
            with pytest.raises(UsageError, match="after_bytes is a whole number of at least 0, not -1"):
                await way(peer.address, after_bytes=-1)
        with pytest.raises(UsageError, match="bytes_per_second is more than 0, not 0"):
            await FaultySender().trickles(peer.address, 0)
    assert peer.heard.connections == 0


async def test_only_a_peer_in_this_loop_can_be_waited_for() -> None:
    peer = FaultyPeer.well_behaved()
    with pytest.raises(UsageError, match="wait_idle is for a peer that runs in this event loop"):
        await peer.wait_idle()
    with peer, pytest.raises(UsageError, match="wait_idle is for a peer that runs in this event loop"):
        await peer.wait_idle()
    async with peer:
        async with await RawPeer.connect(peer.port):
            pass
        await peer.wait_idle()
