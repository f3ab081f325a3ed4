"""What a peer supports: asked of our own acceptor, of which it is known."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.network import LOOPBACK
from support.raw_peer import CT, MR, RawPeer, raw_acceptor
from tomowire.aio.address import PeerAddress
from tomowire.aio.listen import listen
from tomowire.errors import AssociationRejected
from tomowire.services.extended import QueryOptions, RetrieveOptions, StorageOptions
from tomowire.services.find_scp import Find, FindAnswers
from tomowire.services.get_scp import Get
from tomowire.services.models import Model
from tomowire.services.probing import KINDS, UNCOMPRESSED, Probe
from tomowire.services.storage_scp import Storage
from tomowire.services.verification import Verification
from tomowire.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NON_PATIENT_STORAGE_SOP_CLASSES,
    SERVICE_SOP_CLASSES,
    STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
    VERIFICATION,
)
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

RLE, JPEG_LOSSLESS, MPEG_2 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.100"


async def keep(_: object) -> int:
    return 0


async def nothing(_: object) -> None:
    raise AssertionError("nothing is asked for")


async def no_answers(_: object) -> AsyncIterator[FindAnswers]:
    raise AssertionError("nothing is asked for")
    yield


async def test_what_is_supported_and_what_is_not() -> None:
    services = [
        Verification(),
        Storage(keep, sop_classes=[CT], transfer_syntaxes=[IMPLICIT_VR_LITTLE_ENDIAN, RLE, JPEG_LOSSLESS]),
        Storage(keep, sop_classes=[MR], transfer_syntaxes=[MPEG_2]),
    ]
    async with listen(LOOPBACK, 0, services=services) as server:
        probe = Probe(PeerAddress("ANY", LOOPBACK, server.port))
        await probe.run()
    found = {each.sop_class_uid: each for each in probe.classes}
    assert found.keys() == {
        VERIFICATION,
        *SERVICE_SOP_CLASSES,
        *STORAGE_SOP_CLASSES,
        *NON_PATIENT_STORAGE_SOP_CLASSES,
    }
    assert [uid for uid, each in found.items() if each.is_supported] == [VERIFICATION, CT, MR]
    assert found[CT].transfer_syntaxes == [IMPLICIT_VR_LITTLE_ENDIAN, JPEG_LOSSLESS, RLE]
    assert found[CT].kinds == ["Implicit VR Little Endian", "JPEG", "RLE"]
    # Known, but for the transfer syntaxes of the first question.
    assert (found[MR].result, found[MR].kinds) == (4, ["video"])
    assert found["1.2.840.10008.5.1.4.1.1.7"].result == 3
    assert not any(each.is_sent for each in probe.classes), "there is no C-GET"


async def test_a_peer_with_c_get_says_what_it_can_send() -> None:
    services = [Get(nothing), Storage(keep, sop_classes=[CT])]  # type: ignore[arg-type]
    async with listen(LOOPBACK, 0, services=services) as server:
        probe = Probe(PeerAddress("ANY", LOOPBACK, server.port))
        await probe.run()
    assert [each.sop_class_uid for each in probe.classes if each.is_sent] == [CT]


async def test_a_peer_says_what_it_answers_to_extended_negotiation() -> None:
    find = Find(no_answers, options=QueryOptions(fuzzy_matching=True), relational=True)
    services = [find, Get(nothing), Storage(keep, sop_classes=[CT])]  # type: ignore[arg-type]
    async with listen(LOOPBACK, 0, services=services) as server:
        probe = Probe(PeerAddress("ANY", LOOPBACK, server.port))
        await probe.run()
    found = {each.sop_class_uid: each.options for each in probe.classes}
    assert found[Model.STUDY_ROOT.find] == QueryOptions(relational=True, fuzzy_matching=True)
    assert found[Model.STUDY_ROOT.get] == RetrieveOptions()
    assert found[CT] == StorageOptions(level=2, coercion=0)
    assert found[Model.STUDY_ROOT.move] is None, "it is not supported"
    assert found[VERIFICATION] is None


async def test_a_peer_that_knows_no_extended_negotiation_answers_nothing() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.answer_release()

    async with raw_acceptor(script) as port:
        probe = Probe(PeerAddress("ANY", LOOPBACK, port))
        await probe.run()
    assert {each.options for each in probe.classes} == {None}


async def test_no_association_has_more_than_128_contexts_and_none_is_used() -> None:
    asked: list[AAssociateRQ] = []

    async def script(peer: RawPeer) -> None:
        asked.append(await peer.accept())
        await peer.answer_release()

    async with raw_acceptor(script) as port:
        probe = Probe(PeerAddress("ANY", LOOPBACK, port), aet="ME")
        await probe.run()
    assert len(asked) == probe.associations
    assert max(len(each.presentation_contexts) for each in asked) == 128
    assert {each.calling_ae_title for each in asked} == {"ME"}
    # One that accepts everything is asked everything: each kind of transfer syntax of each storage class.
    kinds = {context.transfer_syntaxes for each in asked for context in each.presentation_contexts}
    assert kinds >= {UNCOMPRESSED, *KINDS.values()}
    assert all(each.is_supported for each in probe.classes)


async def test_what_was_answered_stays_when_a_later_association_is_rejected() -> None:
    count = 0

    async def script(peer: RawPeer) -> None:
        nonlocal count
        count += 1
        if count == 1:
            await peer.accept()
            await peer.answer_release()
        else:
            await peer.reject(2, 3, 2)

    async with raw_acceptor(script) as port:
        probe = Probe(PeerAddress("ANY", LOOPBACK, port))
        with pytest.raises(AssociationRejected):
            await probe.run()
    assert probe.associations == 1
    assert sum(each.is_supported for each in probe.classes) == 128


async def test_a_context_that_is_not_answered_is_not_supported() -> None:
    async def script(peer: RawPeer) -> None:
        request = await peer.read_pdu()
        assert isinstance(request, AAssociateRQ)
        await peer.send(AAssociateAC(request.called_ae_title, request.calling_ae_title, ()))
        await peer.answer_release()

    async with raw_acceptor(script) as port:
        probe = Probe(PeerAddress("ANY", LOOPBACK, port))
        await probe.run()
    assert not any(each.is_supported for each in probe.classes)
    assert {each.result for each in probe.classes} == {2}


def test_the_kinds_are_transfer_syntaxes_and_no_two_share_one() -> None:
    syntaxes = [syntax for kind in KINDS.values() for syntax in kind]
    assert set(syntaxes) <= TRANSFER_SYNTAXES.keys()
    assert len(syntaxes) == len(set(syntaxes))
    assert EXPLICIT_VR_LITTLE_ENDIAN not in syntaxes
