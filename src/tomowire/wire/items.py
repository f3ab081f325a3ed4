"""The items inside A-ASSOCIATE PDUs: their common frame, presentation contexts, and the text fields (PS3.8 9.3.2, 9.3.3).

Reading is tolerant where the standard says "not tested" and where peers are known to differ without harm: reserved bytes,
unknown items, padded UIDs. It is strict about structure: an item length never reaches past its parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from struct import Struct
from typing import Final

from tomowire.errors import PduError, UsageError
from tomowire.wire.abort_reasons import INVALID_PDU_PARAMETER, UNEXPECTED_PDU_PARAMETER
from tomowire.wire.value import value

ITEM_HEADER: Final = Struct(">BxH")
"""Item type, item length: the frame of every item and sub-item (PS3.8 9.3.1)."""

MOST_ITEMS: Final = 2048
"""Of one level."""
MOST_OF_A_CONTEXT: Final = 256
"""Sub-items of one presentation context, of which there may be 128. The standard has some fifty transfer syntaxes."""

APPLICATION_CONTEXT_ITEM: Final = 0x10
PRESENTATION_CONTEXT_RQ_ITEM: Final = 0x20
PRESENTATION_CONTEXT_AC_ITEM: Final = 0x21
ABSTRACT_SYNTAX_ITEM: Final = 0x30
TRANSFER_SYNTAX_ITEM: Final = 0x40
USER_INFORMATION_ITEM: Final = 0x50


_CONTEXT_HEADER: Final = Struct(">BxBx")


class ContextResult(IntEnum):
    """Result/Reason of a presentation context in the A-ASSOCIATE-AC (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@value()
class UnknownItem:
    """An item of a type that the standard does not define for its place: ignored (PS3.8 9.3.1), and kept for who wants to look."""

    item_type: int
    data: bytes


@value()
class PresentationContextRQ:
    """One proposal: an abstract syntax and the transfer syntaxes on offer for it (PS3.8 9.3.2.2). `context_id` is odd, 1 to 255."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    unknown_items: tuple[UnknownItem, ...] = ()


@value()
class PresentationContextAC:
    """The answer to one proposal (PS3.8 9.3.3.2). `transfer_syntax` means something only when `result` is acceptance."""

    context_id: int
    result: int
    transfer_syntax: str
    unknown_items: tuple[UnknownItem, ...] = ()


@value()
class Item:
    """An item as it stands in its parent. `offset` is where `body` starts, counted from the first byte of the PDU."""

    item_type: int
    body: memoryview
    offset: int

    def unknown(self) -> UnknownItem:
        return UnknownItem(self.item_type, bytes(self.body))


def split_items(view: memoryview, offset: int, most: int = MOST_ITEMS) -> Iterator[Item]:
    """Walk over the items of one level.

    Raises `PduError` when a header is cut short, a length goes past the parent, or there are more than `most`: the largest
    honest request has some hundreds, and half a megabyte of empty ones would keep the reader busy for everyone.
    """
    position = 0
    count = 0
    while position < len(view):
        count += 1
        if count > most:
            raise PduError(f"more than {most} items", offset=offset + position)
        if len(view) - position < ITEM_HEADER.size:
            raise PduError("the header of an item is cut short", offset=offset + position)
        item_type, length = ITEM_HEADER.unpack_from(view, position)
        start = position + ITEM_HEADER.size
        position = start + length
        if position > len(view):
            raise PduError(f"item {item_type:02X}H: length {length} goes past its parent", offset=offset + start - 2)
        yield Item(item_type, view[start:position], offset + start)


def encode_item(item_type: int, body: bytes) -> bytes:
    """Frame one item. Raises `UsageError` when the body does not fit a 16 bit length."""
    if len(body) > 0xFFFF:
        raise UsageError(f"item {item_type:02X}H cannot hold {len(body)} bytes")
    return ITEM_HEADER.pack(item_type, len(body)) + body


def encode_unknown(items: Iterable[UnknownItem]) -> bytes:
    return b"".join(encode_item(item.item_type, item.data) for item in items)


def encode_text(text: str) -> bytes:
    """Text of a UID or a name, not padded (PS3.8 annex F). Raises `UsageError` for characters that are not in one byte."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} has characters that do not fit a PDU") from None


def decode_text(data: bytes | memoryview) -> str:
    """Text of a UID or a name without its padding.

    The standard's repertoire is ISO 646, and UIDs are not padded here, but peers do pad, and some send text that was pasted
    with invisible UTF-8 in it. Latin-1 reads every byte: such a UID is then simply one that nobody supports, and costs the
    peer one context and not the association.
    """
    return str(data, "latin-1").strip("\0 ")


def encode_presentation_context_rq(context: PresentationContextRQ) -> bytes:
    """The whole item. Raises `UsageError` for a bad context ID or text that does not fit."""
    parts = [_encode_context_header(context.context_id, 0)]
    parts.append(encode_item(ABSTRACT_SYNTAX_ITEM, encode_text(context.abstract_syntax)))
    parts += (encode_item(TRANSFER_SYNTAX_ITEM, encode_text(uid)) for uid in context.transfer_syntaxes)
    parts.append(encode_unknown(context.unknown_items))
    return encode_item(PRESENTATION_CONTEXT_RQ_ITEM, b"".join(parts))


def encode_presentation_context_ac(context: PresentationContextAC) -> bytes:
    """The whole item. Raises `UsageError` for a bad context ID or result, or text that does not fit."""
    parts = (
        _encode_context_header(context.context_id, context.result),
        encode_item(TRANSFER_SYNTAX_ITEM, encode_text(context.transfer_syntax)),
        encode_unknown(context.unknown_items),
    )
    return encode_item(PRESENTATION_CONTEXT_AC_ITEM, b"".join(parts))


def decode_presentation_context_rq(item: Item) -> PresentationContextRQ:
    """Raises `PduError` for a bad context ID, and unless there is exactly one abstract syntax.

    No transfer syntax at all is let through: it has a proper answer, result 4 for that one context.
    """
    context_id, _ = _decode_context_header(item)
    abstract, transfer, unknown = _sort_sub_items(item)
    # With two the ID would name two things, with none there is nothing to answer ("one Abstract Syntax", PS3.8 9.3.2.2).
    _require_one(item, f"abstract syntax of context {context_id}", abstract)
    return PresentationContextRQ(context_id, abstract[0], transfer, unknown)


def decode_presentation_context_ac(item: Item) -> PresentationContextAC:
    """Raises `PduError` for a bad context ID, and for an accepted context unless it has exactly one transfer syntax."""
    context_id, result = _decode_context_header(item)
    _, transfer, unknown = _sort_sub_items(item)
    # Of a rejected context the transfer syntax "shall not be significant and its value shall not be tested" (PS3.8 9.3.3.2).
    if result == ContextResult.ACCEPTANCE:
        _require_one(item, f"transfer syntax of context {context_id}", transfer)
    return PresentationContextAC(context_id, result, transfer[0] if transfer else "", unknown)


def _encode_context_header(context_id: int, result: int) -> bytes:
    if not context_id % 2 or not 0 < context_id < 256:
        raise UsageError(f"{context_id} is not a presentation context ID: odd, 1 to 255")
    if not 0 <= result <= 0xFF:
        raise UsageError(f"{result} is not a presentation context result")
    return _CONTEXT_HEADER.pack(context_id, result)


def _decode_context_header(item: Item) -> tuple[int, int]:
    if len(item.body) < _CONTEXT_HEADER.size:
        raise PduError("a presentation context item is cut short", offset=item.offset)
    context_id, result = _CONTEXT_HEADER.unpack_from(item.body)
    if not context_id % 2:  # "odd integers between 1 and 255", PS3.8 9.3.2.2
        raise PduError(f"presentation context ID {context_id} is not odd", offset=item.offset)
    return context_id, result


def _sort_sub_items(item: Item) -> tuple[list[str], tuple[str, ...], tuple[UnknownItem, ...]]:
    """Abstract syntaxes, transfer syntaxes, and what else there is in a presentation context."""
    size = _CONTEXT_HEADER.size
    abstract: list[str] = []
    transfer: list[str] = []
    unknown: list[UnknownItem] = []
    for sub_item in split_items(item.body[size:], item.offset + size, MOST_OF_A_CONTEXT):
        if sub_item.item_type == ABSTRACT_SYNTAX_ITEM:
            abstract.append(decode_text(sub_item.body))
        elif sub_item.item_type == TRANSFER_SYNTAX_ITEM:
            transfer.append(decode_text(sub_item.body))
        else:
            unknown.append(sub_item.unknown())
    return abstract, tuple(transfer), tuple(unknown)


def _require_one(item: Item, what: str, values: Sequence[str]) -> None:
    if len(values) != 1:
        reason = UNEXPECTED_PDU_PARAMETER if values else INVALID_PDU_PARAMETER
        raise PduError(f"{len(values)} sub-items for the {what} instead of one", offset=item.offset, reason=reason)
