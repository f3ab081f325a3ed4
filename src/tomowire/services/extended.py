"""What SOP class extended negotiation says about queries, retrieval and storage (PS3.7 D.3.3.5; PS3.4 B.3.1, C.5.1.1 to C.5.3.1).

Peer(address).find(query, extended=QueryOptions(fuzzy_matching=True))
associate(peer, [querying()], extended=[QueryOptions(relational=True).on(Model.STUDY_ROOT.find)])
QueryOptions.agreed(association, Model.STUDY_ROOT.find).relational
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Self

from tomowire.errors import UsageError
from tomowire.services.models import Model
from tomowire.wire.user_information import CommonExtendedNegotiation, ExtendedNegotiation
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomowire.aio.association import Association


class _Flags:
    """Options of one byte each, 1 or 0, in the order of their fields. Bytes at the end that are 0 may be left out."""

    __slots__ = ()
    _value_names: tuple[str, ...]

    def on(self, sop_class_uid: str) -> ExtendedNegotiation:
        """What to propose for a SOP class: the argument `extended` of `associate` is a list of these."""
        flags = [bool(getattr(self, name)) for name in self._value_names]
        while len(flags) > 1 and not flags[-1]:
            flags.pop()
        return ExtendedNegotiation(sop_class_uid, bytes(flags))

    def answer(self, proposed: bytes) -> bytes:
        """What an acceptor that does this answers: each option that is proposed and done, as many bytes as were proposed."""
        offered = bytes(bool(getattr(self, name)) for name in self._value_names)
        asked = proposed or b"\0"
        return bytes(a == b == 1 for a, b in zip(asked, offered, strict=False))

    @classmethod
    def read(cls, information: bytes) -> Self:
        """The options in a service class application information field. Bytes behind the known ones are passed over."""
        flags = [byte == 1 for byte in information[: len(cls._value_names)]]
        return cls(*flags)

    @classmethod
    def agreed(cls, association: Association, sop_class_uid: str) -> Self:
        """What was both proposed and accepted on an association; nothing where there was no answer. The same on both sides."""
        asked = association.agreement.request.user_information.extended_negotiations
        wanted = [each.application_information for each in asked if each.sop_class_uid == sop_class_uid]
        answered = association.extended(sop_class_uid)
        if not wanted or answered is None:
            return cls()
        return cls(*(a == b == 1 for a, b in zip(wanted[-1], answered[: len(cls._value_names)], strict=False)))


@value()
class QueryOptions(_Flags):
    """Of C-FIND (PS3.4 Tables C.5-1 and C.5-2), modality worklists included (PS3.4 K.5.1: there the first two are always set)."""

    relational: bool = False
    """Unique keys above the level need no value."""
    date_time_matching: bool = False
    """A range of dates and a range of times are matched together, as one range of moments."""
    fuzzy_matching: bool = False
    """Names of persons are matched by their sound or the like."""
    timezone_adjustment: bool = False
    """Times are taken in the time zone that the query names."""
    multi_frame_conversion: bool = False
    """The peer offers a view in which enhanced multi-frame images and classic ones are converted into each other."""
    empty_value_matching: bool = False
    """A value of two quotation marks matches what is empty."""
    multiple_value_matching: bool = False
    """Several values, of which any may match."""


@value()
class RetrieveOptions(_Flags):
    """Of C-MOVE and C-GET (PS3.4 C.5.2.1, C.5.3.1)."""

    relational: bool = False
    """Unique keys above the level need no value."""
    multi_frame_conversion: bool = False


_SCU_ONLY: Final = 3
_NOT_COERCING: Final = 2


@value()
class StorageOptions:
    """Of storage (PS3.4 B.3.1): what the sender of this would do as an SCP. The defaults are those of an SCU only."""

    level: int = _SCU_ONLY
    """Of support: 0 local, 1 base, 2 full (all attributes are kept), 3 not an SCP."""
    signature_level: int = 0
    """Of digital signature support: 0 unspecified, 1 to 3."""
    coercion: int = _NOT_COERCING
    """Whether attributes may be changed: 0 no, 1 yes, 2 not an SCP."""

    def on(self, sop_class_uid: str) -> ExtendedNegotiation:
        """What to propose for a SOP class. Raises `UsageError` for a value that the standard does not define."""
        if not (0 <= self.level <= 3 and 0 <= self.signature_level <= 3 and 0 <= self.coercion <= 2):
            raise UsageError(f"{self}: PS3.4 B.3.1 defines levels of 0 to 3, and coercion of 0 to 2")
        return ExtendedNegotiation(sop_class_uid, bytes((self.level, 0, self.signature_level, 0, self.coercion, 0)))

    @classmethod
    def read(cls, information: bytes) -> StorageOptions:
        """The options in a service class application information field; what is missing is as in the default."""
        default = cls()
        level, _, signature_level, _, coercion = (
            *information[:5],
            *(default.level, 0, default.signature_level, 0, default.coercion)[len(information) :],
        )
        return cls(level, signature_level, coercion)

    @classmethod
    def of_acceptor(cls, association: Association, sop_class_uid: str) -> StorageOptions | None:
        """What the acceptor answered for a SOP class; None if nothing."""
        answered = association.extended(sop_class_uid)
        return cls.read(answered) if answered is not None else None


def expanded(given: Any) -> tuple[Any, ...]:
    """What `associate` takes as `extended`, of one thing or several: options alone are for all SOP classes to which they apply."""
    things = given if isinstance(given, Iterable) else (given,)
    return tuple(item for each in things for item in _of_models(each))


def _of_models(given: Any, models: Iterable[Model] = tuple(Model)) -> Iterable[Any]:
    match given:
        case QueryOptions():
            return [given.on(model.find) for model in models]
        case RetrieveOptions():
            return [given.on(uid) for model in models for uid in (model.move, model.get)]
        case ExtendedNegotiation() | CommonExtendedNegotiation():
            return [given]
    raise UsageError(
        f"extended is QueryOptions, RetrieveOptions, what their `on` gives, or several of these: not {given!r}"
    )


def relational(models: Sequence[Model] = tuple(Model)) -> tuple[ExtendedNegotiation, ...]:
    """Relational queries and retrieval in `models`: for the argument `extended` of `associate`, `Peer` or its calls."""
    return (
        *_of_models(QueryOptions(relational=True), models),
        *_of_models(RetrieveOptions(relational=True), models),
    )
