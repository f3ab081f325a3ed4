"""What cannot be: told at once, in words that name the argument, and not by the first association or never."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.network import LOOPBACK, free_port
from support.services import Keeper, serve
from tomowire import Peer, Query, Timeouts, UsageError

NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeouts": 5}, "timeouts is a Timeouts"),
        ({"timeouts": 0}, "timeouts is a Timeouts"),
        ({"timeouts": Timeouts(find="60")}, r"Timeouts\.find is a number of seconds, 0 or more, or None"),  # type: ignore[arg-type]
        ({"timeouts": Timeouts(store=-1)}, r"Timeouts\.store is a number of seconds, 0 or more, and not -1"),
        ({"timeouts": Timeouts(connect=NAN)}, r"Timeouts\.connect"),
        ({"timeouts": Timeouts(store=None)}, r"Timeouts\.store"),  # type: ignore[arg-type]
        ({"bandwidth": "10M"}, "bandwidth is a number of bytes per second, more than 0: not '10M'"),
        ({"bandwidth": 0}, "bandwidth"),
        ({"bandwidth": NAN}, "bandwidth"),
        ({"kept": -1}, "kept is a whole number of 0 or more, and not -1"),
        ({"kept": 1.5}, "kept"),
        ({"kept": True}, "kept"),
        ({"idle": None}, "idle is a number of seconds, 0 or more, and not None"),
        ({"idle": "20"}, "idle"),
        ({"aet": 5}, "an AE title is text, and not 5"),
        ({"extended": "relational"}, "extended is QueryOptions"),
        ({"extended": 1}, "extended is QueryOptions"),
    ],
)
def test_of_a_peer(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Peer("ANY@localhost:104", **options)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (
            lambda peer: peer.send("a", associations=0),
            "associations is a whole number of 1 or more or 'auto', and not 0",
        ),
        (lambda peer: peer.send("a", associations="3"), "associations"),
        (lambda peer: peer.send("a", associations=True), "associations"),
        (
            lambda peer: peer.send("a", most_associations=0),
            "most_associations is a whole number of 1 or more, and not 0",
        ),
        (lambda peer: peer.send("a", retries=-1), "retries is a whole number of 0 or more, and not -1"),
        (lambda peer: peer.send("a", retries=None), "retries"),
        (lambda peer: peer.send("a", timeout="5"), "timeout is a number of seconds, 0 or more, and not '5'"),
        (lambda peer: peer.send("a", timeout=None), "timeout is a number of seconds, 0 or more, and not None"),
        (lambda peer: peer.send("a", timeouts=5), "timeouts is a Timeouts"),
        (lambda peer: peer.find("1.2.3"), "a query is a Query"),
        (lambda peer: peer.find(Query.studies(), model="study"), "model is a Model"),
        (
            lambda peer: peer.find(Query.studies(), timeout="5"),
            "timeout is a number of seconds, 0 or more, or None for no limit",
        ),
        (lambda peer: peer.find(Query.studies(), extended=[5]), "extended"),
        (lambda peer: peer.find(Query.studies(), timeouts={"find": 5}), "timeouts is a Timeouts"),
        (
            lambda peer: peer.get(Query.study("1.2"), "a", grace=-1),
            "grace is a number of seconds, 0 or more, and not -1",
        ),
        (lambda peer: peer.get(Query.study("1.2"), 5), "into is a folder"),
        (lambda peer: peer.get(Query.study("1.2"), None), "into is a folder"),
        (
            lambda peer: peer.get(Query.study("1.2"), "a", cancellation="reject"),  # type: ignore[arg-type]
            "cancellation is 'complete_in_flight' or 'reject_in_flight', and not 'reject'",
        ),
        (lambda peer: peer.move(Query.study("1.2"), ""), "'' is not an AE title"),
        (lambda peer: peer.move(Query.study("1.2"), None), "an AE title is text, and not None"),
    ],
)
def test_of_a_call(call: Callable[[Peer], Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        call(Peer("ANY@localhost:104"))


def test_an_option_that_no_association_has_is_that_of_the_call() -> None:
    with pytest.raises(TypeError, match=r"Peer\.find\(\) got an unexpected keyword argument 'relational'"):
        Peer("ANY@localhost:104").find(Query.studies(), relational=True)


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (5, "int cannot be sent: not a path, a binary stream, a data set or a source"),
        (None, "NoneType cannot be sent"),
        (Path("/nowhere/at/all"), "No such file or directory"),
        ("", "an empty path names nothing"),
        (io.StringIO("text"), "was it opened in text mode"),
    ],
)
async def test_what_cannot_be_sent_is_its_own_failure(thing: Any, said: str) -> None:
    async with serve(Keeper()) as server, Peer(f"ANY@{LOOPBACK}:{server.port}") as peer:
        (sent,) = [each async for each in peer.send(thing)]
    assert sent.is_failure
    assert re.search(said, str(sent.error))


async def test_nothing_to_send_needs_no_peer() -> None:
    peer = Peer(f"ANY@{LOOPBACK}:{free_port()}")
    assert [each async for each in peer.send([])] == []
    assert [each async for each in peer.send()] == []
