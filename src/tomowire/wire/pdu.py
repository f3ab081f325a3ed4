"""The seven PDUs of the upper layer protocol, as values, and their encoding (PS3.8 9.3).

Where a PDU breaks the standard, `PduError` says which byte it is (counted from the first byte of the PDU header) and which
reason the A-ABORT that answers it must carry. A P-DATA-TF with a large fragment never comes here: it is streamed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, Final, TypeAlias

from tomowire.errors import PduError, UsageError
from tomowire.uids import APPLICATION_CONTEXT
from tomowire.wire.abort_reasons import UNRECOGNIZED_PDU
from tomowire.wire.items import (
    APPLICATION_CONTEXT_ITEM,
    PRESENTATION_CONTEXT_AC_ITEM,
    PRESENTATION_CONTEXT_RQ_ITEM,
    USER_INFORMATION_ITEM,
    Item,
    PresentationContextAC,
    PresentationContextRQ,
    UnknownItem,
    decode_presentation_context_ac,
    decode_presentation_context_rq,
    decode_text,
    encode_item,
    encode_presentation_context_ac,
    encode_presentation_context_rq,
    encode_text,
    encode_unknown,
    split_items,
)
from tomowire.wire.pdv import Pdv, decode_pdvs, encode_pdvs
from tomowire.wire.user_information import UserInformation, decode_user_information, encode_user_information
from tomowire.wire.value import value

PDU_HEADER: Final = Struct(">BxI")
"""PDU type, PDU length (of what follows the header)."""

AE_TITLE_LENGTH: Final = 16

_ASSOCIATE_HEADER: Final = Struct(">Hxx64s")
_TITLES: Final = Struct("16s16s32x")
_DEFAULT_USER_INFORMATION: Final = UserInformation()


class PduType(IntEnum):
    """First byte of each PDU."""

    A_ASSOCIATE_RQ = 1
    A_ASSOCIATE_AC = 2
    A_ASSOCIATE_RJ = 3
    P_DATA_TF = 4
    A_RELEASE_RQ = 5
    A_RELEASE_RP = 6
    A_ABORT = 7


@value()
class AAssociateRQ:
    """PS3.8 9.3.2. An absent application context item reads as an empty name, which no acceptor supports."""

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextRQ, ...]
    user_information: UserInformation = _DEFAULT_USER_INFORMATION
    application_context_name: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    unknown_items: tuple[UnknownItem, ...] = ()
    titles_as_sent: bytes | None = None
    """Bytes 11 to 74, the AE titles and what is reserved, where they are not as this library would write the titles."""


@value()
class AAssociateAC:
    """PS3.8 9.3.3. Bytes 11 to 74 are those of the request, sent back byte for byte; no requestor tests them."""

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextAC, ...]
    user_information: UserInformation = _DEFAULT_USER_INFORMATION
    application_context_name: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    unknown_items: tuple[UnknownItem, ...] = ()
    titles_as_sent: bytes | None = None


@value()
class AAssociateRJ:
    """PS3.8 9.3.4; the numbers are those of Table 9-21."""

    result: int
    source: int
    reason: int


@value()
class PDataTF:
    """PS3.8 9.3.5."""

    pdvs: tuple[Pdv, ...]


@value()
class AReleaseRQ:
    """PS3.8 9.3.6."""


@value()
class AReleaseRP:
    """PS3.8 9.3.7."""


@value()
class AAbort:
    """PS3.8 9.3.8; the numbers are those of Table 9-26."""

    source: int
    reason: int


Pdu: TypeAlias = AAssociateRQ | AAssociateAC | AAssociateRJ | PDataTF | AReleaseRQ | AReleaseRP | AAbort


def encode_pdu(pdu: Pdu) -> bytes:
    """The whole PDU, header included. Raises `UsageError` for a value that does not fit its field."""
    pdu_type, encode = _ENCODERS[type(pdu)]
    payload = encode(pdu)
    return PDU_HEADER.pack(pdu_type, len(payload)) + payload


def decode_pdu(pdu_type: int, payload: bytes | memoryview) -> Pdu:
    """Read a PDU of which the header has been read already; `payload` is all that follows it.

    The data of a P-DATA-TF are slices of `payload`, everything else is copied out. Raises `PduError` with the A-ABORT reason
    that fits: 1 for a type that is none of the seven, else 5 or 6.
    """
    decode = _DECODERS.get(pdu_type)
    if decode is None:
        raise PduError(f"PDU type {pdu_type:02X}H is not defined", offset=0, reason=UNRECOGNIZED_PDU)
    return decode(memoryview(payload))


def _encode_associate(pdu: AAssociateRQ | AAssociateAC, contexts: list[bytes]) -> bytes:
    if not 0 <= pdu.protocol_version <= 0xFFFF:
        raise UsageError(f"protocol version {pdu.protocol_version} does not fit 16 bits")
    titles = _encode_titles(pdu.called_ae_title, pdu.calling_ae_title)
    if pdu.titles_as_sent is not None:
        if len(pdu.titles_as_sent) != _TITLES.size:
            raise UsageError(f"bytes 11 to 74 are {_TITLES.size} and not {len(pdu.titles_as_sent)}")
        titles = pdu.titles_as_sent
    parts = (
        _ASSOCIATE_HEADER.pack(pdu.protocol_version, titles),
        encode_item(APPLICATION_CONTEXT_ITEM, encode_text(pdu.application_context_name)),
        *contexts,
        encode_user_information(pdu.user_information),
        encode_unknown(pdu.unknown_items),
    )
    return b"".join(parts)


def _encode_associate_rq(pdu: AAssociateRQ) -> bytes:
    return _encode_associate(pdu, [encode_presentation_context_rq(context) for context in pdu.presentation_contexts])


def _encode_associate_ac(pdu: AAssociateAC) -> bytes:
    return _encode_associate(pdu, [encode_presentation_context_ac(context) for context in pdu.presentation_contexts])


def _encode_associate_rj(pdu: AAssociateRJ) -> bytes:
    return _four_bytes(0, pdu.result, pdu.source, pdu.reason)


def _encode_abort(pdu: AAbort) -> bytes:
    return _four_bytes(0, 0, pdu.source, pdu.reason)


def _encode_titles(called: str, calling: str) -> bytes:
    return _TITLES.pack(_encode_ae_title(called), _encode_ae_title(calling))


def _encode_ae_title(title: str) -> bytes:
    encoded = encode_text(title)
    if len(encoded) > AE_TITLE_LENGTH:
        raise UsageError(f"the AE title {title!r} is longer than 16 characters")
    return encoded.ljust(AE_TITLE_LENGTH)


def _four_bytes(*values: int) -> bytes:
    try:
        return bytes(values)
    except ValueError:
        raise UsageError(f"{values}: each must fit one byte") from None


def _decode_associate_rq(view: memoryview) -> AAssociateRQ:
    fields = _decode_associate(view, PRESENTATION_CONTEXT_RQ_ITEM, decode_presentation_context_rq)
    _check_ae_title("called", fields["called_ae_title"], 10)
    _check_ae_title("calling", fields["calling_ae_title"], 26)
    return AAssociateRQ(**fields)


def _decode_associate_ac(view: memoryview) -> AAssociateAC:
    # The AE titles "shall not be tested when received" (PS3.8 9.3.3).
    return AAssociateAC(**_decode_associate(view, PRESENTATION_CONTEXT_AC_ITEM, decode_presentation_context_ac))


def _decode_associate(view: memoryview, context_item: int, decode_context: Callable[[Item], Any]) -> dict[str, Any]:
    """The fields that RQ and AC share, by name. Of items that should stand once, the last one counts."""
    if len(view) < _ASSOCIATE_HEADER.size:
        raise PduError(f"A-ASSOCIATE: {len(view)} bytes do not hold the fixed fields", offset=PDU_HEADER.size)
    version, titles = _ASSOCIATE_HEADER.unpack_from(view)
    called, calling = map(decode_text, _TITLES.unpack(titles))
    fields: dict[str, Any] = {
        "protocol_version": version,
        "called_ae_title": called,
        "calling_ae_title": calling,
        "application_context_name": "",
        "titles_as_sent": titles if titles != _encode_titles(called, calling) else None,
    }
    contexts: dict[int, Any] = {}
    unknown: list[UnknownItem] = []
    user_information: Item | None = None
    for item in split_items(view[_ASSOCIATE_HEADER.size :], PDU_HEADER.size + _ASSOCIATE_HEADER.size):
        if item.item_type == context_item:
            context = decode_context(item)
            if contexts.setdefault(context.context_id, context) is not context:
                raise PduError(f"presentation context ID {context.context_id} stands twice", offset=item.offset)
        elif item.item_type == APPLICATION_CONTEXT_ITEM:
            fields["application_context_name"] = decode_text(item.body)
        elif item.item_type == USER_INFORMATION_ITEM:
            user_information = item  # of several only the last one is worth the work
        else:
            unknown.append(item.unknown())
    if user_information is not None:
        fields["user_information"] = decode_user_information(user_information)
    return fields | {"presentation_contexts": tuple(contexts.values()), "unknown_items": tuple(unknown)}


def _check_ae_title(which: str, title: str, offset: int) -> None:
    """All spaces "shall not be used" (PS3.8 9.3.2). Control characters are outside its repertoire, and would forge log lines."""
    if not title or any(character < " " or "\x7f" <= character < "\xa0" for character in title):
        raise PduError(f"A-ASSOCIATE-RQ: {which} AE title {title!r} is not allowed", offset=offset)


def _fixed(name: str, view: memoryview) -> tuple[int, int, int]:
    """The last three of the four bytes that the short PDUs consist of; the first is reserved in each of them."""
    if len(view) != 4:
        raise PduError(f"{name}: PDU length {len(view)} instead of 4", offset=2)
    return view[1], view[2], view[3]


def _decode_associate_rj(view: memoryview) -> AAssociateRJ:
    return AAssociateRJ(*_fixed("A-ASSOCIATE-RJ", view))


def _decode_p_data_tf(view: memoryview) -> PDataTF:
    return PDataTF(decode_pdvs(view, PDU_HEADER.size))


def _decode_release_rq(view: memoryview) -> AReleaseRQ:
    _fixed("A-RELEASE-RQ", view)
    return AReleaseRQ()


def _decode_release_rp(view: memoryview) -> AReleaseRP:
    _fixed("A-RELEASE-RP", view)
    return AReleaseRP()


def _decode_abort(view: memoryview) -> AAbort:
    _, source, reason = _fixed("A-ABORT", view)
    return AAbort(source, reason)


_ENCODERS: Final[Mapping[type, tuple[PduType, Callable[[Any], bytes]]]] = {
    AAssociateRQ: (PduType.A_ASSOCIATE_RQ, _encode_associate_rq),
    AAssociateAC: (PduType.A_ASSOCIATE_AC, _encode_associate_ac),
    AAssociateRJ: (PduType.A_ASSOCIATE_RJ, _encode_associate_rj),
    PDataTF: (PduType.P_DATA_TF, lambda pdu: encode_pdvs(pdu.pdvs)),
    AReleaseRQ: (PduType.A_RELEASE_RQ, lambda _: bytes(4)),
    AReleaseRP: (PduType.A_RELEASE_RP, lambda _: bytes(4)),
    AAbort: (PduType.A_ABORT, _encode_abort),
}

_DECODERS: Final[Mapping[int, Callable[[memoryview], Pdu]]] = {
    PduType.A_ASSOCIATE_RQ: _decode_associate_rq,
    PduType.A_ASSOCIATE_AC: _decode_associate_ac,
    PduType.A_ASSOCIATE_RJ: _decode_associate_rj,
    PduType.P_DATA_TF: _decode_p_data_tf,
    PduType.A_RELEASE_RQ: _decode_release_rq,
    PduType.A_RELEASE_RP: _decode_release_rp,
    PduType.A_ABORT: _decode_abort,
}
