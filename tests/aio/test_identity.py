"""User identity negotiation on both sides (PS3.7 D.3.3.7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from support.network import LOOPBACK
from support.raw_peer import ECHO, RawPeer, associate_rq, message_pdus, raw_acceptor, store_rq
from support.services import Keeper, serve
from tomowire.aio.association import Association
from tomowire.aio.association_request import AssociationRequest, Identified
from tomowire.aio.connect import associate
from tomowire.errors import AssociationRejected, IdentityNotConfirmed, UsageError
from tomowire.services.verification import CEchoScu, verification
from tomowire.wire.items import PresentationContextAC
from tomowire.wire.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ
from tomowire.wire.user_identity import UserIdentity, UserIdentityAC
from tomowire.wire.user_information import UserInformation

pytestmark = pytest.mark.usefixtures("no_leaks")

REFUSED = AAssociateRJ(1, 2, 1)
"""PS3.7 D.3.3.7.3: rejected-permanent, by the service provider (ACSE related function)."""
FOR_NOW = AAssociateRJ(2, 1, 1)
ALICE = UserIdentity.name_and_passcode("alice", "secret", positive_response=True)


def asking(identity: UserIdentity | None) -> AAssociateRQ:
    information = UserInformation(implementation_class_uid="1.2.3", user_identity=identity)
    return AAssociateRQ("CALLED", "CALLING", (ECHO,), information)


async def answer_to(port: int, identity: UserIdentity | None) -> AAssociateAC | AAssociateRJ:
    async with await RawPeer.connect(port) as peer:
        await peer.send(asking(identity))
        answer = await peer.read_pdu()
        assert isinstance(answer, AAssociateAC | AAssociateRJ)
        return answer


async def response_to(port: int, identity: UserIdentity | None) -> UserIdentityAC | None:
    answer = await answer_to(port, identity)
    assert isinstance(answer, AAssociateAC), answer
    return answer.user_information.user_identity_response


def knowing(users: Mapping[str, bytes]) -> Any:
    """A handler that knows users and their passcodes."""

    async def identify(request: AssociationRequest) -> str | None:
        identity = request.identity
        assert identity is not None
        name = identity.user_name
        return name if name in users and users[name] == identity.credential else None

    return identify


def returning(value: Any) -> Any:
    async def identify(request: AssociationRequest) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return identify


# The acceptor


async def let_in(request: AssociationRequest) -> None:
    pass


@pytest.mark.parametrize("on_request", [None, let_in], ids=["no handler", "another handler"])
@pytest.mark.parametrize("positive_response", [False, True])
async def test_without_its_handler_an_identity_is_not_looked_at_and_not_answered(
    on_request: Any, positive_response: bool
) -> None:
    """D.3.3.7: it "will accept the association without making a positive response"."""
    async with serve(on_request=on_request) as server:
        assert await response_to(server.port, UserIdentity.name("bob", positive_response=positive_response)) is None


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (UserIdentity.name("alice"), None),
        (UserIdentity.name("alice", positive_response=True), b""),
        (UserIdentity.name_and_passcode("alice", "x", positive_response=True), b""),
        (UserIdentity.kerberos(b"ticket"), None),
        (UserIdentity.kerberos(b"ticket", positive_response=True), b"from the server"),
        (UserIdentity.saml("<assertion/>", positive_response=True), b"from the server"),
        (UserIdentity.jwt("a.b.c", positive_response=True), b"from the server"),
    ],
    ids=lambda value: str(value),
)
async def test_a_response_item_is_there_exactly_when_it_was_asked_for(
    identity: UserIdentity, expected: bytes | None
) -> None:
    """Table D.3-15: "shall be zero length" for a user name, with or without passcode."""
    async with serve(identify=returning(Identified("alice", b"from the server"))) as server:
        found = await response_to(server.port, identity)
        assert (found.server_response if found is not None else None) == expected


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (ALICE, None),
        (UserIdentity.name_and_passcode("alice", "wrong"), REFUSED),
        (UserIdentity.name("mallory"), REFUSED),
    ],
    ids=["known", "wrong passcode", "unknown"],
)
async def test_who_is_not_known_is_rejected_for_good(
    identity: UserIdentity, expected: AAssociateRJ | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(identify=knowing({"alice": b"secret"})) as server:
        answer = await answer_to(server.port, identity)
        assert answer == expected if expected is not None else isinstance(answer, AAssociateAC)
    assert f"user '{identity.user_name}'" in caplog.text
    assert "secret" not in caplog.text
    assert "wrong" not in caplog.text


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, REFUSED),
        (False, REFUSED),
        ([], REFUSED),
        (Identified(None, b"ticket"), REFUSED),
        (AssociationRejected("the directory is down", result=2, source=2, reason=1), AAssociateRJ(2, 2, 1)),
        (ValueError("secret"), FOR_NOW),
        (Identified("alice", bytes(1 << 16)), FOR_NOW),
    ],
    ids=["none", "false", "nothing found", "nobody", "refuses", "fails", "response too long"],
)
async def test_what_the_handler_makes_of_it(
    result: Any, expected: AAssociateRJ, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(identify=returning(result)) as server:
        assert await answer_to(server.port, UserIdentity.kerberos(b"ticket", positive_response=True)) == expected
    assert "rejected: " in caplog.text
    assert "secret" not in caplog.text


async def test_who_says_nothing_is_rejected_where_users_are_identified() -> None:
    async with serve(identify=knowing({"alice": b"secret"})) as server:
        assert await answer_to(server.port, None) == REFUSED


async def test_who_says_nothing_is_let_in_where_that_is_allowed_but_no_false_name() -> None:
    async with serve(identify=knowing({"alice": b"secret"}), anonymous=True) as server:
        assert await response_to(server.port, None) is None
        assert await answer_to(server.port, UserIdentity.name("alice")) == REFUSED


async def test_the_request_handler_is_asked_before_the_identity_is_looked_at() -> None:
    async def refuse(request: AssociationRequest) -> bool:
        return request.identity is None

    async with serve(on_request=refuse, identify=returning("never")) as server:
        assert await answer_to(server.port, ALICE) == AAssociateRJ(1, 1, 1)


async def test_handlers_see_who_the_user_is() -> None:
    keeper = Keeper()
    user = {"name": "alice", "roles": ["reader"]}
    async with (
        serve(keeper, identify=returning(user)) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        request = associate_rq()
        information = UserInformation(implementation_class_uid="1.2.3", user_identity=ALICE)
        await peer.associate(AAssociateRQ("CALLED", "CALLING", request.presentation_contexts, information))
        await peer.send(message_pdus(3, store_rq(), b"data"))
        association = (await keeper.next_begun()).association
        assert association.user is user
        assert association.identity == ALICE
        await peer.read_message()


async def test_an_identity_that_nobody_has_checked_is_no_user() -> None:
    begun: asyncio.Queue[Association] = asyncio.Queue()
    async with serve(on_established=begun.put_nowait) as server:
        await answer_to(server.port, ALICE)
        async with asyncio.timeout(10):
            association = await begun.get()
        assert association.identity == ALICE
        assert association.user is None


# The requestor


@pytest.mark.parametrize(
    ("identity", "primary", "secondary"),
    [
        (UserIdentity.name("Müller"), "Müller".encode(), b""),
        (UserIdentity.name_and_passcode("alice", "pässcode"), b"alice", "pässcode".encode()),
        (UserIdentity.name_and_passcode("alice", b"\xff\x00"), b"alice", b"\xff\x00"),
        (UserIdentity.kerberos(b"\x60\x82"), b"\x60\x82", b""),
        (UserIdentity.saml("<a/>"), b"<a/>", b""),
        (UserIdentity.saml(b"<a/>"), b"<a/>", b""),
        (UserIdentity.jwt("e30.e30."), b"e30.e30.", b""),
        (UserIdentity.jwt(b"e30.e30."), b"e30.e30.", b""),
    ],
    ids=lambda value: str(value) if isinstance(value, UserIdentity) else None,
)
async def test_each_kind_of_identity_is_sent(identity: UserIdentity, primary: bytes, secondary: bytes) -> None:
    """Table D.3-14."""
    asked: list[UserIdentity | None] = []

    async def script(peer: RawPeer) -> None:
        asked.append((await peer.accept()).user_information.user_identity)
        await peer.answer_release()

    async with raw_acceptor(script) as port, associate(f"ANY@{LOOPBACK}:{port}", [verification()], identity=identity):
        pass
    (sent,) = asked
    assert sent is not None
    assert (sent.primary_field, sent.secondary_field) == (primary, secondary)
    assert sent.identity_type == identity.identity_type
    assert not sent.positive_response_requested


async def response_read(said: UserIdentityAC | None, identity: UserIdentity | None) -> bytes | None:
    """What the association gives when an acceptor answers `said` to `identity`."""

    async def script(peer: RawPeer) -> None:
        request = await peer.read_pdu()
        assert isinstance(request, AAssociateRQ)
        contexts = (PresentationContextAC(1, 0, request.presentation_contexts[0].transfer_syntaxes[0]),)
        information = UserInformation(implementation_class_uid="1.2.3", user_identity_response=said)
        await peer.send(AAssociateAC("ANY", "TOMOWIRE", contexts, information))
        await peer.answer_release()

    async with (
        raw_acceptor(script) as port,
        associate(f"ANY@{LOOPBACK}:{port}", [verification()], identity=identity) as association,
    ):
        return association.identity_response


@pytest.mark.parametrize(
    ("said", "identity", "expected"),
    [
        (UserIdentityAC(b""), ALICE, b""),
        (UserIdentityAC(b"ticket"), UserIdentity.kerberos(b"mine", positive_response=True), b"ticket"),
        (None, ALICE, None),
        (UserIdentityAC(b"x"), UserIdentity.name("alice"), None),
        (UserIdentityAC(b"x"), None, None),
    ],
    ids=["confirmed", "with a ticket", "not looked at", "not asked for", "no identity"],
)
async def test_the_response_is_readable_and_counts_only_if_it_was_asked_for(
    said: UserIdentityAC | None, identity: UserIdentity | None, expected: bytes | None
) -> None:
    assert await response_read(said, identity) == expected


async def test_where_it_is_required_there_is_no_association_without_a_confirmation() -> None:
    alice = UserIdentity.name("alice")
    async with serve(identify=returning("alice")) as server:
        peer = f"ANY@{LOOPBACK}:{server.port}"
        async with associate(peer, [verification()], identity=alice, identity_required=True) as association:
            assert association.identity_response == b""
    async with serve() as server:
        with pytest.raises(IdentityNotConfirmed, match="does not confirm user 'alice'"):
            async with associate(
                f"ANY@{LOOPBACK}:{server.port}", [verification()], identity=alice, identity_required=True
            ):
                pytest.fail("nobody was confirmed")
    with pytest.raises(UsageError, match="needs an identity"):
        async with associate(f"ANY@{LOOPBACK}:1", [verification()], identity_required=True):
            pass


@pytest.mark.parametrize("codes", [(1, 2, 1), (2, 2, 1)], ids=["the standard", "pynetdicom"])
async def test_a_requestor_that_is_not_accepted_is_told_which_user_that_was(codes: tuple[int, int, int]) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.reject(*codes)

    async with raw_acceptor(script) as port:
        with pytest.raises(AssociationRejected, match="user 'alice' is not accepted") as caught:
            async with associate(f"ANY@{LOOPBACK}:{port}", [verification()], identity=ALICE):
                pass
    assert "secret" not in str(caught.value)
    assert (caught.value.result, caught.value.source, caught.value.reason) == codes


async def test_both_sides_together() -> None:
    async with (
        serve(identify=knowing({"alice": b"secret"})) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [verification()], identity=ALICE) as association,
    ):
        assert association.identity_response == b""
        assert (await CEchoScu(association).echo()).is_success
        assert [each.user for each in server.associations] == ["alice"]


async def test_what_is_too_long_for_its_field_is_the_callers_fault() -> None:
    with pytest.raises(UsageError) as caught:
        async with associate(f"ANY@{LOOPBACK}:1", [verification()], identity=UserIdentity.jwt("x" * 65536)):
            pass
    assert "xxx" not in str(caught.value)


def test_what_is_identified_does_not_show_the_response() -> None:
    assert "secret" not in repr(Identified("alice", b"secret"))


async def test_a_response_that_is_not_bytes_is_the_handlers_failure_and_answered() -> None:
    async def identify(_request: AssociationRequest) -> Identified:
        return Identified("alice", "ticket")  # type: ignore[arg-type]

    async with serve(identify=identify) as server:
        assert await answer_to(server.port, UserIdentity.kerberos(b"ticket", positive_response=True)) == FOR_NOW
