"""What a peer supports: proposed to it on association after association, of which nothing is done but to release them.

First every SOP class without compression; then, of the storage classes that were accepted, each kind of compression, and whether
the peer can send them on a C-GET; at last what it answers to extended negotiation of queries, retrieval and storage, where all
that the standard has is asked for.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tomowire.aio.connect import associate
from tomowire.protocol.negotiation import MAXIMUM_CONTEXTS, ProposedContext
from tomowire.services.extended import QueryOptions, RetrieveOptions, StorageOptions
from tomowire.services.models import Model
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NON_PATIENT_STORAGE_SOP_CLASSES,
    SERVICE_SOP_CLASSES,
    STORAGE_SOP_CLASSES,
    VERIFICATION,
    name_of,
)
from tomowire.wire.items import ContextResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tomowire.aio.address import PeerAddress
    from tomowire.protocol.negotiation import Agreement

UNCOMPRESSED: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

_BASE: Final = "1.2.840.10008.1.2"
KINDS: Final[dict[str, tuple[str, ...]]] = {
    "JPEG": tuple(f"{_BASE}.4.{number}" for number in (70, 57, 50, 51)),
    "JPEG-LS": tuple(f"{_BASE}.4.{number}" for number in (80, 81)),
    "JPEG 2000": tuple(f"{_BASE}.4.{number}" for number in (90, 91, 92, 93)),
    "HTJ2K": tuple(f"{_BASE}.4.{number}" for number in (201, 202, 203)),
    "JPEG XL": tuple(f"{_BASE}.4.{number}" for number in (110, 111, 112)),
    "RLE": (f"{_BASE}.5",),
    "video": tuple(f"{_BASE}.4.{number}" for number in (100, 101, 102, 103, 104, 105, 106, 107, 108)),
    "deflated": (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, f"{_BASE}.8.1"),
    "big endian": (EXPLICIT_VR_BIG_ENDIAN,),
}
"""Kinds of transfer syntaxes by the name they are shown by. Each is one presentation context, so one syntax of it is enough."""

Options: TypeAlias = QueryOptions | RetrieveOptions | StorageOptions

_OF_STORAGE: Final = StorageOptions()
_OF_QUERIES: Final = QueryOptions(*[True] * len(fields(QueryOptions)))
_OF_RETRIEVAL: Final = RetrieveOptions(*[True] * len(fields(RetrieveOptions)))
_OPTIONS: Final[dict[str, Options]] = {
    **{model.find: _OF_QUERIES for model in Model},
    **{uid: _OF_RETRIEVAL for model in Model for uid in (model.move, model.get)},
}
"""All that can be asked for of a SOP class; storage classes stand for themselves."""


class Support:
    """What a peer says to one SOP class."""

    def __init__(self, sop_class_uid: str, *, is_storage: bool) -> None:
        self.sop_class_uid: Final = sop_class_uid
        self.is_storage: Final = is_storage
        self.result: int = ContextResult.NO_REASON
        """The result for it without compression (PS3.8 Table 9-18)."""
        self.transfer_syntaxes: list[str] = []
        """Those that the peer chose, one for each kind that it takes."""
        self.is_sent = False
        """Whether the peer takes the role of SCU, as it has to for C-GET."""
        self.options: Options | None = None
        """What it answered to extended negotiation (PS3.7 D.3.3.5); None if nothing, or nothing was asked."""

    @property
    def name(self) -> str:
        return name_of(self.sop_class_uid)

    @property
    def is_supported(self) -> bool:
        return bool(self.transfer_syntaxes)

    @property
    def kinds(self) -> list[str]:
        """The names of the kinds of transfer syntaxes, those without compression by their own."""
        return [
            next((kind for kind, syntaxes in KINDS.items() if syntax in syntaxes), name_of(syntax))
            for syntax in self.transfer_syntaxes
        ]


class Probe:
    """The question and what has been answered so far: it stays when a later association fails."""

    def __init__(self, peer: PeerAddress, **options: Any) -> None:
        self._peer = peer
        self._options = options
        self.associations = 0
        """How many have been opened, and released."""
        storage = {**STORAGE_SOP_CLASSES, **NON_PATIENT_STORAGE_SOP_CLASSES}
        services = [VERIFICATION, *SERVICE_SOP_CLASSES]
        self.classes: list[Support] = [
            *(Support(uid, is_storage=False) for uid in services),
            *(Support(uid, is_storage=True) for uid in storage),
        ]

    async def run(self) -> None:
        """Ask. Raises what `associate` raises; what was answered before stands in `classes`."""
        await self._ask((each, UNCOMPRESSED) for each in self.classes)
        # What is refused for its transfer syntaxes alone may be known all the same: an encapsulated video, say.
        known = [each for each in self.classes if each.is_storage and _may_have_others(each)]
        await self._ask((each, syntaxes) for each in known for syntaxes in KINDS.values())
        stored = [each for each in known if each.is_supported]
        models = {model.get for model in Model}
        if any(each.is_supported for each in self.classes if each.sop_class_uid in models):
            await self._ask_roles(stored)
        await self._ask_options([each for each in self.classes if each.is_supported and each.sop_class_uid in _OPTIONS])
        await self._ask_options(stored)

    async def _ask(self, questions: Iterable[tuple[Support, tuple[str, ...]]]) -> None:
        for part in _parts(list(questions)):
            contexts = [ProposedContext(support.sop_class_uid, syntaxes) for support, syntaxes in part]
            agreement = await self._associate(contexts)
            answers = _answers(agreement)
            for (support, syntaxes), (result, syntax) in zip(part, answers, strict=True):
                if syntax is not None:
                    support.transfer_syntaxes.append(syntax)
                if syntaxes is UNCOMPRESSED:
                    support.result = result

    async def _ask_roles(self, supports: list[Support]) -> None:
        for part in _parts(supports):
            contexts = [
                ProposedContext(each.sop_class_uid, (each.transfer_syntaxes[0],), scu=False, scp=True) for each in part
            ]
            agreement = await self._associate(contexts)
            for support, context in zip(part, agreement.request.presentation_contexts, strict=True):
                accepted = agreement.contexts.get(context.context_id)
                support.is_sent = accepted is not None and accepted.requestor_is_scp

    async def _ask_options(self, supports: list[Support]) -> None:
        for part in _parts(supports):
            contexts = [ProposedContext(each.sop_class_uid, (each.transfer_syntaxes[0],)) for each in part]
            asked = [_OPTIONS.get(each.sop_class_uid, _OF_STORAGE) for each in part]
            extended = [options.on(each.sop_class_uid) for options, each in zip(asked, part, strict=True)]
            agreement = await self._associate(contexts, extended=extended)
            answers = agreement.response.user_information.extended_negotiations
            answered = {each.sop_class_uid: each.application_information for each in answers}
            for support, options in zip(part, asked, strict=True):
                if support.sop_class_uid in answered:
                    support.options = type(options).read(answered[support.sop_class_uid])

    async def _associate(self, contexts: Sequence[ProposedContext], **special: Any) -> Agreement:
        async with associate(self._peer, contexts, **self._options | special) as association:
            agreement = association.agreement
        self.associations += 1
        return agreement


def _may_have_others(support: Support) -> bool:
    return support.is_supported or support.result == ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED


def _parts(questions: list[Any]) -> Iterator[list[Any]]:
    """As many as fit on one association each."""
    return (questions[start : start + MAXIMUM_CONTEXTS] for start in range(0, len(questions), MAXIMUM_CONTEXTS))


def _answers(agreement: Agreement) -> Iterator[tuple[int, str | None]]:
    """The result for each context proposed, in order, and the transfer syntax that was chosen for it."""
    refused = {each.context_id: each.result for each in agreement.refused}
    for context in agreement.request.presentation_contexts:
        accepted = agreement.contexts.get(context.context_id)
        yield refused.get(context.context_id, 0), accepted.transfer_syntax if accepted is not None else None
