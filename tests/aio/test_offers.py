"""Services that are chosen for each association, and providers that keep from one caller what they serve for another."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import pytest

from support.network import LOOPBACK
from support.services import Keeper
from tomowire import Server, Storage, Verification, associate, listen
from tomowire.aio.association_request import AssociationRequest
from tomowire.aio.serving import IncomingRequest, ServiceProvider
from tomowire.errors import AssociationRejected, NoAcceptedContext, UsageError
from tomowire.protocol.negotiation import ProposedContext
from tomowire.protocol.status import NOT_AUTHORIZED
from tomowire.services.get_scp import Get
from tomowire.services.models import Model
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import VERIFICATION
from tomowire.wire.items import ContextResult
from tomowire.wire.user_identity import UserIdentity

CT = "1.2.840.10008.5.1.4.1.1.2"
CONTEXTS = (verification(), ProposedContext(CT, ("1.2.840.10008.1.2",)))


class Kept:
    """A provider that is there, but not for this caller."""

    def __init__(self, provider: ServiceProvider) -> None:
        self._provider = provider

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return False

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return None

    def refuses(self, abstract_syntax: str) -> bool:
        return self._provider.transfer_syntaxes(abstract_syntax) is not None

    async def handle(self, request: IncomingRequest) -> None:
        await request.refuse(NOT_AUTHORIZED)


def serve(offers: Any, *more: ServiceProvider, **options: Any) -> Server:
    services = [Verification(), Storage(Keeper().keep), *more]
    return listen(LOOPBACK, 0, services=services, offers=offers, **options)


async def results(server: Server, *, aet: str = "CALLER", **options: Any) -> list[int]:
    """What became of the context for C-ECHO, and of that for CT images."""
    async with associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, aet=aet, **options) as association:
        return [int(each.result) for each in association.agreement.response.presentation_contexts]


async def test_each_caller_has_its_services() -> None:
    def offers(request: AssociationRequest, services: Sequence[ServiceProvider]) -> Sequence[ServiceProvider]:
        return services if request.calling_ae_title == "FRIEND" else services[:1]

    async with serve(offers) as server:
        assert await results(server, aet="FRIEND") == [0, 0]
        assert await results(server) == [0, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED]
        assert await results(server, aet="FRIEND") == [0, 0], "one's choice is not another's"


async def test_none_at_all_is_an_association_all_the_same() -> None:
    """PS3.8 7.1.1.14; who is to get none is rejected."""
    async with serve(lambda request, services: []) as server:
        assert await results(server) == [3, 3]


async def test_what_is_kept_from_a_caller_is_refused_by_the_user() -> None:
    """PS3.8 Table 9-18: not as what is not supported."""
    async with serve(lambda request, services: [services[0], Kept(services[1])]) as server:
        assert await results(server) == [0, ContextResult.USER_REJECTION]


async def test_a_request_on_a_context_for_the_other_role_gets_the_answer_of_who_refuses() -> None:
    """The context is there for C-GET, with the acceptor as SCU; its SOP class is still one that the peer may not ask for."""

    async def nothing(request: Any) -> Any:
        raise AssertionError

    def offers(request: AssociationRequest, services: Sequence[ServiceProvider]) -> Sequence[ServiceProvider]:
        return [Kept(services[0]), services[2]]

    class GetAndEcho(Get):
        def may_be_scp(self, abstract_syntax: str) -> bool:
            return abstract_syntax == VERIFICATION or super().may_be_scp(abstract_syntax)

    from dataclasses import replace

    contexts = [replace(verification(), scp=True)]
    async with (
        serve(offers, GetAndEcho(nothing, models=[Model.STUDY_ROOT])) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", contexts) as association,
    ):
        assert await CEchoScu(association).echo() == NOT_AUTHORIZED
        assert association.is_established


async def test_it_is_asked_last_and_knows_all_that_is_known() -> None:
    asked: list[str] = []

    async def decide(request: AssociationRequest) -> bool:
        asked.append("on_request")
        return request.calling_ae_title != "STRANGER"

    async def identify(request: AssociationRequest) -> str:
        asked.append("identify")
        return "somebody"

    def offers(request: AssociationRequest, services: Sequence[ServiceProvider]) -> Sequence[ServiceProvider]:
        asked.append("offers")
        assert (request.called_ae_title, request.peer_address.rpartition(":")[0]) == ("ANY", LOOPBACK)
        assert request.association.user == "somebody"
        return services

    identity = {"identity": UserIdentity.name("jo")}
    async with serve(offers, on_request=decide, identify=identify, maximum_associations=1) as server:
        assert await results(server, **identity) == [0, 0]
        assert asked == ["on_request", "identify", "offers"]
        with pytest.raises(AssociationRejected):
            await results(server, aet="STRANGER", **identity)
        assert asked[3:] == ["on_request"]
        async with associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, **identity):
            with pytest.raises(AssociationRejected):
                await results(server, **identity)
        assert asked[4:] == ["on_request", "identify", "offers"], "nor is it where a limit is reached"


async def test_it_rejects_in_its_own_words(caplog: pytest.LogCaptureFixture) -> None:
    def offers(request: AssociationRequest, services: Sequence[ServiceProvider]) -> Sequence[ServiceProvider]:
        raise AssociationRejected("not on Sundays", result=2, source=3, reason=1)

    async with serve(offers) as server:
        with pytest.raises(AssociationRejected) as rejected:
            await results(server)
        assert (rejected.value.result, rejected.value.source, rejected.value.reason) == (2, 3, 1)
    assert "rejected: not on Sundays (result 2, source 3, reason 1)" in caplog.text


async def no_function(request: AssociationRequest, services: Sequence[ServiceProvider]) -> Sequence[ServiceProvider]:
    return services


@pytest.mark.parametrize(
    ("offers", "words"),
    [
        (lambda request, services: None, "and not as a NoneType"),
        (lambda request, services: Verification, "and not as a type"),
        (lambda request, services: [Verification], "is a class and no service"),
        (lambda request, services: [print], "is no service"),
        (lambda request, services: no_function(request, services), "must not be asynchronous"),
        (lambda request: [], "TypeError"),
    ],
)
async def test_what_it_gives_has_to_be_services(offers: Any, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """If not, it is a rejection for now, and the server goes on."""
    async with serve(offers) as server:
        for _ in range(2):
            with pytest.raises(AssociationRejected) as rejected:
                await results(server)
            assert rejected.value.result == 2
    assert words in caplog.text


def test_it_is_a_function_that_can_decide_at_once() -> None:
    with pytest.raises(UsageError, match="offers is a function without async"):
        serve(no_function)
    with pytest.raises(UsageError, match="offers is a function"):
        serve([Verification()])


async def test_the_requestor_is_told_in_words() -> None:
    async with (
        serve(lambda request, services: [Kept(services[0])]) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS) as association,
    ):
        with pytest.raises(NoAcceptedContext, match="its operator decides who may use it"):
            association.context(VERIFICATION)
