"""Hypothesis strategies for the values of `tomowire.wire`, and mutilated bytes."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Final, TypeVar

from hypothesis import strategies as st

from tomowire.wire.elements import AE, AT, LO, UI, US, Message
from tomowire.wire.items import PresentationContextAC, PresentationContextRQ, UnknownItem
from tomowire.wire.pdu import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
    Pdu,
)
from tomowire.wire.pdv import Pdv
from tomowire.wire.user_identity import UserIdentity, UserIdentityAC
from tomowire.wire.user_information import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)

bytes8 = st.integers(0, 0xFF)
bytes16 = st.integers(0, 0xFFFF)
blobs = st.binary(max_size=40)
uids = st.lists(st.integers(0, 10**9), min_size=1, max_size=6).map(lambda numbers: ".".join(map(str, numbers)))
names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), min_size=1, max_size=16)
ae_titles = st.tuples(names, names).map(" ".join).map(lambda title: title[:16].strip(" "))
context_ids = st.integers(0, 127).map(lambda number: 2 * number + 1)


T = TypeVar("T")


def some(values: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(values, max_size=3).map(tuple)


def unknown_items(*known: int) -> st.SearchStrategy[tuple[UnknownItem, ...]]:
    """Items of any type but the ones that mean something in their place."""
    return some(st.builds(UnknownItem, bytes8.filter(lambda item_type: item_type not in known), blobs))


user_informations = st.builds(
    UserInformation,
    maximum_length=st.integers(0, 0xFFFFFFFF),
    implementation_class_uid=st.none() | uids,
    implementation_version_name=st.none() | names,
    asynchronous_operations_window=st.none() | st.builds(AsynchronousOperationsWindow, bytes16, bytes16),
    role_selections=some(st.builds(RoleSelection, uids, st.booleans(), st.booleans())),
    extended_negotiations=some(st.builds(ExtendedNegotiation, uids, blobs)),
    common_extended_negotiations=some(st.builds(CommonExtendedNegotiation, uids, uids, some(uids))),
    user_identity=st.none() | st.builds(UserIdentity, bytes8, blobs, blobs, st.booleans()),
    user_identity_response=st.none() | st.builds(UserIdentityAC, blobs),
    unknown_items=unknown_items(*range(0x51, 0x5A)),
)

_sub_items = unknown_items(0x30, 0x40)
_proposals = st.builds(PresentationContextRQ, context_ids, uids, some(uids), _sub_items)
_answers = st.builds(PresentationContextAC, context_ids, st.integers(0, 4), uids, _sub_items)


def _contexts(values: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(values, max_size=4, unique_by=lambda context: context.context_id).map(tuple)  # type: ignore[attr-defined]


requests = st.builds(
    AAssociateRQ,
    ae_titles,
    ae_titles,
    _contexts(_proposals),
    user_informations,
    uids,
    bytes16,
    unknown_items(0x10, 0x20, 0x50),
)
acceptances = st.builds(
    AAssociateAC,
    ae_titles,
    ae_titles,
    _contexts(_answers),
    user_informations,
    uids,
    bytes16,
    unknown_items(0x10, 0x21, 0x50),
)
pdvs = st.builds(Pdv, bytes8, st.booleans(), st.booleans(), blobs)
pdus: st.SearchStrategy[Pdu] = st.one_of(
    requests,
    acceptances,
    st.builds(AAssociateRJ, bytes8, bytes8, bytes8),
    st.builds(PDataTF, st.lists(pdvs, min_size=1, max_size=4).map(tuple)),
    st.just(AReleaseRQ()),
    st.just(AReleaseRP()),
    st.builds(AAbort, bytes8, bytes8),
)

_BY_VR: Final = {
    US: bytes16,
    UI: uids,
    AE: ae_titles,
    LO: st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), min_size=1, max_size=64
    ),
    AT: st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=4).map(tuple),
}


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Any message of one class."""
    return st.builds(kind, **{each.name: _field(each) for each in fields(kind)})


def _field(declared: Field[object]) -> st.SearchStrategy[object]:
    _, vr, required = declared.metadata["element"]
    if required or declared.default is MISSING:
        return _BY_VR[vr]
    return st.just(declared.default) | _BY_VR[vr]


@st.composite
def mutilated(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Valid bytes with some of them changed, cut out or put in: this gets deeper into a parser than random bytes do."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.sampled_from((0, 1, 1, 1, 2, 4, 9)))
        data[start:end] = draw(
            st.binary(max_size=4) | st.sampled_from((b"\xff", b"\0", b"\xff\xff", b"\xff\xff\xff\xff"))
        )
    return bytes(data)


def raw_item(item_type: int, body: bytes, *, reserved: int = 0) -> bytes:
    """An item put together by hand (PS3.8 9.3.1)."""
    return bytes((item_type, reserved)) + len(body).to_bytes(2, "big") + body
