"""The certificate of the peer, as the handlers of an acceptor see it."""

from __future__ import annotations

import pytest

from support.certificates import Authority
from support.network import LOOPBACK
from support.services import serve
from tomowire.aio.association_request import AssociationRequest
from tomowire.aio.connect import associate
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.aio.tls_certificate import PeerCertificate
from tomowire.errors import AssociationRejected
from tomowire.services.verification import CEchoScu, verification
from tomowire.wire.user_identity import UserIdentity

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.mark.parametrize("name", ["ct1", "somebody"])
async def test_who_calls_is_decided_and_identified_by_the_certificate(authority: Authority, name: str) -> None:
    seen: list[PeerCertificate | None] = []

    async def decide(request: AssociationRequest) -> bool:
        seen.append(request.peer_certificate)
        return request.peer_certificate is not None and request.peer_certificate.common_name == "ct1"

    async def identify(request: AssociationRequest) -> str:
        assert request.peer_certificate is not None
        return request.peer_certificate.common_name

    mine = authority.sign("ct1.example.org", common_name=name)
    server_tls = TlsServer(**authority.sign().options, authorities=authority.file, verify="require")
    client_tls = TlsClient(**mine.options, authorities=authority.file)
    async with serve(ssl=server_tls, on_request=decide, identify=identify) as server:
        peer = f"ANY@{LOOPBACK}:{server.port}"
        try:
            async with associate(
                peer, [verification()], ssl=client_tls, identity=UserIdentity.name("anyone")
            ) as association:
                assert name == "ct1"
                assert (await CEchoScu(association).echo()).is_success
                assert [each.user for each in server.associations] == ["ct1"]
        except AssociationRejected:
            assert name == "somebody"
    (certificate,) = seen
    assert certificate is not None
    assert certificate.der == mine.der


async def test_without_tls_there_is_none() -> None:
    async def decide(request: AssociationRequest) -> bool:
        return request.peer_certificate is None

    async with (
        serve(on_request=decide) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association,
    ):
        assert association.peer_certificate is None
