"""A wrong argument is told at once, by its name and with what is allowed, and never in the middle of an association."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest

from support.network import LOOPBACK, free_port
from support.services import serve
from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.errors import AssociationRejected, UsageError
from tomowire.services.verification import Verification, verification
from tomowire.uids import VERIFICATION
from tomowire.wire.user_identity import UserIdentity

pytestmark = pytest.mark.usefixtures("no_leaks")


def sync(*_: Any) -> bool:
    return True


async def refuse(*_: Any) -> bool:
    return False


NUMBERS = [
    ("maximum_length", -1, "maximum_length is a whole number from 0 to 4294967295, and not -1 (int)"),
    ("maximum_length", "10M", "maximum_length is a whole number from 0 to 4294967295, and not '10M' (str)"),
    ("window", 70000, "window is a whole number from 0 to 65535"),
    ("window", 1.5, "window is a whole number from 0 to 65535"),
    ("artim_timeout", 0, "artim_timeout is a number of seconds, more than 0"),
    ("artim_timeout", None, "artim_timeout is a number of seconds, more than 0, and not None"),
    ("artim_timeout", float("nan"), "artim_timeout is a number of seconds, more than 0"),
    ("malformed", "tolerant", 'malformed is "strict" or "lenient", not \'tolerant\''),
    ("ssl", True, "for TLS, and not a bool"),
    (
        "aet",
        "SEVENTEEN-LETTERS",
        "'SEVENTEEN-LETTERS' is not an AE title: 1 to 16 characters of ASCII without backslash",
    ),
    ("aet", "BACK\\SLASH", "is not an AE title"),
]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        *NUMBERS,
        ("host", 5, "host is an address or a name as text"),
        ("host", [LOOPBACK, None], "host is an address or a name as text"),
        ("port", "11112", "port: '11112' is not a TCP port"),
        ("port", 65536, "port: 65536 is not a TCP port (a whole number from 0 to 65535"),
        ("port", None, "port: None is not a TCP port"),
        ("aet", 5, "aet is an AE title, several of them, or None for any, and not 5"),
        ("aet", [5], "an AE title is text, and not 5"),
        ("calling_aets", ["GOOD", "BACK\\SLASH"], "is not an AE title"),
        ("memory", -1, "memory is a whole number of 0 or more, and not -1 (int)"),
        ("memory", 1000, "1000 bytes of memory are too few for a server: 4 MiB is the least"),
        ("memory", "1G", "memory is a whole number of 0 or more, and not '1G' (str)"),
        ("memory_wait", -1, "memory_wait is a number of seconds, more than 0"),
        ("maximum_associations", 0, "maximum_associations is a whole number of 1 or more"),
        ("maximum_associations", True, "maximum_associations is a whole number of 1 or more, and not True (bool)"),
        ("maximum_per_title", 0, "maximum_per_title is a whole number of 1 or more or None"),
        ("maximum_per_address", "2", "maximum_per_address is a whole number of 1 or more or None"),
        ("maximum_waiting_per_address", -1, "maximum_waiting_per_address is a whole number of 1 or more or None"),
        (
            "idle_timeout",
            "10",
            "idle_timeout is a number of seconds, more than 0, or None for no limit, and not '10' (str)",
        ),
        ("shutdown_grace", None, "shutdown_grace is a number of seconds, 0 or more"),
        (
            "admits",
            "ALL",
            "admits is a function without async of the calling AE title and the address of a caller, or None",
        ),
        ("admits", refuse, "and not the async function"),
        ("certificate_titles", sync, "certificate_titles needs TLS"),
        ("on_request", True, "on_request is a function of the AssociationRequest, or None, and not True (bool)"),
        ("identify", UserIdentity, "identify is a function of the AssociationRequest, or None"),
        ("on_established", 5, "on_established is a function of the Association, or None"),
        ("on_ended", "log", "on_ended is a function of the Association, or None"),
        ("services", sync, "services are given as a list"),
    ],
)
def test_what_listen_does_not_take(name: str, value: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)):
        listen(**{"services": [Verification()], name: value})


def test_an_option_that_nobody_knows_is_told_by_listen() -> None:
    """Not by `create_server`, when it is started."""
    with pytest.raises(TypeError, match=re.escape("listen() got an unexpected keyword argument 'max_associations'")):
        listen(services=[], max_associations=5)
    with pytest.raises(TypeError, match="start_serving"):
        listen(services=[], start_serving=False)


async def test_what_is_for_the_listening_socket_goes_there() -> None:
    async with serve(backlog=7, reuse_address=True) as server:
        assert server.port


def test_one_title_is_one_title_and_not_its_letters() -> None:
    """`calling_aets="MODALITY"` would else let in M, O, D, A, L, I, T and Y."""
    assert listen(services=[], calling_aets="MODALITY")._rules.calling_ae_titles == {"MODALITY"}


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        *NUMBERS,
        ("aet", None, "an AE title is text, and not None"),
        ("connect_timeout", "10", "connect_timeout is a number of seconds, more than 0, and not '10' (str)"),
        ("association_timeout", -1, "association_timeout is a number of seconds"),
        ("release_timeout", [], "release_timeout is a number of seconds"),
        ("performed", -1, "performed is a whole number from 0 to 65535"),
        ("identity", ("alice", "secret"), "identity is a UserIdentity, or None, and not a tuple"),
        ("identity_required", True, "identity_required needs an identity that can be confirmed"),
        ("services", Verification(), "services are given as a list"),
        ("services", [sync], "a handler goes into one"),
        ("contexts", verification(), "contexts are given as a list, [verification()], and not as ProposedContext"),
        ("contexts", VERIFICATION, "contexts are given as a list"),
        ("contexts", [VERIFICATION], "a presentation context is made by storage(...)"),
        ("contexts", [5], "contexts are given as a list"),
        ("sock", 5, "sock is a connected socket.socket, and not a int"),
        ("stream", 5, "stream= takes a transport, or the reader and the writer of one connection"),
        ("stream", (1, 2, 3), "stream= takes a transport, or the reader and the writer of one connection"),
        ("peer", PeerAddress("PEER", LOOPBACK, 70000), "the port of a PeerAddress is a whole number from 1 to 65535"),
        ("peer", PeerAddress("PEER", LOOPBACK, "104"), "and not '104' (str)"),  # type: ignore[arg-type]
        ("peer", PeerAddress("PEER", None, 104), "the host of a PeerAddress is a name or an address"),  # type: ignore[arg-type]
        ("peer", PeerAddress("SEVENTEEN-LETTERS", LOOPBACK, 104), "'SEVENTEEN-LETTERS' is not an AE title"),
        ("peer", f"BACK\\SLASH@{LOOPBACK}", "is not an AE title"),
    ],
)
async def test_what_associate_does_not_take(name: str, value: Any, complaint: str) -> None:
    given = {"peer": f"PEER@{LOOPBACK}:{free_port()}", "contexts": [verification()], name: value}
    with pytest.raises(UsageError, match=re.escape(complaint)):
        async with associate(**given):
            pass


@pytest.mark.parametrize("required", [False, True])
async def test_what_may_be_a_passcode_is_not_shown(required: bool) -> None:
    identity: Any = ("alice", "secret")
    with pytest.raises(UsageError) as caught:
        async with associate("PEER@here", [verification()], identity=identity, identity_required=required):
            pass
    assert "secret" not in str(caught.value)


def test_an_ae_title_of_sixteen_characters_is_one() -> None:
    assert check_ae_title("SIXTEEN-LETTERS!") == "SIXTEEN-LETTERS!"


async def test_a_check_that_cannot_be_seen_to_be_asynchronous_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine is true: whoever came would be let in."""
    async with serve(admits=lambda *_: refuse()) as server:
        with pytest.raises(AssociationRejected):
            async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]):
                pass
    assert "admits must not be asynchronous: " in caplog.text


@pytest.mark.parametrize("name", ["on_request", "identify"])
async def test_a_handler_that_is_not_asynchronous_is_named_in_the_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(**{name: sync}) as server:
        with pytest.raises(AssociationRejected):
            async with associate(
                f"ANY@{LOOPBACK}:{server.port}", [verification()], identity=UserIdentity.name("alice")
            ):
                pass
    assert f"{name} is no async function (`async def`): {sync.__module__}.sync" in caplog.text


@pytest.mark.parametrize("answer", [False, 0, ""])
async def test_whatever_is_no_yes_refuses(answer: Any) -> None:
    async def on_request(value: Any, _: Any) -> Any:
        return value

    async with serve(on_request=partial(on_request, answer)) as server:
        with pytest.raises(AssociationRejected):
            async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]):
                pass
